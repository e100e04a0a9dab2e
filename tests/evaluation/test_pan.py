"""PAN's joint scores: against the formulas written out, ties, bounds, several references."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import NeutralityClassifier
from detox_tune.evaluation.pan import (
    EmbeddedPanScorers,
    OncePerItem,
    PanScorers,
    joint_2024,
    joint_2025,
    pan_scores,
)
from detox_tune.evaluation.scores import EmbeddedScorers, score_outputs, sentence_chrf

SOURCES = ["you are an idiot today", "what a stupid idea", "get lost, moron"]
REFERENCES = [
    ("you are not clever today", "you are wrong today"),
    ("what a poor idea",),
    ("please go away", "go away now", "leave, please"),
]
OUTPUTS = ["you are wrong today", "what a stupid idea", "leave"]

unit = st.floats(0, 1)
six = st.tuples(unit, unit, unit, unit, unit, unit)


def slow_2025(
    p_in: float, p_out: float, p_ref: float, sim_in: float, sim_ref: float, fl: float
) -> float:
    """The definition with ifs."""
    against_source = p_out / 2
    if p_in <= p_out:
        against_source = (p_out + 1) / 2
    sta = against_source
    if p_ref <= p_out:
        sta = 1.0
    return sta * (0.4 * sim_in + 0.6 * sim_ref) * fl


def columns(rows: Sequence[tuple[float, ...]]) -> list[NDArray[np.float64]]:
    return [np.array(column) for column in zip(*rows, strict=True)]


class TableScorers:
    """Scorers that look their values up."""

    name = "table"

    def __init__(self, p: dict[str, float]) -> None:
        self.p = p
        self.models: dict[str, str] = {}

    def neutral(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.p[text] / 2 for text in texts])  # unlike the classifier of 2025

    def neutral_2025(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.p[text] for text in texts])

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        return np.array(
            [1 / (1 + abs(len(a) - len(b))) for a, b in zip(texts, others, strict=True)]
        )

    def fluency_2024(
        self, outputs: Sequence[str], references: Sequence[Sequence[str]]
    ) -> NDArray[np.float64]:
        return sentence_chrf(outputs, references)

    def fluency_2025(
        self, sources: Sequence[str], outputs: Sequence[str], references: Sequence[str]
    ) -> NDArray[np.float64]:
        lengths = [
            len(source) + 2 * len(output) + 3 * len(reference)
            for source, output, reference in zip(sources, outputs, references, strict=True)
        ]
        return np.array(lengths) / 1000


@pytest.fixture(scope="module")
def classifier() -> NeutralityClassifier:
    toxic = [f"{word} {end}" for word in ("you idiot", "stupid", "a moron") for end in range(5)]
    neutral = [f"{word} {end}" for word in ("you", "a poor idea", "wrong") for end in range(5)]
    return NeutralityClassifier.fit(toxic, neutral, seed=0)


# --- the formulas -----------------------------------------------------------------------------


def test_2024_is_the_product_sample_by_sample() -> None:
    joint = joint_2024(np.array([1.0, 0.5]), np.array([0.8, 0.9]), np.array([0.5, 1.0]))
    np.testing.assert_allclose(joint, [0.4, 0.45])
    assert joint.mean() != pytest.approx(0.75 * 0.85 * 0.75)  # not the product of the means


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # p_in, p_out, p_ref, sim_in, sim_ref, fl
        ((0.1, 0.6, 0.9, 0.8, 0.9, 0.7), 0.8 * 0.86 * 0.7),  # better than the source: (.6 + 1) / 2
        ((0.7, 0.6, 0.9, 0.8, 0.9, 0.7), 0.3 * 0.86 * 0.7),  # worse than the source: .6 / 2
        ((0.1, 0.6, 0.5, 0.8, 0.9, 0.7), 1.0 * 0.86 * 0.7),  # as neutral as the reference
        ((0.7, 0.6, 0.5, 0.8, 0.9, 0.7), 1.0 * 0.86 * 0.7),  # the same, worse than the source
        ((0.1, 0.1, 0.9, 1.0, 0.8, 0.9), 0.55 * 0.88 * 0.9),  # a copy: its tie counts
        ((0.1, 0.9, 0.9, 0.8, 1.0, 1.0), 1.0 * 0.92),  # the reference: its tie counts
        ((0.1, 0.6, 0.9, 1.0, 0.0, 1.0), 0.8 * 0.4),  # the weights of the similarities
        ((0.1, 0.6, 0.9, 0.0, 1.0, 1.0), 0.8 * 0.6),
        ((0.1, 0.6, 0.9, -0.1, 0.0, 1.0), 0.8 * -0.04),  # a negative cosine is not clipped
    ],
)
def test_2025_by_hand(values: tuple[float, ...], expected: float) -> None:
    joint = joint_2025(*columns([values]))
    assert joint.shape == (1,)
    assert joint[0] == pytest.approx(expected, abs=1e-12)


@given(st.lists(six, min_size=1, max_size=20))
def test_2025_equals_the_definition_with_ifs(rows: list[tuple[float, ...]]) -> None:
    expected = [slow_2025(*row) for row in rows]
    np.testing.assert_allclose(joint_2025(*columns(rows)), expected, atol=1e-12)


@given(six)
def test_joint_scores_of_values_in_the_unit_interval_lie_there(row: tuple[float, ...]) -> None:
    a, b, c, d, e, f = columns([row])
    assert 0 <= joint_2024(a, d, f)[0] <= 1
    assert 0 <= joint_2025(a, b, c, d, e, f)[0] <= 1 + 1e-12


@given(six)
def test_2024_does_not_depend_on_the_order_of_its_factors(row: tuple[float, ...]) -> None:
    a, b, c = columns([row[:3]])
    assert joint_2024(a, b, c)[0] == pytest.approx(joint_2024(c, a, b)[0], abs=1e-12)


@given(six)
def test_2025_is_symmetric_in_the_similarities_when_they_are_equal(row: tuple[float, ...]) -> None:
    p_in, p_out, p_ref, sim, _, fl = columns([row])
    same = joint_2025(p_in, p_out, p_ref, sim, sim, fl)
    sta = joint_2025(p_in, p_out, p_ref, np.ones(1), np.ones(1), np.ones(1))
    assert same[0] == pytest.approx((sta * sim * fl)[0], abs=1e-12)


@given(six, unit)
def test_2025_never_falls_when_the_output_gets_more_neutral(
    row: tuple[float, ...], other: float
) -> None:
    p_in, p_out, *rest = row
    low, high = sorted([p_out, other])
    values = joint_2025(*columns([(p_in, low, *rest), (p_in, high, *rest)]))
    assert values[0] <= values[1] + 1e-12


@given(unit, unit, unit, unit)
def test_a_copy_scores_by_the_tie(p: float, p_ref: float, sim_ref: float, fl: float) -> None:
    joint = joint_2025(*columns([(p, p, p_ref, 1.0, sim_ref, fl)]))[0]
    sta = 1.0 if p_ref <= p else (p + 1) / 2
    assert joint == pytest.approx(sta * (0.4 + 0.6 * sim_ref) * fl, abs=1e-12)


def test_comparisons_are_exact_without_a_tolerance() -> None:
    p_in, below = 0.3, np.nextafter(0.3, 0)
    tie, just_less = joint_2025(*columns([(p_in, p_in, 0.9, 1, 1, 1), (p_in, below, 0.9, 1, 1, 1)]))
    assert tie == pytest.approx(0.65)
    assert just_less == pytest.approx(0.15)


def test_float32_values_keep_their_ties() -> None:
    p, p_reference, one = (np.array([value], dtype=np.float32) for value in (0.1, 0.9, 1))
    arguments: Any = (p, p, p_reference, one, one, one)
    assert joint_2025(*arguments)[0] == pytest.approx((float(p[0]) + 1) / 2)


def test_arrays_of_other_shapes_are_refused() -> None:
    with pytest.raises(AssertionError, match=r"\(1,\)"):
        joint_2024(np.ones(2), np.ones(1), np.ones(2))


# --- a system's scores ------------------------------------------------------------------------


def test_scores_follow_the_definitions_sample_by_sample() -> None:
    texts = [*SOURCES, *OUTPUTS, *(text for texts in REFERENCES for text in texts)]
    p = {text: place / 20 for place, text in enumerate(sorted(set(texts)))}
    scorers: PanScorers = TableScorers(p)
    scores = pan_scores(OUTPUTS, SOURCES, REFERENCES, scorers)
    for place, (source, output) in enumerate(zip(SOURCES, OUTPUTS, strict=True)):
        assert scores.sta[place] == p[output] / 2  # the classifier of 2024
        sim = scorers.similarity([output], [source])[0]
        fl = max(sentence_chrf([output], [[text]])[0] for text in REFERENCES[place])
        assert scores.j[place] == pytest.approx(p[output] / 2 * sim * fl)
        assert (scores.sim[place], scores.fl[place]) == (sim, fl)
        joints = [
            slow_2025(
                p[source],
                p[output],
                p[reference],
                sim,
                scorers.similarity([output], [reference])[0],
                scorers.fluency_2025([source], [output], [reference])[0],
            )
            for reference in REFERENCES[place]
        ]
        assert scores.j_2025[place] == pytest.approx(max(joints))


def test_embedded_j_is_the_j_that_the_search_is_steered_by(
    classifier: NeutralityClassifier,
) -> None:
    outputs = ["<extra_id_0> you are wrong today", "what a stupid idea", "leave"]
    pairs = [
        Pair(source, references, "en")
        for source, references in zip(SOURCES, REFERENCES, strict=True)
    ]
    steered = score_outputs(
        outputs, pairs, lexicon=Lexicon({"en": ["idiot"]}), scorers=EmbeddedScorers(classifier)
    )
    scores = pan_scores(outputs, SOURCES, REFERENCES, EmbeddedPanScorers(classifier))
    np.testing.assert_allclose(scores.j, steered.j, atol=1e-12)
    np.testing.assert_allclose(scores.fl, steered.fl, atol=1e-12)


@pytest.mark.parametrize("silent", ["", "  ", "...", "<extra_id_0>", "<pad> </s> !"])
def test_an_output_that_says_nothing_scores_zero(
    classifier: NeutralityClassifier, silent: str
) -> None:
    scores = pan_scores(
        [silent, OUTPUTS[1]], SOURCES[:2], REFERENCES[:2], EmbeddedPanScorers(classifier)
    )
    for values in (scores.sta, scores.sim, scores.fl, scores.j, scores.j_2025):
        assert values[0] == 0
        assert values[1] > 0


def test_a_copy_ties_with_its_source_though_the_classifier_is_noisy() -> None:
    calls: list[int] = []
    reference = "a very neutral wording"

    class Noisy:
        """Every call gives a little less, so a second look at a text would lose the tie."""

        def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
            calls.append(len(texts))
            noise = 1e-7 * len(calls)
            return np.array([0.9 if text == reference else 0.2 - noise for text in texts])

    references = [[reference]] * len(SOURCES)
    scores = pan_scores(SOURCES, SOURCES, references, EmbeddedPanScorers(Noisy()))
    chrf = sentence_chrf(SOURCES, references)
    np.testing.assert_allclose(scores.j_2025, 0.6 * (0.4 + 0.6 * chrf) * chrf, atol=1e-6)
    assert calls == [3, 1]


@given(st.lists(st.sampled_from(SOURCES), min_size=3, max_size=3))
def test_embedded_scores_lie_in_the_unit_interval(outputs: list[str]) -> None:
    class Constant:
        def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
            return np.array([len(text) / 100 for text in texts])

    scores = pan_scores(outputs, SOURCES, REFERENCES, EmbeddedPanScorers(Constant()))
    for values in (scores.sta, scores.sim, scores.fl, scores.j, scores.j_2025):
        assert values.shape == (3,)
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


def test_the_reference_scores_one_in_everything_but_sta(classifier: NeutralityClassifier) -> None:
    references = [texts[:1] for texts in REFERENCES]
    scores = pan_scores(
        [texts[0] for texts in references], SOURCES, references, EmbeddedPanScorers(classifier)
    )
    np.testing.assert_allclose(scores.fl, 1)
    np.testing.assert_allclose(scores.j_2025, 0.4 * scores.sim + 0.6)


def test_embedded_scorers_name_themselves(classifier: NeutralityClassifier) -> None:
    scorers: PanScorers = EmbeddedPanScorers(classifier)
    assert (scorers.name, scorers.models) == ("embedded", {})


def test_each_distinct_item_is_asked_once() -> None:
    asked: list[list[str]] = []

    def lengths(texts: Sequence[str]) -> NDArray[np.float64]:
        asked.append(list(texts))
        return np.array([[len(text), 0] for text in texts])

    once = OncePerItem[str](lengths)
    np.testing.assert_array_equal(once(["a", "bb", "a"]), [[1, 0], [2, 0], [1, 0]])
    np.testing.assert_array_equal(once(["bb", "ccc"]), [[2, 0], [3, 0]])
    assert asked == [["a", "bb"], ["ccc"]]


@pytest.mark.parametrize(
    ("outputs", "sources", "references"),
    [([], [], []), (["a"], ["b", "c"], [["d"]]), (["a"], ["b"], [["d"], ["e"]])],
)
def test_counts_that_differ_are_refused(
    outputs: list[str],
    sources: list[str],
    references: list[list[str]],
    classifier: NeutralityClassifier,
) -> None:
    with pytest.raises(UserError, match="there must be as many of each, and at least one"):
        pan_scores(outputs, sources, references, EmbeddedPanScorers(classifier))


def test_a_sample_without_a_reference_is_named(classifier: NeutralityClassifier) -> None:
    with pytest.raises(UserError, match="sample 2 has no reference"):
        pan_scores(["a", "b"], ["c", "d"], [["e"], []], EmbeddedPanScorers(classifier))
