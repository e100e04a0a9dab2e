"""The scores of outputs, sample by sample: the one way in which anything here is scored.

STA is the probability of neutral, SIM the similarity of meaning to the source, FL the closeness to
the best reference; `j` is their product, as in PAN 2024, under which a plain copy is worth next to
nothing. Beside them stand the score of PAN 2025, what became of the sentence, and what was edited.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sacrebleu.metrics.chrf import CHRF

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluation.collapse import (
    OutputLabel,
    is_exact_copy,
    label_output,
    without_specials,
)
from detox_tune.evaluation.disguise import undisguised
from detox_tune.evaluation.edits import edit_recall, toxic_retention
from detox_tune.evaluation.pan import joint_2024, joint_2025

SCORES = (
    "j",
    "sta",
    "sim",
    "fl",
    "j_2025",
    "copy_rate",
    "exact_copy_rate",
    "rewritten",
    "sentinel",
    "empty",
    "repeated",
    "edit_recall",
    "toxic_retention",
)
"""Every score of a sample. `copy_rate` is the share of outputs that are labelled `copied`."""

SHARES = ("copy_rate", "exact_copy_rate", "rewritten", "sentinel", "empty", "repeated")
"""The scores that are 0 or 1 for each sample."""

_NOTHING_SAID = (OutputLabel.EMPTY, OutputLabel.SENTINEL)
Item = TypeVar("Item", bound=Hashable)


class Scorers(Protocol):
    """One set of models; every method gives one value per sample, shape (n,).

    A text (in a pair), or two texts, must have the same value in every call: see `pan`.
    """

    @property
    def name(self) -> str:
        """Which set this is; scores of different sets never stand in one table."""

    @property
    def models(self) -> dict[str, str]:
        """Every model that gives values, with its revision; empty for the embedded set."""

    def neutral(self, texts: Sequence[str], pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Probability of neutral of each text, which belongs to the pair at its place."""

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
        """Similarity of meaning of each text and the other one at its place."""

    def fluency_2025(
        self, sources: Sequence[str], texts: Sequence[str], references: Sequence[str]
    ) -> NDArray[np.float64] | None:
        """Quality of each text, given source and reference; None if the set has no such model."""


def score_outputs(
    outputs: Sequence[str],
    pairs: Sequence[Pair],
    *,
    lexicon: Lexicon,
    scorers: Scorers,
    task_prefix: str = "",
) -> pd.DataFrame:
    """Score the output of every pair.

    Sentinels and special tokens are taken out before STA, SIM and FL; an output that has nothing
    else scores 0 in all three. STA reads disguised words of the source written out, or masking
    letters would pay (`undisguised`). Of several references the best one counts.

    Args:
        outputs: One text for each pair.
        pairs: What they answer.
        lexicon: Has the language of every pair.
        scorers: The models.
        task_prefix: What stood before the sources; its echo in an output hides no copy.

    Returns:
        One row per output, with the columns of SCORES, each in [0, 1] (nan where it is not
        defined; the official set's cosines may be negative), and `label` (`OutputLabel`).

    Raises:
        UserError: There are no outputs, or not as many as pairs; or the lexicon lacks a language.
    """
    if not outputs or len(outputs) != len(pairs):
        raise UserError(
            f"{len(outputs)} outputs for {len(pairs)} pairs: there must be one for each pair, and "
            "at least one; check that both come from the same split"
        )
    for language in {pair.language for pair in pairs}:
        lexicon.entries(language)  # raises now rather than at the first output that needs it
    labels = [
        label_output(output, pair, lexicon, task_prefix=task_prefix)
        for output, pair in zip(outputs, pairs, strict=True)
    ]
    says_something = np.array([label not in _NOTHING_SAID for label in labels], dtype=np.float64)
    texts = [without_specials(output) for output in outputs]
    sources = [pair.source for pair in pairs]
    plain = [
        undisguised(text, pair.language, known=pair.source, innocent=pair.references)
        for text, pair in zip(texts, pairs, strict=True)
    ]
    sta = scorers.neutral(plain, pairs) * says_something
    sim = scorers.similarity(texts, sources) * says_something
    fl = sentence_chrf(texts, [pair.references for pair in pairs]) * says_something
    edits = list(zip(outputs, pairs, strict=True))
    shares = {str(label): [found == label for found in labels] for label in OutputLabel}
    columns = {
        "j": joint_2024(sta, sim, fl),
        "sta": sta,
        "sim": sim,
        "fl": fl,
        "j_2025": _joint_2025(texts, plain, pairs, scorers) * says_something,
        "copy_rate": shares.pop("copied"),
        "exact_copy_rate": list(map(is_exact_copy, outputs, sources)),
        **shares,
        "edit_recall": [edit_recall(output, pair) for output, pair in edits],
        "toxic_retention": [toxic_retention(output, pair, lexicon) for output, pair in edits],
    }
    frame = pd.DataFrame({name: np.asarray(columns[name], dtype=np.float64) for name in SCORES})
    return frame.assign(label=list(map(str, labels)))


def mean_scores(scored: pd.DataFrame) -> dict[str, float]:
    """The mean of every score over the samples that have it, and `n`, the number of samples.

    A score that no sample has is left out.
    """
    means = scored[list(SCORES)].mean().dropna()
    return {**{str(name): float(mean) for name, mean in means.items()}, "n": float(len(scored))}


def sentence_chrf(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """Sentence-level chrF (Popović 2015) as sacrebleu computes it, divided by 100.

    Character n-grams up to 6, no word n-grams, beta 2, case kept, white space left out.

    Args:
        hypotheses: One text per sample.
        references: One or more texts per sample; the best counts.

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
            else metric.sentence_score(hypothesis, list(texts)).score / 100
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


class OncePerItem(Generic[Item]):
    """A function of many items that is asked once for each distinct item, ever.

    It saves time (the sources come back with every system) and makes equal items exactly equal in
    value. It keeps a value for every item that it has seen.
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

    def __reduce__(self) -> tuple[type[OncePerItem[Item]], tuple[object]]:
        """Pickled without its values: they are cheap to find again, and may be many."""
        return type(self), (self._function,)


def _joint_2025(
    texts: Sequence[str], plain: Sequence[str], pairs: Sequence[Pair], scorers: Scorers
) -> NDArray[np.float64]:
    """The score of PAN 2025 against the best reference of each pair, shape (n,); or nan.

    STA reads `plain`, the texts without disguises.
    """
    flat = [
        (text, undisguised_text, pair, reference)
        for text, undisguised_text, pair in zip(texts, plain, pairs, strict=True)
        for reference in pair.references
    ]
    outputs, plain, owners, references = (list(column) for column in zip(*flat, strict=True))
    sources = [pair.source for pair in owners]
    fluency = scorers.fluency_2025(sources, outputs, references)
    if fluency is None:
        return np.full(len(texts), np.nan)
    scored = joint_2025(
        scorers.neutral(sources, owners),
        scorers.neutral(plain, owners),
        scorers.neutral(references, owners),
        scorers.similarity(outputs, sources),
        scorers.similarity(outputs, references),
        fluency,
    )
    starts = np.cumsum([0, *(len(pair.references) for pair in pairs[:-1])])
    return np.asarray(np.maximum.reduceat(scored, starts), dtype=np.float64)
