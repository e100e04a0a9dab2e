"""The copy rule: each part by itself, and all of it against the rule written out slowly."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.collapse import common_subsequence, is_copy

LEXICON = Lexicon(
    {"en": ["idiot", "stupid", "crap", "damn", "piece of crap", "son of a gun"], "zh": ["笨蛋"]}
)
NOTHING = Lexicon({"en": [], "zh": []})


def pair(source: str, *references: str, language: str = "en") -> Pair:
    return Pair(source, references, language)


LONG = pair(
    "my neighbour is an idiot and he parks the damn car here every day",
    "my neighbour is not kind and he parks his car here every day",
)


@pytest.mark.parametrize("lexicon", [LEXICON, NOTHING])
@pytest.mark.parametrize(
    "output",
    [
        "My neighbour is an idiot, and he parks the damn car here every day!",
        "well, " + LONG.source,
        f"{LONG.source} {LONG.source}",
        LONG.source.replace("neighbour", "uncle"),
        LONG.source.replace("every", "evrey"),
        LONG.source.replace("idiot", "i***t").replace("damn", "d*mn"),
        LONG.source.replace("idiot", "i d i o t").replace("damn", "d a m n"),
        LONG.source.replace("idiot", "idioot").replace("damn", "damnnn"),
        "<extra_id_0> my neighbour is an idiot and he",
        "every day",
    ],
)
def test_what_is_a_copy_with_a_lexicon_and_without(output: str, lexicon: Lexicon) -> None:
    assert is_copy(output, LONG, lexicon)


@pytest.mark.parametrize("lexicon", [LEXICON, NOTHING])
@pytest.mark.parametrize(
    "output",
    [
        LONG.references[0],
        "my neighbour is and he parks the car here every day",
        "my neighbour is unkind and he parks the car here every day",
        "he parks his car here every day, and he is not nice",
        "my neighbour parks his car here",
    ],
)
def test_what_is_none_with_a_lexicon_and_without(output: str, lexicon: Lexicon) -> None:
    assert not is_copy(output, LONG, lexicon)


def test_an_echo_of_the_task_prefix_hides_no_copy() -> None:
    echoes = ["detoxify: ", "Detoxify:", "detoxify : detoxify: "]
    for echo in echoes:
        assert is_copy(
            echo + "you idiot", pair("you idiot", "you"), LEXICON, task_prefix="detoxify: "
        )
        assert not is_copy(
            echo + "you", pair("you idiot", "hey you"), LEXICON, task_prefix="detoxify: "
        )
    assert not is_copy(
        "today is bad", pair("day is bad crap", "day is"), LEXICON, task_prefix="to "
    )
    begins = pair("detoxify this crap", "detoxify this")
    assert is_copy("detoxify this crap", begins, LEXICON, task_prefix="detoxify: ")
    assert not is_copy("detoxify this!", begins, LEXICON, task_prefix="detoxify: ")


def test_a_word_that_the_source_masks_and_the_output_does_not_is_the_same_word() -> None:
    masked = pair("what the d**n is this thing", "what is this thing then")
    assert is_copy("what the damn is this thing", masked, LEXICON)
    assert not is_copy("what is this thing now", masked, LEXICON)


def test_a_whole_source_inside_an_output_needs_three_words() -> None:
    assert is_copy("a b c d e you are bad f g h", pair("you are bad", "x"), NOTHING)
    assert not is_copy("a b c d e you are f g h", pair("you are", "x"), NOTHING)


def test_rule_2_needs_80_percent_of_the_words_in_order() -> None:
    source = pair("one two three four idiot", "one two three four")
    assert is_copy("one two three six idiot", source, LEXICON)
    assert not is_copy("one two five six idiot", source, LEXICON)
    assert not is_copy("idiot four three two one", source, LEXICON)


def test_a_toxic_word_that_a_reference_keeps_is_not_edited() -> None:
    kept = pair("the damn cat ate this crap again", "the damn cat ate this again")
    assert not is_copy("the damn cat ate this today", kept, LEXICON)
    assert is_copy("the cat ate this crap today", kept, LEXICON)


def test_of_a_phrase_the_part_that_the_lexicon_knows_counts_or_all_of_it() -> None:
    known = pair("that is a piece of crap if you ask me", "that is bad if you ask me")
    assert is_copy("that is crap if you ask me", known, LEXICON)
    assert not is_copy("that is a piece of it if you ask me", known, LEXICON)
    unknown = pair("that is one son of a gun if you ask me", "that is one man if you ask me")
    assert is_copy(unknown.source.replace("one", "a"), unknown, LEXICON)
    assert not is_copy("that is one son of if you ask me", unknown, LEXICON)


def test_without_a_toxic_edited_word_90_percent_of_the_edits_must_be_missing() -> None:
    words = [f"w{n}" for n in range(10)]
    source = pair(" ".join([*words, "and", "more", "of", "it"]), "and more of it")
    assert is_copy(" ".join([*words[1:], "and", "more", "of", "it"]), source, LEXICON)
    assert not is_copy(" ".join([*words[2:], "and", "more", "of", "it"]), source, LEXICON)


def test_where_nothing_is_edited_only_equality_and_fragments_count() -> None:
    added = pair("come here now please", "come right here now please dear friend")
    assert not is_copy("come here please", added, LEXICON)
    assert is_copy("come here", added, LEXICON)  # half of what is kept is lost
    assert is_copy("Come here, now please.", added, LEXICON)


def test_a_sentinel_makes_a_truncated_copy_of_what_would_be_a_deletion() -> None:
    source = pair("please do look at this you idiot", "please do look at this")
    assert not is_copy("please do look at that", source, LEXICON)
    assert is_copy("<extra_id_0> please do look at that", source, LEXICON)


def test_in_chinese_a_word_is_a_character() -> None:
    source = pair("你真是一个笨蛋，快点回家吧。", "你真是的，快点回家吧。", language="zh")
    assert is_copy("你真是一个笨蛋快点回来吧", source, LEXICON)
    assert is_copy("你真是一个笨蛋快点回来吧", source, NOTHING)
    assert not is_copy("你真是快点回家吧", source, LEXICON)


def slow_is_copy(output: list[str], source: list[str], references: list[list[str]]) -> bool:
    """The rules for plain words that differ in more than a letter; 'idiot' and 'damn' are toxic."""

    def kept_places(words: list[str]) -> set[int]:
        @cache
        def best(i: int, j: int) -> tuple[int, ...]:
            if i == len(words) or j == len(source):
                return ()
            if words[i] == source[j]:
                return (j, *best(i + 1, j + 1))
            left, right = best(i + 1, j), best(i, j + 1)
            return left if len(left) >= len(right) else right

        return set(best(0, 0))

    if not output or output in references:
        return False
    if output == source:
        return True
    runs = [output[i : i + len(source)] for i in range(len(output))]
    if len(source) >= 3 and source in runs:
        return True
    by_reference = [kept_places(reference) for reference in references]
    edited = set(range(len(source))).difference(*by_reference)
    toxic = {place for place in edited if source[place] in ("idiot", "damn")}
    kept = kept_places(output)
    if len(kept) >= 0.8 * len(output) and (
        toxic & kept or (edited and not toxic and len(edited & kept) >= 0.9 * len(edited))
    ):
        return True
    always = set.intersection(*by_reference)
    lost = [
        len(always - set(range(i, i + len(output))))
        for i in range(len(source))
        if source[i : i + len(output)] == output
    ]
    return bool(always and lost) and min(lost) >= 0.5 * len(always)


PLAIN = st.sampled_from(["you", "are", "the", "big", "car", "idiot", "damn"])


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[str], list[str], list[list[str]]]:
    """Output, source and references; output and reference often are the source with edits."""

    def edited(most: int) -> list[str]:
        words = list(source)
        for _ in range(draw(st.integers(0, most))):
            place = draw(st.integers(0, len(words)))
            words[place : place + draw(st.integers(0, 4))] = draw(st.lists(PLAIN, max_size=2))
        return words or ["you"]

    source = draw(st.lists(PLAIN, min_size=1, max_size=16))
    output = edited(3)
    return output, source, [edited(2) for _ in range(draw(st.integers(1, 2)))]


@settings(max_examples=300, deadline=None)
@given(sentences())
def test_equals_the_rules_written_out(
    drawn: tuple[list[str], list[str], list[list[str]]],
) -> None:
    output, source, references = drawn
    subject = pair(" ".join(source), *(" ".join(words) for words in references))
    assert is_copy(" ".join(output), subject, LEXICON) == slow_is_copy(output, source, references)


@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
def test_common_subsequence(left: str, right: str) -> None:
    def subsequences(text: str) -> set[str]:
        found = {""}
        for character in text:
            found |= {head + character for head in found}
        return found

    places = common_subsequence(list(left), list(right))
    assert [left[i] for i, _ in places] == [right[j] for _, j in places]
    assert places == sorted(places)
    assert len(places) == max(map(len, subsequences(left) & subsequences(right)))
