"""The embedded toxicity classifier: what it learns, what it ignores, and what it refuses."""

import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.toxicity_classifier import (
    MIN_TEXTS,
    MOST_PAIRS,
    ToxicityClassifier,
    fit_pairs,
    fit_texts,
    log_odds,
)

PEOPLE = ["my boss", "the driver", "that player", "our teacher", "the man next door"]
WORDS = [("stupid", "careless"), ("dumb", "late"), ("useless", "unlucky"), ("damn", "tired")]
ENDS = ["again", "as always", "and nobody cares", "today"]
PAIRS = [
    Pair(f"{who} is {bad} {end} .", (f"{who.capitalize()} is {good} {end}.",), "en")
    for who, (bad, good), end in product(PEOPLE, WORDS, ENDS)
]
NO_WORDS = Lexicon({"en": ()})


def fitted(pairs: list[Pair] = PAIRS, lexicon: Lexicon = NO_WORDS) -> ToxicityClassifier:
    return fit_pairs(pairs, language="en", lexicon=lexicon, seed=0)


@pytest.fixture(scope="module")
def classifier() -> ToxicityClassifier:
    return fitted()


def test_tells_unseen_sentences_apart(classifier: ToxicityClassifier) -> None:
    texts = ["her cousin is so stupid", "what a DUMB, useless idea", "her cousin is so careless"]
    probabilities = classifier.neutral_probability(texts)
    assert probabilities.shape == (3,)
    assert (probabilities[:2] < 0.2).all()
    assert probabilities[2] > 0.8
    assert classifier.neutral_probability([]).shape == (0,)


def test_case_punctuation_spacing_and_sentinels_tell_it_nothing(
    classifier: ToxicityClassifier,
) -> None:
    untidy, tidy = "my boss is stupid today .", "<extra_id_0> My boss is stupid, today."
    probabilities = classifier.neutral_probability([untidy, tidy])
    assert probabilities[0] == pytest.approx(probabilities[1])
    assert probabilities[0] < 0.2


def test_same_seed_same_numbers_also_after_pickling(classifier: ToxicityClassifier) -> None:
    texts = ["he is dumb", "he is late", "nothing known here", "", "!!!"]
    expected = classifier.neutral_probability(texts)
    assert np.array_equal(fitted().neutral_probability(texts), expected)
    copied = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(copied.neutral_probability(texts), expected)
    assert ((expected >= 0) & (expected <= 1)).all()


def test_a_word_of_the_lexicon_counts_though_no_pair_has_it() -> None:
    lexicon = Lexicon({"en": ["stupid", "dumb", "useless", "damn", "moron"]})
    with_words, without = fitted(lexicon=lexicon), fitted()
    texts = ["he is a moron"]
    assert with_words.neutral_probability(texts)[0] < without.neutral_probability(texts)[0] - 0.2


def test_labelled_texts_count() -> None:
    toxic = [f"{who} is a moron {end}" for who, end in product(PEOPLE, ENDS)]
    neutral = [f"{who} is a person {end}" for who, end in product(PEOPLE, ENDS)]
    # Pairs in which the insult is one that the labelled texts know, half of the time.
    pairs = [*PAIRS, *(Pair(a, (b,), "en") for a, b in zip(toxic, neutral, strict=True))]
    labels = [True] * 20 + [False] * 20
    labelled = fit_texts([*toxic, *neutral], labels, language="en", lexicon=NO_WORDS, seed=0)
    both = fit_pairs(pairs, language="en", lexicon=NO_WORDS, labelled=labelled, seed=0)
    probabilities = both.neutral_probability(["she is a moron", "she is a person"])
    assert probabilities[0] < 0.3 < 0.7 < probabilities[1]


def test_words_with_combining_marks_and_without_spaces() -> None:
    for language, bad, good in (("hi", "तुम मूर्ख हो", "तुम अच्छे हो"), ("zh", "你是笨蛋", "你是朋友")):
        pairs = [Pair(f"{bad} {n}", (f"{good} {n}",), language) for n in range(20)]
        lexicon = Lexicon({language: ()})
        one = fit_pairs(pairs, language=language, lexicon=lexicon, seed=0)
        assert list(one.neutral_probability([bad, good]) > 0.5) == [False, True]


def test_a_large_corpus_is_drawn_from() -> None:
    many = [Pair(f"bad {n}", (f"good {n}",), "en") for n in range(MOST_PAIRS + 200)]
    one = fitted(many)
    assert list(one.neutral_probability(["bad", "good"]) > 0.5) == [False, True]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "^0 toxic texts in language 'en': .* at least 10; give more"),
        (PAIRS[: MIN_TEXTS - 1], "^9 toxic texts"),
        ([Pair(pair.source, ("...",), "en") for pair in PAIRS], "^0 neutral texts"),
    ],
)
def test_too_few_texts(pairs: list[Pair], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fitted(pairs)


def test_log_odds_are_bounded() -> None:
    found = log_odds(np.array([0.0, 0.5, 0.9, 1.0]))
    assert found[1:3] == pytest.approx([0, np.log(9)])
    assert np.isfinite(found).all()


def test_on_real_pairs_it_ranks_unseen_ones(shared_data: Path) -> None:
    from sklearn.metrics import roc_auc_score

    from detox_tune.data.pairs import load_pairs

    pairs = load_pairs(str(shared_data / "paradetox_en.tsv"), allow_bad_rows=True).pairs[:900]
    lexicon = Lexicon.load(shared_data / "multilingual_toxic_lexicon" / "en.parquet", ["en"])
    one = fitted(list(pairs[:600]), lexicon)
    texts = [text for pair in pairs[600:] for text in (pair.source, pair.references[0])]
    labels = [False, True] * (len(texts) // 2)
    assert roc_auc_score(labels, one.neutral_probability(texts)) > 0.93
