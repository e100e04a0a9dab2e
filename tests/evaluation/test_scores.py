import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sacrebleu.metrics.chrf import CHRF

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import NeutralityClassifier
from detox_tune.evaluation.collapse import is_copy
from detox_tune.evaluation.scores import (
    EmbeddedScorers,
    copy_outputs,
    delete_outputs,
    score_outputs,
    sentence_chrf,
)

LEXICON = Lexicon({"en": ["idiot", "stupid"], "es": ["idiota"]})
PAIRS = [
    Pair("you are an idiot today", ("you are not clever today", "you are wrong today"), "en"),
    Pair("what a stupid idea", ("what a poor idea",), "en"),
    Pair("eres un idiota", ("te equivocas",), "es"),
    Pair("a harmless line", ("a harmless line", "a line"), "en"),
]


class FixedScorers:
    """Scorers with given values that note down what they were asked."""

    name = "fixed"

    def __init__(self) -> None:
        self.asked: dict[str, object] = {}

    def sta(self, outputs: Sequence[str]) -> NDArray[np.float64]:
        self.asked["sta"] = list(outputs)
        return np.linspace(0.5, 1.0, len(outputs))

    def sim(self, outputs: Sequence[str], sources: Sequence[str]) -> NDArray[np.float64]:
        self.asked["sim"] = (list(outputs), list(sources))
        return np.linspace(0.9, 0.2, len(outputs))

    def fl(
        self, outputs: Sequence[str], references: Sequence[Sequence[str]]
    ) -> NDArray[np.float64]:
        self.asked["fl"] = (list(outputs), list(references))
        return np.linspace(0.3, 0.8, len(outputs))


# --- chrF ------------------------------------------------------------------------------------


def slow_chrf(hypothesis: str, reference: str) -> float:
    """chrF written out (Popović 2015): precision and recall averaged over the orders 1 to 6."""
    hypothesis, reference = ("".join(text.split()) for text in (hypothesis, reference))
    precisions, recalls = [], []
    for order in range(1, 7):
        ours, theirs = (
            Counter(text[i : i + order] for i in range(len(text) - order + 1))
            for text in (hypothesis, reference)
        )
        if ours and theirs:
            matches = sum(min(count, theirs[ngram]) for ngram, count in ours.items())
            precisions.append(matches / sum(ours.values()))
            recalls.append(matches / sum(theirs.values()))
    if not precisions:
        return 0.0
    precision, recall = np.mean(precisions), np.mean(recalls)
    if precision + recall == 0:
        return 0.0
    return float(5 * precision * recall / (4 * precision + recall))


TEXTS = st.text("abc é你 ", max_size=15)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), max_size=4))
def test_sentence_chrf_is_the_best_of_the_references(
    samples: list[tuple[str, list[str]]],
) -> None:
    found = sentence_chrf([sample[0] for sample in samples], [sample[1] for sample in samples])
    expected = [max(slow_chrf(text, other) for other in others) for text, others in samples]
    assert found.shape == (len(samples),)
    assert found == pytest.approx(expected)
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("text", ["a", " ", "", "\u3000", "two words", "笨蛋 !"])
def test_sentence_chrf_of_equal_texts_is_what_sacrebleu_says(text: str) -> None:
    assert sentence_chrf([text], [["b", text]])[0] == (
        CHRF().sentence_score(text, ["b", text]).score / 100
    )


def test_sentence_chrf_of_equal_and_of_empty_texts() -> None:
    found = sentence_chrf(["the same text", "", "x"], [["the same text"], ["a"], ["other"]])
    assert found.tolist() == [1.0, 0.0, 0.0]


# --- score_outputs ---------------------------------------------------------------------------


def test_j_is_the_product_and_nothing_said_scores_nothing() -> None:
    outputs = ["you are wrong", "<extra_id_0>", "", "<extra_id_0> A line!</s>"]
    scorers = FixedScorers()
    result = score_outputs(outputs, PAIRS, lexicon=LEXICON, scorers=scorers)
    assert result.scorers == "fixed"
    assert result.labels == ("rewritten", "sentinel", "empty", "rewritten")
    for scores in (result.sta, result.sim, result.fl, result.j):
        assert scores.shape == (4,)
        assert scores[1:3].tolist() == [0, 0]
    assert result.sta[[0, 3]] == pytest.approx([0.5, 1.0])
    assert result.j == pytest.approx([0.5 * 0.9 * 0.3, 0, 0, 1.0 * 0.2 * 0.8])
    # what the scorers saw: no sentinels, everything else as it was
    texts = ["you are wrong", "", "", "A line!"]
    assert scorers.asked["sta"] == texts
    assert scorers.asked["sim"] == (texts, [pair.source for pair in PAIRS])
    assert scorers.asked["fl"] == (texts, [pair.references for pair in PAIRS])


def test_summary() -> None:
    outputs = ["You are an idiot, today!", "<extra_id_0> a stupid idea", "", "a harmless line"]
    result = score_outputs(outputs, PAIRS, lexicon=LEXICON, scorers=FixedScorers())
    assert result.labels == ("copied", "copied", "empty", "rewritten")
    assert result.exact_copies.tolist() == [True, False, False, True]
    summary = result.summary()
    assert summary == {
        "j": result.j.mean(),
        "sta": result.sta.mean(),
        "sim": result.sim.mean(),
        "fl": result.fl.mean(),
        "copy_rate": 0.5,
        "exact_copy_rate": 0.5,
        "rewritten": 0.25,
        "copied": 0.5,
        "sentinel": 0.0,
        "empty": 0.25,
        "repeated": 0.0,
        "n": 4.0,
    }
    assert all(type(key) is str and type(value) is float for key, value in summary.items())


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PAIRS),
            st.sampled_from(
                ["", "<extra_id_0>", "idiot", "you are an idiot", "no " * 9, "fine", "a", "a line"]
            ),
        ),
        min_size=1,
    )
)
def test_shares_add_up_and_the_copy_rate_is_the_share_of_copies(
    samples: list[tuple[Pair, str]],
) -> None:
    pairs, outputs = [pair for pair, _ in samples], [output for _, output in samples]
    summary = score_outputs(outputs, pairs, lexicon=LEXICON, scorers=FixedScorers()).summary()
    labels = ("rewritten", "copied", "sentinel", "empty", "repeated")
    assert sum(summary[label] for label in labels) == pytest.approx(1)
    copies = np.mean([is_copy(output, pair, LEXICON) for pair, output in samples])
    assert summary["copy_rate"] == summary["copied"] == pytest.approx(copies)


def test_wrong_inputs() -> None:
    scorers = FixedScorers()
    with pytest.raises(UserError, match=r"^1 outputs for 4 pairs: there must be one for each"):
        score_outputs(["x"], PAIRS, lexicon=LEXICON, scorers=scorers)
    with pytest.raises(UserError, match=r"^0 outputs for 0 pairs: .*at least one"):
        score_outputs([], [], lexicon=LEXICON, scorers=scorers)
    # the outputs alone would never make the lexicon be asked
    with pytest.raises(UserError, match="language 'es'"):
        score_outputs(["x"] * 4, PAIRS, lexicon=Lexicon({"en": ["idiot"]}), scorers=scorers)


def test_baselines() -> None:
    assert copy_outputs(PAIRS) == [pair.source for pair in PAIRS]
    assert delete_outputs(PAIRS, LEXICON) == [
        "you are an today",
        "what a idea",
        "eres un",
        "a harmless line",
    ]


# --- on real pairs ---------------------------------------------------------------------------


def test_copies_are_worth_next_to_nothing_on_real_pairs(shared_data: Path) -> None:
    lines = (shared_data / "paradetox_en.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in random.Random(0).sample(lines, 2500)]
    pairs = [
        Pair(source, tuple(references), "en")
        for source, *columns in rows
        if (references := [text for text in columns if text and text != source])
    ]
    lexicon = Lexicon.load(shared_data / "multilingual_toxic_lexicon" / "en.parquet", ["en"])
    fitted, held_out = pairs[:2000], pairs[2000:]
    scorers = EmbeddedScorers(
        NeutralityClassifier.fit(
            [pair.source for pair in fitted],
            [reference for pair in fitted for reference in pair.references],
            seed=0,
        )
    )

    def summary(outputs: list[str]) -> dict[str, float]:
        return score_outputs(outputs, held_out, lexicon=lexicon, scorers=scorers).summary()

    copied = summary(copy_outputs(held_out))
    assert copied["j"] < 0.15
    assert copied["copy_rate"] > 0.98
    assert copied["sim"] == 1.0
    # A sentinel and all but the last words: equality finds few of them.
    hidden = summary([f"<extra_id_0> {pair.source.rsplit(' ', 3)[0]}" for pair in held_out])
    assert hidden["exact_copy_rate"] < 0.2
    assert hidden["copy_rate"] > 0.6
    deleted = summary(delete_outputs(held_out, lexicon))
    human = summary([pair.references[0] for pair in held_out])
    assert copied["j"] + 0.2 < deleted["j"] < human["j"]
    assert human["copy_rate"] == 0.0
