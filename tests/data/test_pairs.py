"""Loading pairs: forms, columns, languages, bad rows, spans."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detox_tune.data.bad_rows import BadRow
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import LoadedPairs, Pair, load_pairs
from detox_tune.errors import UserError

ROWS = [("you idiot", "you person"), ("what a jerk", "what a man"), ("dumb move", "bad move")]


def write(path: Path, columns: str, *rows: tuple[Any, ...]) -> str:
    """Rows in the form that the ending of the path calls for; `columns` are separated by spaces."""
    names = columns.split()
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
                [names, *rows]
            )
    return str(path)


def tsv(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_form_gives_the_same_pairs(tmp_path: Path, suffix: str) -> None:
    loaded = load_pairs(write(tmp_path / f"en{suffix}", "toxic neutral", *ROWS))
    assert loaded.pairs == tuple(Pair(source, (reference,), "en") for source, reference in ROWS)
    assert (loaded.bad_rows, loaded.n_rows) == ((), 3)


@pytest.mark.parametrize(
    "columns",
    [
        "id\ttoxic\tneutral1",
        "id\ttoxic_sentence\tneutral_sentence",
        "id\tToxic Comment\tNeutral Comment",
        "id\ten_toxic_comment\ten_neutral_comment",
        "id\tsource\treference",
        "id\tsource_text\ttarget",
        "id\tinput\toutput",
        "id\t \u00a0Toxic\u200b\tNEUTRAL ",
        "source\ttoxic\tneutral",  # `toxic` comes before `source`, wherever they stand
    ],
)
def test_known_column_names(tmp_path: Path, columns: str) -> None:
    data = tsv(tmp_path / "en.tsv", f"{columns}\nnote\tyou idiot\tyou person\n")
    assert load_pairs(data).pairs == (Pair("you idiot", ("you person",), "en"),)


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    data = write(tmp_path / "x.csv", "toxic bad good code", ("a", "b", "c", "de"))
    loaded = load_pairs(
        data, source_column="bad", reference_columns=["good", "toxic"], language_column="code"
    )
    assert loaded.pairs == (Pair("b", ("c", "a"), "de"),)


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        (
            "toxic neutral",
            {"source_column": "toxc"},
            "no column 'toxc' for source_column; did you mean 'toxic'",
        ),
        (
            "toxic neutral",
            {"reference_columns": ["neutral2"]},
            "no column 'neutral2' for reference_columns; did you mean 'neutral'",
        ),
        (
            "toxic neutral",
            {"language_column": "lang"},
            "no column 'lang' for language_column; valid: neutral, toxic",
        ),
        ("toxic neutral", {"source_column": "neutral"}, "'neutral' is both source and reference"),
        ("toxic toxic neutral", {}, "two columns are called 'toxic'; rename one"),
        ("a neutral", {}, "hold the toxic sentence; it has 'a', 'neutral'; set source_column"),
        ("toxic b", {}, "hold the neutral sentence; it has 'toxic', 'b'; set reference_columns"),
        ("toxic", {}, "its only column is 'toxic', but pairs need a column of toxic and one of"),
    ],
)
def test_columns_that_are_not_there(
    tmp_path: Path, columns: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_pairs(write(tmp_path / "en.tsv", columns, *ROWS), **arguments)


def test_several_references_in_columns_in_a_list_and_in_rows(tmp_path: Path) -> None:
    header = "toxic\tneutral1\tneutral2\tlang\n"
    content = f"{header}x  y\ta\tb\ten\nz\t \td\ten\nx y\tc\ta\ten\nx y\tc\t\tde\n"
    loaded = load_pairs(tsv(tmp_path / "x.tsv", content))
    assert loaded.pairs == (
        Pair("x y", ("a", "b", "c"), "en"),
        Pair("z", ("d",), "en"),
        Pair("x y", ("c",), "de"),
    )
    assert (loaded.bad_rows, loaded.n_rows) == ((), 4)
    rows = [("x", ["a", "b", "a"]), ("y", ["c"])]
    for suffix in (".jsonl", ".parquet"):
        data = write(tmp_path / f"en{suffix}", "source references", *rows)
        assert [pair.references for pair in load_pairs(data).pairs] == [("a", "b"), ("c",)]


def test_languages_that_are_chosen(tmp_path: Path) -> None:
    for language in ("en", "de", "hin"):
        write(tmp_path / f"{language}.tsv", "toxic neutral", (f"{language} idiot", "x"))
    assert [pair.language for pair in load_pairs(str(tmp_path)).pairs] == ["de", "en", "hin"]
    chosen = load_pairs(str(tmp_path), languages=["hin", "en", "en"])
    assert ([pair.language for pair in chosen.pairs], chosen.n_rows) == (["en", "hin"], 2)
    # Files of other languages are not even read.
    (tmp_path / "fr.tsv").write_bytes(b"")
    assert load_pairs(str(tmp_path), languages=["de"]).pairs[0].source == "de idiot"
    with pytest.raises(UserError, match=r"fr\.tsv: the file is empty"):
        load_pairs(str(tmp_path))
    data = write(tmp_path / "x.csv", "toxic neutral lang", ("x", "a", "DE"), ("y", "b", "en"))
    chosen = load_pairs(data, languages=["en"])
    assert ([pair.source for pair in chosen.pairs], chosen.n_rows) == (["y"], 1)


@pytest.mark.parametrize("wanted", ["zh", "ZH_tw"])
def test_variants_of_a_language_are_that_language(tmp_path: Path, wanted: str) -> None:
    in_rows = write(tmp_path / "x.csv", "toxic neutral lang", ("你是傻瓜", "你是人", "zh-CN"))
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "zh-cn.csv", "toxic neutral", ("你是傻瓜", "你是人"))
    write(tmp_path / "folder" / "en-US.csv", "toxic neutral", *ROWS)
    for data in (in_rows, str(tmp_path / "folder")):
        loaded = load_pairs(data, languages=[wanted])
        assert loaded.pairs == (Pair("你是傻瓜", ("你是人",), "zh"),)
    (tmp_path / "zh.txt").write_text("傻瓜\n", encoding="utf-8")
    assert Lexicon.load(tmp_path, [wanted]).spans("你是傻瓜", wanted) == [(2, 4)]


@pytest.mark.parametrize(
    ("data", "language", "hint"),
    [
        (".", "fr", "valid: de, en"),
        (".", "ed", "valid: de, en"),
        (".", "eng", "did you mean 'en'"),
        ("en.tsv", "fr", "valid: en"),
    ],
)
def test_a_language_without_pairs(tmp_path: Path, data: str, language: str, hint: str) -> None:
    for code in ("en", "de"):
        write(tmp_path / f"{code}.tsv", "toxic neutral", *ROWS)
    with pytest.raises(UserError, match=rf"'{language}': .* has no pairs for it; {hint}"):
        load_pairs(str(tmp_path / data), languages=["en", language])


BAD_ROWS: list[tuple[str, str, str]] = [
    ("\tno source\t", "missing source", ""),
    ("no reference\t\t", "missing reference", ""),
    (" \u200b\tempty source\t", "empty source", ""),
    ("empty reference\t\t\u00a0", "empty reference", ""),
    ("bell\x07\tx\t", "not text", "the source has the control character U+0007"),
    ("three fields wanted\ttwo given", "not text", "2 fields, the header has 3"),
    ("ｓａｍｅ  thing\tsame thing\tｓａｍｅ\u00a0thing", "source equals reference", ""),
    (f"{'x' * 21}\ta\t", "over-long", "the source has 21 characters, at most 20"),
    (f"a\tb\t{'x' * 21}", "over-long", "the reference has 21 characters, at most 20"),
    ("no utf-8 \udce9\tx\t", "not text", "the source is not UTF-8 text"),
]


@pytest.mark.parametrize(("row", "reason", "detail"), BAD_ROWS)
def test_a_bad_row_is_dropped_and_named(tmp_path: Path, row: str, reason: str, detail: str) -> None:
    path = tmp_path / "en.tsv"
    content = f"toxic\tneutral1\tneutral2\nkept\tkept\tother\n{row}\n{'C' * 20}\t{'c' * 20}\t\n"
    path.write_bytes(content.encode(errors="surrogateescape"))
    loaded = load_pairs(str(path), max_characters=20, allow_bad_rows=True)
    (bad,) = loaded.bad_rows
    assert (bad.file, bad.line, bad.reason, bad.detail) == (str(path), 3, reason, detail)
    assert loaded.pairs == (Pair("kept", ("other",), "en"), Pair("C" * 20, ("c" * 20,), "en"))
    assert loaded.n_rows == 3


def test_bad_rows_of_other_forms_and_without_language(tmp_path: Path) -> None:
    lines = '{"toxic": 3, "neutral": "b"}\n{\n{"toxic": "x"}\n{"toxic": NaN}'
    data = tsv(tmp_path / "en.jsonl", lines)
    with pytest.raises(UserError, match="no pairs; give data with toxic sentences"):
        load_pairs(data, allow_bad_rows=True)
    rows = [("a", ["b"], "en"), ("", ["b"], "en"), ("y", [None, "y"], "en"), ("z", ["b"], None)]
    data = write(tmp_path / "x.parquet", "toxic references lang", *rows)
    for languages in ((), ("en",)):
        loaded = load_pairs(data, languages=languages, allow_bad_rows=True)
        assert bad_rows(loaded) == [
            (1, "empty source"),
            (2, "source equals reference"),
            (3, "missing language"),
        ]
    mixed = tsv(tmp_path / "de.jsonl", lines + '\n{"toxic": "a", "neutral": "b"}')
    assert bad_rows(load_pairs(mixed, allow_bad_rows=True)) == [
        (1, "not text"),
        (2, "not text"),
        (3, "missing reference"),
        (4, "missing source"),
    ]


def bad_rows(loaded: LoadedPairs) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in loaded.bad_rows]


def test_more_than_five_percent_bad_rows_stop(tmp_path: Path) -> None:
    good = [(f"you idiot {i}", f"you person {i}") for i in range(95)]
    bad = [(f"bad {i}", "") for i in range(5)]
    data = write(tmp_path / "en.tsv", "toxic neutral", *good, *bad)
    assert len(load_pairs(data).bad_rows) == 5
    write(tmp_path / "en.tsv", "toxic neutral", *good, *bad, ("", "worse"))
    expected = (
        r"6 of 101 rows are bad \(missing reference 5, missing source 1; the first is .*en\.tsv:97"
        r": missing reference: bad 0\), at most 5% may be; mend them or allow them"
    )
    with pytest.raises(UserError, match=expected):
        load_pairs(data)
    allowed = load_pairs(data, allow_bad_rows=True)
    assert (len(allowed.pairs), len(allowed.bad_rows), allowed.n_rows) == (95, 6, 101)


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
    others = tsv(tmp_path / "de.tsv", "Sentence\tSpans\nsomething else\telse\n")
    rows = [("you dumb idiot", "you", ["idiot"]), ("you dumb idiot", "he", ["dumb"])]
    merged = write(tmp_path / "de.parquet", "toxic neutral spans", *rows)
    assert [pair.spans for pair in load_pairs(merged).pairs] == [((4, 8), (9, 14))]
    with pytest.raises(UserError, match="annotates none of the 1 sources"):
        load_pairs(merged, spans=others)


def test_offsets_count_in_the_sentence_that_they_belong_to(tmp_path: Path) -> None:
    data = write(tmp_path / "en.tsv", "toxic neutral", ("you  damn fool 4 damn", "you"), ROWS[0])
    rows = [("you  damn fool 4 damn", "[5, 6, 7, 8]"), ("You idiot!", "[(4, 9)]")]
    spans = write(tmp_path / "spans_en.csv", "text spans", *rows)
    loaded = load_pairs(data, spans=spans)
    marked = [[pair.source[start:end] for start, end in pair.spans] for pair in loaded.pairs]
    assert marked == [["damn"], ["idiot"]]
    assert loaded.pairs[0].spans == ((4, 8),)
    assert loaded.report().splitlines()[-1] == "spans: 2 of 2 located, in 2 of 2 sources"


def test_spans_that_stand_nowhere_are_counted_and_refused_where_none_does(tmp_path: Path) -> None:
    data = write(tmp_path / "en.csv", "toxic neutral spans", (*ROWS[0], "idiot,4"), (*ROWS[1], ""))
    assert load_pairs(data).report().splitlines()[-1].startswith("spans: 1 of 2 located, in 1 of")
    write(tmp_path / "en.csv", "toxic neutral spans", (*ROWS[0], "fool"), (*ROWS[1], ""))
    with pytest.raises(UserError, match="none of the 1 annotated spans stands in its sentence"):
        load_pairs(data)
    write(tmp_path / "en.csv", "toxic neutral spans", (*ROWS[1], ""), (*ROWS[0], "[8, 9, 10]"))
    with pytest.raises(UserError, match=r"en\.csv:3: the span \(9, 10\) must be words"):
        load_pairs(data)


def test_paradetox(shared_data: Path) -> None:
    loaded = load_pairs(str(shared_data / "paradetox_en.tsv"))
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
