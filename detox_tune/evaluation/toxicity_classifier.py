"""The embedded toxicity classifier: style transfer accuracy (STA) without a download.

N-grams of the sentence, the lexicon's words in it and, where there are labelled texts, what a
classifier fitted on these says: a logistic regression on held-out values weighs them (stacking,
Wolpert 1992) and makes probabilities of them. It stands in for the official model of the shared
task, is mild on toxicity that is not in the words, and must not be compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import regex
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.text import CHARACTER
from detox_tune.errors import UserError
from detox_tune.evaluation.collapse import comparable
from detox_tune.evaluation.scores import OncePerItem

MIN_TEXTS = 10
"""Fewest texts of each class that a classifier is fitted on."""
MOST_PAIRS = 1500
"""Most pairs that a classifier is fitted on, drawn by lot: it bounds the time of a large corpus."""
INNER_FOLDS = 5
"""Parts of the texts whose n-gram values the weighing is fitted on, each held out in turn."""

_LARGE = 1000  # texts; from here on an n-gram seen once costs memory and tells nothing
# Of 1, 3, 10, 30 and 100 the one with the lowest held-out log loss on ParaDetox.
_INVERSE_PENALTY = 10.0
# A Han or kana character is a word: whole sentences hardly ever come twice.
_TOKEN = regex.compile(rf"{CHARACTER}|(?:(?!{CHARACTER})\S)+")


class ToxicityClassifier:
    """Probability that a text of one language is neutral.

    Texts are folded first (`comparable`): in parallel corpora sources and references differ in
    case and punctuation ("picture , i" against "picture, I"), so a classifier that sees these
    rates a tidied copy as neutral.
    """

    def __init__(
        self,
        language: str,
        lexicon: Lexicon,
        labelled: ToxicityClassifier | None,
        ngrams: Pipeline,
        weighing: Pipeline,
    ) -> None:
        """Wrap fitted models; use `fit_pairs` or `fit_texts` to get them.

        `ngrams` and `weighing` stay readable, to be stored.
        """
        self._language = language
        self._lexicon = lexicon
        self._labelled = labelled
        self.ngrams = ngrams
        self.weighing = weighing
        self._once = OncePerItem[str](self._neutral_probability)

    def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability in [0, 1] that each text is neutral, shape (texts,)."""
        return self._once(texts)

    def _neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        known = _known_columns(texts, self._language, self._lexicon, self._labelled)
        ngrams = self.ngrams.decision_function(list(map(comparable, texts)))
        columns = np.column_stack([ngrams, known])
        # The last bits would depend on what else is in the batch.
        probabilities = np.round(self.weighing.predict_proba(columns)[:, 1], 9)
        return np.asarray(probabilities, dtype=np.float64)


def fit_pairs(
    pairs: Sequence[Pair],
    *,
    language: str,
    lexicon: Lexicon,
    labelled: ToxicityClassifier | None = None,
    seed: int,
) -> ToxicityClassifier:
    """Fit on the sources of pairs as toxic and their references as neutral.

    Args:
        pairs: Pairs of the language; at most MOST_PAIRS of them are used.
        language: Its code.
        lexicon: Has the language, perhaps without entries.
        labelled: A classifier of `fit_texts` for the same language.
        seed: Decides the draw and the inner folds; the same seed gives the same probabilities.

    Raises:
        UserError: fewer than MIN_TEXTS sources or references with a letter or digit in them.
    """
    if len(pairs) > MOST_PAIRS:
        drawn = np.random.default_rng(seed).choice(len(pairs), MOST_PAIRS, replace=False)
        pairs = [pairs[place] for place in sorted(drawn.tolist())]
    rows = [
        (text, is_neutral, number)
        for number, pair in enumerate(pairs)
        for text, is_neutral in labelled_texts([pair])
    ]
    return _fit(rows, language, lexicon, labelled, seed)


def fit_texts(
    texts: Sequence[str], is_toxic: Sequence[bool], *, language: str, lexicon: Lexicon, seed: int
) -> ToxicityClassifier:
    """Fit on texts labelled toxic or not, of one language.

    Raises:
        UserError: fewer than MIN_TEXTS texts of a class with a letter or digit in them.
    """
    rows = [
        (text, not toxic, number)
        for number, (text, toxic) in enumerate(zip(texts, is_toxic, strict=True))
    ]
    return _fit(rows, language, lexicon, None, seed)


def labelled_texts(pairs: Sequence[Pair]) -> list[tuple[str, bool]]:
    """Sources and references of pairs, each with whether it is neutral: the references are."""
    return [
        labelled
        for pair in pairs
        for labelled in ((pair.source, False), *((text, True) for text in pair.references))
    ]


def log_odds(probability_n: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(p / (1 - p)), bounded."""
    bounded = np.clip(probability_n, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(bounded) - np.log1p(-bounded), dtype=np.float64)


def _fit(
    rows: Sequence[tuple[str, bool, int]],
    language: str,
    lexicon: Lexicon,
    labelled: ToxicityClassifier | None,
    seed: int,
) -> ToxicityClassifier:
    """Fit on rows of text, whether it is neutral, and a group that no fold may tear apart."""
    rows = [row for row in rows if comparable(row[0])]
    texts = [text for text, _, _ in rows]
    is_neutral = [neutral for _, neutral, _ in rows]
    groups = [group for _, _, group in rows]
    for name, count in (("toxic", is_neutral.count(False)), ("neutral", is_neutral.count(True))):
        if count < MIN_TEXTS:
            raise UserError(
                f"{count} {name} texts in language {language!r}: the embedded toxicity classifier "
                f"needs at least {MIN_TEXTS}; give more pairs, or leave the language out"
            )
    folded = list(map(comparable, texts))
    # The features are fitted once, on all texts: labels play no part in them.
    features = ngram_features(len(texts))
    rows_nv = features.fit_transform(folded)
    regression = LogisticRegression(
        C=_INVERSE_PENALTY,
        class_weight="balanced",
        solver="liblinear",
        dual=True,
        max_iter=1000,
        random_state=seed,
    )
    folds = GroupKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    held_out = cross_val_predict(
        regression, rows_nv, is_neutral, groups=groups, cv=folds, method="decision_function"
    )
    known = _known_columns(texts, language, lexicon, labelled)
    weighing = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    weighing.fit(np.column_stack([held_out, known]), is_neutral)
    ngrams = make_pipeline(features, regression.fit(rows_nv, is_neutral))
    return ToxicityClassifier(language, lexicon, labelled, ngrams, weighing)


def _known_columns(
    texts: Sequence[str], language: str, lexicon: Lexicon, labelled: ToxicityClassifier | None
) -> NDArray[np.float64]:
    """What is known without a fit on the pairs, shape (texts, 2 or 3).

    Does the lexicon know a word of the text; the logarithm of how many plus one; and the log-odds
    of neutral by the labelled texts.
    """
    found = np.array([len(lexicon.spans(text, language)) for text in texts])
    columns = [found > 0, np.log1p(found)]
    if labelled is not None:
        columns.append(log_odds(labelled.neutral_probability(texts)))
    return np.column_stack(columns).astype(np.float64)


def ngram_features(n_texts: int) -> FeatureUnion:
    """TF-IDF of character n-grams within words (1 to 5) and of word n-grams (1 and 2), unfitted.

    It takes folded texts. In Chinese and Japanese a word is a character. From 1,000 texts on,
    n-grams that only one text has are left out.
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
        tokenizer=_tokens if analyzer == "word" else None,  # the default cuts Hindi words
        token_pattern=None,
        dtype=np.float32,
    )


def _tokens(text: str) -> list[str]:
    """The words of a folded text, or its characters in Chinese and Japanese."""
    return [match.group() for match in _TOKEN.finditer(text)]
