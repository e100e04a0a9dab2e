"""Labelled texts: what is read, dropped, counted and refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detox_tune.data.toxicity import ToxicityData, load_toxicity_data
from detox_tune.errors import UserError

GOOD = [f"good text {number}\t{number % 2}" for number in range(100)]


def write(path: Path, rows: list[str], header: str = "text\ttoxic") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def reasons(data: ToxicityData) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in data.bad_rows]


def test_a_folder_with_a_file_a_language_in_several_formats(tmp_path: Path) -> None:
    write(tmp_path / "en.tsv", ["you  idiot\t1", "hello\t0"])
    (tmp_path / "de.csv").write_text("toxic,text\n0,hallo\n", encoding="utf-8")
    (tmp_path / "es.jsonl").write_text(json.dumps({"text": "tonto", "toxic": True}) + "\n")
    pq.write_table(pa.table({"text": ["笨蛋"], "toxic": [1.0]}), tmp_path / "zh.parquet")
    data = load_toxicity_data(tmp_path)
    assert list(zip(*data, strict=True)) == [
        ("hallo", False, "de"),
        ("you idiot", True, "en"),
        ("hello", False, "en"),
        ("tonto", True, "es"),
        ("笨蛋", True, "zh"),
    ]
    assert (data.n_rows, data.bad_rows) == (5, ())
    assert data.report() == "5 rows, 5 texts, 0 rows dropped"


def test_languages_are_chosen_and_a_column_gives_them(tmp_path: Path) -> None:
    rows = ["hello\t0\ten", "hallo\t0\tde", "idiot\t1\ten"]
    path = write(tmp_path / "all.tsv", rows, "text\ttoxic\tlang")
    texts, is_toxic, languages = load_toxicity_data(path, {"en"})
    assert (texts, is_toxic, languages) == (["hello", "idiot"], [False, True], ["en", "en"])
    assert load_toxicity_data(path).languages == ["en", "de", "en"]


def test_a_file_of_unknown_language_has_the_only_one_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.tsv", GOOD)
    assert set(load_toxicity_data(path, ["uk"]).languages) == {"uk"}
    with pytest.raises(UserError, match="its language is not known; name it by its code"):
        load_toxicity_data(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("\t1", "missing text"),
        (" \u200b\t1", "empty text"),
        ("a text\t", "missing label"),
        ("a text\tmaybe", "not 0 or 1"),
        ("a text\t2", "not 0 or 1"),
        ("a text", "not text"),
        ("a\ttext\t1", "not text"),
    ],
)
def test_a_bad_row_is_dropped_and_counted(tmp_path: Path, row: str, reason: str) -> None:
    data = load_toxicity_data(write(tmp_path / "en.tsv", [*GOOD[:50], row, *GOOD[50:]]))
    assert reasons(data) == [(52, reason)]
    assert (len(data.texts), data.n_rows) == (100, 101)
    assert data.report().splitlines()[0] == "101 rows, 100 texts, 1 rows dropped"
    assert data.report().endswith(f"dropped: {reason} 1")


def test_rows_of_other_types_than_text(tmp_path: Path) -> None:
    rows = [{"text": f"good {n}", "toxic": n % 2} for n in range(100)]
    rows += [{"text": 7, "toxic": 1}, {"text": "null label", "toxic": None}]
    path = tmp_path / "en.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert reasons(load_toxicity_data(path)) == [(101, "not text"), (102, "missing label")]


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "en.tsv", GOOD)
    path.write_bytes(path.read_bytes() + b"caf\xe9\t0\n")
    assert reasons(load_toxicity_data(path)) == [(102, "not text")]


def test_a_row_without_language(tmp_path: Path) -> None:
    rows = [f"{row}\ten" for row in GOOD] + ["lost\t1\t"]
    path = write(tmp_path / "all.tsv", rows, "text\ttoxic\tlanguage")
    for languages in (None, ["en"]):
        assert reasons(load_toxicity_data(path, languages)) == [(102, "missing language")]


def test_the_same_text_with_both_labels_counts_for_neither(tmp_path: Path) -> None:
    path = write(tmp_path / "en.tsv", [*GOOD, "You fool!\t1", "same\t1", "you  fool\t0", "same\t1"])
    data = load_toxicity_data(path)
    assert reasons(data) == [(102, "both labels"), (104, "both labels")]
    assert data.texts[100:] == ["same", "same"]


def test_one_text_may_have_one_label_a_language(tmp_path: Path) -> None:
    write(tmp_path / "en.tsv", ["gift\t0"])
    write(tmp_path / "de.tsv", ["Gift\t1"])
    assert load_toxicity_data(tmp_path).bad_rows == ()


def test_more_than_five_percent_bad_rows_stop(tmp_path: Path) -> None:
    bad = ["x\tmaybe"] * 5
    assert len(load_toxicity_data(write(tmp_path / "en.tsv", GOOD[:95] + bad)).texts) == 95
    path = write(tmp_path / "en.tsv", GOOD[:94] + bad)
    with pytest.raises(UserError, match=r"5 of 99 rows are bad \(not 0 or 1 5; the first is .*:96"):
        load_toxicity_data(path)


def test_the_report_shows_five_bad_rows_and_counts_the_rest(tmp_path: Path) -> None:
    rows = [f"good {number}\t{number % 2}" for number in range(200)] + ["x\tno"] * 6 + ["\t1"]
    lines = load_toxicity_data(write(tmp_path / "en.tsv", rows)).report().splitlines()
    assert len(lines) == 8
    assert lines[1].endswith("en.tsv:202: not 0 or 1 (the label is 'no'): x | no")
    assert lines[-2:] == ["  and 2 more", "  dropped: not 0 or 1 6, missing text 1"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "sentence\ttoxic",
            r"no column 'text' for labelled texts, which need .*; valid: sentence, toxic",
        ),
        ("text\ttoxicity", r"no column 'toxic'.*; did you mean 'toxicity'"),
    ],
)
def test_a_column_that_is_not_there(tmp_path: Path, header: str, message: str) -> None:
    path = write(tmp_path / "en.tsv", GOOD, header)
    with pytest.raises(UserError, match=message) as error:
        load_toxicity_data(path)
    assert "\n" not in str(error.value)


def test_a_language_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    write(tmp_path / "en.tsv", GOOD)
    write(tmp_path / "uk.tsv", GOOD)
    message = "^language 'ukr': .* has no labelled texts for it; did you mean 'uk'"
    with pytest.raises(UserError, match=message):
        load_toxicity_data(tmp_path, ["en", "ukr"])


def test_no_such_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        load_toxicity_data(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"the folder has no .* file"):
        load_toxicity_data(tmp_path)
