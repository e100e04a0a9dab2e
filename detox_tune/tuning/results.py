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
class Candidate:
    """A report that may win a search, and where its adapter is."""

    trial: str
    settings: TrialConfig
    report: dict[str, Any]
    checkpoint: Checkpoint


def feasible_j(scores: Mapping[str, float], max_copy_rate: float, copy_j: float) -> float:
    """What reports are ranked by: `j` where they may win.

    A winner's copy rate is at most `max_copy_rate`, and its `j` above that of the untouched copy.
    All others rank below: first those that copy too much, the lower the copy rate the higher, then
    those that copy little and are no better than the copy, and last what is not finite.
    """
    j, copy_rate = float(scores["j"]), float(scores["copy_rate"])
    if not (math.isfinite(j) and math.isfinite(copy_rate)):
        return -math.inf
    if copy_rate > max_copy_rate:
        return -1 - copy_rate
    return j if j > copy_j else -3 + j


def best_report(reports: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The report that stands for a trial: the first with the highest `feasible_j`."""
    return max(reports, key=lambda report: float(report["feasible_j"]))


def trial_row(result: Result) -> dict[str, Any]:
    """One trial's settings, the scores of its best report, steps, seconds and why it ended."""
    last = result.metrics or {}
    reports = _reports(result)
    best = best_report(reports) if reports else {}
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


def candidates(results: Iterable[Result]) -> list[Candidate]:
    """The best reports that may win, one of a trial, the best first."""
    found = []
    for result in results:
        kept = [(report, checkpoint) for checkpoint, report in result.best_checkpoints or []]
        if not kept:
            continue
        report, checkpoint = max(kept, key=lambda one: float(one[0]["feasible_j"]))
        if report["feasible_j"] > -1:  # others may not win
            settings = TrialConfig.model_validate(result.config or {})
            found.append(Candidate(trial_name(result), settings, report, checkpoint))
    return sorted(found, key=lambda one: -one.report["feasible_j"])


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
