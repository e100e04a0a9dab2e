"""Texts labelled toxic or not, read and checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from detox_tune.data.bad_rows import MAX_BAD_SHARE, BadRow, bad_rows_report, counts_of_reasons
from detox_tune.data.cells import BadCell, is_missing, sentence
from detox_tune.data.file_formats import Row
from detox_tune.data.readers import (
    TABLE_SUFFIXES,
    Table,
    files_in,
    read_table,
    row_languages,
    shown,
)
from detox_tune.data.text import language_code, sentence_key
from detox_tune.errors import UserError, nearest

_COLUMNS = ("text", "toxic")
_NEEDED = "labelled texts, which need the columns text and toxic"
_LABELS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True, slots=True)
class ToxicityData:
    """Labelled texts, in the order of the data, and what was wrong with it.

    Unpacks into the first three arguments of `fit_toxicity`.
    """

    texts: list[str]
    is_toxic: list[bool]
    languages: list[str]
    """The language code of each text."""
    bad_rows: tuple[BadRow, ...]
    """The rows that were dropped; their reasons are `not text`, `missing language`, `missing text`,
    `empty text`, `missing label`, `not 0 or 1` and `both labels`."""
    n_rows: int
    """Rows read in the chosen languages, bad ones included."""

    def __iter__(self) -> Iterator[Any]:
        """Texts, labels, languages."""
        return iter((self.texts, self.is_toxic, self.languages))

    def report(self) -> str:
        """How much was read and dropped: the first five bad rows, then the count per reason."""
        kept = f"{self.n_rows} rows, {len(self.texts)} texts"
        return bad_rows_report(kept, self.bad_rows)


def load_toxicity_data(path: Path, languages: Collection[str] | None = None) -> ToxicityData:
    """Read labelled texts, drop the bad rows and count them.

    Args:
        path: a tsv, csv, jsonl or parquet file, or a folder of such files, with
            the columns `text` and `toxic` (0 or 1, false or true), such as the data set
            `textdetox/multilingual_toxicity_dataset`. See `row_languages` for the language of a
            row: its column, else the name of the file (`en.parquet`).
        languages: codes to keep; None or none at all keeps every language.

    White space in texts is folded. A row is bad when it holds no text, no label or no language, or
    when the same sentence (`sentence_key`) has the other label elsewhere in its language: then
    neither label can be trusted. Repeated rows that agree are kept.

    Raises:
        UserError: files that cannot be read, columns or languages that are not there, or more than
            `MAX_BAD_SHARE` of the rows bad.
    """
    wanted = sorted(set(map(language_code, languages or ())))
    labelled: list[_Labelled] = []
    bad_rows: list[BadRow] = []
    seen: set[str] = set()
    for table in _tables(path):
        of_rows = row_languages(table, wanted)
        seen.update(filter(None, of_rows))
        text, label = (table.find(name, _NEEDED) for name in _COLUMNS)
        for row, language in zip(table.rows, of_rows, strict=True):
            # A row that could not be cut may be of any language: it counts.
            if row.problem or not language or not wanted or language in wanted:
                try:
                    labelled.append(_labelled(table.file, row, language, text, label))
                except BadCell as bad:
                    bad_rows.append(_described(table.file, row, bad.reason, bad.detail))
    labelled, contradictions = _without_contradictions(labelled)
    bad_rows += contradictions
    n_rows = len(labelled) + len(bad_rows)
    if len(bad_rows) > MAX_BAD_SHARE * n_rows:
        raise UserError(
            f"{path}: {len(bad_rows)} of {n_rows} rows are bad ({counts_of_reasons(bad_rows)}; "
            f"the first is {bad_rows[0]}), at most {MAX_BAD_SHARE:.0%} may be; mend or remove them"
        )
    for language in set(wanted) - {row.language for row in labelled}:
        raise UserError(
            f"language {language!r}: {path} has no labelled texts for it; {nearest(language, seen)}"
        )
    return ToxicityData(
        [row.text for row in labelled],
        [row.is_toxic for row in labelled],
        [row.language for row in labelled],
        tuple(bad_rows),
        n_rows,
    )


class _Labelled(NamedTuple):
    text: str
    is_toxic: bool
    language: str
    file: str
    row: Row


def _tables(path: Path) -> Iterator[Table]:
    files = files_in(path, TABLE_SUFFIXES) if path.is_dir() else [path]
    yield from map(read_table, files)


def _labelled(file: str, row: Row, language: str | None, text: int, label: int) -> _Labelled:
    if row.problem:
        raise BadCell("not text", row.problem)
    if not language:
        raise BadCell("missing language")
    return _Labelled(
        sentence(row.values[text], "text"), _label(row.values[label]), language, file, row
    )


def _label(value: object) -> bool:
    if is_missing(value):
        raise BadCell("missing label")
    label = _LABELS.get(str(value).strip().casefold().removesuffix(".0"))
    if label is None:
        raise BadCell("not 0 or 1", f"the label is {shown(str(value), 20)!r}")
    return label


def _without_contradictions(
    labelled: Sequence[_Labelled],
) -> tuple[list[_Labelled], list[BadRow]]:
    keys = [(row.language, sentence_key(row.text)) for row in labelled]
    labels: defaultdict[tuple[str, str], set[bool]] = defaultdict(set)
    for key, row in zip(keys, labelled, strict=True):
        labels[key].add(row.is_toxic)
    kept: list[_Labelled] = []
    bad: list[BadRow] = []
    for key, row in zip(keys, labelled, strict=True):
        if len(labels[key]) == 1:
            kept.append(row)
        else:
            bad.append(_described(row.file, row.row, "both labels", ""))
    return kept, bad


def _described(file: str, row: Row, reason: str, detail: str) -> BadRow:
    text = " | ".join(str(value) for value in row.values if value is not None)
    return BadRow(file, row.line, reason, detail, shown(text))
