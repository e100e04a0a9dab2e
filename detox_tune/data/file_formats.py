"""What the content of a file holds, by its format: column names, and rows with their lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import regex

from detox_tune.errors import UserError

_UNDECODABLE = regex.compile(r"\p{Cs}")


class Row(NamedTuple):
    """One row of a table."""

    line: int
    """Line of its file, from 1, where line 1 holds the header; in parquet files and hub data sets,
    which have no lines, its index from 0."""
    values: tuple[object, ...]
    """A value for each column of the table; None where there is none. Bytes that are not UTF-8
    stand as lone surrogates. Of a row with a problem: what could be read."""
    problem: str = ""
    """Why it could not be cut into columns, else empty."""


Content = tuple[tuple[str, ...], list[Row]]
"""Names of the columns, and the rows."""


def read_content(path: Path, content: bytes) -> Content:
    """The columns and rows of a file, by its ending; see `readers.read_table`.

    Raises:
        UserError: not UTF-8, or damaged.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path, content)
    reader = {".txt": _txt, ".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl}[suffix]
    try:
        return reader(_decode(path, content))
    except csv.Error as error:
        raise UserError(f"{path}: not readable as csv ({error}); check its quotes") from error


def undecodable(text: str) -> bool:
    """Whether bytes of the file that this text comes from are not UTF-8."""
    return bool(_UNDECODABLE.search(text))


def _decode(path: Path, content: bytes) -> str:
    remedy = "save it as UTF-8"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4096]:
        raise UserError(f"{path}: not UTF-8 text; {remedy}")
    text = content.decode("utf-8-sig", errors="surrogateescape")
    if undecodable(text.partition("\n")[0]):
        raise UserError(f"{path}:1: bytes that are not UTF-8; {remedy}")
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): it also cuts at characters that belong to the text, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.removesuffix("\r"):
            yield number, line


def _txt(text: str) -> Content:
    return ("text",), [Row(number, (line,)) for number, line in _lines(text)]


def _tsv(text: str) -> Content:
    plain = _with_header((number, line.split("\t")) for number, line in _lines(text))
    if '"' in text and _is_quoted(text):
        quoted = _csv(text, delimiter="\t")
        if _problems(quoted) <= _problems(plain):
            return quoted
    return plain


def _problems(content: Content) -> int:
    return sum(bool(row.problem) for row in content[1])


def _is_quoted(text: str) -> bool:
    """Whether a csv writer, given what a csv reader finds in a tsv, writes the same text.

    A file without quoting has quotes inside fields, which no such writer leaves as they are.
    """
    text = text.replace("\r\n", "\n").removesuffix("\n") + "\n"
    again = io.StringIO()
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
        csv.writer(again, delimiter="\t", lineterminator="\n").writerows(rows)
    except csv.Error:
        return False
    return again.getvalue() == text


def _csv(text: str, delimiter: str = ",") -> Content:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)

    def rows() -> Iterator[tuple[int, list[str]]]:
        # A quoted field may hold line ends; a row is named by its first line.
        line = 1
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1

    return _with_header(rows())


def _with_header(numbered: Iterator[tuple[int, list[str]]]) -> Content:
    _, header = next(numbered, (0, []))
    width = len(header)
    rows = []
    for line, fields in numbered:
        problem = "" if len(fields) == width else f"{len(fields)} fields, the header has {width}"
        rows.append(Row(line, tuple(field or None for field in fields), problem))
    return tuple(header), rows


def _jsonl(text: str) -> Content:
    columns: dict[str, None] = {}
    objects: list[tuple[int, str, object]] = []
    for number, line in _lines(text):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            columns.update(dict.fromkeys(record))
        objects.append((number, line, record))
    rows = []
    for number, line, record in objects:
        if isinstance(record, dict):
            rows.append(Row(number, tuple(record.get(column) for column in columns)))
        elif line.strip():
            rows.append(Row(number, (line,), "not a JSON object"))
    return tuple(columns), rows


def _parquet(path: Path, content: bytes) -> Content:
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file; write it anew") from error
    columns = [_values(column) for column in table.columns]
    rows = [Row(*row) for row in enumerate(zip(*columns, strict=True))]
    return tuple(table.column_names), rows


def _values(column: pa.ChunkedArray) -> list[object]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if v is None else v.decode("utf-8", errors="surrogateescape") for v in raw]
