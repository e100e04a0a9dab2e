"""Sets of scorers by name: fitted on training pairs, pickled small, one value for one text."""

import numpy as np
import pytest
from ray import cloudpickle

from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.scorers import EmbeddedScorers, load_scorers
from detox_tune.evaluation.scores import OncePerItem, Scorers, sentence_chrf

TRAIN = [*embedded_pairs()[:60], *embedded_pairs()[-60:]]


@pytest.fixture(scope="module")
def scorers() -> Scorers:
    return load_scorers("embedded", TRAIN, embedded_lexicon(), seed=0, device="cpu")


def test_the_embedded_set_names_itself_and_uses_chrf(scorers: Scorers) -> None:
    assert (scorers.name, scorers.models) == ("embedded", {})
    texts, others = ["a fine day", "the bus was late"], ["a day", "the bus was late"]
    expected = sentence_chrf(texts, [[other] for other in others])
    assert scorers.similarity(texts, others).tolist() == expected.tolist()
    quality = scorers.fluency_2025(["x", "y"], texts, others)
    assert quality is not None
    assert quality.tolist() == expected.tolist()


def test_each_language_has_its_classifier(scorers: Scorers) -> None:
    english, spanish = TRAIN[0], TRAIN[-1]
    text = english.source
    values = scorers.neutral([text, text], [english, spanish])
    assert values[0] < 0.5
    assert values[0] != values[1]


def test_it_is_pickled_for_a_worker_process_and_says_the_same(scorers: Scorers) -> None:
    texts = [pair.source for pair in TRAIN]
    expected = scorers.neutral(texts, TRAIN)
    content = cloudpickle.dumps(scorers)
    assert len(content) < 20e6
    assert np.array_equal(cloudpickle.loads(content).neutral(texts, TRAIN), expected)


def test_a_name_of_the_pair_chooses_the_classifier() -> None:
    class Constant:
        def __init__(self, value: float) -> None:
            self.value = value

        def neutral_probability(self, texts: list[str]) -> np.ndarray:
            return np.full(len(texts), self.value)

    both: dict[str, object] = {"a": Constant(0.1), "b": Constant(0.9)}
    chosen = EmbeddedScorers(both, lambda pair: pair.source)  # type: ignore[arg-type]
    pairs = [Pair(name, ("fine",), "en") for name in "bab"]
    assert chosen.neutral(["x", "y", "x"], pairs).tolist() == [0.9, 0.1, 0.9]


def test_each_distinct_item_is_asked_once() -> None:
    asked: list[list[str]] = []

    def lengths(texts: list[str]) -> np.ndarray:
        asked.append(list(texts))
        return np.array([[len(text), 0] for text in texts])

    once = OncePerItem[str](lengths)  # type: ignore[arg-type]
    np.testing.assert_array_equal(once(["a", "bb", "a"]), [[1, 0], [2, 0], [1, 0]])
    np.testing.assert_array_equal(once(["bb", "ccc"]), [[2, 0], [3, 0]])
    assert asked == [["a", "bb"], ["ccc"]]
