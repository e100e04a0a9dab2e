import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detox_tune.errors import UserError
from detox_tune.evaluation.references import References, load_references
from detox_tune.evaluation.submission import load_outputs, write_submission

ROWS = [
    ("you idiot", "you person", "en"),
    ('he said "damn"', "he said it", "en"),
    ("du Depp", "du Mensch", "de"),
    ("you idiot", "you there", "en"),  # a second reference of the first sentence
    ("all fine", "all fine", "en"),  # gives no pair
]
SOURCES = ["you idiot", 'he said "damn"', "du Depp"]


@pytest.fixture
def references(tmp_path: Path) -> References:
    return load_references(str(write_rows(tmp_path / "references.jsonl")))


def write_rows(path: Path, *, ids: bool = False) -> Path:
    names = ("toxic_sentence", "neutral_sentence", "lang")
    records = [dict(zip(names, row, strict=True)) for row in ROWS]
    if ids:
        records = [{"id": f"row-{i}", **record} for i, record in enumerate(records)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def load(tmp_path: Path, references: References, name: str, text: str) -> list[str]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = load_outputs(path, references)
    return [found[pair.language, pair.source] for pair in references.pairs]


def test_references_keep_every_row_and_drop_what_is_no_pair(references: References) -> None:
    assert [pair.source for pair in references.pairs] == SOURCES
    assert references.pairs[0].references == ("you person", "you there")
    assert [row.key for row in references.rows] == [(lang, toxic) for toxic, _, lang in ROWS]
    assert len(references.loaded.bad_rows) == 1  # a fifth of all rows, and no error


def test_references_of_one_language_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "en.tsv").write_text("toxic\tneutral\nyou fool\tyou there\n")
    (tmp_path / "de.tsv").write_text("toxic\tneutral\ndu Depp\tdu da\n")
    both = load_references(str(tmp_path))
    assert [row.key for row in both.rows] == [("de", "du Depp"), ("en", "you fool")]
    one = load_references(str(tmp_path), language="en")
    assert [row.key for row in one.rows] == [("en", "you fool")]


# --- matching --------------------------------------------------------------------------------


def test_by_source_in_any_order(tmp_path: Path, references: References) -> None:
    text = (
        "lang\tneutral_sentence\ttoxic_sentence\n"
        'de\tdu da\tdu Depp\nen\the "said" it\the said "damn"\nen\t\tyou  idiot\n'
        "fr\tignored\tde rien\n"
    )
    assert load(tmp_path, references, "out.tsv", text) == ["", 'he "said" it', "du da"]


def test_by_source_without_languages_and_with_other_names(
    tmp_path: Path, references: References
) -> None:
    text = 'source,output\ndu Depp,c\nyou idiot,a\n"he said ""damn""",b\n'
    assert load(tmp_path, references, "out.csv", text) == ["a", "b", "c"]


def test_a_quoted_tsv_as_pandas_writes_it(tmp_path: Path, references: References) -> None:
    text = (
        "toxic_sentence\tneutral_sentence\tlang\n"
        'you idiot\t"""you"" there"\ten\n"he said ""damn"""\t"two\nlines"\ten\ndu Depp\tx\tde\n'
    )
    assert load(tmp_path, references, "out.tsv", text) == ['"you" there', "two\nlines", "x"]


def test_by_id(tmp_path: Path) -> None:
    references = load_references(str(write_rows(tmp_path / "references.jsonl", ids=True)))
    lines = [json.dumps({"id": f"row-{i}", "text": t}) for i, t in ((2, "c"), (1, "b"), (0, "a"))]
    assert load(tmp_path, references, "out.jsonl", "\n".join(lines)) == ["a", "b", "c"]
    with pytest.raises(UserError, match=r"out.jsonl:1: the id 'row-9' is not among the ref"):
        load(tmp_path, references, "out.jsonl", '{"id": "row-9", "text": "x"}\n')


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("out.txt", "a\nb\n\na\nz\n"),  # a line a row: blank is an empty output
        ("out.txt", "a\r\nb\r\n\r\n"),  # a line a distinct source
        ("out.jsonl", '{"text": "a"}\n{"text": "b"}\n{"text": ""}\n'),
        ("out.jsonl", '{"id": "x", "text": "a"}\n{"id": "w", "text": "b"}\n{"text": null}\n'),
        # ids that number the rows
        ("out.jsonl", '{"id": 2, "text": ""}\n{"id": 0, "text": "a"}\n{"id": 1, "text": "b"}\n'),
        ("out.jsonl", '{"id": "3", "text": ""}\n{"id":"1","text":"a"}\n{"id":"2","text":"b"}\n'),
        ("out.csv", 'prediction\na\nb\n""\n'),
    ],
)
def test_by_order(tmp_path: Path, references: References, name: str, text: str) -> None:
    assert load(tmp_path, references, name, text) == ["a", "b", ""]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("out.txt", "a\nb\n", r"out.txt: 2 outputs for 5 references: .*there must be one for each"),
        (
            "out.txt",
            "a\nb\nc\nother\nz\n",
            r"out.txt:4: a second, different output for 'you idiot'",
        ),
        (
            "out.tsv",
            "toxic_sentence\tneutral_sentence\nyou idiot\tx\n",
            r"no output for 2 of 3 reference sentences, the first is 'he said \"damn\"' \(en\)",
        ),
        (
            "out.tsv",
            "toxic_sentence\tneutral_sentence\tlang\ndu Depp\tx\ten\n",
            r"out.tsv:2: the source 'du Depp' is not among the references in 'en'",
        ),
        ("out.tsv", "toxic\tneutral\na\tb\tc\n", r"out.tsv:2: 3 fields, the header has 2"),
        ("out.jsonl", '{"text": 3}\n', r"out.jsonl:1: the output is of type int"),
        ("out.tsv", "first\tsecond\na\tb\n", r"which column holds the outputs\?"),
        ("out.doc", "x", r"the ending '.doc' is not known"),
    ],
)
def test_mismatches_are_one_clear_error(
    tmp_path: Path, references: References, name: str, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path, references, name, text)
    assert "\n" not in str(error.value)


def test_bytes_that_are_not_utf8(tmp_path: Path, references: References) -> None:
    path = tmp_path / "out.txt"
    path.write_bytes(b"a\nb\nc \xff\n")
    with pytest.raises(UserError, match=r"out.txt:3: no UTF-8 text; mend the row"):
        load_outputs(path, references)


def test_repeated_reference_ids(tmp_path: Path) -> None:
    path = tmp_path / "references.jsonl"
    path.write_text(
        '{"id": 1, "toxic": "you idiot", "neutral": "you", "lang": "en"}\n'
        '{"id": 1, "toxic": "you fool", "neutral": "you", "lang": "en"}\n'
    )
    with pytest.raises(UserError, match="the references have missing or repeated ids"):
        load(tmp_path, load_references(str(path)), "out.jsonl", '{"id": 1, "text": "x"}\n')


# --- writing ---------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Z"]) | st.just(" "))


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=4, max_size=4), st.sampled_from(["out.tsv", "out.jsonl"]))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], name: str
) -> None:
    folder = tmp_path_factory.mktemp("written")
    references = load_references(str(write_rows(folder / "references.jsonl")))
    keys = list(dict.fromkeys(row.key for row in references.rows))
    outputs = {key: " ".join(text.split()) for key, text in zip(keys, texts, strict=True)}
    write_submission(folder / name, outputs, references)
    assert load_outputs(folder / name, references) == outputs


def test_the_forms_of_2024_and_2025(tmp_path: Path) -> None:
    references = load_references(str(write_rows(tmp_path / "references.jsonl", ids=True)))
    outputs = {row.key: f'<extra_id_0> "{row.key[1]}"\n!' for row in references.rows}
    write_submission(tmp_path / "out.tsv", outputs, references)
    with (tmp_path / "out.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert rows == [
        {"toxic_sentence": toxic, "neutral_sentence": f'<extra_id_0> "{toxic}" !', "lang": lang}
        for toxic, _, lang in ROWS
    ]
    write_submission(tmp_path / "out.jsonl", outputs, references)
    records = [json.loads(line) for line in io.StringIO((tmp_path / "out.jsonl").read_text())]
    assert [record["id"] for record in records] == [f"row-{i}" for i in range(5)]
    assert records[2]["text"] == '<extra_id_0> "du Depp" !'
    with pytest.raises(UserError, match=r"out.csv: outputs are written as .tsv \(PAN 2025\) or"):
        write_submission(tmp_path / "out.csv", outputs, references)
