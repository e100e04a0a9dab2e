"""The embedded toxicity classifier: style transfer accuracy (STA) without a download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import regex
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union

from detox_tune.data.text import CHARACTER
from detox_tune.errors import UserError
from detox_tune.evaluation.collapse import comparable

MIN_TEXTS = 10
"""Fewest texts a class that a classifier is fitted on."""
_LARGE = 1000  # texts; from here on an n-gram seen once costs memory and tells nothing
# Of 1, 3, 10, 30 and 100 the one with the lowest held-out log loss on ParaDetox.
_INVERSE_PENALTY = 10.0
# A Han or kana character is a word: whole sentences hardly ever come twice.
_TOKEN = regex.compile(rf"{CHARACTER}|(?:(?!{CHARACTER})\S)+")


class NeutralityClassifier:
    """Probability that a text is neutral, by TF-IDF of n-grams and logistic regression.

    Features are those of `ngram_features` on the folded text (`comparable`): case, punctuation
    and spacing are left out on purpose. In parallel corpora sources and references differ in them
    ("picture , i" against "picture, I"), so a classifier that sees them rates a tidied copy as
    neutral.

    It is fitted on the corpus at hand and stands in for the official toxicity model; its
    probabilities are not calibrated, and scores of the two must not be compared.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        """Wrap a fitted pipeline whose class 1 is neutral; use `fit` to get one."""
        self._pipeline = pipeline

    @classmethod
    def fit(
        cls, toxic: Sequence[str], neutral: Sequence[str], *, seed: int
    ) -> NeutralityClassifier:
        """Fit on toxic and neutral texts; both classes weigh the same, however many texts each has.

        Args:
            toxic: Texts labelled toxic, such as the sources of the training split.
            neutral: Texts labelled neutral, such as its references.
            seed: Order in which the solver visits the texts; the same seed and texts give the
                same probabilities.

        Raises:
            UserError: A class has fewer than `MIN_TEXTS` texts with a letter or digit in them.
        """
        classes = []
        for name, texts in (("toxic", toxic), ("neutral", neutral)):
            folded = [text for text in map(comparable, texts) if text]
            if len(folded) < MIN_TEXTS:
                raise UserError(
                    f"{len(folded)} {name} texts: the embedded toxicity classifier needs at "
                    f"least {MIN_TEXTS}; give more pairs or a larger training share"
                )
            classes.append(folded)
        texts = [*classes[0], *classes[1]]
        is_neutral = np.repeat([0, 1], [len(classes[0]), len(classes[1])])
        pipeline = make_pipeline(
            ngram_features(len(texts)),
            LogisticRegression(
                C=_INVERSE_PENALTY,
                class_weight="balanced",
                solver="liblinear",
                dual=True,
                max_iter=1000,
                random_state=seed,
            ),
        )
        return cls(pipeline.fit(texts, is_neutral))

    def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability in [0, 1] that each text is neutral; shape (texts,)."""
        if not texts:
            return np.zeros(0)
        probabilities = self._pipeline.predict_proba([comparable(text) for text in texts])
        return np.asarray(probabilities[:, 1], dtype=np.float64)


def ngram_features(n_texts: int) -> FeatureUnion:
    """TF-IDF of character n-grams within words (1 to 5) and of word n-grams (1 and 2), unfitted.

    It takes folded texts (`comparable`). In Chinese and Japanese a word is a character. From 1,000
    texts on, n-grams that only one text has are left out.
    """
    min_count = 2 if n_texts >= _LARGE else 1
    return make_union(_ngrams("char_wb", (1, 5), min_count), _ngrams("word", (1, 2), min_count))


def _ngrams(analyzer: str, ngram_range: tuple[int, int], min_count: int) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=ngram_range,
        min_df=min_count,
        sublinear_tf=True,
        lowercase=False,  # folded already
        tokenizer=tokens if analyzer == "word" else None,  # the default cuts Hindi words
        token_pattern=None,
        dtype=np.float32,
    )


def tokens(text: str) -> list[str]:
    """The words of a folded text, or its characters in Chinese and Japanese."""
    return [match.group() for match in _TOKEN.finditer(text)]
