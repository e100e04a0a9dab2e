"""Finding and deleting lexicon entries, and loading lexicons."""

import itertools
import json
import re
import time
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import load_pairs
from detox_tune.data.readers import LANGUAGES
from detox_tune.errors import UserError

# Share of source sentences and of neutral references with an entry, as the data's README has them.
README_COVERAGE = {
    "en": (0.89, 0.04),
    "uk": (0.92, 0.04),
    "ru": (0.67, 0.04),
    "ar": (0.58, 0.09),
    "am": (0.51, 0.04),
    "es": (0.47, 0.01),
    "de": (0.32, 0.02),
}


def found(entries: list[str], text: str, language: str = "en") -> list[str]:
    return [text[s:e] for s, e in Lexicon({language: entries}).spans(text, language)]


@pytest.mark.parametrize(
    ("entries", "text", "expected"),
    [
        (["ass"], "Ass, class, (ASS) and #ass!", ["Ass", "ASS", "ass"]),
        (["piece of shit", "shit"], "you piece  of\nSHIT, shit", ["piece  of\nSHIT", "shit"]),
        (["shit", "shit head"], "shit headed, shit head", ["shit", "shit head"]),
        (
            ["f*ck", "sh!t", "a$$"],
            "F*CK fck sh!t, shit a$$ a$$hole",
            ["F*CK", "sh!t", "a$$", "a$$"],
        ),
        (["suck-ass"], "suck-ass, suck - ass, suck ass", ["suck-ass", "suck - ass"]),
        (["f.u.c.k"], "f.u.c.k f.u.c.", ["f.u.c.k"]),
        (["-ass"], "dumb-ass, dumb - ass, ass", ["-ass"]),
        (["dick*"], "dick dick* dick *", ["dick*"]),
        (["idiot"], "ＩＤＩＯＴ idi\u00adot idiot\u0301", ["ＩＤＩＯＴ", "idi\u00adot"]),
        (["don't"], "don’t", ["don’t"]),
        (["…no"], "...no", ["...no"]),
        (["🖕"], "🖕🖕\ufe0f!", ["🖕", "🖕\ufe0f"]),
        (["½ wit"], "1⁄2 wit", ["1⁄2 wit"]),
        (["straße"], "STRASSE", ["STRASSE"]),
        (["idiot"], "", []),
        (["", "  ", "\u200b"], "nothing \u200b here", []),
    ],
)
def test_spans(entries: list[str], text: str, expected: list[str]) -> None:
    assert found(entries, text) == expected


@pytest.mark.parametrize(
    ("language", "entries", "text", "expected"),
    [
        ("hi", ["गाँड", "कुत्ते"], "यह गाँड कुत्तेदार कुत्ते", ["गाँड", "कुत्ते"]),
        ("am", ["ደደብ"], "አንተ ደደብ፡ነህ ደደቦች።", ["ደደብ"]),
        ("ar", ["غبي"], "أنت غبي، غبية", ["غبي"]),
        ("he", ["ג'ורה"], "הג'ורה ג׳ורה ג'ורה", ["ג'ורה"]),
        ("uk", ["п'яниця"], "п’яниця Пʼяниця", ["п’яниця", "Пʼяниця"]),
        ("it", ["idiota"], "l’idiota, l'idiota", ["idiota", "idiota"]),
        ("zh", ["傻", "傻瓜", "jb"], "你是傻瓜吗傻jb jbs", ["傻瓜", "傻", "jb"]),
        ("ja", ["バカ"], "このバカヤロー ﾊﾞｶ", ["バカ", "ﾊﾞｶ"]),
    ],
)
def test_spans_of_other_scripts(
    language: str, entries: list[str], text: str, expected: list[str]
) -> None:
    assert found(entries, text, language) == expected


def test_longest_first_also_where_a_shorter_one_begins_earlier() -> None:
    assert found(["a b", "b c d"], "a b c d") == ["b c d"]
    assert found(["a b", "b c"], "a b c") == ["a b"]


def slow_spans(entries: list[str], text: str) -> list[tuple[int, int]]:
    """Every stretch of text against every entry, then the longest one that is still free."""
    wanted = {re.sub(r"\s", "", entry.lower()) for entry in entries}
    candidates = []
    for start, end in itertools.combinations(range(len(text) + 1), 2):
        stretch = text[start:end]
        before, after = text[:start][-1:], text[end:][:1]
        cuts_word = (before.isalnum() and stretch[0].isalnum()) or (
            after.isalnum() and stretch[-1].isalnum()
        )
        # Words must agree one by one, not only as a row of letters.
        if stretch.strip() == stretch and not cuts_word:
            if re.sub(r"\s", "", stretch.lower()) not in wanted:
                continue
            pieces = re.findall(r"\w+|[^\w\s]", stretch.lower())
            if any(pieces == re.findall(r"\w+|[^\w\s]", entry.lower()) for entry in entries):
                candidates.append((start, end))
    kept: list[tuple[int, int]] = []
    for start, end in sorted(candidates, key=lambda span: (span[0] - span[1], span[0])):
        if not any(start < other_end and other_start < end for other_start, other_end in kept):
            kept.append((start, end))
    return sorted(kept)


# Punctuation only inside entries: the rule for their edges has tests of its own.
ENTRIES = st.lists(
    st.from_regex(r"[aAbß]{1,2}([ \-*]{1,2}[abB]{1,2}){0,2}", fullmatch=True), max_size=6
)


@given(ENTRIES, st.text("aAbBß -*.", max_size=24))
def test_spans_agree_with_a_slow_search(entries: list[str], text: str) -> None:
    # ß folds to two letters, which the slow search does not know: once on either side is enough.
    entries = [entry.replace("ß", "b") for entry in entries]
    text = text.replace("ß", "a")
    assert Lexicon({"en": entries}).spans(text, "en") == slow_spans(entries, text)


@given(st.lists(st.text(max_size=5), max_size=5), st.text(max_size=30), st.sampled_from(LANGUAGES))
def test_spans_are_sorted_disjoint_and_within_the_text(
    entries: list[str], text: str, language: str
) -> None:
    end = 0
    for start, stop in Lexicon({language: entries}).spans(text, language):
        assert end <= start < stop <= len(text)
        end = stop


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12),
    st.sampled_from(["en", "zh"]),
)
def test_an_entry_is_found_in_itself(text: str, language: str) -> None:
    lexicon = Lexicon({language: [text]})
    spans = lexicon.spans(text, language)
    assert bool(spans) == bool(lexicon.entries(language))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing  toxic here .", "nothing toxic here ."),
        ("you stupid person", "you person"),
        ("you stupid, ugly person", "you person"),
        ("you stupid ugly person !", "you person !"),
        ("he is an idiot, really", "he is an, really"),
        ("go, idiot, home", "go, home"),
        ("well, idiot.", "well."),
        ("Idiot! Go home.", "Go home."),
        ('"Idiot, go home"', '"go home"'),
        ("(idiot) he said", "he said"),
        ('what an "idiot" he is', "what an he is"),
        ("that bitch's car", "that car"),
        ("l’idiot", ""),
        ("dumb-idiot people", "dumb people"),
        ("idiot-proof plan", "proof plan"),
        ("a foo-idiot-bar", "a foo-bar"),
        ("#idiot go", "go"),
        ("go f*ck yourself", "go yourself"),
        ("stupid idiot!!!", ""),
        ("so ugly .", "so ."),
        ("classy", "classy"),
    ],
)
def test_delete(text: str, expected: str) -> None:
    lexicon = Lexicon({"en": ["stupid", "ugly", "idiot", "bitch", "f*ck", "ass"]})
    assert lexicon.delete(text, "en") == expected


def test_delete_in_a_script_without_spaces() -> None:
    assert Lexicon({"zh": ["傻瓜"]}).delete("你是傻瓜吗，不傻瓜。", "zh") == "你是吗，不。"


@given(st.text("ab -,.!'\"(", max_size=30))
def test_deletion_leaves_no_entry_and_adds_nothing(text: str) -> None:
    left = Lexicon({"en": ["a", "bb"]}).delete(text, "en")
    assert left == " ".join(left.split())
    remaining = iter(text)
    assert all(char in remaining for char in left if char != " ")


def test_entries_are_folded_and_counted_once() -> None:
    lexicon = Lexicon({"en": ["Idiot", "idiot ", "ＩＤＩＯＴ", "two  words", ""], "ab": []})
    assert lexicon.entries("en") == frozenset({"idiot", "two words"})
    assert len(lexicon) == 2
    assert lexicon.languages == ("ab", "en")
    assert lexicon.spans("idiot", "ab") == []


def test_a_language_without_entries_is_an_error_not_an_empty_answer() -> None:
    lexicon = Lexicon({"en": ["idiot"]})
    for ask in (lexicon.spans, lexicon.delete):
        with pytest.raises(UserError, match="language 'de': this lexicon has entries for en only"):
            ask("Idiot", "de")
    with pytest.raises(UserError, match="language 'de'"):
        lexicon.entries("de")


def save(path: Path, entries: list[str]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": entries}), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"text": entry}) for entry in entries))
    else:
        header = [] if path.suffix == ".txt" else ["word"]
        path.write_text("\n".join([*header, *entries]), encoding="utf-8")


@pytest.mark.parametrize("suffix", [".txt", ".tsv", ".csv", ".jsonl", ".parquet"])
def test_load_a_folder_or_a_file(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"en{suffix}", ["idiot", "Piece of dirt", ""])
    save(tmp_path / f"de{suffix}", ["Trottel"])
    (tmp_path / "README.md").write_text("about")
    lexicon = Lexicon.load(tmp_path, ["en", "de"])
    assert lexicon.languages == ("de", "en")
    assert lexicon.entries("en") == frozenset({"idiot", "piece of dirt"})
    assert Lexicon.load(tmp_path, ["de"]).languages == ("de",)
    assert Lexicon.load(tmp_path / f"de{suffix}", ["de"]).entries("de") == frozenset({"trottel"})


def test_load_one_file_for_the_only_language_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "swearing.txt", ["idiot"])
    assert Lexicon.load(str(tmp_path / "swearing.txt"), ["es"]).entries("es") == {"idiot"}
    with pytest.raises(UserError, match="its language is not known"):
        Lexicon.load(tmp_path / "swearing.txt", ["es", "en"])


@pytest.mark.parametrize("column", ["language", "lang"])
def test_load_one_file_with_a_language_column(tmp_path: Path, column: str) -> None:
    rows = f"{column},entry\nen,idiot\nde,Trottel\nen,jerk\n"
    (tmp_path / "words.csv").write_text(rows)
    lexicon = Lexicon.load(tmp_path / "words.csv", ["en", "de"])
    assert lexicon.entries("en") == {"idiot", "jerk"}
    assert lexicon.entries("de") == {"trottel"}
    assert Lexicon.load(tmp_path / "words.csv", ["de"]).languages == ("de",)
    with pytest.raises(UserError, match=r"language 'fr': .* has no lexicon for it; valid: de, en"):
        Lexicon.load(tmp_path / "words.csv", ["fr"])


def test_two_files_of_one_language_are_joined(tmp_path: Path) -> None:
    save(tmp_path / "en.txt", ["idiot"])
    save(tmp_path / "more_en.csv", ["jerk"])
    assert Lexicon.load(tmp_path, ["en"]).entries("en") == {"idiot", "jerk"}


def test_a_missing_language_is_named_with_the_nearest(tmp_path: Path) -> None:
    save(tmp_path / "uk.txt", ["x"])
    save(tmp_path / "en.txt", ["x"])
    expected = r"language 'ukr': .* has no lexicon for it; did you mean 'uk'\?; .*ukr\.txt"
    with pytest.raises(UserError, match=expected):
        Lexicon.load(tmp_path, ["en", "ukr"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("en.txt", b"", "the file is empty"),
        ("en.txt", b"\xe9t\xe9\n", r"en\.txt:1: bytes that are not UTF-8"),
        ("en.txt", b"one\n\xe9t\xe9\n", r"en\.txt:2: not an entry \(no UTF-8 text\)"),
        ("en.csv", b"a,b\nx,y\n", "which column holds the entries.* 'a', 'b'; call it `text`"),
        ("en.csv", b"text\nx,y\n", r"en\.csv:2: not an entry \(2 fields, the header has 1\)"),
        ("en.jsonl", b'{"text": 3}', r"en\.jsonl:1: not an entry"),
        ("en.jsonl", b'{"text": " "}', "no entries"),
        ("en.doc", b"x", r"the ending '\.doc' is not known"),
        ("no/such.txt", None, "no such file"),
    ],
)
def test_lexicons_that_cannot_be_used(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        Lexicon.load(tmp_path / name, ["en"])
    assert "\n" not in str(error.value)


def test_a_folder_without_lexicons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder has no"):
        Lexicon.load(tmp_path, ["en"])


@pytest.fixture(scope="module")
def all_lexicons(shared_data: Path) -> Lexicon:
    return Lexicon.load(shared_data / "multilingual_toxic_lexicon", LANGUAGES)


def coverage(lexicon: Lexicon, texts: list[str], language: str) -> float:
    return sum(bool(lexicon.spans(text, language)) for text in texts) / len(texts)


@pytest.mark.parametrize("language", ["am", "ar", "de", "en", "es", "hi", "ru", "uk", "zh"])
def test_coverage_of_the_published_pairs(
    all_lexicons: Lexicon, shared_data: Path, language: str
) -> None:
    table = pq.read_table(shared_data / "multilingual_paradetox" / f"{language}.parquet")
    sources = coverage(all_lexicons, table["toxic_sentence"].to_pylist(), language)
    references = coverage(all_lexicons, table["neutral_sentence"].to_pylist(), language)
    if language in README_COVERAGE:
        assert (sources, references) == pytest.approx(README_COVERAGE[language], abs=0.02)
    elif language == "hi":
        # The README has .00/.00, as words that are cut at combining marks meet no entry.
        assert (sources, references) == pytest.approx((0.50, 0.00), abs=0.02)
    else:
        # The README has .05/.01 for whole words; by substring the lexicon's 78 entries of a single
        # character, such as 性, find a place in most sentences, neutral ones too.
        assert (sources, references) == pytest.approx((0.99, 0.71), abs=0.02)


def test_a_sentence_takes_far_less_than_a_millisecond(
    all_lexicons: Lexicon, shared_data: Path
) -> None:
    texts = [
        pair.source
        for pair in load_pairs(str(shared_data / "multilingual_paradetox"), languages=["ru"]).pairs
    ]
    start = time.process_time()
    for text in texts:
        all_lexicons.spans(text, "ru")
    assert (time.process_time() - start) / len(texts) < 0.001


def test_load_a_hub_data_set_whose_splits_are_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {
        language: datasets.Dataset.from_dict({"text": words})
        for language, words in (("en", ["idiot", "moron"]), ("es", ["tonto"]))
    }
    monkeypatch.setattr(datasets, "load_dataset", {"owner/words": splits}.__getitem__)
    assert len(Lexicon.load("owner/words", ["en", "es"])) == 3
    assert Lexicon.load("owner/words", ["es"]).languages == ("es",)
    with pytest.raises(UserError, match="'de': owner/words has no lexicon for it; valid: en, es"):
        Lexicon.load("owner/words", ["de"])
