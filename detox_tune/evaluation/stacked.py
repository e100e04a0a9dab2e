"""A toxicity classifier fitted on pairs of one language: n-grams, words, and what else is known.

A classifier on n-grams of a few hundred sentences confuses what a sentence is about with how it is
put. So a second model looks at words: which do people leave out when they make a sentence neutral?
One such word makes a sentence toxic, however long it is. A logistic regression on held-out values
of both weighs them (stacking, Wolpert 1992) and makes probabilities of them by maximum likelihood;
nothing is sharpened by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from detox_tune.data.pairs import Pair
from detox_tune.evaluation.evidence import Evidence, Occurrence

INNER_FOLDS = 5
"""Parts of the pairs whose values the weighing regression is fitted on, each held out in turn."""

# On held-out pairs of multilingual_paradetox 30 does worse than 3 for words; nothing else was tried
# for the scaled n-grams.
_NGRAM_INVERSE_PENALTY = 10.0
_SCALED_INVERSE_PENALTY = 3.0
_WORD_INVERSE_PENALTY = 3.0
_NO_WORD = -9.0  # log-odds of a text without words


class StackedClassifier:
    """Probability that a text is neutral, fitted on pairs; see the module's header."""

    def __init__(self, base: _Base, weighing: Pipeline) -> None:
        """Wrap fitted models; use `fit` to get them."""
        self._base = base
        self._weighing = weighing

    @classmethod
    def fit(cls, pairs: Sequence[Pair], evidence: Evidence, *, seed: int) -> StackedClassifier:
        """Fit on sources as toxic and references as neutral; both weigh the same.

        Args:
            pairs: Pairs of one language, at least INNER_FOLDS.
            evidence: What else is known of that language.
            seed: Decides the inner folds and the order of the solver.
        """
        inner_n = np.random.default_rng(seed).permutation(len(pairs)) % INNER_FOLDS
        columns: list[NDArray[np.float64]] = []
        labels: list[bool] = []
        for fold in range(INNER_FOLDS):
            others = [pair for pair, i in zip(pairs, inner_n, strict=True) if i != fold]
            inside = [pair for pair, i in zip(pairs, inner_n, strict=True) if i == fold]
            base = _Base.fit(others, evidence, seed)
            texts, is_neutral = texts_of(inside)
            columns.append(base.columns(texts))
            labels += is_neutral
        weighing = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        weighing.fit(np.concatenate(columns), labels)
        return cls(_Base.fit(pairs, evidence, seed), weighing)

    def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability in [0, 1] that each text is neutral; shape (texts,)."""
        if not len(texts):
            return np.zeros(0)
        probabilities = self._weighing.predict_proba(self._base.columns(texts))
        return np.asarray(probabilities[:, 1], dtype=np.float64)


def texts_of(pairs: Iterable[Pair]) -> tuple[list[str], list[bool]]:
    """The sources and references of pairs, and which of them are neutral: the references."""
    rows: list[tuple[str, bool]] = []
    for pair in pairs:
        rows += [(pair.source, False), *((text, True) for text in pair.references)]
    return [text for text, _ in rows], [is_neutral for _, is_neutral in rows]


@dataclass(frozen=True)
class _Base:
    """The models whose values are weighed."""

    evidence: Evidence
    weights: tuple[TfidfTransformer, ...]
    ngrams: LogisticRegression
    scaled: LogisticRegression | None
    words: LogisticRegression

    @classmethod
    def fit(cls, pairs: Sequence[Pair], evidence: Evidence, seed: int) -> _Base:
        texts, is_neutral = texts_of(pairs)
        counts = evidence.ngram_counts(texts)
        weights = tuple(TfidfTransformer(sublinear_tf=True).fit(block) for block in counts)
        rows = _weighted(weights, counts)
        balanced = {"class_weight": "balanced", "dual": True}
        ngrams = _regression(_NGRAM_INVERSE_PENALTY, seed, **balanced).fit(rows, is_neutral)
        scaled = None
        if evidence.ngram_log_odds is not None:
            scaled = _regression(_SCALED_INVERSE_PENALTY, seed, **balanced)
            scaled.fit(_scaled(rows, evidence), is_neutral).sparsify()
        # Nearly all coefficients are 0: those of n-grams that none of these texts has.
        return cls(evidence, weights, ngrams.sparsify(), scaled, _fit_words(pairs, evidence, seed))

    def columns(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Values to be weighed, shape (texts, 3 or 5).

        Log-odds of neutral by n-grams; the highest log-odds of a word being toxic; the logarithm
        of minus the log-probability that none is. Where there are labelled texts, also log-odds of
        neutral by n-grams scaled by their log-odds in those (Wang and Manning 2012), so that one
        which tells nothing there counts little; and log-odds of neutral by those texts alone.
        """
        rows = _weighted(self.weights, self.evidence.ngram_counts(texts))
        ngrams = [self.ngrams.decision_function(rows)]
        if self.scaled is not None:
            ngrams.append(self.scaled.decision_function(_scaled(rows, self.evidence)))
        of_texts = [self.evidence.occurrences(text) for text in texts]
        found = [occurrence for of_text in of_texts for occurrence in of_text]
        highest, surprise = np.full(len(texts), _NO_WORD), np.zeros(len(texts))
        if found:
            scores = self.words.decision_function(self.evidence.word_rows(found))
            places = np.repeat(np.arange(len(texts)), list(map(len, of_texts)))
            np.maximum.at(highest, places, scores)
            np.add.at(surprise, places, np.logaddexp(0, scores))
        own = np.column_stack([*ngrams, highest, np.log(surprise + 1e-4)])
        return np.hstack([own, self.evidence.labelled_columns(texts)])


def _fit_words(pairs: Sequence[Pair], evidence: Evidence, seed: int) -> LogisticRegression:
    """Which words of a source does no reference keep, and which are marked in it or elsewhere?

    Equal occurrences are one weighted sample.
    """
    toxic, neutral = (Counter(counts) for counts in evidence.annotated)
    nothing = Occurrence("", "", "")
    for counts in (toxic, neutral):
        counts[nothing] += 1  # so that neither is ever empty
    for pair in pairs:
        in_references = [found for text in pair.references for found in evidence.occurrences(text)]
        neutral.update(in_references)
        kept = {found.word for found in in_references}
        for found in evidence.occurrences(pair.source):
            (neutral if found.word in kept else toxic)[found] += 1
        marked = {
            found.word
            for start, end in pair.spans
            for found in evidence.occurrences(pair.source[start:end])
        }
        for found in evidence.occurrences(pair.source) if pair.spans else []:
            (toxic if found.word in marked else neutral)[found] += 1
    model = _regression(_WORD_INVERSE_PENALTY, seed, tol=1e-2)
    model.fit(
        evidence.word_rows([*toxic, *neutral]),
        np.repeat([1, 0], [len(toxic), len(neutral)]),
        sample_weight=[*toxic.values(), *neutral.values()],
    )
    return model.sparsify()


def _weighted(
    weights: Sequence[TfidfTransformer], counts: Sequence[sparse.csr_matrix]
) -> sparse.csr_matrix:
    blocks = [weight.transform(block) for weight, block in zip(weights, counts, strict=True)]
    return sparse.hstack(blocks, format="csr")


def _scaled(rows: sparse.csr_matrix, evidence: Evidence) -> sparse.csr_matrix:
    return rows.multiply(evidence.ngram_log_odds).tocsr()


def _regression(inverse_penalty: float, seed: int, **options: Any) -> LogisticRegression:
    return LogisticRegression(
        C=inverse_penalty, solver="liblinear", max_iter=1000, random_state=seed, **options
    )
