"""Which columns of a table hold the toxic sentence, its neutral references and its spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import regex

from detox_tune.data.readers import Table
from detox_tune.data.spans import SPAN_COLUMNS
from detox_tune.errors import UserError

# Of each list the first pattern that matches columns names them: `neutral1`, `neutral2`, ...
SOURCE_NAMES = tuple(
    map(
        regex.compile,
        (
            r"toxic|(?:[a-z]{2,3}_)?toxic_(?:sentence|comment|text)",
            r"source(?:_(?:sentence|comment|text))?",
            r"input",
        ),
    )
)
REFERENCE_NAMES = tuple(
    map(
        regex.compile,
        (
            r"(?:[a-z]{2,3}_)?neutral(?:_(?:sentence|comment|text))?s?_?\d*",
            r"references?_?\d*",
            r"targets?_?\d*",
            r"output",
        ),
    )
)


class Columns(NamedTuple):
    """Places of the columns of pairs in a row's values."""

    source: int
    references: tuple[int, ...]
    spans: int | None


def find_columns(
    table: Table, source_column: str | None, reference_columns: Sequence[str]
) -> Columns:
    """Find the columns by the names given, else by usual ones.

    Raises:
        UserError: a name is not there, none is usual, or source and reference are the same.
    """
    if source_column is not None:
        source = table.find(source_column, "source_column")
    else:
        source = _required(table, SOURCE_NAMES, "toxic sentence", "source_column")[0]
    if reference_columns:
        references = [table.find(name, "reference_columns") for name in reference_columns]
    else:
        references = _required(table, REFERENCE_NAMES, "neutral sentence", "reference_columns")
    if source in references:
        raise UserError(
            f"{table.file}: column {table.columns[source]!r} is both source and reference; "
            "set source_column and reference_columns to different ones"
        )
    if table.columns.count(table.columns[source]) > 1:
        raise UserError(
            f"{table.file}: two columns are called {table.columns[source]!r}; rename one"
        )
    return Columns(source, tuple(references), table.find_known(SPAN_COLUMNS))


def known_columns(table: Table, patterns: Sequence[regex.Pattern]) -> list[int]:
    """Places of the columns that the first pattern with any column names; may be empty."""
    names = table.known_names()
    found = ([i for i, name in enumerate(names) if p.fullmatch(name)] for p in patterns)
    return next(filter(None, found), [])


def _required(table: Table, patterns: Sequence[regex.Pattern], what: str, option: str) -> list[int]:
    if places := known_columns(table, patterns):
        return places
    if len(table.columns) == 1:
        raise UserError(
            f"{table.file}: its only column is {table.columns_shown()}, but pairs need a column of "
            "toxic and one of neutral sentences; give a file with both"
        )
    raise UserError(
        f"{table.file}: no column is known to hold the {what}; it has {table.columns_shown()}; "
        f"set {option} to one of them, or put a line with names above the rows"
    )
