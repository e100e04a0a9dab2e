"""From what trials reported to one row per trial, and to the winner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from ray.tune import Checkpoint

from detox_tune.config import TrialConfig
from detox_tune.evaluation.scores import SCORES
from detox_tune.files import write_table
from detox_tune.tuning.checkpoints import find_checkpoints
from detox_tune.tuning.storage import Storage

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
class TrialRecord:
    """What is known of a trial."""

    name: str
    """`trial_001`, also the name of its folders under ray/."""
    settings: dict[str, Any]
    reports: list[dict[str, Any]]
    """One per step, in their order."""
    ended: str = ""
    """`finished`, `asha`, `collapse` or `failed`; empty for one that has not ended."""
    reason: str = ""

    @property
    def steps(self) -> int:
        """Training steps that it has reported."""
        return int(self.reports[-1]["step"]) if self.reports else 0

    @cached_property
    def row(self) -> dict[str, Any]:
        """Its settings, the scores of its best report, steps, seconds and why it ended."""
        best = best_report(self.reports) if self.reports else {}
        return {
            "trial": self.name,
            "ended": self.ended or "unfinished",
            "reason": self.reason,
            "steps": self.steps,
            "seconds": round(sum(_seconds(self.reports)), 1),
            **TrialConfig.model_validate(self.settings).model_dump(),
            "best_step": best.get("step"),
            **{name: best.get(name) for name in (*SCORES, "trained_share", "pairs_dropped")},
        }


BEST_KEPT = 3
"""Checkpoints that a trial keeps: those of its best reports, and in any case its last."""


@dataclass(frozen=True)
class Candidate:
    """A trial that may win a search."""

    trial: str
    settings: TrialConfig
    report: dict[str, Any]
    """Its best."""
    checkpoints: tuple[Checkpoint, ...]
    """Those of its best reports, the best first; at most BEST_KEPT."""


def penalised_j(scores: Mapping[str, float], max_copy_rate: float) -> float:
    """What ASHA compares: `j` less the copy rate beyond `max_copy_rate`.

    What copies little has the lower `j` at first, since a copy keeps the meaning. By `j` alone ASHA
    stopped it in favour of what could never win (docs/verdict.md).
    """
    return float(scores["j"]) - max(0.0, float(scores["copy_rate"]) - max_copy_rate)


def feasible_j(
    scores: Mapping[str, float], max_copy_rate: float, copy_j: float, *, beams: int = 1
) -> float:
    """What reports are ranked by: `j` where they may win.

    A winner's copy rate is at most `max_copy_rate`, and its `j` above that of the untouched copy.
    All others rank below -1: first those that copy too much, the lower the copy rate the higher,
    then those that copy little and are no better than the copy, and last what is not finite.

    Reports are of greedy answers. With more beams a trial copies less, so one that copies too much
    may win if its `penalised_j` is above the copy's, and ranks by that.
    """
    j, copy_rate = float(scores["j"]), float(scores["copy_rate"])
    if not (math.isfinite(j) and math.isfinite(copy_rate)):
        return -math.inf
    if beams > 1 and penalised_j(scores, max_copy_rate) > copy_j:
        return penalised_j(scores, max_copy_rate)
    if copy_rate > max_copy_rate:
        return -1 - copy_rate
    return j if j > copy_j else -3 + j


def best_report(reports: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The report that stands for a trial: the first with the highest `feasible_j`."""
    return max(reports, key=lambda report: float(report["feasible_j"]))


def candidates(trials: Iterable[TrialRecord], storage: Storage) -> list[Candidate]:
    """The trials with a report that may win and whose checkpoint is whole, the best first.

    Args:
        trials: of the search.
        storage: where their checkpoints are.
    """
    found = []
    for trial in trials:
        if not any(report["feasible_j"] > -1 for report in trial.reports):
            continue
        kept = find_checkpoints(storage, trial.name, lambda report: float(report["feasible_j"]))
        best = {one.report["step"]: one for one in kept}  # a step may have been trained twice
        first = next(iter(best.values()), None)
        if first and first.report["feasible_j"] > -1:
            settings = TrialConfig.model_validate(trial.settings)
            checkpoints = tuple(one.checkpoint for one in best.values())[:BEST_KEPT]
            found.append(Candidate(trial.name, settings, first.report, checkpoints))
    return sorted(found, key=lambda one: -one.report["feasible_j"])


def write_trials(path: Path, trials: Iterable[TrialRecord]) -> None:
    """Write trials.csv."""
    write_table(path, [trial.row for trial in trials], COLUMNS)


def _seconds(reports: list[dict[str, Any]]) -> list[float]:
    """Seconds of training up to each process's last report: the clock starts anew after a death."""
    seconds = [float(report["seconds"]) for report in reports]
    return [now for now, later in pairwise([*seconds, -math.inf]) if later < now]
