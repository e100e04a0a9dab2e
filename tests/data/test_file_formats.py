"""What stands in files of each form: rows with honest line numbers, or one line of refusal."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detox_tune.data.file_formats import not_text
from detox_tune.data.readers import LEXICON_SUFFIXES, read_table
from detox_tune.errors import UserError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_tsv_without_quoting_counts_lines_from_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", 'a\tb\n"one\ttwo"\n\n3\t\nshort\nu\u2028v\tw\r\n')
    table = read_table(path)
    assert table.columns == ("a", "b")
    assert [(row.line, row.values, row.problem) for row in table.rows] == [
        (2, ('"one', 'two"'), ""),
        (4, ("3", None), ""),
        (5, ("short",), "1 fields, the header has 2"),
        (6, ("u\u2028v", "w"), ""),
    ]


QUOTED = [
    ["a", "b"],
    ['"Really? "pal" ', "two\nlines"],
    ["plain", "tab\there, and a comma"],
    ['"all of it"', ""],
    ["the last", 'he said "x"'],
]


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_a_csv_writer_writes_is_read(
    tmp_path: Path, suffix: str, quoting: Any, end: str
) -> None:
    delimiter = "\t" if suffix == ".tsv" else ","
    path = tmp_path / f"x{suffix}"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
        writer.writerows(QUOTED)
    table = read_table(path)
    assert [list(table.columns), *([v or "" for v in row.values] for row in table.rows)] == QUOTED
    assert [row.line for row in table.rows] == [2, 4, 5, 6]


def fields(path: Path, quoting: Any = "auto") -> list[list[object]]:
    return [list(row.values) for row in read_table(path, quoting=quoting).rows]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        # with quotes: every row can be read so
        ("x.tsv", '"some"\tb\nc "d" e\t"f"\n', [["some", "b"], ['c "d" e', "f"]]),
        ("x.tsv", '"a\nb"\t"c\td"\n', [["a\nb", "c\td"]]),
        # without: a row breaks when it is read with quotes
        ("x.tsv", '"a" b\t"c"\n', [['"a" b', '"c"']]),
        ("x.tsv", '"one\ttwo"\n', [['"one', 'two"']]),
        ("x.tsv", '"a\tb\n"c"\td "e" f\n', [['"a', "b"], ['"c"', 'd "e" f']]),
        # with quotes, and a broken row: a doubled quote can come from nothing else
        ("x.tsv", '"a ""b"""\tc\n"d" e\tf\n', [['a "b"', "c"], ['"d" e\tf']]),
        # a comma and a space between fields
        ("x.csv", 'a, "b, c"\n', [["a", "b, c"]]),
        ("x.csv", '5" pipe,b\n', [['5" pipe', "b"]]),
        ("x.csv", f'"{"a" * 140_000}",b\n', [["a" * 140_000, "b"]]),
    ],
)
def test_quotes_of_a_file_are_told_by_what_it_holds(
    tmp_path: Path, name: str, content: str, rows: list[list[object]]
) -> None:
    header = "x\ty\n" if name == "x.tsv" else "x,y\n"
    assert fields(write(tmp_path / name, header + content)) == rows


def test_quoting_can_be_set(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", 'a\tb\n"all"\t""\n')
    assert fields(path) == fields(path, "quoted") == [["all", None]]
    assert fields(path, "plain") == [['"all"', '""']]
    path = write(tmp_path / "x.tsv", 'a\tb\n"c" d\t"e"\n')
    assert fields(path, "quoted") == [['"c" d\t"e"']]
    assert fields(write(tmp_path / "x.csv", 'a,b\n"c,d\n'), "plain") == [['"c', "d"]]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("x.csv", 'a,b\nc,d\ne,"f\ng,h\n', 3),
        ("x.csv", 'a,b\n"c\nd","e\nf,g\n', 3),
        ("x.tsv", 'a\tb\nc\td\n"e\tf\ng\th\n', 3),
        ("x.tsv", 'a\tb\n"c ""d"""\t"e" f\ng\t"h\n', 3),
        ("x.csv", '"a,b\n', 1),
        ("x.csv", 'a,b\n"c,d\n' + 40_000 * "e,f\n", 2),
    ],
)
def test_a_quote_that_never_closes_is_refused(
    tmp_path: Path, name: str, content: str, line: int
) -> None:
    with pytest.raises(UserError, match=rf"{name}:{line}: a quote opens here and never closes"):
        read_table(write(tmp_path / name, content))


@pytest.mark.parametrize("after", ['"bad" row,x', 'x,"'])
def test_every_line_that_a_stray_quote_takes_in_is_a_bad_row(tmp_path: Path, after: str) -> None:
    content = f'a,b\n1,2\n3,"4\n5,6\n7,8\n{after}\n9,10\n'
    rows = read_table(write(tmp_path / "x.csv", content)).rows
    assert [row.line for row in rows] == [2, 3, 4, 5, 6, 7]
    assert [bool(row.problem) for row in rows] == [False, True, True, True, True, False]
    assert "line 3" in rows[3].problem


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "a;b\n1, 2;3\n"),
        ("x.csv", "a\tb\n1, 2\t3\n"),
        ("x.tsv", 'a,b\n"1, 2",3\n'),
        ("x.tsv", "a\tb\r1, 2\t3\r"),
        ("x.csv", '\r\n\na,b,,\n\n"1, 2",3,,\n'),
        ("x.csv", '\n  \n"a",b\n \n\t\n"1, 2",3\n'),
        ("x.tsv", 'a\tb\n1, 2\t3\n"4 \r ""5"""\tx\n'),
        ("x.TSV", "\ufeffa\tb\n1, 2\t3\t\t\n"),
    ],
)
def test_habits_of_spreadsheets(tmp_path: Path, name: str, content: str) -> None:
    table = read_table(write(tmp_path / name, content))
    assert table.columns[:2] == ("a", "b")
    assert table.rows[0].values[:2] == ("1, 2", "3")
    assert table.rows[0].problem == ""


def test_csv_rows_are_named_by_their_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'a,b\n"one\nline, two",2\n"q""q",\n\nx,y,z\n')
    assert [(row.line, row.values, row.problem) for row in read_table(path).rows] == [
        (2, ("one\nline, two", "2"), ""),
        (4, ('q"q', None), ""),
        (6, ("x", "y", "z"), "3 fields, the header has 2"),
    ]


def test_jsonl_joins_the_keys_of_all_rows(tmp_path: Path) -> None:
    lines = [json.dumps({"a": 1}), " ", json.dumps({"b": ["x"], "a": None}), "{broken", "[" * 9999]
    table = read_table(write(tmp_path / "x.jsonl", "\n".join(lines)))
    assert table.columns == ("a", "b")
    assert [(row.line, row.values, row.problem) for row in table.rows] == [
        (1, (1, None), ""),
        (3, (None, ["x"]), ""),
        (4, ("{broken",), "not a JSON object"),
        (5, ("[" * 9999,), "not a JSON object"),
    ]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
@pytest.mark.parametrize("spoilt", [b"bad \xe9", b"bad\0"])
def test_what_is_no_text_spoils_only_its_row(tmp_path: Path, suffix: str, spoilt: bytes) -> None:
    good = b'{"a": "good"}' if suffix == ".jsonl" else b"good"
    path = write(tmp_path / f"x{suffix}", b"\n".join([b"a", good, spoilt, good]))
    rows = read_table(path).rows
    assert [row.values for row in rows if row.line != 3][-2:] == [("good",)] * 2
    assert rows[-2].problem or not_text(str(rows[-2].values[0]))


def test_bytes_of_parquet_that_are_not_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"bad \xe9", None], pa.binary())
    strings = pa.StringArray.from_buffers(3, *raw.buffers()[1:], raw.buffers()[0])
    pq.write_table(pa.table({"a": strings}), tmp_path / "x.parquet")
    rows = read_table(tmp_path / "x.parquet").rows
    assert [row.values for row in rows] == [("good",), ("bad \udce9",), (None,)]


def test_parquet_rows_have_their_index(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x", None], "b": [["p", "q"], []]}), tmp_path / "x.parquet")
    table = read_table(tmp_path / "x.parquet")
    assert table.columns == ("a", "b")
    assert [tuple(row) for row in table.rows] == [(0, ("x", ["p", "q"]), ""), (1, (None, []), "")]


def test_txt_is_a_column_of_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "en.txt", "\ufeffone\r\n\ntwo words\n".encode())
    table = read_table(path, LEXICON_SUFFIXES)
    assert (table.stem, table.columns) == ("en", ("text",))
    assert [tuple(row) for row in table.rows] == [(1, ("one",), ""), (3, ("two words",), "")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", b"", "the file is empty"),
        ("x.tsv", b" \n\n", "the file is empty"),
        ("x.tsv", b"\xef\xbb\xbf", "the file is empty"),
        ("x.tsv", b"a\tb\n", "no rows"),
        ("x.jsonl", b"\xff\xfea\x00", "not UTF-8 text; save it as UTF-8"),
        ("x.csv", "a,b\n1,2\n".encode("utf-16-be"), "not UTF-8 text; save it as UTF-8"),
        ("x.txt", "傻瓜\n".encode("utf-32"), "not UTF-8 text; save it as UTF-8"),
        ("x.csv", b"a\xe9\n1\n", r"x\.csv:1: not UTF-8 text"),
        ("x.jsonl", b'[{"a": 1},\n{"a": 2}]\n', "no line is a JSON object; write one object"),
        ("x.parquet", b"a\tb\n", "not a readable parquet file"),
        ("x.xlsx", b"a", r"the ending '\.xlsx' is not known; save the file as \.tsv, \.csv"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as error:
        read_table(path, (*LEXICON_SUFFIXES,))
    assert "\n" not in str(error.value)


def test_a_parquet_file_whose_column_names_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pd.DataFrame({"toxic": ["a"], "neutral": ["b"]}).to_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"toxic", b"to\xffic"))
    with pytest.raises(UserError, match="not a readable parquet file; write it anew"):
        read_table(path)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path / "pairs_en.tsv", "a\nb\n")
    with pytest.raises(UserError, match=r"no such file or folder; did you mean 'pairs_en\.tsv'"):
        read_table(tmp_path / "pairs_em.tsv")
    with pytest.raises(UserError, match="is a folder; give one of its files"):
        read_table(tmp_path)
    with pytest.raises(UserError, match="no such file or folder; give a path"):
        read_table(tmp_path / "nowhere" / "x.tsv")


def test_a_file_without_read_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.tsv", "a\nb\n")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); check its rights"):
        read_table(path)
