"""The joint scores of PAN's text detoxification tasks of 2024 and 2025.

Both follow the organisers' evaluation code, github.com/pan-webis-de/pan-code, folders
`clef24/text-detoxification` (`evaluate.py`) and `clef25/text-detoxification/evaluation`; see also
Dementieva et al., "Overview of the Multilingual Text Detoxification Task at PAN 2024" (and 2025).

**Ties of the pairwise term.** The 2025 form rewards an output that is at least as neutral as its
source (or its reference) with an indicator, `p_in <= p_out`. The organisers compare floats as they
are, without a tolerance, and so does `joint_2025`: equal values count as reached. A neural
classifier gives one text values that differ in the last digits from batch to batch, because the
padding differs; a copy in another batch than its source would then win or lose by chance. That is
settled before the comparison, not in it: a set of scorers gives a text one value, however often
and wherever it stands (`OncePerItem`), so a copy always ties and a tie always counts. Two
different texts are compared exactly, however close they are.

Cosines may be negative, and neither year clips them, so a joint score may be a little below 0 with
the official models; with the embedded scorers all values lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from detox_tune.errors import UserError
from detox_tune.evaluation.collapse import comparable, without_specials
from detox_tune.evaluation.scores import sentence_chrf

SOURCE_WEIGHT = 0.4
"""Weight of the similarity to the source in 2025."""
REFERENCE_WEIGHT = 0.6
"""Weight of the similarity to the reference in 2025."""

Item = TypeVar("Item", bound=Hashable)


class PanScorers(Protocol):
    """One set of models; every method gives one value a sample, shape (n,).

    A text, or a pair of texts, must have the same value in every call (see the module's header).
    """

    @property
    def name(self) -> str:
        """Which set this is; scores of different sets never stand in one table."""

    @property
    def models(self) -> dict[str, str]:
        """Every model that gives values, with its revision; empty for the embedded set."""

    def neutral(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of neutral by the classifier of 2024."""

    def neutral_2025(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of neutral by the classifier of 2025."""

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        """Likeness of meaning of a text and the other at its place."""

    def fluency_2024(
        self, outputs: Sequence[str], references: Sequence[Sequence[str]]
    ) -> NDArray[np.float64]:
        """Sentence chrF of an output and the best of its references, divided by 100."""

    def fluency_2025(
        self, sources: Sequence[str], outputs: Sequence[str], references: Sequence[str]
    ) -> NDArray[np.float64]:
        """Quality of an output, given its source and one reference."""


class HasNeutralProbability(Protocol):
    """A classifier such as `NeutralityClassifier`."""

    def neutral_probability(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability in [0, 1] that each text is neutral; shape (texts,)."""


@dataclass(frozen=True)
class PanScores:
    """Both years' scores of one system, sample by sample; every array has shape (n,)."""

    sta: NDArray[np.float64]
    """Probability of neutral (2024)."""
    sim: NDArray[np.float64]
    """Similarity of output and source (2024)."""
    fl: NDArray[np.float64]
    """chrF of output and best reference (2024)."""
    j: NDArray[np.float64]
    """Joint score of PAN 2024: sta * sim * fl."""
    j_2025: NDArray[np.float64]
    """Joint score of PAN 2025."""


class OncePerItem(Generic[Item]):
    """A function of many items that is asked once for each distinct item, ever.

    It saves time (the sources come back with every system) and makes equal texts exactly equal in
    value. It keeps a value for every item seen, so it lives no longer than an evaluation.
    """

    def __init__(self, function: Callable[[Sequence[Item]], NDArray[np.float64]]) -> None:
        """Wrap a function from n items to an array whose first axis has length n."""
        self._function = function
        self._values: dict[Item, NDArray[np.float64]] = {}

    def __call__(self, items: Sequence[Item]) -> NDArray[np.float64]:
        """The value of every item, in their order; the first axis has length n."""
        new = [item for item in dict.fromkeys(items) if item not in self._values]
        if new:
            self._values.update(zip(new, self._function(new), strict=True))
        return np.array([self._values[item] for item in items], dtype=np.float64)


class EmbeddedPanScorers:
    """Scorers without a download: a fitted classifier, and sentence chrF for all the rest.

    They stand in for the official models and are not comparable with them. One classifier serves
    both years, and chrF to the reference serves as the fluency of 2025.
    """

    def __init__(self, classifier: HasNeutralProbability) -> None:
        """Score with a classifier fitted elsewhere."""
        self.name = "embedded"
        self.models: dict[str, str] = {}
        self._neutral = OncePerItem[str](classifier.neutral_probability)
        self._chrf = OncePerItem[tuple[str, str]](_pair_chrf)

    def neutral(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of neutral by the classifier; shape (texts,)."""
        return self._neutral(texts)

    def neutral_2025(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The same as `neutral`."""
        return self._neutral(texts)

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        """Sentence chrF of each text against the other at its place; shape (texts,)."""
        return self._chrf(list(zip(texts, others, strict=True)))

    def fluency_2024(
        self, outputs: Sequence[str], references: Sequence[Sequence[str]]
    ) -> NDArray[np.float64]:
        """Sentence chrF of each output and the best of its references; shape (outputs,)."""
        flat = _Flattened(outputs, references)
        return flat.best(self.similarity(flat.repeated(outputs), flat.references))

    def fluency_2025(
        self, sources: Sequence[str], outputs: Sequence[str], references: Sequence[str]
    ) -> NDArray[np.float64]:
        """Sentence chrF of each output and its reference; the source plays no part."""
        return self.similarity(outputs, references)


def joint_2024(
    sta: NDArray[np.float64], sim: NDArray[np.float64], fl: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The joint score of PAN 2024: STA x SIM x FL for every sample.

    Args:
        sta: Probability that the output is neutral.
        sim: Cosine of output and source.
        fl: chrF of output and reference, divided by 100.

    Returns:
        Values of the arguments' shape; a system's score is their mean.
    """
    sta, sim, fl = _of_one_shape(sta, sim, fl)
    return sta * sim * fl


def joint_2025(
    p_source: NDArray[np.float64],
    p_output: NDArray[np.float64],
    p_reference: NDArray[np.float64],
    sim_source: NDArray[np.float64],
    sim_reference: NDArray[np.float64],
    fl: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The joint score of PAN 2025 for every sample.

    `max((p_out + 1[p_in <= p_out]) / 2, 1[p_ref <= p_out])` times
    `0.4 sim(source) + 0.6 sim(reference)` times FL. Equality counts in both indicators, and there
    is no tolerance (see the module's header).

    Args:
        p_source: Probability that the source is neutral (p_in).
        p_output: The same of the output (p_out).
        p_reference: The same of the reference (p_ref).
        sim_source: Cosine of output and source.
        sim_reference: Cosine of output and reference.
        fl: XCOMET-lite of source, output and reference.

    Returns:
        Values of the arguments' shape; a system's score is their mean.
    """
    p_source, p_output, p_reference, sim_source, sim_reference, fl = _of_one_shape(
        p_source, p_output, p_reference, sim_source, sim_reference, fl
    )
    against_source = (p_output + (p_source <= p_output)) / 2
    sta = np.maximum(against_source, p_reference <= p_output)
    return sta * (SOURCE_WEIGHT * sim_source + REFERENCE_WEIGHT * sim_reference) * fl


def pan_scores(
    outputs: Sequence[str],
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    scorers: PanScorers,
) -> PanScores:
    """Score outputs by both years' definitions.

    The organisers know one reference a sample; of several, the best one counts: by chrF in 2024,
    by the joint score in 2025. Sentinels and special tokens are taken out of the outputs first; an
    output that then has no letter, digit or emoji scores 0 in everything, as in `score_outputs`.

    Args:
        outputs: One text a sample.
        sources: The toxic sentences.
        references: One or more neutral wordings a sample.
        scorers: The models.

    Raises:
        UserError: There are no outputs, not as many as sources and references, or a sample without
            a reference.
    """
    _check(outputs, sources, references)
    texts = [without_specials(output) for output in outputs]
    says_something = np.array([comparable(text) != "" for text in texts], dtype=np.float64)
    sta = scorers.neutral(texts) * says_something
    sim = scorers.similarity(texts, sources) * says_something
    fl = scorers.fluency_2024(texts, references) * says_something
    flat = _Flattened(texts, references)
    flat_outputs, flat_sources = flat.repeated(texts), flat.repeated(sources)
    flat_2025 = joint_2025(
        scorers.neutral_2025(flat_sources),
        scorers.neutral_2025(flat_outputs),
        scorers.neutral_2025(flat.references),
        scorers.similarity(flat_outputs, flat_sources),
        scorers.similarity(flat_outputs, flat.references),
        scorers.fluency_2025(flat_sources, flat_outputs, flat.references),
    )
    return PanScores(
        sta=sta,
        sim=sim,
        fl=fl,
        j=joint_2024(sta, sim, fl),
        j_2025=flat.best(flat_2025) * says_something,
    )


class _Flattened:
    """Samples with several references as rows with one each."""

    def __init__(self, samples: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        assert len(samples) == len(references), (len(samples), len(references))
        self._counts = [len(texts) for texts in references]
        self.references = [text for texts in references for text in texts]

    def repeated(self, texts: Sequence[str]) -> list[str]:
        """A text for each row from a text for each sample."""
        return [text for text, n in zip(texts, self._counts, strict=True) for _ in range(n)]

    def best(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The highest value of every sample, shape (samples,), from one for each row."""
        starts = np.cumsum([0, *self._counts[:-1]])
        return np.asarray(np.maximum.reduceat(values, starts), dtype=np.float64)


def _pair_chrf(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    return sentence_chrf([text for text, _ in pairs], [[other] for _, other in pairs])


def _of_one_shape(*arrays: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """The arrays as float64, in which float32 values keep their order and their ties."""
    converted = tuple(np.asarray(array, dtype=np.float64) for array in arrays)
    assert len({array.shape for array in converted}) == 1, [array.shape for array in converted]
    return converted


def _check(
    outputs: Sequence[str], sources: Sequence[str], references: Sequence[Sequence[str]]
) -> None:
    counts = len(outputs), len(sources), len(references)
    if not outputs or len(set(counts)) != 1:
        raise UserError(
            f"{counts[0]} outputs, {counts[1]} sources and {counts[2]} lists of references: there "
            "must be as many of each, and at least one; check that they come from the same split"
        )
    for number, texts in enumerate(references, start=1):
        if not texts:
            raise UserError(
                f"sample {number} has no reference, but the scores need one for each sample; add "
                "it or leave the sample out"
            )
