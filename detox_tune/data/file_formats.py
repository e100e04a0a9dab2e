"""What the content of a file holds, by its format: column names, and rows with their lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import regex

from detox_tune.config import Quoting
from detox_tune.errors import UserError

_NOT_TEXT = regex.compile(r"[\p{Cs}\0]")
# A field in quotes with doubled quotes in it: nothing but quoting writes that.
_DOUBLED = regex.compile(r'(?m)(?:^|\t)"[^"]*+(?:""[^"]*+)++"(?=[\t\r\n]|\Z)')


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


Numbered = tuple[int, list[str], str]
"""A row's line, its fields, and why it could not be cut into fields."""
Content = tuple[tuple[str, ...], list[Row]]
"""Names of the columns, and the rows."""


def read_content(path: Path, content: bytes, quoting: Quoting) -> Content:
    """The columns and rows of a file, by its ending; see `readers.read_table`.

    Raises:
        UserError: empty, not UTF-8, damaged, or a quote opens that never closes.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path, content)
    text = _decode(path, content)
    if suffix == ".txt":
        return _txt(text)
    return _jsonl(path, text) if suffix == ".jsonl" else _delimited(path, text, quoting)


def not_text(text: str) -> bool:
    """Whether it holds a NUL, or comes from bytes that are not UTF-8."""
    return bool(_NOT_TEXT.search(text))


def _decode(path: Path, content: bytes) -> str:
    start = content[:4096]
    # A tenth of NULs is another encoding or no text at all; a single one spoils its row only.
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or 10 * start.count(0) > len(start):
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8 text, unpacked")
    text = content.decode("utf-8-sig", errors="surrogateescape")
    if not text.strip():
        raise UserError(f"{path}: the file is empty; give one with rows")
    return text if "\n" in text else text.replace("\r", "\n")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): it also cuts at characters that belong to the text, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _txt(text: str) -> Content:
    return ("text",), [Row(number, (line,)) for number, line in _lines(text)]


def _delimited(path: Path, text: str, quoting: Quoting) -> Content:
    """The content of a tsv or csv, with quotes or without; docs/data.md has the rule."""
    header = text.lstrip().partition("\n")[0]
    if not_text(header):
        raise UserError(f"{path}:1: not UTF-8 text; save it as UTF-8 text, unpacked")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    if delimiter not in header:
        delimiter = max((delimiter, "\t", ";", ","), key=header.count)
    fields = ((number, line.split(delimiter), "") for number, line in _lines(text))
    plain = _with_header(fields)
    if quoting == "plain" or '"' not in text:
        return plain
    limit = csv.field_size_limit(len(text))  # of all readers; an open quote takes in any length
    try:
        numbered, opened = _quoted(text, delimiter)
    finally:
        csv.field_size_limit(limit)
    content = _with_header(iter(numbered))
    certain = quoting == "quoted" or delimiter != "\t" or _DOUBLED.search(text)
    if not certain and _problems(content) > _problems(plain):
        return plain
    if opened is not None:
        raise UserError(
            f"{path}:{opened}: a quote opens here and never closes; close it, or put the whole "
            "text in quotes and double those in it"
        )
    return content


def _problems(content: Content) -> int:
    return sum(bool(row.problem) for row in content[1])


def _quoted(text: str, delimiter: str) -> tuple[list[Numbered], int | None]:
    """The rows as quoting has them, and the line of a quote that never closes.

    A quote that closes elsewhere than at the end of its field spoils each line that it took in. So
    does one that took in whole rows.
    """
    lines = list(io.StringIO(text, newline="\n"))
    form: dict[str, Any] = {"delimiter": delimiter, "skipinitialspace": delimiter != "\t"}
    reader = csv.reader(lines, strict=True, **form)
    rows: list[Numbered] = []
    start = 0
    while start < len(lines):
        problem = ""
        try:
            fields = next(reader)
        except csv.Error as error:
            if str(error) == "unexpected end of data":
                fields = next(csv.reader(lines[start:], **form))
                return rows, start + 1 + sum(field.count("\n") for field in fields[:-1])
            problem = f"{error}, in the row that begins in line {start + 1}"
        else:
            if any(_holds_rows(field, delimiter, len(rows[0][1])) for field in fields if rows):
                problem = f"a quote opens in line {start + 1} and takes in whole rows"
        # A quoted field may hold line ends; a row is named by its first line.
        end = reader.line_num
        if problem:
            spoilt = enumerate(lines[start:end], start=start + 1)
            rows += [(number, [line.rstrip("\r\n")], problem) for number, line in spoilt]
        elif "".join(lines[start:end]).strip():
            rows.append((start + 1, fields, ""))
        start = end
    return rows, None


def _holds_rows(field: str, delimiter: str, width: int) -> bool:
    """Whether a field has two lines or more, not counting its ends, that look like rows."""
    lines = field.split("\n")[1:-1]
    return len(lines) > 1 < width and all(line.count(delimiter) == width - 1 for line in lines)


def _with_header(numbered: Iterator[Numbered]) -> Content:
    _, header, _ = next(numbered, (0, [], ""))
    width = len(header)
    rows = []
    for line, fields, problem in numbered:
        while len(fields) > width and not fields[-1]:
            fields = fields[:-1]  # empty fields beyond the header hold nothing
        if not problem and len(fields) != width:
            problem = f"{len(fields)} fields, the header has {width}"
        rows.append(Row(line, tuple(field or None for field in fields), problem))
    return tuple(header), rows


def _jsonl(path: Path, text: str) -> Content:
    columns: dict[str, None] = {}
    objects: list[tuple[int, str, object]] = []
    for number, line in _lines(text):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            columns.update(dict.fromkeys(record))
        objects.append((number, line, record))
    if not columns:
        raise UserError(f"{path}: no line is a JSON object; write one object per line")
    rows = []
    for number, line, record in objects:
        if isinstance(record, dict):
            rows.append(Row(number, tuple(record.get(column) for column in columns)))
        else:
            rows.append(Row(number, (line,), "not a JSON object"))
    return tuple(columns), rows


def _parquet(path: Path, content: bytes) -> Content:
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()
        names = tuple(table.column_names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable parquet file; write it anew") from error
    columns = [_values(column) for column in table.columns]
    rows = [Row(*row) for row in enumerate(zip(*columns, strict=True))]
    return names, rows


def _values(column: pa.ChunkedArray) -> list[object]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if v is None else v.decode("utf-8", errors="surrogateescape") for v in raw]
