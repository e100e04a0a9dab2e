"""Scores of outputs: STA, SIM, FL and their product `j`, copy rates and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.chrf import CHRF

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.classifier import NeutralityClassifier
from detox_tune.evaluation.collapse import (
    OutputLabel,
    is_exact_copy,
    label_output,
    without_specials,
)

_NOTHING_SAID = (OutputLabel.EMPTY, OutputLabel.SENTINEL)


class Scorers(Protocol):
    """The three scores of one set of models; each a value in [0, 1] a sample, shape (samples,)."""

    @property
    def name(self) -> str:
        """Which set this is; scores of different sets never stand in one table."""

    def sta(self, outputs: Sequence[str]) -> NDArray[np.float64]:
        """Style transfer accuracy: probability that an output is neutral."""

    def sim(self, outputs: Sequence[str], sources: Sequence[str]) -> NDArray[np.float64]:
        """Similarity of meaning of an output and its source."""

    def fl(
        self, outputs: Sequence[str], references: Sequence[Sequence[str]]
    ) -> NDArray[np.float64]:
        """Fluency: closeness of an output to the best of its references."""


@dataclass(frozen=True)
class EmbeddedScorers:
    """Scorers that need no download: a fitted classifier, and chrF for meaning and fluency."""

    classifier: NeutralityClassifier
    name: str = "embedded"

    def sta(self, outputs: Sequence[str]) -> NDArray[np.float64]:
        """Probability of neutral by the classifier."""
        return self.classifier.neutral_probability(outputs)

    def sim(self, outputs: Sequence[str], sources: Sequence[str]) -> NDArray[np.float64]:
        """Sentence chrF of output and source."""
        return sentence_chrf(outputs, [[source] for source in sources])

    def fl(
        self, outputs: Sequence[str], references: Sequence[Sequence[str]]
    ) -> NDArray[np.float64]:
        """Sentence chrF of output and its best reference."""
        return sentence_chrf(outputs, references)


@dataclass(frozen=True)
class Evaluation:
    """What the outputs of one system scored, sample by sample; every array has shape (samples,)."""

    scorers: str
    """Name of the scorers that gave sta, sim and fl."""
    sta: NDArray[np.float64]
    sim: NDArray[np.float64]
    fl: NDArray[np.float64]
    j: NDArray[np.float64]
    """sta * sim * fl, sample by sample."""
    labels: tuple[OutputLabel, ...]
    exact_copies: NDArray[np.bool_]
    """Outputs that equal their source after folding (rule 1 of a copy)."""

    def summary(self) -> dict[str, float]:
        """Means of the scores, copy rates, the share of every label, and n.

        `copy_rate` and `copied` are the same number: a copy is always labelled so. An output that
        equals its source and a reference counts in `exact_copy_rate` only.
        """
        count = len(self.labels)
        labels = Counter(self.labels)
        shares = {str(label): labels[label] / count for label in OutputLabel}
        return {
            "j": float(self.j.mean()),
            "sta": float(self.sta.mean()),
            "sim": float(self.sim.mean()),
            "fl": float(self.fl.mean()),
            "copy_rate": shares[OutputLabel.COPIED],
            "exact_copy_rate": float(self.exact_copies.mean()),
            **shares,
            "n": float(count),
        }


def score_outputs(
    outputs: Sequence[str], pairs: Sequence[Pair], *, lexicon: Lexicon, scorers: Scorers
) -> Evaluation:
    """Score the output of every pair.

    `j` is the joint score of PAN 2024 (Dementieva et al., "Overview of the Multilingual Text
    Detoxification Task at PAN 2024"): the mean of STA x SIM x FL, under which a plain copy is
    worth next to nothing. Sentinels and special tokens are taken out before scoring; an output
    that has nothing else scores 0 in all three.

    Raises:
        UserError: There are no outputs, or not as many as pairs; or the lexicon lacks the language
            of a pair.
    """
    if not outputs or len(outputs) != len(pairs):
        raise UserError(
            f"{len(outputs)} outputs for {len(pairs)} pairs: there must be one for each pair, and "
            "at least one; check that both come from the same split"
        )
    for language in {pair.language for pair in pairs}:
        lexicon.entries(language)  # raises now rather than at the first output that needs it
    labels = tuple(
        label_output(output, pair, lexicon) for output, pair in zip(outputs, pairs, strict=True)
    )
    says_something = np.array([label not in _NOTHING_SAID for label in labels], dtype=np.float64)
    texts = [without_specials(output) for output in outputs]
    sources = [pair.source for pair in pairs]
    sta = scorers.sta(texts) * says_something
    sim = scorers.sim(texts, sources) * says_something
    fl = scorers.fl(texts, [pair.references for pair in pairs]) * says_something
    return Evaluation(
        scorers=scorers.name,
        sta=sta,
        sim=sim,
        fl=fl,
        j=sta * sim * fl,
        labels=labels,
        exact_copies=np.array(list(map(is_exact_copy, outputs, sources))),
    )


def sentence_chrf(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """Sentence-level chrF (Popović 2015) as sacrebleu computes it, divided by 100.

    Character n-grams up to 6, no word n-grams, beta 2, case kept, white space left out.

    Args:
        hypotheses: One text a sample.
        references: One or more texts a sample; the best counts.

    Returns:
        Values in [0, 1], shape (samples,); an empty hypothesis has 0.
    """
    metric = CHRF()
    return np.array(
        [
            # By definition, and without counting: baselines and copies equal what they are
            # compared with.
            1.0
            if hypothesis in texts and hypothesis.strip()
            else metric.sentence_score(hypothesis, texts).score / 100
            for hypothesis, texts in zip(hypotheses, references, strict=True)
        ],
        dtype=np.float64,
    )


def copy_outputs(pairs: Sequence[Pair]) -> list[str]:
    """The baseline that changes nothing: the sources."""
    return [pair.source for pair in pairs]


def delete_outputs(pairs: Sequence[Pair], lexicon: Lexicon) -> list[str]:
    """The baseline that deletes the lexicon's words from the sources."""
    return [lexicon.delete(pair.source, pair.language) for pair in pairs]
