"""What a search knows of its trials: Optuna's study, on disk, written as things happen."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import BaseTrial, FixedTrial, FrozenTrial, TrialState
from ray.tune import Callback
from ray.tune.experiment import Trial

from detox_tune.evaluation.scores import SCORES
from detox_tune.tuning.results import TrialRecord, best_report, write_trials

STUDY_FILE = "study.db"
_STUDY = "detox_tune"  # its name in there
_STATES = {
    "finished": TrialState.COMPLETE,
    "asha": TrialState.PRUNED,
    "collapse": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_REPORTED = ("step", "feasible_j", "trained_share", "pairs_dropped", "seconds", *SCORES)
_HISTORY = "history"  # name of the attribute that holds a trial's reports and end


class SearchStudy(Callback):
    """The trials of a search, in `study.db`, and a row for each in `trials.csv`.

    Whoever opens the same folder after the process died finds what was known then. `study.db` is
    Optuna's own SQLite storage, which optuna-dashboard opens. SQLite, since each write of it is
    there as a whole or not at all.

    - A trial comes with all its settings (`propose`), so none is known by halves.
    - Its reports and its end are one attribute, written at once: a report that ends a trial is not
      known before the end is. Optuna's own fields follow from it.
    - The state follows from `ended`, which `CollapseScheduler` puts into the last result:
      `finished` COMPLETE, `asha` and `collapse` PRUNED, `failed` FAIL (the sampler passes over it).
    - Intermediate values are `j` at training steps. The sampler ranks pruned trials by their last
      step, then by `j` there.
    - `best_report` stands for a trial, as it does when the winner is chosen. It gives the value of
      a complete trial and, for every trial that did not fail, the constraint
      `copy_rate - max_copy_rate <= 0`. The sampler ranks all trials that violate it behind those
      that do not, by how far they miss it. A report that may win, since beams copy less, keeps it.

    Args:
        folder: of the run.
        define_space: called with an Optuna trial, returns the trial's settings: suggested values,
            and any others. Names that it only asks Optuna for do not get into the settings.
        max_copy_rate: highest copy rate, in [0, 1], that a winner may have.
    """

    def __init__(
        self,
        folder: Path,
        define_space: Callable[[BaseTrial], dict[str, Any]],
        max_copy_rate: float,
    ) -> None:
        self._folder = folder
        self.define_space = define_space
        self._max_copy_rate = max_copy_rate
        self._ended: dict[int, TrialRecord] = {}  # by number: they change no more
        # Not as a URL: a path may hold what means something else there.
        connect = partial(sqlite3.connect, folder / STUDY_FILE)
        self._storage = optuna.storages.RDBStorage(
            "sqlite:///study.db", engine_kwargs={"creator": connect}
        )
        self.optuna = optuna.create_study(
            study_name=_STUDY,
            storage=self._storage,
            sampler=optuna.samplers.RandomSampler(),  # not asked; the default one would do work
            direction="maximize",
            load_if_exists=True,
        )
        for trial in self.optuna.get_trials(states=[TrialState.RUNNING]):
            self._tell(trial)  # what an earlier process wrote down, but did not get to tell

    def trials(self) -> list[TrialRecord]:
        """All trials, in the order of their numbers."""
        records = []
        for trial in self.optuna.get_trials(deepcopy=False):
            record = self._ended.get(trial.number) or self._record(trial)
            if record.ended:
                self._ended[trial.number] = record
            records.append(record)
        return records

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Write a report down, once per step: trials repeat steps when they start again."""
        if not result.get("done"):
            self._write(trial, result)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Write down how a trial ended."""
        self._end(trial)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Write down why a trial failed for good."""
        self._end(trial)

    def _end(self, trial: Trial) -> None:
        self._write(trial, trial.run_metadata.last_result)
        write_trials(self._folder / "trials.csv", self.trials())

    def _write(self, trial: Trial, result: dict[str, Any]) -> None:
        frozen = self._frozen(_number(str(trial)))
        reports = {report["step"]: report for report in self._record(frozen).reports}
        if "step" in result:
            report = {name: result[name] for name in _REPORTED if name in result}
            reports.setdefault(result["step"], report)
        history = {
            "reports": list(reports.values()),
            "ended": result.get("ended", ""),
            "reason": result.get("ended_reason", ""),
        }
        self._storage.set_trial_user_attr(frozen._trial_id, _HISTORY, history)
        frozen.set_user_attr(_HISTORY, history)
        self._tell(frozen)

    def _tell(self, frozen: FrozenTrial) -> None:
        """Bring Optuna's own fields up to what the history of a trial says."""
        record = self._record(frozen)
        for report in record.reports:
            if report["step"] not in frozen.intermediate_values and math.isfinite(report["j"]):
                self._storage.set_trial_intermediate_value(
                    frozen._trial_id, report["step"], report["j"]
                )
        if not record.ended:
            return
        trial = optuna.Trial(self.optuna, frozen._trial_id)
        state, value = _STATES[record.ended], None
        if state != TrialState.FAIL:
            best = best_report(record.reports)
            may_win, beyond = best["feasible_j"] > -1, best["copy_rate"] - self._max_copy_rate
            if not frozen.constraints:
                trial.set_constraint("copy_rate", min(beyond, 0.0) if may_win else beyond)
            if state == TrialState.COMPLETE:
                value = best["feasible_j" if may_win else "j"]
        self.optuna.tell(frozen.number, value, state)

    def _frozen(self, number: int) -> FrozenTrial:
        """A trial as it is on disk; reading all that run takes long where many do."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(
            self.optuna._study_id, number
        )
        return self._storage.get_trial(trial_id)

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        return _record(trial, self.define_space)


def read_study(folder: Path) -> optuna.Study:
    """The study of a run, to be read alone: a search may be writing it at this moment.

    Raises:
        sqlite3.Error, sqlalchemy.exc.SQLAlchemyError: it is not there, or damaged.
    """
    uri = f"{(folder / STUDY_FILE).absolute().as_uri()}?mode=ro"
    storage = optuna.storages.RDBStorage(
        "sqlite:///study.db", engine_kwargs={"creator": partial(sqlite3.connect, uri, uri=True)}
    )
    return optuna.load_study(study_name=_STUDY, storage=storage)


def trial_records(
    study: optuna.Study, define_space: Callable[[BaseTrial], dict[str, Any]]
) -> list[TrialRecord]:
    """All trials of a study, in the order of their numbers."""
    return [_record(trial, define_space) for trial in study.get_trials(deepcopy=False)]


def _record(trial: FrozenTrial, define_space: Callable[[BaseTrial], dict[str, Any]]) -> TrialRecord:
    return TrialRecord(
        f"trial_{trial.number + 1:03d}",
        define_space(FixedTrial(trial.params, trial.number)),
        **trial.user_attrs.get(_HISTORY, {"reports": []}),
    )


def _number(name: str) -> int:
    return int(name.removeprefix("trial_")) - 1
