"""The embedded STA of an evaluation: a classifier that has seen nothing of what it scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detox_tune.data.pairs import Pair
from detox_tune.data.text import sentence_key
from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import NeutralityClassifier
from detox_tune.evaluation.pan import EmbeddedPanScorers
from detox_tune.evaluation.systems import Part

FOLDS = 3
"""Parts that the references are cut into where the classifier can be fitted on nothing else."""
MIN_PAIRS = 20
"""Fewest references for that: each classifier then has at least ten texts of either kind."""


@dataclass(frozen=True)
class FittedScorers:
    """Embedded scorers for every pair of an evaluation, and how their classifier was fitted."""

    parts: tuple[Part, ...]
    fitted_on: str
    """What the classifier was fitted on, for those who read the scores."""
    held_out: tuple[dict[str, Any], ...] = ()
    """Its quality on texts held out, a row a language, where that was measured."""


def cross_fitted(pairs: Sequence[Pair], *, seed: int) -> FittedScorers:
    """Cut the pairs into parts; a part is scored by a classifier fitted on the others.

    Every language is spread evenly over the parts. The classifier never sees a system's output,
    so systems that are scored on the same references with the same seed can be compared.

    Raises:
        UserError: fewer than MIN_PAIRS pairs.
    """
    if len(pairs) < MIN_PAIRS:
        raise UserError(
            f"{len(pairs)} references: to fit the embedded toxicity classifier on the others of "
            f"them takes at least {MIN_PAIRS}; give --toxicity-data or --train-pairs"
        )
    shuffled = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    shuffled.sort(key=lambda place: pairs[place].language)  # stable: in random order within it
    parts: list[Part] = []
    for fold in range(FOLDS):
        inside = sorted(shuffled[fold::FOLDS])
        others = sorted(set(shuffled) - set(inside))
        classifier = _fit([pairs[place] for place in others], seed)
        parts.append((inside, EmbeddedPanScorers(classifier)))
    return FittedScorers(
        tuple(parts), f"{FOLDS}-fold: each part of the references by a fit on the others"
    )


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


def fitted_on_texts(path: Path, pairs: Sequence[Pair], *, seed: int) -> FittedScorers:
    """Fit on a labelled toxicity file or folder (see `load_toxicity_data`).

    Texts that are sources or references of the scored pairs are left out.

    Raises:
        UserError: the data cannot be read, or are too few.
    """
    from detox_tune.evaluation.toxicity import fit_toxicity, load_toxicity_data

    wanted = sorted({pair.language for pair in pairs})
    rows = zip(*load_toxicity_data(path, wanted), strict=True)
    scored = {sentence_key(text) for pair in pairs for text in (pair.source, *pair.references)}
    marked = [(sentence_key(row[0]) in scored, row) for row in rows]
    left = [row for is_scored, row in marked if not is_scored]
    texts, is_toxic, languages = ([row[column] for row in left] for column in range(3))
    classifier, held_out = fit_toxicity(texts, is_toxic, languages, seed=seed)
    return FittedScorers(
        ((range(len(pairs)), EmbeddedPanScorers(classifier)),),
        f"{len(left)} labelled texts; {len(marked) - len(left)} left out, as they are scored here",
        tuple(map(asdict, held_out)),
    )


def _fit(pairs: Sequence[Pair], seed: int) -> NeutralityClassifier:
    toxic = [pair.source for pair in pairs]
    neutral = [reference for pair in pairs for reference in pair.references]
    return NeutralityClassifier.fit(toxic, neutral, seed=seed)
