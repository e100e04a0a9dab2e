"""The embedded STA of an evaluation: a classifier that has seen nothing of what it scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.spans import annotated_sentences
from detox_tune.data.text import sentence_key
from detox_tune.data.toxicity import ToxicityData
from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import NeutralityClassifier
from detox_tune.evaluation.evidence import Evidence, Labelled
from detox_tune.evaluation.pan import EmbeddedPanScorers
from detox_tune.evaluation.stacked import StackedClassifier, texts_of
from detox_tune.evaluation.systems import Part
from detox_tune.evaluation.toxicity import calibration_error, fit_toxicity

FOLDS = 10
"""Parts that the references of a language are cut into, each scored by a fit on the others."""
MIN_PAIRS = 20
"""Fewest references of a language for that: each classifier then sees at least 18."""
MOST_PAIRS = 1500
"""Most pairs that a classifier is fitted on, drawn by lot: it bounds the time of a large corpus."""
FEW_FOLDS = 3
"""Folds of a language in which even so many leave MOST_PAIRS to fit on."""


@dataclass(frozen=True)
class FittedScorers:
    """Embedded scorers for every pair of an evaluation, and how their classifier was fitted."""

    parts: tuple[Part, ...]
    fitted_on: str
    """What the classifier was fitted on, for those who read the scores."""
    held_out: tuple[dict[str, Any], ...] = ()
    """Its quality on texts held out, a row a language, where that was measured."""


def cross_fitted(
    pairs: Sequence[Pair],
    *,
    lexicons: Mapping[str, Lexicon],
    spans: str | None = None,
    labelled: ToxicityData | None = None,
    seed: int,
) -> FittedScorers:
    """Cut the pairs of each language into folds; one is scored by a fit on the others.

    The classifier (`StackedClassifier`) never sees a text of the fold that it scores, in any
    spelling, nor a system's output, so systems that are scored on the same references with the
    same seed can be compared.

    Args:
        pairs: What is scored.
        lexicons: By language, perhaps without entries; what they know counts in the classifier.
        spans: File or folder of annotated spans; of the scored sentences only the pairs' own
            `spans` are used, and those for the other folds alone.
        labelled: Labelled texts in all the languages; those that are scored are left out.
        seed: Decides folds and fits.

    Raises:
        UserError: fewer than MIN_PAIRS pairs in a language, or unusable spans or texts.
    """
    languages = sorted({pair.language for pair in pairs})
    for language in languages:
        _require_enough(language, sum(pair.language == language for pair in pairs))
    scored = _keys(pairs)
    sentences = annotated_sentences(spans, languages) if spans else []
    others = [sentence for sentence in sentences if sentence_key(sentence.text) not in scored]
    parts: list[Part] = []
    held_out: list[dict[str, Any]] = []
    for language in languages:
        evidence = Evidence(
            language,
            lexicons[language],
            [sentence for sentence in others if sentence.language == language],
            _labelled(labelled, language, scored, seed) if labelled else None,
        )
        places = [place for place, pair in enumerate(pairs) if pair.language == language]
        of_language = _fit_folds(pairs, places, evidence, seed)
        held_out.append(_measure(language, pairs, of_language))
        parts += of_language
    used = ["the other folds of the references"]
    if any(lexicons[language].entries(language) for language in languages):
        used.append("the lexicon")
    if others:
        used.append(f"{len(others)} annotated sentences")
    if labelled:
        left = sum(sentence_key(text) not in scored for text in labelled.texts)
        used.append(f"{left} labelled texts")
    return FittedScorers(tuple(parts), f"fitted on {', '.join(used)}", tuple(held_out))


def fitted_on_pairs(train: Sequence[Pair], pairs: Sequence[Pair], *, seed: int) -> FittedScorers:
    """Fit on other pairs: sources as toxic, references as neutral.

    Pairs whose source is among those scored are left out, whatever their spelling.

    Raises:
        UserError: too few pairs are left.
    """
    scored = {sentence_key(pair.source) for pair in pairs}
    others = [pair for pair in train if sentence_key(pair.source) not in scored]
    classifier = _fit(others, seed)
    fitted_on = f"{len(others)} pairs; {len(train) - len(others)} left out, as they are scored here"
    return FittedScorers(((range(len(pairs)), EmbeddedPanScorers(classifier)),), fitted_on)


def fitted_on_texts(data: ToxicityData, pairs: Sequence[Pair], *, seed: int) -> FittedScorers:
    """Fit on labelled texts alone, where there are too few pairs for `cross_fitted`.

    Texts that are sources or references of the scored pairs are left out.

    Raises:
        UserError: too few texts.
    """
    texts, is_toxic, languages = _not_scored(data, _keys(pairs))
    classifier, held_out = fit_toxicity(texts, is_toxic, languages, seed=seed)
    out = len(data.texts) - len(texts)
    return FittedScorers(
        ((range(len(pairs)), EmbeddedPanScorers(classifier)),),
        f"{len(texts)} labelled texts; {out} left out, as they are scored here",
        tuple(map(asdict, held_out)),
    )


def enough_to_cross_fit(pairs: Sequence[Pair]) -> bool:
    """Whether every language has MIN_PAIRS pairs."""
    return min(Counter(pair.language for pair in pairs).values()) >= MIN_PAIRS


def _fit_folds(
    pairs: Sequence[Pair], places: Sequence[int], evidence: Evidence, seed: int
) -> list[Part]:
    generator = np.random.default_rng(seed)
    count = FEW_FOLDS if len(places) * (1 - 1 / FEW_FOLDS) >= MOST_PAIRS else FOLDS
    fold_of = dict(zip(places, generator.permutation(len(places)) % count, strict=True))
    keys = {place: _keys([pairs[place]]) for place in places}
    parts: list[Part] = []
    for fold in range(count):
        inside = [place for place in places if fold_of[place] == fold]
        scored = _keys([pairs[place] for place in inside])
        others = [pairs[place] for place in places if not keys[place] & scored]
        if len(others) > MOST_PAIRS:
            drawn = generator.choice(len(others), MOST_PAIRS, replace=False)
            others = [others[i] for i in drawn.tolist()]
        fitted = StackedClassifier.fit(others, evidence, seed=seed)
        parts.append((inside, EmbeddedPanScorers(fitted)))
    return parts


def _measure(language: str, pairs: Sequence[Pair], parts: Sequence[Part]) -> dict[str, Any]:
    """How well sources are told from references, each by a classifier that has not seen them."""
    is_toxic: list[bool] = []
    probabilities: list[float] = []
    for places, scorers in parts:
        texts, is_neutral = texts_of([pairs[place] for place in places])
        is_toxic += [not neutral for neutral in is_neutral]
        probabilities += list(1 - scorers.neutral(texts))
    toxic = np.array(probabilities)
    return {
        "language": language,
        "n": len(is_toxic),
        "auc": float(roc_auc_score(is_toxic, toxic)),
        "f1": float(f1_score(is_toxic, toxic > 0.5)),
        "log_loss": float(log_loss(is_toxic, toxic)),
        "ece": calibration_error(is_toxic, toxic),
    }


def _labelled(data: ToxicityData, language: str, scored: Collection[str], seed: int) -> Labelled:
    texts, is_toxic, languages = _not_scored(data, scored, language)
    classifier, _ = fit_toxicity(texts, is_toxic, languages, seed=seed)
    toxic, neutral = (
        [text for text, label in zip(texts, is_toxic, strict=True) if label == wanted]
        for wanted in (True, False)
    )
    return Labelled(toxic, neutral, classifier)


def _not_scored(
    data: ToxicityData, scored: Collection[str], language: str | None = None
) -> tuple[list[str], list[bool], list[str]]:
    """Texts, labels and languages without the texts that are scored, perhaps of one language."""
    kept = [
        place
        for place, text in enumerate(data.texts)
        if language in (None, data.languages[place]) and sentence_key(text) not in scored
    ]
    return (
        [data.texts[place] for place in kept],
        [data.is_toxic[place] for place in kept],
        [data.languages[place] for place in kept],
    )


def _keys(pairs: Sequence[Pair]) -> set[str]:
    return {sentence_key(text) for pair in pairs for text in (pair.source, *pair.references)}


def _require_enough(language: str, count: int) -> None:
    if count < MIN_PAIRS:
        raise UserError(
            f"{count} references in language {language!r}: to fit the embedded toxicity "
            f"classifier on the others of them takes at least {MIN_PAIRS}; give --toxicity-data or "
            "--train-pairs, or score the other languages with --language"
        )


def _fit(pairs: Sequence[Pair], seed: int) -> NeutralityClassifier:
    toxic = [pair.source for pair in pairs]
    neutral = [reference for pair in pairs for reference in pair.references]
    return NeutralityClassifier.fit(toxic, neutral, seed=seed)
