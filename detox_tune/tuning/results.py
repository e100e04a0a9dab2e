"""From Tune's results to one row per trial, and to the winner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ray.tune import Checkpoint, Result

from detox_tune.config import TrialConfig
from detox_tune.evaluation.scores import SCORES
from detox_tune.files import write_table

COLUMNS = (
    "trial",
    "ended",
    "reason",
    "steps",
    "seconds",
    *TrialConfig.model_fields,
    "best_step",
    *SCORES,
    "trained_share",
    "pairs_dropped",
)


@dataclass(frozen=True)
class Winner:
    """The best feasible report of a search, and where its adapter is."""

    trial: str
    settings: TrialConfig
    report: dict[str, Any]
    checkpoint: Checkpoint


def feasible_j(report: Mapping[str, Any], max_copy_rate: float) -> float:
    """What reports are ranked by: `j` where the copy rate allows a winner.

    Any other report ranks below all of these; among such, the lower the copy rate the higher. One
    that is not finite ranks last.
    """
    j, copy_rate = float(report["j"]), float(report["copy_rate"])
    if not (math.isfinite(j) and math.isfinite(copy_rate)):
        return -math.inf
    return j if copy_rate <= max_copy_rate else -1 - copy_rate


def best_report(reports: Sequence[Mapping[str, Any]], max_copy_rate: float) -> Mapping[str, Any]:
    """The report that stands for a trial: the first with the highest `feasible_j`."""
    return max(reports, key=lambda report: feasible_j(report, max_copy_rate))


def trial_row(result: Result, max_copy_rate: float) -> dict[str, Any]:
    """One trial's settings, the scores of its best report, steps, seconds and why it ended."""
    last = result.metrics or {}
    reports = _reports(result)
    best = best_report(reports, max_copy_rate) if reports else {}
    config = TrialConfig.model_validate(result.config or {})
    return {
        "trial": trial_name(result),
        "ended": last.get("ended", "interrupted"),
        "reason": last.get("ended_reason", ""),
        "steps": last.get("step", 0),
        "seconds": round(sum(_seconds(reports)), 1),
        **config.model_dump(),
        "best_step": best.get("step"),
        **{name: best.get(name) for name in (*SCORES, "trained_share", "pairs_dropped")},
    }


def find_winner(results: Iterable[Result], max_copy_rate: float) -> Winner | None:
    """The best report of all trials with its checkpoint, or None if it copies too much."""
    kept = [
        (report, checkpoint, result)
        for result in results
        for checkpoint, report in (result.best_checkpoints or [])
    ]
    if not kept:
        return None
    report, checkpoint, result = max(kept, key=lambda one: feasible_j(one[0], max_copy_rate))
    if feasible_j(report, max_copy_rate) < -1:  # not even the best one may win
        return None
    settings = TrialConfig.model_validate(result.config or {})
    return Winner(trial_name(result), settings, report, checkpoint)


def write_trials(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write trials.csv."""
    write_table(path, sorted(rows, key=lambda row: str(row["trial"])), COLUMNS)


def trial_name(result: Result) -> str:
    """The trial's name, which is also its folder under ray/."""
    return Path(result.path).name


def _reports(result: Result) -> list[dict[str, Any]]:
    """All reports, one per step: a trial that was continued repeats none."""
    frame = result.metrics_dataframe
    if frame is None or "step" not in frame:
        return []
    reports: list[dict[str, Any]] = frame.drop_duplicates("step").to_dict("records")
    return reports


def _seconds(reports: list[dict[str, Any]]) -> list[float]:
    """Seconds of training up to each process's last report: the clock starts anew after a death."""
    seconds = [float(report["seconds"]) for report in reports]
    return [now for now, later in pairwise([*seconds, -math.inf]) if later < now]
