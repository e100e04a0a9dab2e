import pickle
from itertools import product

import numpy as np
import pytest

from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import MIN_TEXTS, NeutralityClassifier

PEOPLE = ["my boss", "the driver", "that player", "our teacher", "the man next door"]
BAD = ["stupid", "dumb", "useless", "pathetic", "damn"]
GOOD = ["friendly", "late", "careless", "unlucky", "tired"]
ENDS = ["again", "as always", "and nobody cares", "today"]


def sentences(adjectives: list[str]) -> list[str]:
    return [
        f"{who} is {adjective} {end}" for who, adjective, end in product(PEOPLE, adjectives, ENDS)
    ]


@pytest.fixture(scope="module")
def classifier() -> NeutralityClassifier:
    return NeutralityClassifier.fit(sentences(BAD), sentences(GOOD), seed=0)


def test_tells_unseen_sentences_apart(classifier: NeutralityClassifier) -> None:
    probabilities = classifier.neutral_probability(
        ["her cousin is so stupid", "what a DUMB, useless idea", "her cousin is so friendly"]
    )
    assert probabilities.shape == (3,)
    assert (probabilities[:2] < 0.2).all()
    assert probabilities[2] > 0.8


def test_case_punctuation_spacing_and_sentinels_tell_it_nothing() -> None:
    # Sources lower-cased with spaces before the stops, references tidy: as in ParaDetox.
    toxic = [f"{text} ." for text in sentences(BAD)]
    neutral = [f"{text.capitalize()}." for text in sentences(GOOD)]
    fitted = NeutralityClassifier.fit(toxic, neutral, seed=0)
    untidy, tidy = "my boss is stupid today .", "<extra_id_0> My boss is stupid, today."
    probabilities = fitted.neutral_probability([untidy, tidy])
    assert probabilities[0] == probabilities[1] < 0.2


def test_classes_weigh_the_same_however_many_texts_they_have() -> None:
    # The same texts in both classes, five times as often in one: unweighted, that would be 5/6.
    texts = sentences(GOOD)
    fitted = NeutralityClassifier.fit(texts, texts * 5, seed=0)
    assert fitted.neutral_probability(texts) == pytest.approx(0.5, abs=0.02)


def test_same_seed_same_numbers_also_after_pickling(classifier: NeutralityClassifier) -> None:
    again = NeutralityClassifier.fit(sentences(BAD), sentences(GOOD), seed=0)
    texts = ["he is dumb", "he is late", "nothing known here", "", "!!!"]
    expected = classifier.neutral_probability(texts)
    assert np.array_equal(again.neutral_probability(texts), expected)
    copied = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(copied.neutral_probability(texts), expected)
    assert ((expected >= 0) & (expected <= 1)).all()


def test_no_texts(classifier: NeutralityClassifier) -> None:
    assert classifier.neutral_probability([]).shape == (0,)


def test_words_with_combining_marks_and_without_spaces() -> None:
    toxic = [f"तुम मूर्ख हो {number}" for number in range(10)] + ["你是笨蛋"] * 10
    neutral = [f"तुम अच्छे हो {number}" for number in range(10)] + ["你是朋友"] * 10
    fitted = NeutralityClassifier.fit(toxic, neutral, seed=0)
    probabilities = fitted.neutral_probability(["वह मूर्ख", "वह अच्छे", "他是笨蛋", "他是朋友"])
    assert list(probabilities > 0.5) == [False, True, False, True]


@pytest.mark.parametrize(
    ("toxic", "neutral", "message"),
    [
        ([], ["fine"] * 20, "^0 toxic texts: .* at least 10; give more"),
        (["bad"] * 20, [], "^0 neutral texts"),
        (["bad"] * (MIN_TEXTS - 1), ["fine"] * 20, "^9 toxic texts"),
        (["bad"] * 20, ["<extra_id_0> ..."] * 20, "^0 neutral texts"),
    ],
)
def test_too_few_texts(toxic: list[str], neutral: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NeutralityClassifier.fit(toxic, neutral, seed=0)
