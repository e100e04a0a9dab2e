"""References that outputs are compared with, with every row that a submission may answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detox_tune.config import Quoting
from detox_tune.data.columns import find_columns
from detox_tune.data.file_formats import Row
from detox_tune.data.pairs import LoadedPairs, Pair, load_pairs
from detox_tune.data.readers import (
    TABLE_SUFFIXES,
    Table,
    files_in,
    read_table,
    row_languages,
    stem_language,
)
from detox_tune.data.text import fold_spaces, language_code

Key = tuple[str | None, str]
"""Language and source of a sentence."""


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """A row of a reference file, also one that gives no pair: a submission may answer it."""

    key: Key
    id: str | None
    """What its column `id` says."""


@dataclass(frozen=True, slots=True)
class References:
    """What outputs are compared with."""

    loaded: LoadedPairs
    rows: tuple[ReferenceRow, ...]
    """In the order of the files."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that are scored: a source sentence once, with all its references."""
        return self.loaded.pairs


def load_references(
    data: str,
    *,
    language: str | None = None,
    source_column: str | None = None,
    reference_columns: Sequence[str] = (),
    language_column: str | None = None,
    spans: str | None = None,
    quoting: Quoting = "auto",
) -> References:
    """Read references: sources and their neutral sentences, by any reader of `load_pairs`.

    Rows without a usable pair, such as those whose reference equals the source, are left out of
    the scores however many they are; `loaded.report()` counts them.

    Args:
        data: a file or folder.
        language: keep this language alone; it is also that of files that do not tell.
        source_column, reference_columns, language_column, spans, quoting: as in `load_pairs`.

    Raises:
        UserError: data that cannot be read or has no pairs; see `load_pairs`.
    """
    languages = [] if language is None else [language_code(language)]
    loaded = load_pairs(
        data,
        languages=languages,
        source_column=source_column,
        reference_columns=reference_columns,
        language_column=language_column,
        spans=spans,
        quoting=quoting,
        allow_bad_rows=True,
    )
    rows = []
    for table in _reference_tables(Path(data), languages, quoting):
        place = find_columns(table, source_column, reference_columns).source
        id_place = table.find_known(["id"])
        of_rows = row_languages(table, languages, language_column)
        for row, of_row in zip(table.rows, of_rows, strict=True):
            if not row.problem and (not languages or of_row in languages):
                source = row.values[place]
                key = (of_row, fold_spaces(source if isinstance(source, str) else ""))
                rows.append(ReferenceRow(key, row_id(row, id_place)))
    return References(loaded, tuple(rows))


def row_id(row: Row, place: int | None) -> str | None:
    """What the column at `place` says as text, None where there is none."""
    value = None if place is None else row.values[place]
    return None if value is None else str(value)


def _reference_tables(path: Path, languages: Sequence[str], quoting: Quoting) -> list[Table]:
    """The tables that `load_pairs` reads, in its order."""
    if not path.is_dir():
        return [read_table(path, quoting=quoting)]
    files = files_in(path, TABLE_SUFFIXES)
    wanted = {None, *languages}
    return [
        read_table(file, quoting=quoting)
        for file in files
        if not languages or stem_language(file.stem) in wanted
    ]
