"""Annotated spans: reading them and finding them in their sentences."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detox_tune.data.spans import Marks, load_spans, locate, sentence_marks
from detox_tune.data.text import sentence_key
from detox_tune.errors import UserError


@pytest.mark.parametrize(
    ("source", "strings", "expected"),
    [
        ("you IDIOT, idiot!", ["Idiot"], ["IDIOT", "idiot"]),
        ("class ass", ["ass"], ["ass"]),
        ("#LandderVollidioten", ["Vollidioten"], ["Vollidioten"]),
        ("one suck - ass move", ["suck-ass"], ["suck - ass"]),
        ("piece  of\tshit", ["piece of shit"], ["piece  of\tshit"]),
        ("das ist sch\u006f\u0308n STRASSE", ["sch\u00f6n", "straße"], ["scho\u0308n", "STRASSE"]),
        ("ＩＤＩＯＴ ﬁsh", ["idiot", "fish"], ["ＩＤＩＯＴ", "ﬁsh"]),
        ("fucking idiot", ["fucking", "idiot", "fucking idiot"], ["fucking idiot"]),
        ("尽管浪，谁是狗", ["浪", "狗"], ["浪", "狗"]),
        ("जेहादी सूअर आस", ["जेहादी सूअर"], ["जेहादी सूअर"]),
        ("was so nice", ["ass"], []),
        ("get this ldiot", ["idiot", "", "  "], []),
        ("", ["idiot"], []),
        ("idiot", [], []),
        ("don’t be", ["DON'T"], ["don’t"]),
        ("aaa", ["a"], ["a", "a", "a"]),
    ],
)
def test_locate(source: str, strings: list[str], expected: list[str]) -> None:
    assert [source[start:end] for start, end in locate(source, strings)] == expected


@given(st.text("ab ,", min_size=1, max_size=12), st.data())
def test_what_is_cut_from_a_sentence_is_found_in_it(source: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(source) - 1))
    end = data.draw(st.integers(start + 1, len(source)))
    string = source[start:end]
    spans = locate(source, [string])
    # The very place, or others where it stands as whole words.
    assert bool(spans) == bool(string.strip())
    for s, e in spans:
        assert source[s:e].replace(" ", "") == string.replace(" ", "")


@given(st.text(max_size=20), st.lists(st.text(max_size=4), max_size=4))
def test_located_spans_are_sorted_disjoint_and_inside(source: str, strings: list[str]) -> None:
    place = 0
    for start, end in locate(source, strings):
        assert place <= start < end <= len(source)
        place = end


@pytest.mark.parametrize(
    ("value", "language", "strings"),
    [
        ("one, two words ,three", "en", ["one", "two words", "three"]),
        ("a، b；c、d", "ar", ["a", "b", "c", "d"]),
        ("拉黑 恶心，狗", "zh", ["拉黑", "恶心", "狗"]),
        (["a, b", " c ", None], "en", ["a, b", "c"]),
        ("None", "es", []),
        (["none", "idiot"], "es", ["idiot"]),
        ('["idiot", "piece, of dirt"]', "en", ["idiot", "piece, of dirt"]),
        ("['idiot', None]", "en", ["idiot"]),
        ("[idiot], 88", "en", ["[idiot]", "88"]),
        ("", "en", []),
        (None, "en", []),
        (float("nan"), "en", []),
    ],
)
def test_words_of_a_cell(value: object, language: str, strings: list[str]) -> None:
    assert sentence_marks(value, "a sentence", language, "x.csv:2") == Marks(strings, [])


@pytest.mark.parametrize(
    ("value", "marked"),
    [
        ([4, 5, 6, 7], ["damn"]),
        ([21, 16, 15, 14, 17, 22], ["7 is", "te"]),
        ([[4, 8], [0, 3]], ["the", "damn"]),
        ([[4, 8], [6, 15]], ["damn bus 7"]),
        ([[3, 9]], ["damn"]),
        ("[4, 5, 6, 7]", ["damn"]),
        ("[[4, 8]]", ["damn"]),
        ("[(4, 8), (0, 3)]", ["the", "damn"]),
        ("(4, 8)", ["damn"]),
        ("[]", []),
        ([], []),
        ([[3, 4]], []),  # a space
    ],
)
def test_offsets_of_a_cell(value: object, marked: list[str]) -> None:
    text = "the damn  bus 7 is late"
    strings, places = sentence_marks(value, text, "en", "x.csv:2")
    folded = " ".join(text.split())
    assert (strings, [folded[start:end] for start, end in places if start < end]) == ([], marked)


@pytest.mark.parametrize(
    "value", ["[40, 41]", [[2, 24]], [[4, 4]], [[-1, 3]], [4.0, 5.0], [["damn", 4]], [[1, 2, 3]]]
)
def test_offsets_that_do_not_fit_name_the_row(value: object) -> None:
    with pytest.raises(UserError, match=r"x\.csv:7: the span .* must be words .* from 0 to 23"):
        sentence_marks(value, "the damn  bus 7 is late", "en", "x.csv:7")


def words(path: str | Path, languages: list[str]) -> dict[tuple[str, str], list[list[str]]]:
    found = load_spans(path, languages)
    return {key: [marks.strings for _, marks in sentences] for key, sentences in found.items()}


HEADER = "Sentence\tNegative Connotations\n"


def test_load_a_folder_of_languages(tmp_path: Path) -> None:
    (tmp_path / "en.tsv").write_text(
        f"{HEADER}You idiot .\tidiot\nA jerk!\tjerk, a\nFine.\t\nyou IDIOT\tidiot, you\n"
    )
    (tmp_path / "de.tsv").write_text(f"{HEADER}Du Trottel\tTrottel\n")
    assert words(tmp_path, ["en", "de", "fr"]) == {
        ("en", sentence_key("you idiot")): [["idiot"], ["idiot", "you"]],
        ("en", sentence_key("a jerk")): [["jerk", "a"]],
        ("de", sentence_key("du trottel")): [["Trottel"]],
    }
    with pytest.raises(UserError, match="no annotated spans for fr; give spans of these languages"):
        load_spans(tmp_path, ["fr"])


def test_load_one_file_by_other_columns(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,spans,lang\nyou idiot,idiot,en\nTrottel,Trottel,de\n,lost,en\n")
    assert words(file, ["en"]) == {("en", "youidiot"): [["idiot"]]}
    file = tmp_path / "en.parquet"
    pq.write_table(pa.table({"source": ["a b"], "toxic_spans": [["a", "b"]]}), file)
    assert words(str(file), ["en"]) == {("en", "ab"): [["a", "b"]]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\tlabel\na\tb\n", "need the columns .* but it has 'text', 'label'; rename them"),
        (f"{HEADER}a\n", r"en\.tsv:2: 1 fields, the header has 2; mend or delete the row"),
        (f"{HEADER}a\t\n", "no annotated spans for en; give spans"),
    ],
)
def test_annotations_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "en.tsv").write_text(content)
    for path in (tmp_path, tmp_path / "en.tsv"):
        with pytest.raises(UserError, match=message):
            load_spans(path, ["en"])


@pytest.mark.parametrize("language", ["de", "zh"])
def test_nearly_all_published_spans_are_located(shared_data: Path, language: str) -> None:
    path = shared_data / "multilingual_toxic_spans" / f"{language}.parquet"
    annotated = words(path, [language])
    sentences = pq.read_table(path)["Sentence"].to_pylist()
    total = missing = 0
    for sentence in sentences:
        for strings in annotated.get((language, sentence_key(sentence)), []):
            total += len(strings)
            missing += sum(not locate(sentence, [string]) for string in strings)
    assert total > 1000
    assert missing / total < 0.01
