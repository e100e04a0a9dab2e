"""What a toxicity classifier for the pairs of one language may know besides the pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.spans import AnnotatedSentence
from detox_tune.data.text import words
from detox_tune.evaluation.classifier import tokens
from detox_tune.evaluation.collapse import comparable
from detox_tune.evaluation.pan import HasNeutralProbability, OncePerItem

_COLUMNS = 1 << 17  # for hashed n-grams of one kind
# Weights of features beside the spelling, whose row has length 1. Twice the context did a little
# worse on held-out pairs (log loss, two languages); the others were not tuned.
_CONTEXT_WEIGHT = 0.25
_LOG_ODDS_WEIGHT = 0.5
_COUNT_WEIGHT = 0.2
_LIKENESS_WEIGHT = 0.3  # its log-odds
_LIKENESS_INVERSE_PENALTY = 3.0

Item = TypeVar("Item", bound=Hashable)


class Occurrence(NamedTuple):
    """A folded word between its neighbours, which are empty at the ends of a text."""

    word: str
    before: str
    after: str


@dataclass(frozen=True)
class Labelled:
    """Texts labelled toxic or neutral, some of both, and a classifier fitted on them."""

    toxic: Sequence[str]
    neutral: Sequence[str]
    classifier: HasNeutralProbability


class Evidence:
    """Features of the texts and words of one language, each made once for all the classifiers.

    Nothing in here is fitted on pairs. N-grams are hashed, so a text has the same features
    whatever other texts there are.
    """

    def __init__(
        self,
        language: str,
        lexicon: Lexicon,
        annotated: Iterable[AnnotatedSentence] = (),
        labelled: Labelled | None = None,
    ) -> None:
        """Collect what is known; none of the sentences and texts may be among those scored.

        Args:
            language: Code of the language.
            lexicon: Has the language, perhaps without entries.
            annotated: Sentences with their toxic words marked.
            labelled: Labelled texts.
        """
        self._language = language
        self._lexicon = lexicon
        self._occurrences: dict[str, list[Occurrence]] = {}
        letters = _hashed(analyzer="char_wb", ngram_range=(1, 5))
        phrases = _hashed(ngram_range=(1, 2), tokenizer=tokens, token_pattern=None)
        self._counts = [_Rows[str](vectorizer.transform) for vectorizer in (letters, phrases)]
        self.ngram_log_odds = (
            np.concatenate([_log_odds(vectorizer, labelled) for vectorizer in (letters, phrases)])
            if labelled
            else None
        )
        """Of toxic against neutral in the labelled texts, for each column of `ngram_counts`."""
        self._spelling = _hashed(analyzer="char_wb", ngram_range=(1, 5), norm="l2")
        self._context = _hashed(analyzer=_in_context)
        self.word_rows = _Rows[Occurrence](self._make_word_rows)
        """Features of occurrences: spelling, context, lexicon, and use in the labelled texts."""
        self._likeness = self._fit_likeness(labelled.neutral) if labelled else None
        self._classify = (
            OncePerItem[str](labelled.classifier.neutral_probability) if labelled else None
        )
        self._uses = (
            [self._use(texts) for texts in (labelled.toxic, labelled.neutral)] if labelled else []
        )
        self.annotated: tuple[Counter[Occurrence], Counter[Occurrence]] = (Counter(), Counter())
        """How often an occurrence in the annotated sentences is marked, and how often it is not."""
        for sentence in annotated:
            marked = {found.word for span in sentence.spans for found in self.occurrences(span)}
            for found in self.occurrences(sentence.text):
                self.annotated[found.word not in marked][found] += 1

    def occurrences(self, text: str) -> list[Occurrence]:
        """The words of a text (`words`) with their neighbours, in order."""
        if text not in self._occurrences:
            folded = self._folded_words(text)
            around = ["", *folded, ""]
            self._occurrences[text] = list(map(Occurrence, folded, around, around[2:]))
        return self._occurrences[text]

    def ngram_counts(self, texts: Sequence[str]) -> list[sparse.csr_matrix]:
        """Counts of character and of word n-grams: two matrices with a row a text."""
        folded = [comparable(text) for text in texts]
        return [rows(folded) for rows in self._counts]

    def labelled_columns(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-odds of neutral by the labelled texts, shape (texts, 1); (texts, 0) without any."""
        if self._classify is None:
            return np.zeros((len(texts), 0))
        neutral = np.clip(self._classify(texts), 1e-6, 1 - 1e-6)
        return np.asarray(np.log(neutral) - np.log1p(-neutral))[:, None]

    def _make_word_rows(self, occurrences: Sequence[Occurrence]) -> sparse.csr_matrix:
        distinct = list(dict.fromkeys(found.word for found in occurrences))
        place = {word: row for row, word in enumerate(distinct)}
        known = [float(bool(self._lexicon.spans(word, self._language))) for word in distinct]
        spelling = self._spelling.transform(distinct)
        others = self._use_columns(distinct)
        if self._likeness is not None:
            # It was fitted on the words of the lexicon, and these have a feature already.
            likeness = np.where(known, 0, self._likeness.decision_function(spelling))
            others.append(_LIKENESS_WEIGHT * likeness)
        extra = sparse.csr_matrix(np.column_stack([known, *others]))
        of_words = sparse.hstack([spelling, extra], format="csr")
        context = self._context.transform(occurrences) * _CONTEXT_WEIGHT
        rows = [place[found.word] for found in occurrences]
        return sparse.hstack([of_words[rows], context], format="csr")

    def _fit_likeness(self, neutral: Sequence[str]) -> LogisticRegression | None:
        """Is a word spelt like those of the lexicon, or like the others of the neutral texts?

        It finds inflected, compound and misspelt forms. None if there is nothing to compare.
        """
        entries = map(self._folded_words, self._lexicon.entries(self._language))
        toxic = sorted({entry[0] for entry in entries if len(entry) == 1})
        in_texts = {found.word for text in neutral for found in self.occurrences(text)}
        others = sorted(in_texts.difference(toxic))
        if not toxic or not others:
            return None
        model = LogisticRegression(
            C=_LIKENESS_INVERSE_PENALTY, class_weight="balanced", solver="liblinear", tol=1e-2
        )
        labels = np.repeat([1, 0], [len(toxic), len(others)])
        return model.fit(self._spelling.transform([*toxic, *others]), labels)

    def _folded_words(self, text: str) -> list[str]:
        return [word.folded for word in words(comparable(text), self._language)]

    def _use(self, texts: Sequence[str]) -> tuple[Counter[str], int]:
        """In how many of the texts each word stands, and how many they are."""
        in_texts = ({found.word for found in self.occurrences(text)} for text in texts)
        return Counter(word for in_text in in_texts for word in in_text), len(texts)

    def _use_columns(self, distinct: Sequence[str]) -> list[NDArray[np.float64]]:
        """How much more often toxic labelled texts have a word, and how often both have it."""
        if not self._uses:
            return []
        counts = [np.array([count[word] for word in distinct]) for count, _ in self._uses]
        toxic, neutral = (
            np.log((of_words + 0.5) / (total + 1))
            for of_words, (_, total) in zip(counts, self._uses, strict=True)
        )
        return [
            _LOG_ODDS_WEIGHT * (toxic - neutral),
            _COUNT_WEIGHT * np.log1p(counts[0] + counts[1]),
        ]


def _log_odds(vectorizer: HashingVectorizer, labelled: Labelled) -> NDArray[np.float64]:
    """How much more often toxic texts have each n-gram than neutral ones: a logarithm."""
    toxic, neutral = (
        (vectorizer.transform(map(comparable, texts)).getnnz(axis=0) + 1) / len(texts)
        for texts in (labelled.toxic, labelled.neutral)
    )
    return np.asarray(np.log(toxic) - np.log(neutral))


def _in_context(found: Occurrence) -> list[str]:
    return [found.word, f"{found.before} {found.word}", f"{found.word} {found.after}"]


def _hashed(**options: Any) -> HashingVectorizer:
    defaults = {"lowercase": False, "norm": None, "alternate_sign": False}
    return HashingVectorizer(n_features=_COLUMNS, **defaults | options)


class _Rows(Generic[Item]):
    """Feature rows of items; each distinct item is made into a row once."""

    def __init__(self, make: Callable[[Sequence[Item]], sparse.csr_matrix]) -> None:
        self._make = make
        self._place: dict[Item, int] = {}
        self._rows: sparse.csr_matrix | None = None

    def __call__(self, items: Sequence[Item]) -> sparse.csr_matrix:
        """A row an item, in their order; at least one item."""
        new = [item for item in dict.fromkeys(items) if item not in self._place]
        if new:
            rows = self._make(new)
            self._rows = rows if self._rows is None else sparse.vstack([self._rows, rows], "csr")
            self._place |= {item: len(self._place) + row for row, item in enumerate(new)}
        assert self._rows is not None
        return self._rows[[self._place[item] for item in items]]
