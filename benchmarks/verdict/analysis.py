"""The tables that `verdict_arms.py` wrote, as data frames, and what they say about a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from verdict.claims import Comparison

from detox_tune.evaluation.intervals import bootstrap_mean, mean_intervals

RATIOS = ("steps_to_95",)
"""Measured on the validation curves, one value a seed."""
_LEAST = 3
_LEAST_ARMS = 8  # with every seed, of a rank correlation


class Effect(NamedTuple):
    """A mean, or a difference of means, with its 95% interval."""

    value: float
    low: float
    high: float
    n: int
    """Sentences, of all seeds together; for RATIOS seeds."""
    seeds: int

    def verdict(self, comparison: Comparison) -> str:
        """`holds`, `does not hold` or `open`; open with fewer than three values."""
        if self.n < _LEAST:
            return "open"
        sides = {"above": (self.low, self.high), "below": (-self.high, -self.low)}
        bound = comparison.bound if comparison.side == "above" else -comparison.bound
        low, high = sides[comparison.side]
        return "holds" if low > bound else "does not hold" if high < bound else "open"


def read_reports(folder: Path) -> pd.DataFrame:
    """All reports of all experiments, with `arm` as `experiment/arm`."""
    names = [file.stem.removesuffix("_sentences") for file in _sentence_files(folder)]
    tables = [pd.read_csv(folder / f"{name}.csv").assign(experiment=name) for name in names]
    reports = pd.concat(tables, ignore_index=True)
    reports["arm"] = reports["experiment"] + "/" + reports["arm"]
    return reports


def _sentence_files(folder: Path) -> list[Path]:
    """One for each experiment whose arms were trained; other tables have none."""
    return sorted(folder.glob("*_sentences.csv"))


def read_sentences(folder: Path) -> dict[tuple[str, str], dict[int, np.ndarray]]:
    """The values of test sentences: (arm, score) -> seed -> array [sentences]."""
    values: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for file in _sentence_files(folder):
        experiment = file.stem.removesuffix("_sentences")
        for row in pd.read_csv(file).itertuples():
            key = (f"{experiment}/{row.arm}", str(row.score))
            kind = str if row.score == "language" else float
            values.setdefault(key, {})[int(row.seed)] = np.array(row.values.split(), dtype=kind)
    return values


def effect(
    comparison: Comparison,
    reports: pd.DataFrame,
    sentences: dict[tuple[str, str], dict[int, np.ndarray]],
) -> Effect | None:
    """What was measured of a comparison; None if an arm has not been trained."""
    if comparison.score in RATIOS:
        return _ratio(comparison, reports)
    name, values = comparison.score, dict(sentences.get((comparison.arm, comparison.score), {}))
    if comparison.against is not None:
        other = sentences.get((comparison.against, comparison.score), {})
        name = "difference"
        values = {seed: values[seed] - other[seed] for seed in values.keys() & other.keys()}
    if comparison.language is not None:
        spoken = sentences[comparison.arm, "language"] if values else {}
        values = {seed: v[spoken[seed] == comparison.language] for seed, v in values.items()}
    return _mean(name, values) if values else None


def _mean(name: str, values: Mapping[int, np.ndarray]) -> Effect:
    """Of sentences of all seeds; shares get Wilson's interval, differences the bootstrap's."""
    in_order = [values[seed] for seed in sorted(values)]
    frame = pd.DataFrame({name: np.concatenate(in_order)}).dropna()
    low, high = mean_intervals(frame, seed=0)[name]
    return Effect(float(frame[name].mean()), low, high, len(frame), len(values))


def _ratio(comparison: Comparison, reports: pd.DataFrame) -> Effect | None:
    """The geometric mean over seeds of the ratio to the other arm, and its bootstrap interval."""
    curves = reports[reports["split"] == "validation"]
    ratios = []
    for _, of_seed in curves.groupby("seed"):
        both = [of_seed[of_seed["arm"] == arm] for arm in (comparison.arm, comparison.against)]
        if all(len(curve) for curve in both):
            own, other = (_steps_to_95(curve) for curve in both)
            ratios.append(own / other)
    if not ratios:
        return None
    logs = np.log(ratios)
    low, high = bootstrap_mean(logs[:, None], seed=0)
    mean, low_1, high_1 = (float(np.exp(value)) for value in (logs.mean(), low[0], high[0]))
    return Effect(mean, low_1, high_1, len(ratios), len(ratios))


def _steps_to_95(curve: pd.DataFrame) -> float:
    """Steps of the first report with at least 95% of the curve's best `j`."""
    return float(curve[curve["j"] >= 0.95 * curve["j"].max()]["step"].iloc[0])


def steering(reports: pd.DataFrame, *, share: float = 0.2) -> pd.DataFrame:
    """What to steer by: Spearman's correlation of early figures with the final test j.

    Args:
        reports: of `read_reports`.
        share: of the steps, after which the early figures are taken.

    Returns:
        A row for each experiment and figure: `rho` (its sign such that 1 is best), the 95%
        bootstrap interval over arms and seeds, and `n`, the number of these.
    """
    rows = []
    better = {
        "train_loss": -1,
        "validation_loss": -1,
        "j": 1,
        "exact_copy_rate": -1,
        "copy_rate": -1,
    }
    for experiment, table in reports.groupby("experiment"):
        early = table[table["split"] == "validation"]
        last = early.groupby(["arm", "seed"])["step"].transform("max")
        early = early[early["step"] == (share * last).round()].set_index(["arm", "seed"])
        final = table[table["split"] == "test"].set_index(["arm", "seed"])["j"]
        for name, sign in better.items():
            both = pd.concat([sign * early[name], final], axis=1, keys=["early", "final"]).dropna()
            if len(both) >= _LEAST_ARMS and both["early"].nunique() > 1:
                rows.append({"experiment": experiment, "figure": name, **_spearman(both)})
    return pd.DataFrame(rows)


def _spearman(both: pd.DataFrame) -> dict[str, float]:
    rng = np.random.default_rng(0)
    drawn = [
        both.iloc[rng.integers(len(both), size=len(both))].corr("spearman").iloc[0, 1]
        for _ in range(1000)
    ]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    rho = both.corr("spearman").iloc[0, 1]
    return {"rho": float(rho), "low": float(low), "high": float(high), "n": len(both)}
