"""Scores of outputs against slow formulas, their labels, and what copies are worth."""

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
from detox_tune.data.pairs import Pair, load_pairs
from detox_tune.errors import UserError
from detox_tune.evaluation.collapse import is_copy
from detox_tune.evaluation.edits import edit_recall, toxic_retention
from detox_tune.evaluation.scorers import load_scorers
from detox_tune.evaluation.scores import (
    SCORES,
    copy_outputs,
    delete_outputs,
    mean_scores,
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


class TableScorers:
    """Scorers whose values can be computed by hand, and what they were asked."""

    name = "table"

    def __init__(self, with_2025: bool = True) -> None:
        self.models: dict[str, str] = {}
        self.with_2025 = with_2025
        self.asked: list[str] = []

    def neutral(self, texts: Sequence[str], pairs: Sequence[Pair]) -> NDArray[np.float64]:
        assert len(texts) == len(pairs)
        self.asked += texts
        return np.array([1 / (1 + len(text)) for text in texts])

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        both = zip(texts, others, strict=True)
        return np.array([1 / (1 + abs(len(text) - len(other))) for text, other in both])

    def fluency_2025(
        self, sources: Sequence[str], texts: Sequence[str], references: Sequence[str]
    ) -> NDArray[np.float64] | None:
        lengths = zip(map(len, sources), map(len, texts), map(len, references), strict=True)
        values = np.array([(a + 2 * b + 3 * c) / 1000 for a, b, c in lengths])
        return values if self.with_2025 else None


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


def slow_2025(output: str, pair: Pair, reference: str) -> float:
    """The definition of PAN 2025 with ifs, on the table's values."""
    table = TableScorers()
    p_in, p_out, p_ref = table.neutral([pair.source, output, reference], [pair] * 3)
    sta = p_out / 2
    if p_in <= p_out:
        sta = (p_out + 1) / 2
    if p_ref <= p_out:
        sta = 1.0
    sim_in, sim_ref = table.similarity([output] * 2, [pair.source, reference])
    fluency = table.fluency_2025([pair.source], [output], [reference])
    assert fluency is not None
    return float(sta * (0.4 * sim_in + 0.6 * sim_ref) * fluency[0])


def test_every_score_of_every_output() -> None:
    outputs = ["you are wrong", "<extra_id_0>", "", "<extra_id_0> A line!</s>"]
    texts = ["you are wrong", "", "", "A line!"]
    scorers = TableScorers()
    frame = score_outputs(outputs, PAIRS, lexicon=LEXICON, scorers=scorers)
    assert list(frame.columns) == [*SCORES, "label"]
    assert list(frame["label"]) == ["rewritten", "sentinel", "empty", "rewritten"]
    assert (frame.loc[[1, 2], ["sta", "sim", "fl", "j", "j_2025"]] == 0).all(axis=None)
    assert not any("<" in text for text in scorers.asked)
    for place in (0, 3):
        pair, text, row = PAIRS[place], texts[place], frame.loc[place]
        assert row["sta"] == 1 / (1 + len(text))
        assert row["sim"] == 1 / (1 + abs(len(text) - len(pair.source)))
        assert row["fl"] == max(sentence_chrf([text], [[other]])[0] for other in pair.references)
        assert row["j"] == pytest.approx(row["sta"] * row["sim"] * row["fl"])
        expected = max(slow_2025(text, pair, reference) for reference in pair.references)
        assert row["j_2025"] == pytest.approx(expected)
    for place, (output, pair) in enumerate(zip(outputs, PAIRS, strict=True)):
        found = frame.loc[place, ["edit_recall", "toxic_retention"]].to_list()
        expected_edits = [edit_recall(output, pair), toxic_retention(output, pair, LEXICON)]
        assert found == pytest.approx(expected_edits, nan_ok=True)


def test_a_set_without_a_model_for_2025_gives_nan() -> None:
    frame = score_outputs(
        ["you are wrong"], PAIRS[:1], lexicon=LEXICON, scorers=TableScorers(with_2025=False)
    )
    assert frame["j_2025"].isna().all()
    assert "j_2025" not in mean_scores(frame)
    assert frame[["j", "sta", "sim", "fl"]].notna().all(axis=None)


def test_sta_reads_disguised_words_written_out_and_the_other_scores_do_not() -> None:
    scorers = TableScorers()
    outputs = ["you are an id*ot today", "what a s t u p i d idea", PAIRS[2].source, "a line"]
    scored = score_outputs(outputs, PAIRS, lexicon=LEXICON, scorers=scorers)
    plain = ["you are an idiot today", "what a stupid idea", PAIRS[2].source, "a line"]
    assert scored["sta"].tolist() == [1 / (1 + len(text)) for text in plain]
    assert scored["sim"][1] == 1 / (1 + len(outputs[1]) - len(PAIRS[1].source))
    assert scored["label"].tolist() == ["copied"] * 3 + ["rewritten"]


def test_means_leave_out_what_is_not_defined() -> None:
    outputs = ["You are an idiot, today!", "<extra_id_0> a stupid idea", "", "a harmless line"]
    frame = score_outputs(outputs, PAIRS, lexicon=LEXICON, scorers=TableScorers())
    assert list(frame["label"]) == ["copied", "copied", "empty", "rewritten"]
    assert frame["exact_copy_rate"].tolist() == [1, 0, 0, 1]
    means = mean_scores(frame)
    assert set(means) == {*SCORES, "n"}
    assert (means["copy_rate"], means["exact_copy_rate"], means["n"]) == (0.5, 0.5, 4)
    assert frame["toxic_retention"].isna().tolist() == [False, False, False, True]
    assert means["toxic_retention"] == pytest.approx(np.nanmean(frame["toxic_retention"]))
    assert all(type(key) is str and type(value) is float for key, value in means.items())


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
    frame = score_outputs(outputs, pairs, lexicon=LEXICON, scorers=TableScorers())
    labels = ["rewritten", "copy_rate", "sentinel", "empty", "repeated"]
    assert (frame[labels].sum(axis=1) == 1).all()
    copies = [is_copy(output, pair, LEXICON) for pair, output in samples]
    assert frame["copy_rate"].tolist() == copies
    values = frame[list(SCORES)].to_numpy()
    assert (np.isnan(values) | ((values >= 0) & (values <= 1))).all()


def test_wrong_inputs() -> None:
    scorers = TableScorers()
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
        "eres",
        "a harmless line",
    ]


# --- on real pairs ---------------------------------------------------------------------------


def test_copies_are_worth_next_to_nothing_on_real_pairs(shared_data: Path) -> None:
    pairs = list(load_pairs(str(shared_data / "paradetox_en.tsv")).pairs)
    random.Random(0).shuffle(pairs)
    lexicon = Lexicon.load(shared_data / "multilingual_toxic_lexicon" / "en.parquet", ["en"])
    fitted, held_out = pairs[:1500], pairs[1500:1800]
    scorers = load_scorers("embedded", fitted, lexicon, seed=0, device="cpu")

    def summary(outputs: list[str]) -> dict[str, float]:
        return mean_scores(score_outputs(outputs, held_out, lexicon=lexicon, scorers=scorers))

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
