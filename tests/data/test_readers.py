"""Tables from files and from the hub, with honest line numbers."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detox_tune.data.file_formats import Row
from detox_tune.data.readers import (
    LANGUAGES,
    LEXICON_SUFFIXES,
    Table,
    files_in,
    is_hub_name,
    language_files,
    read_hub,
    read_table,
    row_languages,
    shown,
    stem_language,
)
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


def test_a_tsv_that_was_written_with_quotes_is_read_with_quotes(tmp_path: Path) -> None:
    rows = [["a", "b"], ['"Really? "pal" ', "two\nlines"], ["plain", "text"]]
    with (tmp_path / "x.tsv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
    table = read_table(tmp_path / "x.tsv")
    assert [[*row.values] for row in table.rows] == rows[1:]
    assert [row.line for row in table.rows] == [2, 4]
    # A field that is too long for the csv reader is read without quotes.
    long = '"' + "x" * 140_000 + '"'
    assert read_table(write(tmp_path / "x.tsv", f"a\n{long}\n")).rows == [Row(2, (long,))]


def test_csv_rows_are_named_by_their_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'a,b\n"one\nline, two",2\n"q""q",\n\nx,y,z\n')
    assert [(row.line, row.values, row.problem) for row in read_table(path).rows] == [
        (2, ("one\nline, two", "2"), ""),
        (4, ('q"q', None), ""),
        (6, ("x", "y", "z"), "3 fields, the header has 2"),
    ]


def test_jsonl_joins_the_keys_of_all_rows(tmp_path: Path) -> None:
    lines = [json.dumps({"a": 1}), " ", json.dumps({"b": ["x"], "a": None}), "{broken", "[1]"]
    table = read_table(write(tmp_path / "x.jsonl", "\n".join(lines)))
    assert table.columns == ("a", "b")
    assert [(row.line, row.values, row.problem) for row in table.rows] == [
        (1, (1, None), ""),
        (3, (None, ["x"]), ""),
        (4, ("{broken",), "not a JSON object"),
        (5, ("[1]",), "not a JSON object"),
    ]


def test_bytes_that_are_not_utf8_spoil_only_their_row(tmp_path: Path) -> None:
    for suffix in (".tsv", ".csv"):
        path = write(tmp_path / f"x{suffix}", b"a\ngood\nbad \xe9\n")
        assert [row.values for row in read_table(path).rows] == [("good",), ("bad \udce9",)]
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
        ("x.tsv", b"\xef\xbb\xbf", "no rows"),
        ("x.tsv", b"a\tb\n", "no rows"),
        ("x.jsonl", b"\xff\xfea\x00", "not UTF-8 text; save it as UTF-8"),
        ("x.csv", b"a\x00b\n", "not UTF-8 text; save it as UTF-8"),
        ("x.csv", b"a\xe9\n1\n", r"x\.csv:1: bytes that are not UTF-8"),
        ("x.parquet", b"a\tb\n", "not a readable parquet file"),
        ("x.xlsx", b"a", r"the ending '\.xlsx' is not known; save the file as \.tsv, \.csv"),
        ("x.csv", b'a\n"' + b"x" * 140_000 + b'"\n', "not readable as csv"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as error:
        read_table(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path / "pairs_en.tsv", "a\nb\n")
    with pytest.raises(UserError, match=r"no such file or folder; did you mean 'pairs_en\.tsv'"):
        read_table(tmp_path / "pairs_em.tsv")
    with pytest.raises(UserError, match="no such file or folder; give a path"):
        read_table(tmp_path / "nowhere" / "x.tsv")


def test_a_file_without_read_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.tsv", "a\nb\n")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); check its rights"):
        read_table(path)


def test_hub_splits_become_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a hub repository is laid out: one file per split under data/.
    (tmp_path / "set" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        rows = pa.table({"toxic": [f"{split} idiot"], "neutral": pa.nulls(1, pa.string())})
        pq.write_table(rows, tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tables = read_hub(str(tmp_path / "set"))
    assert {(table.file, table.stem, table.columns, *table.rows) for table in tables} == {
        (f"{tmp_path}/set[{split}]", split, ("toxic", "neutral"), Row(0, (f"{split} idiot", None)))
        for split in ("train", "test")
    }


@pytest.mark.parametrize(
    "error",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'o/n' doesn't exist\non the Hub"),
        ConnectionError("Couldn't reach 'o/n' on the Hub"),
        ValueError("Config name is missing."),
        RuntimeError("Dataset scripts are no longer supported"),
    ],
)
def test_hub_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"o/n: neither .* check the name and the conn") as caught:
        read_hub("o/n")
    assert "\n" not in str(caught.value)
    assert str(error).partition("\n")[0] in str(caught.value)


def test_hub_names() -> None:
    assert all(map(is_hub_name, ["textdetox/multilingual_paradetox", "s-nlp/paradetox"]))
    paths = ["data/pairs.tsv", "./owner/name", "../name", "name", "/owner/name", "a/b/c"]
    assert not any(map(is_hub_name, paths))


def test_languages_of_names() -> None:
    known = {"en": "en", "EN": "en", "paradetox_en": "en", "hin": "hin", "zh-train": "zh"}
    unknown = dict.fromkeys(["english", "train", "the_it_list", ""])
    for stem, language in {**known, "uk.v2": "uk", **unknown}.items():
        assert stem_language(stem) == language, stem


def table(columns: dict[str, list[Any]], stem: str = "x") -> Table:
    rows = enumerate(zip(*columns.values(), strict=True))
    return Table(f"{stem}.tsv", stem, tuple(columns), [Row(*row) for row in rows])


def test_language_of_rows_column_then_name_then_the_only_choice() -> None:
    by_column = table({"a": ["1", "2", "3"], "Lang": ["EN ", "de", None]}, stem="ru")
    assert row_languages(by_column, ["uk"]) == ["en", "de", None]
    assert row_languages(by_column, (), "Lang") == ["en", "de", None]
    assert row_languages(table({"a": ["1"]}, stem="pairs_ru"), ["uk"]) == ["ru"]
    assert row_languages(table({"a": ["1"]}), ["uk"]) == ["uk"]
    for languages in ((), ("en", "de")):
        with pytest.raises(UserError, match="its language is not known; name it by its code"):
            row_languages(table({"a": ["1"]}), languages)


def test_files_of_a_folder_by_language(tmp_path: Path) -> None:
    for name in ("en.txt", "more_en.csv", "ru.parquet", "README.md", "notes.txt"):
        write(tmp_path / name, "x")
    found = language_files(tmp_path, LEXICON_SUFFIXES)
    assert {language: [path.name for path in paths] for language, paths in found.items()} == {
        "en": ["en.txt", "more_en.csv"],
        "ru": ["ru.parquet"],
    }
    with pytest.raises(UserError, match=r"the folder has no \.json file; put one there"):
        files_in(tmp_path, (".json",))


def test_shown_text_is_short_and_visible() -> None:
    assert shown("a\tb\udce9\x07") == "a\\tb\\udce9\\x07"
    assert shown("x" * 60) == "x" * 60
    assert shown("x" * 61) == "x" * 59 + "…"


def test_language_codes_are_those_of_the_lexicons(shared_data: Path) -> None:
    names = {path.stem for path in (shared_data / "multilingual_toxic_lexicon").iterdir()}
    assert set(LANGUAGES) == names
