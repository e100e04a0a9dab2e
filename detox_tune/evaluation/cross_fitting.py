"""Embedded scorers for an evaluation, whose classifier has seen nothing of what it scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.text import sentence_key
from detox_tune.data.toxicity import ToxicityData
from detox_tune.errors import UserError
from detox_tune.evaluation.scorers import EmbeddedScorers, load_scorers
from detox_tune.evaluation.scores import Scorers
from detox_tune.evaluation.toxicity_classifier import (
    MOST_PAIRS,
    ToxicityClassifier,
    fit_pairs,
    fit_texts,
    labelled_texts,
)

FOLDS = 10
"""Parts that the references of a language are cut into, each scored by a fit on the others."""
FEW_FOLDS = 3
"""Folds of a language in which even so many leave MOST_PAIRS to fit on."""
MIN_PAIRS = 20
"""Fewest references of a language for that: each classifier then sees at least 18."""
MIN_LABELLED = 50
"""Fewest different labelled texts of a class and language that a fifth is held out of."""
HELD_OUT_SHARE = 0.2
"""Share of labelled texts that is measured on and never fitted on."""


@dataclass(frozen=True)
class FittedScorers:
    """Scorers for the pairs of an evaluation, and how their classifier was fitted."""

    scorers: Scorers
    fitted_on: str
    """What the classifier was fitted on, for those who read the scores."""
    held_out: tuple[dict[str, Any], ...] = ()
    """Its quality on held-out texts, one row per language, where that was measured."""


def cross_fitted(
    pairs: Sequence[Pair],
    *,
    lexicon: Lexicon,
    labelled: ToxicityData | None = None,
    seed: int,
) -> FittedScorers:
    """Cut the pairs of each language into folds; each is scored by a fit on the others.

    A classifier never sees a text of the fold that it scores, in any spelling, nor a system's
    output. So systems that are scored on the same references with the same seed can be compared.

    Args:
        pairs: What is scored.
        lexicon: Has their languages, perhaps without entries.
        labelled: Labelled texts in all the languages; those that are scored are left out.
        seed: Decides folds and fits.

    Raises:
        UserError: fewer than MIN_PAIRS pairs in a language, or unusable texts.
    """
    languages = sorted({pair.language for pair in pairs})
    for language in languages:
        _require_enough(language, sum(pair.language == language for pair in pairs))
    scored = _keys(pairs)
    classifiers: dict[str, ToxicityClassifier] = {}
    fold_of: dict[tuple[str, str], str] = {}
    for language in languages:
        of_language = [pair for pair in pairs if pair.language == language]
        of_texts = None
        if labelled is not None:
            texts, is_toxic = texts_of_language(labelled, language, scored)
            of_texts = fit_texts(texts, is_toxic, language=language, lexicon=lexicon, seed=seed)
        for fold, inside in enumerate(_folds(of_language, seed)):
            keys = _keys(inside)
            others = [pair for pair in of_language if not keys & _keys([pair])]
            name = f"{language} {fold}"
            classifiers[name] = fit_pairs(
                others, language=language, lexicon=lexicon, labelled=of_texts, seed=seed
            )
            fold_of |= {(pair.language, pair.source): name for pair in inside}
    scorers = EmbeddedScorers(classifiers, lambda pair: fold_of[pair.language, pair.source])
    used = ["the other folds of the references"]
    if any(lexicon.entries(language) for language in languages):
        used.append("the lexicon")
    if labelled is not None:
        left = sum(sentence_key(text) not in scored for text in labelled.texts)
        used.append(f"{left} labelled texts")
    held_out = tuple(_of_pairs(language, pairs, scorers) for language in languages)
    return FittedScorers(scorers, f"fitted on {', '.join(used)}", held_out)


def fitted_on_pairs(
    train: Sequence[Pair], pairs: Sequence[Pair], *, lexicon: Lexicon, seed: int
) -> FittedScorers:
    """Fit on other pairs. Those whose source is scored are left out, whatever their spelling.

    Raises:
        UserError: too few pairs are left.
    """
    scored = {sentence_key(pair.source) for pair in pairs}
    others = [pair for pair in train if sentence_key(pair.source) not in scored]
    missing = {pair.language for pair in pairs} - {pair.language for pair in others}
    if missing:
        raise UserError(
            f"--train-pairs has no pairs in {', '.join(sorted(missing))} besides those scored: "
            "give pairs of these languages, or score the other ones with --language"
        )
    wanted = {pair.language for pair in pairs}
    scorers = load_scorers(
        "embedded",
        [pair for pair in others if pair.language in wanted],
        lexicon,
        seed=seed,
        device="cpu",
    )
    left_out = len(train) - len(others)
    return FittedScorers(
        scorers, f"fitted on {len(others)} pairs; {left_out} left out, as they are scored here"
    )


def fitted_on_texts(
    labelled: ToxicityData, pairs: Sequence[Pair], *, lexicon: Lexicon, seed: int
) -> FittedScorers:
    """Fit on labelled texts alone, where there are too few pairs for `cross_fitted`.

    Texts that are sources or references of the scored pairs are left out.

    Raises:
        UserError: too few texts.
    """
    scored = _keys(pairs)
    classifiers, held_out = {}, []
    for language in sorted({pair.language for pair in pairs}):
        texts, is_toxic = texts_of_language(labelled, language, scored)
        classifiers[language], figures = fit_and_measure(
            texts, is_toxic, language=language, lexicon=lexicon, seed=seed
        )
        held_out.append({"language": language, **figures})
    out = sum(sentence_key(text) in scored for text in labelled.texts)
    fitted_on = (
        f"fitted on {len(labelled.texts) - out} labelled texts; {out} left out, as they are "
        "scored here"
    )
    return FittedScorers(EmbeddedScorers(classifiers), fitted_on, tuple(held_out))


def enough_to_cross_fit(pairs: Sequence[Pair]) -> bool:
    """Whether every language has MIN_PAIRS pairs."""
    return min(Counter(pair.language for pair in pairs).values()) >= MIN_PAIRS


def fit_and_measure(
    texts: Sequence[str], is_toxic: Sequence[bool], *, language: str, lexicon: Lexicon, seed: int
) -> tuple[ToxicityClassifier, dict[str, float]]:
    """Fit on four fifths of the distinct texts of a language, and measure on the others.

    Returns:
        The classifier that was measured (it is not fitted anew on everything), and its `quality`.

    Raises:
        UserError: fewer than MIN_LABELLED different texts of a class.
    """
    labels = {
        sentence_key(text): (text, toxic) for text, toxic in zip(texts, is_toxic, strict=True)
    }
    distinct = [text for text, _ in labels.values()]
    of_distinct = [bool(toxic) for _, toxic in labels.values()]
    for name, count in (("toxic", of_distinct.count(True)), ("neutral", of_distinct.count(False))):
        if count < MIN_LABELLED:
            raise UserError(
                f"{count} {name} texts in language {language!r}: to fit and measure the toxicity "
                f"classifier on labelled texts takes at least {MIN_LABELLED} different ones that "
                "are not scored; give more, or leave the language out"
            )
    fitted, others, fitted_labels, other_labels = train_test_split(
        distinct, of_distinct, test_size=HELD_OUT_SHARE, stratify=of_distinct, random_state=seed
    )
    classifier = fit_texts(fitted, fitted_labels, language=language, lexicon=lexicon, seed=seed)
    return classifier, quality(other_labels, 1 - classifier.neutral_probability(others))


def quality(is_toxic: Sequence[bool], probability_n: NDArray[np.float64]) -> dict[str, float]:
    """How well probabilities of toxic tell toxic texts from neutral ones.

    Returns:
        `n` texts; `auc`, the chance that a toxic text is rated above a neutral one; `f1` of the
        toxic class at a probability of 0.5; `log_loss` in nats; `ece`, see `calibration_error`.
    """
    return {
        "n": len(is_toxic),
        "auc": float(roc_auc_score(is_toxic, probability_n)),
        "f1": float(f1_score(is_toxic, probability_n > 0.5)),
        "log_loss": float(log_loss(is_toxic, probability_n)),
        "ece": calibration_error(is_toxic, probability_n),
    }


def calibration_error(
    is_toxic: Sequence[bool], probability_n: NDArray[np.float64], *, bins: int = 10
) -> float:
    """Expected calibration error (Naeini et al. 2015), in [0, 1]: can probabilities be believed?

    Samples are put into bins of equal width by probability; the error is the mean, over samples,
    of the distance between their bin's mean probability and its share of toxic texts.

    Args:
        is_toxic: Labels, shape (n,); at least one sample.
        probability_n: Probability of toxic in [0, 1], shape (n,).
        bins: How many bins; a probability on a border belongs to the bin above it.
    """
    bin_of = np.minimum((probability_n * bins).astype(int), bins - 1)
    surplus = np.bincount(bin_of, weights=probability_n - np.asarray(is_toxic, dtype=np.float64))
    return float(np.abs(surplus).sum() / len(probability_n))


def texts_of_language(
    labelled: ToxicityData, language: str, scored: Collection[str] = ()
) -> tuple[list[str], list[bool]]:
    """Texts of a language and whether they are toxic, without those whose key is scored."""
    kept = [
        (text, toxic)
        for text, toxic, of_text in zip(*labelled, strict=True)
        if of_text == language and sentence_key(text) not in scored
    ]
    return [text for text, _ in kept], [toxic for _, toxic in kept]


def _folds(pairs: Sequence[Pair], seed: int) -> list[list[Pair]]:
    count = FEW_FOLDS if len(pairs) * (1 - 1 / FEW_FOLDS) >= MOST_PAIRS else FOLDS
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [[pairs[place] for place in order[fold::count]] for fold in range(count)]


def _of_pairs(language: str, pairs: Sequence[Pair], scorers: Scorers) -> dict[str, Any]:
    """How well sources are told from references, each by a classifier that has not seen them."""
    rows = [
        (text, is_neutral, pair)
        for pair in pairs
        if pair.language == language
        for text, is_neutral in labelled_texts([pair])
    ]
    texts, is_neutral, owners = (list(column) for column in zip(*rows, strict=True))
    toxic = 1 - scorers.neutral(texts, owners)
    return {"language": language, **quality([not neutral for neutral in is_neutral], toxic)}


def _keys(pairs: Sequence[Pair]) -> set[str]:
    return {sentence_key(text) for pair in pairs for text in (pair.source, *pair.references)}


def _require_enough(language: str, count: int) -> None:
    if count < MIN_PAIRS:
        raise UserError(
            f"{count} references in language {language!r}: to fit the embedded toxicity "
            f"classifier on the others of them takes at least {MIN_PAIRS}; give --toxicity-data or "
            "--train-pairs, or score the other languages with --language"
        )
