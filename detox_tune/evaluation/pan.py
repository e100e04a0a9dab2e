"""The joint scores of PAN's text detoxification tasks of 2024 and 2025.

Both follow the organisers' evaluation code, github.com/pan-webis-de/pan-code, folders
`clef24/text-detoxification` (`evaluate.py`) and `clef25/text-detoxification/evaluation`; see also
Dementieva et al., "Overview of the Multilingual Text Detoxification Task at PAN 2024" (and 2025).

**Ties in the form of 2025.** It rewards an output that is at least as neutral as its source (or
its reference): `p_in <= p_out`. The organisers compare floats as they are, without a tolerance, and
so does `joint_2025`: equal values count as reached. A neural classifier gives one text values that
differ in the last digits from batch to batch, so a copy could win or lose by chance. That is
settled before the comparison: a set of scorers gives a text one value, wherever it stands
(`scores.OncePerItem`), so a copy always ties. Two different texts are compared exactly.

Cosines may be negative, and neither year clips them, so a joint score may be a little below 0 with
the official models; with the embedded scorers all values lie in [0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SOURCE_WEIGHT = 0.4
"""Weight of the similarity to the source in 2025."""
REFERENCE_WEIGHT = 0.6
"""Weight of the similarity to the reference in 2025."""


def joint_2024(
    sta: NDArray[np.float64], sim: NDArray[np.float64], fl: NDArray[np.float64]
) -> NDArray[np.float64]:
    """STA x SIM x FL for every sample; a system's score is their mean.

    Args:
        sta: Probability that the output is neutral, shape (n,).
        sim: Similarity of output and source, shape (n,).
        fl: chrF of output and best reference, divided by 100, shape (n,).
    """
    return sta * sim * fl


def joint_2025(
    p_source: NDArray[np.float64],
    p_output: NDArray[np.float64],
    p_reference: NDArray[np.float64],
    sim_source: NDArray[np.float64],
    sim_reference: NDArray[np.float64],
    fl: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The joint score of PAN 2025 for every sample; a system's score is their mean.

    `max((p_out + 1[p_in <= p_out]) / 2, 1[p_ref <= p_out])` times
    `0.4 sim(source) + 0.6 sim(reference)` times FL. Equality counts in both indicators.

    Args:
        p_source: Probability that the source is neutral (p_in), shape (n,).
        p_output: The same of the output (p_out).
        p_reference: The same of the reference (p_ref).
        sim_source: Similarity of output and source.
        sim_reference: Similarity of output and reference.
        fl: Quality of the output, given source and reference.
    """
    against_source = (p_output + (p_source <= p_output)) / 2
    sta = np.maximum(against_source, p_reference <= p_output)
    return np.asarray(
        sta * (SOURCE_WEIGHT * sim_source + REFERENCE_WEIGHT * sim_reference) * fl,
        dtype=np.float64,
    )
