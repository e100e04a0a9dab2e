"""PAN's joint scores: against the formulas written out, ties, bounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.pan import joint_2024, joint_2025
from detox_tune.evaluation.scorers import EmbeddedScorers
from detox_tune.evaluation.scores import OncePerItem, score_outputs, sentence_chrf

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


def test_a_copy_ties_with_its_source_though_the_classifier_is_noisy() -> None:
    calls: list[int] = []
    reference = "a very neutral wording"

    class Noisy:
        """Every call gives a little less, so a second look at a text would lose the tie."""

        def __init__(self) -> None:
            self.once = OncePerItem[str](self.look)

        def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
            return self.once(texts)

        def look(self, texts: Sequence[str]) -> NDArray[np.float64]:
            calls.append(len(texts))
            noise = 1e-7 * len(calls)
            return np.array([0.9 if text == reference else 0.2 - noise for text in texts])

    sources = ["you are an idiot today", "what a stupid idea", "get lost, moron"]
    pairs = [Pair(source, (reference,), "en") for source in sources]
    noisy: Any = {"en": Noisy()}
    frame = score_outputs(
        sources, pairs, lexicon=Lexicon({"en": ()}), scorers=EmbeddedScorers(noisy)
    )
    chrf = sentence_chrf(sources, [[reference]] * 3)
    np.testing.assert_allclose(frame["j_2025"], 0.6 * (0.4 + 0.6 * chrf) * chrf, atol=1e-6)
    assert calls == [3, 1]
