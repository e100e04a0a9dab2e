"""Loading pairs: forms, columns, languages, bad rows, spans."""

import csv
import json
import time
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detox_tune.data.pairs import BadRow, LoadedPairs, Pair, load_pairs
from detox_tune.errors import UserError

ROWS = [("you idiot", "you person"), ("what a jerk", "what a man"), ("dumb move", "bad move")]


def write_rows(path: Path, rows: list[tuple[str | None, ...]], *columns: str) -> str:
    """Rows in the form that the ending of the path calls for."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))), path)
    elif path.suffix == ".jsonl":
        records = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(records))
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        lines = [separator.join(cell or "" for cell in row) for row in [columns, *rows]]
        path.write_text("\n".join(lines))
    return str(path)


def tsv(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def good(n: int) -> str:
    return "".join(f"you idiot {i}\tyou person {i}\n" for i in range(n))


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_form_gives_the_same_pairs(tmp_path: Path, suffix: str) -> None:
    data = write_rows(tmp_path / f"en{suffix}", list(ROWS), "toxic", "neutral")
    loaded = load_pairs(data)
    assert loaded.pairs == tuple(Pair(source, (reference,), "en") for source, reference in ROWS)
    assert (loaded.bad_rows, loaded.n_rows) == ((), 3)


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ("toxic", "neutral1"),
        ("toxic_sentence", "neutral_sentence"),
        ("Toxic Comment", "Neutral Comment"),
        ("en_toxic_comment", "en_neutral_comment"),
        ("source", "reference"),
        ("source", "references"),
        ("source_text", "target"),
        ("input", "output"),
    ],
)
def test_known_column_names(tmp_path: Path, source: str, reference: str) -> None:
    data = write_rows(tmp_path / "en.tsv", [("note", *ROWS[0])], "id", source, reference)
    assert load_pairs(data).pairs == (Pair("you idiot", ("you person",), "en"),)


def test_toxic_wins_over_source_whatever_the_order_of_columns(tmp_path: Path) -> None:
    rows: list[tuple[str | None, ...]] = [("reddit", "you person", "you idiot")]
    data = write_rows(tmp_path / "en.tsv", rows, "source", "neutral", "toxic")
    assert load_pairs(data).pairs[0].source == "you idiot"


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "x.csv", [("a", "b", "c", "de")], "toxic", "bad", "good", "code")
    loaded = load_pairs(
        data, source_column="bad", reference_columns=["good", "toxic"], language_column="code"
    )
    assert loaded.pairs == (Pair("b", ("c", "a"), "de"),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source_column": "toxc"}, "no column 'toxc' for source_column; did you mean 'toxic'"),
        (
            {"reference_columns": ["neutral2"]},
            "no column 'neutral2' for reference_columns; did you mean 'neutral'",
        ),
        (
            {"language_column": "lang"},
            "no column 'lang' for language_column; valid: neutral, toxic",
        ),
        ({"source_column": "neutral"}, "column 'neutral' is both source and reference"),
    ],
)
def test_columns_that_are_not_there(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    data = write_rows(tmp_path / "en.tsv", list(ROWS), "toxic", "neutral")
    with pytest.raises(UserError, match=message):
        load_pairs(data, **arguments)


def test_columns_that_no_name_gives_away(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "en.tsv", list(ROWS), "a", "neutral")
    with pytest.raises(
        UserError, match="hold the toxic sentence; it has 'a', 'neutral'; set source"
    ):
        load_pairs(data)
    data = write_rows(tmp_path / "en.tsv", list(ROWS), "toxic", "b")
    with pytest.raises(
        UserError, match="hold the neutral sentence; it has 'toxic', 'b'; set refer"
    ):
        load_pairs(data)


def test_several_references_in_columns(tmp_path: Path) -> None:
    content = "toxic\tneutral1\tneutral2\tneutral3\nx y\ta\tb\tc\nz\ta\t\ta\nw\t\t \td\n"
    loaded = load_pairs(tsv(tmp_path / "en.tsv", content))
    assert [pair.references for pair in loaded.pairs] == [("a", "b", "c"), ("a",), ("d",)]
    assert loaded.bad_rows == ()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_several_references_in_a_list(tmp_path: Path, suffix: str) -> None:
    rows: list[Any] = [("x", ["a", "b", "a"]), ("y", ["c"])]
    data = write_rows(tmp_path / f"en{suffix}", rows, "source", "references")
    assert [pair.references for pair in load_pairs(data).pairs] == [("a", "b"), ("c",)]


def test_rows_with_one_source_and_language_are_merged(tmp_path: Path) -> None:
    content = "lang\ttoxic\tneutral\nen\tx  y\ta\nen\tz\td\nen\tx y\tb\nde\tx y\tc\nen\tx y\ta\n"
    loaded = load_pairs(tsv(tmp_path / "x.tsv", content))
    assert loaded.pairs == (
        Pair("x y", ("a", "b"), "en"),
        Pair("z", ("d",), "en"),
        Pair("x y", ("c",), "de"),
    )
    assert loaded.n_rows == 5


def test_a_folder_with_a_file_for_each_language(tmp_path: Path) -> None:
    for language in ("en", "de", "hin"):
        rows: list[tuple[str | None, ...]] = [(f"{language} idiot", "x")]
        write_rows(tmp_path / f"{language}.tsv", rows, "toxic", "neutral")
    (tmp_path / "README.md").write_text("about")
    assert [pair.language for pair in load_pairs(str(tmp_path)).pairs] == ["de", "en", "hin"]
    chosen = load_pairs(str(tmp_path), languages=["hin", "en", "en"])
    assert ([pair.language for pair in chosen.pairs], chosen.n_rows) == (["en", "hin"], 2)
    # Files of other languages are not even read.
    (tmp_path / "fr.tsv").write_bytes(b"")
    assert load_pairs(str(tmp_path), languages=["de"]).pairs[0].source == "de idiot"
    with pytest.raises(UserError, match=r"fr\.tsv: the file is empty"):
        load_pairs(str(tmp_path))


def test_language_from_the_column_the_name_or_the_only_choice(tmp_path: Path) -> None:
    rows: list[tuple[str | None, ...]] = [("x", "a", "DE"), ("y", "b", "en")]
    data = write_rows(tmp_path / "pairs_en.csv", rows, "toxic", "neutral", "language")
    assert [pair.language for pair in load_pairs(data).pairs] == ["de", "en"]
    chosen = load_pairs(data, languages=["en"])
    assert [pair.source for pair in chosen.pairs] == ["y"]
    assert chosen.n_rows == 1
    plain = write_rows(tmp_path / "pairs.csv", list(ROWS), "toxic", "neutral")
    assert load_pairs(plain, languages=["uk"]).pairs[0].language == "uk"
    with pytest.raises(UserError, match="its language is not known"):
        load_pairs(plain)


@pytest.mark.parametrize("language", ["fr", "ed"])
def test_a_language_without_pairs(tmp_path: Path, language: str) -> None:
    for code in ("en", "de"):
        write_rows(tmp_path / f"{code}.tsv", list(ROWS), "toxic", "neutral")
    expected = rf"language '{language}': .* has no pairs for it; valid: de, en"
    with pytest.raises(UserError, match=expected):
        load_pairs(str(tmp_path), languages=["en", language])
    with pytest.raises(UserError, match=r"language 'fr': .* has no pairs for it; valid: en"):
        load_pairs(str(tmp_path / "en.tsv"), languages=["en", "fr"])


def bad_rows(loaded: LoadedPairs) -> list[tuple[int, str, str]]:
    return [(row.line, row.reason, row.detail) for row in loaded.bad_rows]


def test_every_kind_of_bad_row_is_reported_with_its_line(tmp_path: Path) -> None:
    content = (
        "toxic\tneutral1\tneutral2\n"
        "\tno source\t\n"
        "good\tfine\t\n"
        "no reference\t\t\n"
        " \u200b\tempty source\t\n"
        "empty reference\t\t\u00a0\n"
        "bell\x07\tx\t\n"
        "three fields wanted\ttwo given\n"
        "ｓａｍｅ  thing\tsame thing\tｓａｍｅ\u00a0thing\n"
        f"{'x' * 21}\ttoo long\t\n"
        f"too long\tshort\t{'x' * 21}\n"
        "kept\tkept\tother\n"
        "Case Differs\tcase differs\t\n"
    )
    path = tmp_path / "en.tsv"
    path.write_bytes(content.encode() + b"not utf-8 \xe9\tx\t\n")
    loaded = load_pairs(str(path), max_characters=20, allow_bad_rows=True)
    assert bad_rows(loaded) == [
        (2, "missing source", ""),
        (4, "missing reference", ""),
        (5, "empty source", ""),
        (6, "empty reference", ""),
        (7, "not text", "the source has the control character U+0007"),
        (8, "not text", "2 fields, the header has 3"),
        (9, "source equals reference", ""),
        (10, "over-long", "the source has 21 characters, at most 20"),
        (11, "over-long", "the reference has 21 characters, at most 20"),
        (14, "not text", "the source has bytes that are not UTF-8"),
    ]
    assert loaded.pairs == (
        Pair("good", ("fine",), "en"),
        Pair("kept", ("other",), "en"),
        Pair("Case Differs", ("case differs",), "en"),
    )
    assert loaded.n_rows == 13
    assert {row.file for row in loaded.bad_rows} == {str(path)}
    assert loaded.bad_rows[-1].text == "not utf-8 \\udce9 | x"


def test_bad_rows_of_jsonl_and_parquet(tmp_path: Path) -> None:
    lines = [
        '{"toxic": "a", "neutral": "b"}',
        "{",
        '{"toxic": 3, "neutral": "b"}',
        '{"toxic": "x"}',
    ]
    data = tsv(tmp_path / "en.jsonl", "\n".join(lines))
    assert bad_rows(load_pairs(data, allow_bad_rows=True)) == [
        (2, "not text", "not a JSON object"),
        (3, "not text", "the source is of type int"),
        (4, "missing reference", ""),
    ]
    rows: list[Any] = [("a", ["b"]), ("", ["b"]), ("x", []), ("y", [None, "y"])]
    data = write_rows(tmp_path / "en.parquet", rows, "toxic", "references")
    assert bad_rows(load_pairs(data, allow_bad_rows=True)) == [
        (1, "empty source", ""),
        (2, "missing reference", ""),
        (3, "source equals reference", ""),
    ]


def test_a_row_without_its_language(tmp_path: Path) -> None:
    rows: list[tuple[str | None, ...]] = [("x", "a", "en"), ("y", "b", "")]
    data = write_rows(tmp_path / "en.csv", rows, "toxic", "neutral", "lang")
    for languages in ((), ("en",)):
        loaded = load_pairs(data, languages=languages, allow_bad_rows=True)
        assert bad_rows(loaded) == [(3, "missing language", "")]
        assert len(loaded.pairs) == 1


def test_line_ends_inside_a_sentence_become_spaces(tmp_path: Path) -> None:
    data = tsv(tmp_path / "en.csv", 'toxic,neutral\n"you\n\nidiot","you\tperson"\n')
    assert load_pairs(data).pairs == (Pair("you idiot", ("you person",), "en"),)


def test_more_than_five_percent_bad_rows_stop(tmp_path: Path) -> None:
    header = "toxic\tneutral\n"
    bad = "".join(f"bad {i}\t\n" for i in range(5))
    assert len(load_pairs(tsv(tmp_path / "en.tsv", header + good(95) + bad)).bad_rows) == 5
    data = tsv(tmp_path / "en.tsv", f"{header}{good(95)}{bad}\tworse\n")
    expected = (
        r"6 of 101 rows are bad \(missing reference 5, missing source 1; the first is .*en\.tsv:97"
        r": missing reference: bad 0\), at most 5% may be; mend them or allow them"
    )
    with pytest.raises(UserError, match=expected) as error:
        load_pairs(data)
    assert "\n" not in str(error.value)
    allowed = load_pairs(data, allow_bad_rows=True)
    assert (len(allowed.pairs), len(allowed.bad_rows), allowed.n_rows) == (95, 6, 101)


def test_nothing_but_bad_rows(tmp_path: Path) -> None:
    data = tsv(tmp_path / "en.tsv", "toxic\tneutral\nx\t\n")
    with pytest.raises(UserError, match="no pairs; give data with toxic sentences"):
        load_pairs(data, allow_bad_rows=True)


def test_the_report_is_short() -> None:
    rows = [BadRow("x.tsv", n, "missing reference", "", f"row {n}") for n in range(2, 8)]
    rows.append(BadRow("x.tsv", 9, "not text", "2 fields, the header has 3", "a | b"))
    report = LoadedPairs((Pair("x", ("y",), "en"),), tuple(rows), 8).report()
    assert report.splitlines() == [
        "8 rows, 1 pairs, 7 rows dropped",
        *(f"  x.tsv:{n}: missing reference: row {n}" for n in range(2, 7)),
        "  and 2 more",
        "  dropped: missing reference 6, not text 1",
    ]
    assert str(rows[-1]) == "x.tsv:9: not text (2 fields, the header has 3): a | b"
    assert LoadedPairs((), (), 0).report() == "0 rows, 0 pairs, 0 rows dropped"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere.tsv", r"nowhere\.tsv: no such file or folder"),
        ("nowhere", "nowhere: no such file or folder"),
        ("/no/such/folder", "no such file or folder"),
    ],
)
def test_data_that_are_not_there(data: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_pairs(data)


def hub(monkeypatch: pytest.MonkeyPatch, splits: dict[str, dict[str, list[Any]]]) -> None:
    made = {name: datasets.Dataset.from_dict(columns) for name, columns in splits.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(made))


def test_a_hub_data_set_whose_splits_are_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    english: dict[str, list[Any]] = {
        "toxic_sentence": ["a b", "c"],
        "neutral_sentence": ["a", None],
    }
    german = {"toxic_sentence": ["d e"], "neutral_sentence": ["d"]}
    hub(monkeypatch, {"en": english, "de": german})
    loaded = load_pairs("textdetox/multilingual_paradetox", allow_bad_rows=True)
    assert loaded.pairs == (Pair("a b", ("a",), "en"), Pair("d e", ("d",), "de"))
    assert str(loaded.bad_rows[0]) == "textdetox/multilingual_paradetox[en]:1: missing reference: c"
    only = load_pairs("textdetox/multilingual_paradetox", languages=["de"])
    assert ([pair.language for pair in only.pairs], only.n_rows) == (["de"], 1)
    with pytest.raises(UserError, match=r"language 'fr': .* has no pairs for it; valid: de, en"):
        load_pairs("textdetox/multilingual_paradetox", languages=["fr"], allow_bad_rows=True)


def test_other_splits_of_a_hub_data_set_are_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"en_toxic_comment": ["a b"], "en_neutral_comment": ["a"]}
    more = {"en_toxic_comment": ["a b"], "en_neutral_comment": ["b"]}
    hub(monkeypatch, {"train": columns, "test": more})
    assert load_pairs("s-nlp/paradetox", languages=["en"]).pairs == (Pair("a b", ("a", "b"), "en"),)
    with pytest.raises(UserError, match=r"s-nlp/paradetox\[train\]: its language is not known"):
        load_pairs("s-nlp/paradetox")


def test_a_folder_that_exists_comes_before_a_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    write_rows(tmp_path / "owner" / "name" / "en.tsv", list(ROWS), "toxic", "neutral")
    monkeypatch.chdir(tmp_path)
    assert len(load_pairs("owner/name").pairs) == 3


def test_spans_of_a_column_and_of_a_file_are_joined(tmp_path: Path) -> None:
    content = "toxic\tneutral\tspans\nYou dumb idiot !\tyou\tdumb\nyou jerk\tyou\t\nfine\tok\t\n"
    data = tsv(tmp_path / "en.tsv", content)
    column_only = load_pairs(data)
    assert [pair.spans for pair in column_only.pairs] == [((4, 8),), (), ()]
    (tmp_path / "spans").mkdir()
    annotated = "Sentence\tNegative Connotations\nyou DUMB idiot\tidiot\nYou jerk.\tJERK, x\n"
    tsv(tmp_path / "spans" / "en.tsv", annotated)
    both = load_pairs(data, spans=str(tmp_path / "spans"))
    assert [pair.spans for pair in both.pairs] == [((4, 8), (9, 14)), ((4, 8),), ()]


def test_spans_in_lists_and_of_merged_rows(tmp_path: Path) -> None:
    rows: list[Any] = [("you dumb idiot", "you", ["idiot"]), ("you dumb idiot", "he", ["dumb"])]
    data = write_rows(tmp_path / "en.parquet", rows, "toxic", "neutral", "spans")
    assert load_pairs(data).pairs == (
        Pair("you dumb idiot", ("you", "he"), "en", ((4, 8), (9, 14))),
    )


def test_spans_that_fit_no_sentence(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "en.tsv", list(ROWS), "toxic", "neutral")
    spans = tmp_path / "spans_en.tsv"
    spans.write_text("Sentence\tNegative Connotations\nsomething else\telse\n")
    with pytest.raises(UserError, match="annotates none of the 3 sources"):
        load_pairs(data, spans=str(spans))


def test_paradetox(shared_data: Path) -> None:
    start = time.process_time()
    loaded = load_pairs(str(shared_data / "paradetox_en.tsv"))
    assert time.process_time() - start < 2  # 0.25 s on an idle core
    assert loaded.n_rows == 10_930
    assert {row.reason for row in loaded.bad_rows} == {"source equals reference"}
    assert len(loaded.pairs) + len(loaded.bad_rows) == 10_930
    assert any('"' in pair.source for pair in loaded.pairs)
    assert not any('""' in pair.source for pair in loaded.pairs)
    # The published file itself, read by a csv reader: it is quoted.
    with (shared_data / "paradetox_en.tsv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file, delimiter="\t")
    copies = [row for row in rows if {_spaced(text) for text in row[1:]} <= {"", _spaced(row[0])}]
    assert len(copies) == len(loaded.bad_rows)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def test_multilingual_paradetox_with_its_spans(shared_data: Path) -> None:
    loaded = load_pairs(
        str(shared_data / "multilingual_paradetox"),
        languages=["de", "uk"],
        spans=str(shared_data / "multilingual_toxic_spans"),
    )
    reasons = [row.reason for row in loaded.bad_rows]
    assert reasons == ["source equals reference"] * 3
    assert len(loaded.pairs) == 293 + 307 - 3
    for language in ("de", "uk"):
        pairs = [pair for pair in loaded.pairs if pair.language == language]
        assert sum(bool(pair.spans) for pair in pairs) / len(pairs) > 0.9
