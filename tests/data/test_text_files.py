"""Files of texts to rewrite: what is read, written, and refused."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detox_tune.data.readers import read_table
from detox_tune.data.text_files import check_output, read_texts, write_texts
from detox_tune.errors import UserError

CELLS = [("1", 'he said "damn"\tnow', "en"), ("2", "two\nlines", "de"), ("3", "", "en")]
NAMES = ("id", "toxic_sentence", "lang")


def written(path: Path) -> Path:
    """The cells as a file of the path's format."""
    records = [dict(zip(NAMES, row, strict=True)) for row in CELLS]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        text = io.StringIO()
        csv.writer(text, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [NAMES, *CELLS]
        )
        path.write_text(text.getvalue())
    return path


def rewritten(source: Path, out: Path, outputs: list[str], **flags: list[bool | None]) -> Path:
    texts = read_texts(source, source_column=None)
    check_output(out, texts, source, flags=bool(flags))
    write_texts(out, texts, outputs, flags)
    return out


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("to", [".tsv", ".csv", ".jsonl"])
def test_every_cell_comes_out_as_it_went_in(suffix: str, to: str, tmp_path: Path) -> None:
    source = written(tmp_path / f"in{suffix}")
    outputs = ['he said "no"', "two\nlines\tmore", ""]
    out = rewritten(source, tmp_path / f"out{to}", outputs, still_copy=[True, False, None])
    table = read_table(out)
    assert table.columns == (*NAMES, "neutral_sentence", "still_copy")
    flags = [True, False, None] if to == ".jsonl" else ["true", "false", None]
    expected = [
        (*row, output, flag) for row, output, flag in zip(CELLS, outputs, flags, strict=True)
    ]
    assert [[cell or None for cell in row.values] for row in table.rows] == [
        [cell or None for cell in row] for row in expected
    ]


def test_texts_carry_their_line_and_language(tmp_path: Path) -> None:
    texts = read_texts(written(tmp_path / "in.tsv"), source_column=None)
    assert texts.texts == [CELLS[0][1], CELLS[1][1], None]
    assert texts.where == ["line 2", "line 3", "line 5"]
    assert texts.languages == ["en", "de", "en"]


def test_lines_keep_blank_ones_and_become_rows(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\n three \n")
    out = rewritten(tmp_path / "in.txt", tmp_path / "out.txt", ["a\r\nb", "", "c"])
    assert out.read_text() == "a b\n\nc\n"
    out = rewritten(tmp_path / "in.txt", tmp_path / "out.csv", ["a", "", "c"])
    assert out.read_text() == "toxic_sentence,neutral_sentence\none,a\n,\n three ,c\n"


def test_pan_2024_comes_out_as_pan_2024(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": "x", "text": "damn"}\n')
    out = rewritten(tmp_path / "in.jsonl", tmp_path / "out.jsonl", ["well"])
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": "x", "text": "well"}
    ]
    out = rewritten(tmp_path / "in.jsonl", tmp_path / "out.tsv", ["well"])
    assert out.read_text() == "id\ttext\tneutral_sentence\nx\tdamn\twell\n"


def test_the_empty_column_of_a_template_is_filled(tmp_path: Path) -> None:
    source = tmp_path / "in.tsv"
    source.write_text("toxic_sentence\tneutral_sentence\tlang\ndamn\t\ten\n")
    out = rewritten(source, tmp_path / "out.tsv", ["well"])
    assert out.read_text() == "toxic_sentence\tneutral_sentence\tlang\ndamn\twell\ten\n"


def test_values_that_are_no_text_stay_what_they_are(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"source": "damn", "n": 1, "list": ["é"], "none": null}\n')
    out = rewritten(source, tmp_path / "out.jsonl", ["well"])
    assert json.loads(out.read_text()) == {
        **json.loads(source.read_text()),
        "neutral_sentence": "well",
    }
    out = rewritten(source, tmp_path / "out.tsv", ["well"])
    assert out.read_text().splitlines()[1] == 'damn\t1\t"[""é""]"\t\twell'


def test_a_lone_carriage_return_does_not_cut_a_row(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"source": "a\\rb", "note": "\\"x\\""}\n')
    out = rewritten(source, tmp_path / "out.csv", ["c"])
    with out.open(newline="") as file:
        assert list(csv.reader(file))[1] == ["a\rb", '"x"', "c"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.tsv", "what\tlang\nhello\ten\n", r"which column holds.*'what', 'lang'.*--source-col"),
        ("in.tsv", "toxic\tlang\nhello\ten\tmore\n", r"in.tsv:2: 3 fields.*mend the row"),
        ("in.tsv", "toxic\tid\tid\na\tb\tc\n", r"two columns are called 'id': rename one"),
        ("in.jsonl", '{"toxic": 5}\n', r"in.jsonl:1: 'toxic' is of type int.*mend the row"),
        ("in.jsonl", '{"toxic": "a", "x": "\\ud800"}\n', r"in.jsonl:1: no UTF-8 text: mend"),
        ("in.txt", b"fine\nthat caf\xe9\n", r"in.txt:2: byte 9 \(0xe9\) is not UTF-8"),
        ("in.xls", "x", r"the ending '.xls' is not known; save the file as .txt, .tsv"),
        ("in.csv", "toxic\n", r"header but no rows"),
    ],
)
def test_what_cannot_be_read_whole_is_refused(
    name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read_texts(path, source_column=None)


def test_a_column_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("toxic,mine\na,b\n")
    assert read_texts(path, source_column="mine").texts == ["b"]
    with pytest.raises(UserError, match=r"no column 'mime' for --source-column; did you mean 'mi"):
        read_texts(path, source_column="mime")
    (tmp_path / "in.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"has lines, not columns: leave it out"):
        read_texts(tmp_path / "in.txt", source_column="mine")


@pytest.mark.parametrize(
    ("out", "flags", "message"),
    [
        ("in.tsv", False, r"is the input: choose another file"),
        ("out.parquet", False, r"the ending '.parquet' is not one.*\.txt, \.tsv, \.csv, \.jsonl"),
        ("out.txt", True, r"--flags adds columns.*\.tsv, \.csv, \.jsonl"),
        ("out.csv", False, r"column 'neutral_sentence' already.*rename that column"),
        ("in.tsv/out.csv", False, r"cannot be written .*choose another --output"),
    ],
)
def test_an_output_that_would_lose_something_is_refused(
    out: str, flags: bool, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.tsv"
    path.write_text("toxic_sentence\tNeutral_Sentence\ndamn\twell\n")
    texts = read_texts(path, source_column=None)
    with pytest.raises(UserError, match=message):
        check_output(tmp_path / out, texts, path, flags=flags)


def test_a_column_of_flags_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("toxic,still_toxic\ndamn,yes\n")
    texts = read_texts(path, source_column=None)
    check_output(tmp_path / "out.csv", texts, path, flags=False)
    with pytest.raises(UserError, match="column 'still_toxic' already"):
        check_output(tmp_path / "out.csv", texts, path, flags=True)
