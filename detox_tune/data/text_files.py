"""Files of texts to rewrite, and the same rows with what became of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detox_tune.data.cells import is_missing
from detox_tune.data.columns import SOURCE_NAMES, known_columns
from detox_tune.data.file_formats import Row, not_text
from detox_tune.data.readers import (
    LANGUAGE_COLUMNS,
    LANGUAGES,
    TABLE_SUFFIXES,
    Table,
    file_content,
    read_table,
    row_languages,
    stem_language,
)
from detox_tune.errors import UserError
from detox_tune.files import check_can_write, write_text

WRITTEN_TABLES = (".tsv", ".csv", ".jsonl")
OUTPUT_COLUMN = "neutral_sentence"
"""Of the rewritten texts, as PAN 2025 calls it."""
FLAG_COLUMNS = ("still_copy", "still_toxic")
_PAN_2024 = {"id", "text"}
Cell = str | bool | None


@dataclass(frozen=True)
class Texts:
    """Texts in the order of what they come from."""

    texts: Sequence[str | None]
    """None where a table has no text."""
    where: Sequence[str]
    """Names each in messages."""
    languages: Sequence[str | None]
    table: Table | None = None
    """What they come from, where that is no list of lines."""


def text_lines(content: bytes, name: str) -> list[str]:
    """The lines of UTF-8 text without their ends; blank ones count.

    Raises:
        UserError: a line is not UTF-8; `name` says where.
    """
    content = content.removeprefix(b"\xef\xbb\xbf")
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return [
        decoded(line.removesuffix(b"\r"), f"{name}:{number}")
        for number, line in enumerate(lines, start=1)
    ]


def decoded(content: bytes, where: str) -> str:
    """UTF-8 as text.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: byte {error.start + 1} ({content[error.start]:#04x}) is not UTF-8: convert "
            "the text to UTF-8, for example with iconv"
        ) from None


def read_texts(path: Path, *, source_column: str | None) -> Texts:
    """Read a `.txt` with one text per line, or the texts of a table.

    They stand in `source_column`, else in the first column that pairs have their toxic sentence
    in, else in `text`. Languages come from a column of codes, or from the name of the file.

    Raises:
        UserError: not readable, no such column, a row that cannot be cut into columns, or a text
            that is no text. Nothing is left out but the blank lines of a table.
    """
    suffixes = (".txt", *TABLE_SUFFIXES)
    if path.suffix.lower() == ".txt":
        if source_column is not None:
            raise UserError(
                f"--source-column {source_column!r}: {path} has lines, not columns: leave it out"
            )
        lines = text_lines(file_content(path, suffixes), str(path))
        return Texts(lines, line_names(len(lines)), [None] * len(lines))
    table = read_table(path, suffixes)
    _check_cells(table)
    place = _source_place(table, source_column)
    texts: list[str | None] = []
    for row in table.rows:
        text = row.values[place]
        if not isinstance(text, str) and not is_missing(text):
            raise UserError(
                f"{path}:{row.line}: {table.columns[place]!r} is of type {type(text).__name__}, "
                "but it must be text: choose another --source-column, or mend the row"
            )
        texts.append(text if isinstance(text, str) else None)
    where = [f"line {row.line}" for row in table.rows]
    return Texts(texts, where, _languages(table), table)


def line_names(count: int) -> list[str]:
    """What messages call so many lines."""
    return [f"line {number}" for number in range(1, count + 1)]


def check_output(path: Path, texts: Texts, source: Path | None, *, flags: bool) -> None:
    """Refuse a file that cannot be written as asked, before work is done for it.

    Args:
        path: what will be written.
        texts: what is rewritten.
        source: the file that they come from.
        flags: whether there will be columns of flags.

    Raises:
        UserError: an unknown ending, the input itself, a file that cannot be written, or a column
            that would be written over.
    """
    suffix = path.suffix.lower()
    if suffix not in (".txt", *WRITTEN_TABLES):
        raise UserError(
            f"--output {path}: the ending {suffix!r} is not one that is written: choose among "
            f".txt, {', '.join(WRITTEN_TABLES)}"
        )
    if source is not None and path.exists() and path.samefile(source):
        raise UserError(f"--output {path} is the input: choose another file")
    if flags and suffix == ".txt":
        raise UserError(
            f"--flags adds columns, which {path} has not: choose an --output that is a table "
            f"({', '.join(WRITTEN_TABLES)})"
        )
    check_can_write(path, "--output")
    if suffix != ".txt" and texts.table is not None:
        for name in (OUTPUT_COLUMN, *FLAG_COLUMNS) if flags else (OUTPUT_COLUMN,):
            _check_free(texts.table, name)


def write_texts(
    path: Path, texts: Texts, outputs: Sequence[str], flags: Mapping[str, Sequence[Cell]]
) -> None:
    """Write outputs in the format of the path's ending, whole or not at all.

    A `.txt` has one output per line. Tables have the columns of the input and `OUTPUT_COLUMN`
    (`toxic_sentence` and that where the input was lines), then those of `flags`. A jsonl of `id`
    and `text` is the input of PAN 2024, whose submissions have the output in `text`.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        write_text(path, "".join(one_line(output) + "\n" for output in outputs))
        return
    table = texts.table or _table_of(texts)
    columns, rows = [*table.columns], [[*row.values] for row in table.rows]
    as_submission = suffix == ".jsonl" and set(columns) == _PAN_2024
    added = {"text" if as_submission else OUTPUT_COLUMN: outputs, **flags}
    for name, values in added.items():
        place = table.find_known([name])
        if place is None:
            place = len(columns)
            columns.append(name)
        for row, value in zip(rows, values, strict=True):
            row[place : place + 1] = [value]
    if suffix == ".jsonl":
        records = (dict(zip(columns, row, strict=True)) for row in rows)
        write_text(path, "".join(_json(record) + "\n" for record in records))
    else:
        write_text(path, _delimited(columns, rows, "\t" if suffix == ".tsv" else ","))


def one_line(text: str) -> str:
    """A text as one line."""
    return text.replace("\r\n", " ").replace("\n", " ")


def _check_cells(table: Table) -> None:
    """Every row can be written again, with all its cells."""
    for name in table.columns:
        if table.columns.count(name) > 1:
            raise UserError(f"{table.file}: two columns are called {name!r}: rename one")
    for row in table.rows:
        bad = any(isinstance(value, str) and not_text(value) for value in row.values)
        if row.problem or bad:
            raise UserError(
                f"{table.file}:{row.line}: {row.problem or 'no UTF-8 text'}: mend the row"
            )


def _source_place(table: Table, source_column: str | None) -> int:
    if source_column is not None:
        return table.find(source_column, "--source-column")
    places = known_columns(table, SOURCE_NAMES)
    place = places[0] if places else table.find_known(["text"])
    if place is None:
        raise UserError(
            f"{table.file}: which column holds the texts? It has {table.columns_shown()}: name it "
            "with --source-column, or put a line with names above the rows"
        )
    return place


def _languages(table: Table) -> list[str | None]:
    """By a column of codes, else by a known code in the file's name: `in.tsv` is no Indonesian."""
    if table.find_known(LANGUAGE_COLUMNS) is not None:
        return row_languages(table, ())
    code = stem_language(table.stem)
    return [code if code in LANGUAGES else None] * len(table.rows)


def _table_of(lines: Texts) -> Table:
    rows = [Row(number, (text,)) for number, text in enumerate(lines.texts, start=1)]
    return Table("", "", ("toxic_sentence",), rows)


def _check_free(table: Table, name: str) -> None:
    """A column of that name is one to be filled, as in PAN's templates."""
    place = table.find_known([name])
    if place is None:
        return
    if any(not is_missing(row.values[place]) and row.values[place] != "" for row in table.rows):
        raise UserError(
            f"{table.file} has a column {name!r} already, and outputs would be written over it: "
            "rename that column, or write them to a .txt"
        )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _delimited(columns: Sequence[str], rows: Sequence[Sequence[object]], delimiter: str) -> str:
    cells = [
        ["" if v is None else v if isinstance(v, str) else _json(v) for v in row] for row in rows
    ]
    # A lone carriage return ends a line for csv readers, but csv does not quote it.
    lone = any("\r" in cell for row in cells for cell in row)
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=delimiter,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL,
    )
    writer.writerows([columns, *cells])
    return text.getvalue()
