"""A run as its folder describes it: all that the page shows, read and not written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from detox_tune.command_line import printable
from detox_tune.config import SearchConfig
from detox_tune.settings import validated
from detox_tune.tuning.outputs import read_outputs
from detox_tune.tuning.results import TrialRecord, best_report
from detox_tune.tuning.run_folder import RECORD, check_study, read_record
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.study import read_study, trial_records


@dataclass(frozen=True)
class Run:
    """A search, finished or not."""

    number: int
    """Its place on the page, from 0."""
    folder: Path
    record: dict[str, Any]
    """search.json."""
    config: SearchConfig
    space: SearchSpace
    study: optuna.Study
    trials: tuple[TrialRecord, ...]
    metrics: dict[str, Any] | None
    """best/metrics.json of a run that has a winner."""

    @property
    def name(self) -> str:
        """As the search was named."""
        return self.config.name

    def key(self, trial: str) -> str:
        """What stands for a trial on the page, also beside other runs."""
        return f"{self.number}/{trial}"

    def rows(self) -> list[dict[str, Any]]:
        """A row per trial: that of trials.csv, and what the page asks of it."""
        return [self._row(trial) for trial in self.trials]

    def _row(self, trial: TrialRecord) -> dict[str, Any]:
        best = best_report(trial.reports) if trial.reports else {}
        rank = float(best.get("feasible_j", -math.inf))
        row = trial.row
        told: dict[str, Any] = shown(
            {
                **row,
                "key": self.key(trial.name),
                "rank": rank,
                "feasible": rank > -1,
                "winner": self.metrics is not None and self.metrics.get("trial") == trial.name,
                "read": [name for name in self.space.searched if row[name] is not None],
            }
        )
        return told

    def outputs(self, trial: TrialRecord) -> list[dict[str, Any]]:
        """The rows of its file in outputs/."""
        rows: list[dict[str, Any]] = shown(read_outputs(self.folder, trial.name))
        return rows


def read_run(folder: Path, number: int = 0) -> Run:
    """Read the folder of a run; a search may be writing it.

    Raises:
        UserError: it is none, or damaged.
    """
    folder = folder.absolute()
    record = read_record(folder)
    check_study(folder)
    space = SearchSpace(record["space"], f"{folder / RECORD}: space")
    study = read_study(folder)
    return Run(
        number=number,
        folder=folder,
        record=record,
        config=validated(SearchConfig, record["search"], str(folder / RECORD)),
        space=space,
        study=study,
        trials=tuple(trial_records(study, space)),
        # An earlier winner's stays in best/ when a search goes on.
        metrics=_metrics(folder / "best" / "metrics.json") if record.get("winner") else None,
    )


def shown(value: Any) -> Any:
    """The same for people and JSON: controls in texts as escapes, numbers finite or None."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {shown(str(name)): shown(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    return value if value is None or isinstance(value, int) else shown(str(value))


def _metrics(path: Path) -> dict[str, Any] | None:
    try:
        metrics: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return metrics
