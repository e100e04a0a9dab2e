"""Embedded scorers for an evaluation: nothing is scored by a classifier that has seen it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair, load_pairs
from detox_tune.data.text import sentence_key
from detox_tune.data.toxicity import ToxicityData
from detox_tune.errors import UserError
from detox_tune.evaluation import cross_fitting, scorers
from detox_tune.evaluation.comparison import score_baselines
from detox_tune.evaluation.cross_fitting import (
    FEW_FOLDS,
    FOLDS,
    MIN_PAIRS,
    FittedScorers,
    calibration_error,
    cross_fitted,
    enough_to_cross_fit,
    fitted_on_pairs,
    fitted_on_texts,
)
from detox_tune.evaluation.toxicity_classifier import MOST_PAIRS

PAIRS = [*embedded_pairs()[:60], *embedded_pairs()[-60:]]
LEXICON = embedded_lexicon()


def keys(pairs: Sequence[Pair]) -> set[str]:
    return {sentence_key(text) for pair in pairs for text in (pair.source, *pair.references)}


@pytest.fixture(scope="module")
def fitted() -> FittedScorers:
    return cross_fitted(PAIRS, lexicon=LEXICON, seed=0)


class Recorder:
    """Stands for a classifier and remembers what it was fitted on."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.seen = keys(pairs)
        self.count = len(pairs)

    def neutral_probability(self, texts: Sequence[str]) -> Any:
        assert not self.seen & set(map(sentence_key, texts)), "a text that it was fitted on"
        return np.full(len(texts), 0.5)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    made: list[Recorder] = []

    def fit(pairs: Sequence[Pair], **_: Any) -> Recorder:
        made.append(Recorder(pairs))
        return made[-1]

    monkeypatch.setattr(cross_fitting, "fit_pairs", fit)
    monkeypatch.setattr(scorers, "fit_pairs", fit)
    return made


def test_no_text_is_scored_by_a_classifier_that_has_seen_it(recorders: list[Recorder]) -> None:
    # The first two share a reference; spelt another way it is still the same text.
    shared = Pair(PAIRS[1].source, (PAIRS[0].references[0].upper(),), "en")
    pairs = [PAIRS[0], shared, *PAIRS[2:]]
    found = cross_fitted(pairs, lexicon=LEXICON, seed=0)
    assert len(recorders) == 2 * FOLDS
    for text in ("source", "reference"):  # the recorders look at what they are given
        texts = [pair.source if text == "source" else pair.references[0] for pair in pairs]
        assert found.scorers.neutral(texts, pairs).tolist() == [0.5] * len(pairs)


def test_a_large_language_has_fewer_folds(recorders: list[Recorder]) -> None:
    pairs = [Pair(f"bad {n}", (f"good {n}",), "en") for n in range(2 * MOST_PAIRS)]
    cross_fitted(pairs, lexicon=LEXICON, seed=0)
    assert [one.count for one in recorders] == [len(pairs) - len(pairs) // FEW_FOLDS] * FEW_FOLDS


def test_cross_fitting_is_repeatable_and_tells_toxic_from_neutral(fitted: FittedScorers) -> None:
    again = cross_fitted(PAIRS, lexicon=LEXICON, seed=0)
    assert fitted.held_out == again.held_out
    assert [row["language"] for row in fitted.held_out] == ["en", "es"]
    for row in fitted.held_out:
        assert row["auc"] > 0.85
        assert row["log_loss"] < 0.5  # always saying one half has .69
        of_language = [pair for pair in PAIRS if pair.language == row["language"]]
        assert row["n"] == sum(1 + len(pair.references) for pair in of_language)
    assert fitted.fitted_on == "fitted on the other folds of the references, the lexicon"


def test_what_is_held_out_does_not_look_better_than_it_is() -> None:
    # Sources and references drawn by lot from the same words: nothing can be learned.
    generator = np.random.default_rng(0)
    drawn = [" ".join(generator.choice(list("abcdefgh"), 6)) for _ in range(200)]
    pairs = [Pair(s, (r,), "en") for s, r in zip(drawn[::2], drawn[1::2], strict=True)]
    [row] = cross_fitted(pairs, lexicon=Lexicon({"en": ()}), seed=0).held_out
    assert 0.3 < row["auc"] < 0.7
    assert row["log_loss"] > 0.6


def test_too_few_references(recorders: list[Recorder]) -> None:
    few = [*PAIRS[: MIN_PAIRS - 1], *PAIRS[-MIN_PAIRS:]]
    assert not enough_to_cross_fit(few)
    with pytest.raises(
        UserError, match=r"^19 references in language 'en': .* at least 20; give --t"
    ):
        cross_fitted(few, lexicon=LEXICON, seed=0)
    assert enough_to_cross_fit(PAIRS[:MIN_PAIRS])


def test_training_pairs_that_are_scored_are_left_out(recorders: list[Recorder]) -> None:
    shouted = Pair(f"{PAIRS[0].source.upper()} !", ("fine",), "en")
    found = fitted_on_pairs([*PAIRS[1:40], shouted], PAIRS[:5], lexicon=LEXICON, seed=0)
    assert found.fitted_on == "fitted on 35 pairs; 5 left out, as they are scored here"
    assert not recorders[0].seen & {sentence_key(pair.source) for pair in PAIRS[:5]}
    with pytest.raises(UserError, match="--train-pairs has no pairs in es"):
        fitted_on_pairs(PAIRS[:40], PAIRS[-3:], lexicon=LEXICON, seed=0)


def test_labelled_texts_that_are_scored_are_left_out() -> None:
    rows = [(pair.source, True) for pair in PAIRS[:60]]
    rows += [(text, False) for pair in PAIRS[:60] for text in pair.references]
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    data = ToxicityData(texts, labels, ["en"] * len(rows), (), len(rows))
    scored = PAIRS[:4]
    found = fitted_on_texts(data, scored, lexicon=LEXICON, seed=0)
    kept = sum(sentence_key(text) not in keys(scored) for text in texts)
    assert found.fitted_on.startswith(f"fitted on {kept} labelled texts; {len(rows) - kept} left")
    assert [row["language"] for row in found.held_out] == ["en"]
    assert found.scorers.neutral(["what a fine day"], scored[:1]).shape == (1,)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=30))
def test_calibration_error_equals_a_slow_loop(samples: list[tuple[bool, float]]) -> None:
    expected = 0.0
    for place in range(10):
        inside = [
            (label, p)
            for label, p in samples
            if p * 10 >= place and (p * 10 < place + 1 or place == 9)
        ]
        if inside:
            mean_p = sum(p for _, p in inside) / len(inside)
            share = sum(label for label, _ in inside) / len(inside)
            expected += len(inside) / len(samples) * abs(mean_p - share)
    labels, probabilities = [label for label, _ in samples], [p for _, p in samples]
    assert calibration_error(labels, np.array(probabilities)) == pytest.approx(expected, abs=1e-9)


def test_on_real_pairs_copies_score_near_zero_and_the_reference_highest(shared_data: Path) -> None:
    folder = shared_data / "multilingual_paradetox"
    pairs = load_pairs(str(folder), languages=["en"], allow_bad_rows=True).pairs
    lexicon = Lexicon.load(shared_data / "multilingual_toxic_lexicon", ["en"])
    found = cross_fitted(pairs, lexicon=lexicon, seed=0)
    [row] = found.held_out
    assert row["auc"] > 0.95
    assert row["ece"] < 0.08
    scored = score_baselines(pairs, lexicon=lexicon, scorers=found.scorers)
    j = {name: frame["j"].mean() for name, frame in scored.items()}
    assert j["duplicate"] < 0.12 < j["delete"] < j["reference"]
