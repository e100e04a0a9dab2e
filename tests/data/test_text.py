"""Folding, words with offsets, and sentence keys."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detox_tune.data.text import (
    UNSEGMENTED,
    fold,
    fold_spaces,
    merge_spans,
    sentence_key,
    words,
)


def found(text: str, language: str = "en") -> list[str]:
    return [text[word.start : word.end] for word in words(text, language)]


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("ＦＵＣＫ", "fuck"),
        ("Straße", "strasse"),
        ("don’t", "don't"),
        ("п`ять пʼять п´ять", "п'ять п'ять п'ять"),
        ("e\u0301", "é"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.text())
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(st.characters(categories=["Lu", "Ll", "Nd", "Zs"])))
def test_fold_agrees_with_the_standard_library_on_plain_text(text: str) -> None:
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    assert fold(text).replace("'", "") == plain.replace("'", "").replace("\u02bc", "")


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "I don't know, he 's well-known.", "I don't know he s well known"),
        ("en", "'quoted' words’ end", "quoted words end"),
        ("en", "f*ck you, a$$hole! sh1t b*** sh%t", "f*ck you a$$hole sh1t b*** sh%t"),
        ("en", "stop!now **bold** 5*3 $5 @user", "stop now bold 5 3 5 user"),
        ("it", "l’idiota dell'anno", "l’idiota dell'anno"),
        ("uk", "п’ять пʼять п'ять", "п’ять пʼять п'ять"),
        ("hi", "यह गाँड हिन्दी है।", "यह गाँड हिन्दी है"),
        ("am", "ሰላም፡ደደብ።", "ሰላም ደደብ"),
        ("ar", "أنت غَبِيّ، نعم؟", "أنت غَبِيّ نعم"),
        ("he", 'צה"ל ג\'ורה "שלום"', "צה\"ל ג'ורה שלום"),
        ("en", "naive\u0308 zero\u200bwidth", "naive\u0308 zero\u200bwidth"),
        ("en", "s_o_b #hash_tag", "s o b hash tag"),
        ("en", "... 🖕 !", ""),
    ],
)
def test_words_of_segmented_scripts(language: str, text: str, expected: str) -> None:
    assert " ".join(found(text, language)) == expected


@pytest.mark.parametrize("language", [*sorted(UNSEGMENTED), "zh-CN", "ja_JP"])
def test_unsegmented_scripts_give_characters_but_latin_runs_stay_whole(language: str) -> None:
    text = "你f**k，カﾊﾞー 12条house โง่ๆ។"
    expected = [*"你", "f**k", "カ", "ﾊﾞ", "ー", "12", "条", "house", "โ", "ง่", "ๆ"]
    assert found(text, language) == expected


@given(st.text(), st.sampled_from(["en", "zh", "he"]))
def test_offsets_refer_to_the_original_text(text: str, language: str) -> None:
    end = 0
    for word in words(text, language):
        assert end <= word.start < word.end <= len(text)
        assert word.folded == fold(text[word.start : word.end])
        end = word.end


@given(st.text(), st.sampled_from(["en", "zh"]))
def test_every_letter_and_digit_lies_in_a_word(text: str, language: str) -> None:
    covered = {place for word in words(text, language) for place in range(word.start, word.end)}
    for place, char in enumerate(text):
        if unicodedata.category(char)[0] in "LN" and char != "\u02bc":
            assert place in covered


def test_offsets_where_folding_changes_the_length() -> None:
    text = "Straße ﬁn Idiot"
    assert [(w.start, w.end, w.folded) for w in words(text, "de")] == [
        (0, 6, "strasse"),
        (7, 9, "fin"),
        (10, 15, "idiot"),
    ]


def test_fold_spaces() -> None:
    assert fold_spaces("  two\u00a0 words\r\nand\ta third ") == "two words and a third"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("You 're DUMB .", "you're dumb!"),
        ("a  b\tc", "abc"),
        ("'Kampf gg #Trump'", '"Kampf gg Trump"'),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_spellings_of_one_sentence_have_one_key(one: str, other: str) -> None:
    assert sentence_key(one) == sentence_key(other)


def test_different_sentences_have_different_keys() -> None:
    keys = {sentence_key(text) for text in ("you are dumb", "you are dump", "🖕", "🖕🖕", "!")}
    assert len(keys) == 5


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=8))
def test_merged_spans_cover_the_same_places(lengths: list[tuple[int, int]]) -> None:
    spans = [(start, start + length) for start, length in lengths]
    merged = merge_spans(spans)
    assert {i for s, e in merged for i in range(s, e)} == {i for s, e in spans for i in range(s, e)}
    assert all(one[1] <= other[0] for one, other in pairwise(merged))
