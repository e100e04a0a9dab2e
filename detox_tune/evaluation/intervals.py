"""Intervals of means: how far a score would move with other sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from detox_tune.evaluation.scores import SHARES

LEVEL = 0.95
"""Share of the resampled means that lie in an interval."""
RESAMPLES = 1000

_DRAWS_AT_ONCE = 1 << 20  # bounds memory to some 20 MB, whatever the number of samples


def mean_intervals(scored: pd.DataFrame, *, seed: int) -> dict[str, tuple[float, float]]:
    """The 95% interval of the mean of each column.

    A share (a score that is 0 or 1 for each sample) gets the interval of Wilson (1927): the
    bootstrap of a share of 0 or 1 has no width, and near these it is too narrow. All other scores
    get `bootstrap_mean`.

    Args:
        scored: One row per sample, one column per score, nan where a score is not defined.
        seed: Of the bootstrap.

    Returns:
        Lower and upper bound by column; nan for a score that no sample has.
    """
    lows, highs = bootstrap_mean(scored.to_numpy(), seed=seed)
    intervals = dict(zip(map(str, scored.columns), zip(lows, highs, strict=True), strict=True))
    for name in intervals.keys() & set(SHARES):
        values = scored[name].dropna()
        if len(values):
            test = binomtest(round(values.sum()), len(values))
            bounds = test.proportion_ci(confidence_level=LEVEL, method="wilson")
            intervals[name] = (bounds.low, bounds.high)
    return {name: (float(low), float(high)) for name, (low, high) in intervals.items()}


def bootstrap_mean(
    values_nk: NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap intervals (Efron 1979) of the means of several scores.

    Samples are drawn with replacement, all scores of a sample together. A resampled mean is a
    product of two matrices, how often each sample was drawn and the scores, which for a thousand
    resamples of 10,000 samples takes a fraction of the time of `scipy.stats.bootstrap`.

    Args:
        values_nk: One row per sample, one column per score; nan where a score is not defined,
            which then does not count in its mean.
        seed: The same seed and values give the same intervals.
        resamples: How many means are drawn.

    Returns:
        The 2.5% and the 97.5% quantile of the means, each of shape (k,); nan for a score that no
        sample has. One sample alone has an interval of no width.
    """
    n, k = values_nk.shape
    assert n >= 1, values_nk.shape
    defined_nk = ~np.isnan(values_nk)
    zeroed_nk = np.where(defined_nk, values_nk, 0.0)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, k))
    chunk = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts_rn = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        counts_rn = counts_rn.astype(np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0: a resample without a defined value
            means[start : start + size] = (counts_rn @ zeroed_nk) / (counts_rn @ defined_nk)
    low, high = np.full(k, np.nan), np.full(k, np.nan)
    some = defined_nk.any(axis=0)
    tail = (1 - LEVEL) / 2
    low[some], high[some] = np.nanquantile(means[:, some], (tail, 1 - tail), axis=0)
    return low, high
