"""Sets of scorers by name: fitted on training pairs, pickled small, one value for one text."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle

from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.toxicity import ToxicityData
from detox_tune.errors import UserError
from detox_tune.evaluation.cross_fitting import MIN_LABELLED, MIN_PAIRS, fitted_on_texts
from detox_tune.evaluation.scorers import EmbeddedScorers, load_scorers
from detox_tune.evaluation.scores import OncePerItem, Scorers, score_outputs, sentence_chrf

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


# --- what is refused, and what is not loaded ---------------------------------------------------

NO_WORDS = Lexicon({"en": (), "de": ()})
FEW = [Pair(f"bad thing {number}", (f"good thing {number}",), "en") for number in range(12)]
GERMAN = Pair("du Depp", ("du irrst dich",), "de")


def test_a_pair_in_a_language_that_was_not_fitted_on_is_refused() -> None:
    scorers = load_scorers("embedded", FEW, NO_WORDS, seed=0, device="cpu")
    with pytest.raises(UserError, match=r"^language 'de': .* fitted on pairs in en only; give"):
        score_outputs(["du"], [GERMAN], lexicon=NO_WORDS, scorers=scorers)


def test_a_name_that_is_not_known_is_refused() -> None:
    with pytest.raises(UserError, match=r"^scorers 'offical' .* embedded, official$"):
        load_scorers("offical", FEW, NO_WORDS, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("n_toxic", "n_neutral", "message"),
    [
        (1, MIN_LABELLED, "^1 toxic texts in language 'en': .* at least 50 different ones"),
        (MIN_LABELLED, MIN_LABELLED - 1, "^49 neutral texts in language 'en'"),
        (0, 0, "^0 toxic texts in language 'en'"),  # all there were are scored here
    ],
)
def test_too_few_labelled_texts(n_toxic: int, n_neutral: int, message: str) -> None:
    texts = [f"bad {number}" for number in range(n_toxic)]
    texts += [f"good {number}" for number in range(n_neutral)]
    is_toxic = [True] * n_toxic + [False] * n_neutral
    pair = Pair("you idiot", ("you there",), "en")
    data = ToxicityData(
        [*texts, pair.source], [*is_toxic, True], ["en"] * (len(texts) + 1), (), len(texts) + 1
    )
    with pytest.raises(UserError, match=message):
        fitted_on_texts(data, [pair], lexicon=NO_WORDS, seed=0)


def test_outputs_are_scored_without_loading_torch(tmp_path: Path) -> None:
    rows = [(f"bad thing {number}", f"good thing {number}") for number in range(MIN_PAIRS)]
    lines = ["toxic_sentence\tneutral_sentence\tlang", *(f"{a}\t{b}\ten" for a, b in rows)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    code = (
        "import sys; from detox_tune.evaluate import main; "
        "main(['--submission', 'pairs.tsv', '--reference', 'pairs.tsv']); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"
