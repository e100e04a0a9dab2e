import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.edits import edit_recall, toxic_retention

LEXICON = Lexicon({"en": ["idiot", "piece of crap"], "zh": ["笨蛋"], "ja": []})
NONE = Lexicon({"en": []})


def pair(source: str, *references: str, language: str = "en", **spans: object) -> Pair:
    return Pair(source, references, language, **spans)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("you are such a damn idiot", 0.0),
        ("YOU are <extra_id_0> such a damn, idiot!", 0.0),
        ("you are such an idiot", 0.5),  # `damn` gone, `idiot` not; `a` was no wanted edit
        ("you are such a mess", 1.0),
        ("", 1.0),
    ],
)
def test_edit_recall(output: str, expected: float) -> None:
    sample = pair("You are such a damn idiot", "you are such a poor fellow")
    assert edit_recall(output, sample) == expected


def test_edit_recall_takes_the_best_reference_that_dropped_a_word() -> None:
    sample = pair("what a damn stupid idea", "what an idea", "what a stupid idea")
    assert edit_recall("what a stupid idea", sample) == 1.0
    assert edit_recall("what a damn idea", sample) == pytest.approx(1 / 3)
    adds_only = pair("go away", "please go away", "go far away now")
    assert math.isnan(edit_recall("go", adds_only))
    assert edit_recall("go", pair("go away", "please go away", "go")) == 1.0


def test_edit_recall_counts_how_often_a_word_stands_there() -> None:
    sample = pair("no no no way", "no way")
    assert edit_recall("no no way", sample) == 0.5


def test_edit_recall_by_characters() -> None:
    sample = pair("你是笨蛋吗", "你是谁吗", language="zh")
    assert edit_recall("你是蛋吗", sample) == 0.5


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("this piece of crap is full of bugs, idiot", 1.0),
        ("This PIECE of\u200b cráp", 1 / 4),  # an accent makes another word; `of`: see below
        ("this is full of bugs", 0.0),  # the `of` that is left is the other one
        ("piece of piece of", 2 / 4),
        ("", 0.0),
    ],
)
def test_toxic_retention(output: str, expected: float) -> None:
    sample = pair("this piece of crap is full of bugs, idiot", "this has bugs")
    assert toxic_retention(output, sample, LEXICON) == expected


def test_toxic_retention_with_spans_and_with_neither() -> None:
    source = "you fullidiot there"
    sample = pair(source, "you there")
    assert math.isnan(toxic_retention(source, sample, NONE))
    marked = pair(source, "you there", spans=((8, 13),))
    assert toxic_retention("you there", marked, NONE) == 0.0
    assert toxic_retention("oh fullidiot", marked, NONE) == 1.0
    # a span and the lexicon find the same word: it counts once
    both = pair("an idiot and a fool", "a person", spans=((3, 8), (15, 19)))
    assert toxic_retention("an idiot", both, LEXICON) == 0.5


def test_toxic_retention_by_characters() -> None:
    sample = pair("你是笨蛋，吃蛋吧", "你吃吧", language="zh")
    assert toxic_retention("你是笨，吃蛋吧", sample, LEXICON) == 0.5
    assert toxic_retention("你吃蛋吧", sample, LEXICON) == 0.0


WORDS = st.lists(st.sampled_from(["you", "of", "idiot", "crap", "piece", "go"]), max_size=8)


@given(WORDS, WORDS, WORDS)
def test_a_copy_keeps_all_and_an_empty_output_drops_all(
    source: list[str], output: list[str], reference: list[str]
) -> None:
    sample = pair(" ".join(source), " ".join(reference))
    for measure in (
        lambda text: edit_recall(text, sample),
        lambda text: 1 - toxic_retention(text, sample, LEXICON),
    ):
        values = [measure(text) for text in (sample.source, " ".join(output), "")]
        defined = not any(map(math.isnan, values))
        assert defined or all(map(math.isnan, values))
        if defined:
            assert values[0] == 0.0
            assert 0.0 <= values[1] <= 1.0
            assert values[2] == 1.0
