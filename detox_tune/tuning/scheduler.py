"""When a trial is stopped, and the record of why it ended.

ASHA (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020) compares trials by
`j` at rungs of training steps. It looks at one number only, so a trial that copies its input lives
as long as the others do no better; the collapse rule stops it by its copy rate. It also judges each
rung only once: early trials have no rivals there and would run to their end, however poor. Here
they are compared again, at every report, with what came to that rung after them.

Every trial that ends has `ended` and `ended_reason` in its last result. Tune hands that dict to the
searcher and to callbacks, keeps it in the experiment's state, and gives it to the caller of
`Tuner.fit()` as `result.metrics`, so whoever needs the reason reads it there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ray import cloudpickle
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

Ended = Literal["finished", "asha", "collapse", "failed"]


_REPORTS_TO_FALL = 2  # reports over which a copy rate must fall


class Ending(NamedTuple):
    """Why a trial ended."""

    ended: Ended
    reason: str
    """One line with the numbers that decided."""


class CollapseScheduler(AsyncHyperBandScheduler):
    """ASHA on `j` (`max`, as in `TuneConfig`) over training steps, plus the collapse rule.

    Reports need `step`, `j`, `copy_rate` and `n`, the number of sentences. A report is judged once:
    one at a step that the trial has passed already (it was continued from an earlier checkpoint) is
    a repetition. ASHA judges at the highest rung that a report is the first to reach; between rungs
    a trial is stopped once its best `j` is below the cutoff that a rung which it passed has by now.
    A report that is not finite, which ASHA would let run for ever, ends its trial as `failed`.

    Args:
        max_steps: training steps of a trial that runs to its end.
        grace_steps: training steps before ASHA may stop a trial; its first rung.
        reduction_factor: about one in this many trials passes a rung; rungs are this factor apart.
        collapse_grace: training steps after which a trial may be stopped for identity collapse.
        collapse_threshold: copy rate, in [0, 1], from which a trial counts as collapsed when its
            copy rate has not fallen, by more than one sentence, over the last two reports.
    """

    def __init__(
        self,
        *,
        max_steps: int,
        grace_steps: int,
        reduction_factor: float,
        collapse_grace: int,
        collapse_threshold: float,
    ) -> None:
        super().__init__(
            time_attr="step",
            max_t=max_steps,
            grace_period=grace_steps,
            reduction_factor=reduction_factor,
        )
        self._collapse_grace = collapse_grace
        self._collapse_threshold = collapse_threshold
        self._copy_rates: dict[str, list[float]] = {}  # of each trial, report by report
        # Between the decision to stop a trial and its end lies the saving of its checkpoint. A
        # trial whose process dies in between starts again, and must be stopped again.
        self._decided: dict[str, Ending] = {}

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        """Judge a report: `TrialScheduler.STOP` or `CONTINUE`."""
        if result["step"] > _last_step(trial):
            ending = self._judge(tune_controller, trial, result)
            if ending is not None:
                self._decided[trial.trial_id] = ending
        return TrialScheduler.STOP if trial.trial_id in self._decided else TrialScheduler.CONTINUE

    def on_trial_complete(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> None:
        """Write down why a trial ended, before the searcher hears of its end.

        Unlike the parent's, this adds nothing to ASHA's rungs: the last report was judged already.
        """
        self._trial_info.pop(trial.trial_id, None)
        self._copy_rates.pop(trial.trial_id, None)
        ending = self._decided.pop(trial.trial_id, None)
        if ending is None and "step" not in result:
            ending = Ending("failed", "it ended without a report")
        _write(trial, ending or Ending("finished", f"it returned at step {result['step']}"))

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Write down the error of a trial that failed for good."""
        if trial.status == Trial.ERROR:  # Tune sets this first where it will start the trial again
            return
        self._trial_info.pop(trial.trial_id, None)
        self._copy_rates.pop(trial.trial_id, None)
        self._decided.pop(trial.trial_id, None)
        _write(trial, Ending("failed", _error_line(trial)))

    def _judge(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> Ending | None:
        step, j, copy_rate = result["step"], result["j"], result["copy_rate"]
        copy_rates = self._copy_rates.setdefault(trial.trial_id, [])
        copy_rates.append(copy_rate)
        if not (math.isfinite(j) and math.isfinite(copy_rate)):
            return Ending("failed", f"j {j} and copy rate {copy_rate} at step {step}: not finite")
        if step >= self._max_t:
            return Ending("finished", f"all {self._max_t} steps are done")
        # ASHA goes first and in any case: its rungs are to hold every trial that reached them.
        below = self._below_cutoff(tune_controller, trial, result)
        return self._collapsed(step, copy_rates, 1 / result["n"]) or below

    def _below_cutoff(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> Ending | None:
        """ASHA's decision at a new rung; else its comparison with the rungs passed."""
        step, bracket = result["step"], self._trial_info[trial.trial_id]
        passed = [rung for rung in bracket._rungs if rung[0] <= step]  # the highest first
        if passed and _last_step(trial) < passed[0][0]:
            milestone, recorded = passed[0]
            cutoff = bracket.cutoff(recorded)
            if super().on_trial_result(tune_controller, trial, result) != TrialScheduler.STOP:
                return None
            return _below("j", result["j"], step, milestone, cutoff)
        best = max(result["j"], trial.metric_analysis["j"]["max"]) if passed else math.inf
        for milestone, recorded in passed:
            cutoff = bracket.cutoff(recorded)
            if cutoff is not None and best < cutoff:
                return _below("best j", best, step, milestone, cutoff)
        return None

    def _collapsed(self, step: int, copy_rates: list[float], sentence: float) -> Ending | None:
        """Identity collapse; `sentence` is the share of one sentence in a copy rate."""
        if step <= self._collapse_grace or len(copy_rates) <= _REPORTS_TO_FALL:
            return None
        copy_rate, before = copy_rates[-1], copy_rates[-1 - _REPORTS_TO_FALL]
        has_fallen = before - copy_rate > 1.001 * sentence  # rates are rounded sums
        if copy_rate < self._collapse_threshold or has_fallen:
            return None
        return Ending(
            "collapse",
            f"copy rate {_short(copy_rate)} at step {step} >= {_short(self._collapse_threshold)} "
            f"and not falling ({_short(before)} two reports before)",
        )


def _below(what: str, j: float, step: int, milestone: float, cutoff: float) -> Ending:
    return Ending(
        "asha",
        f"{what} {_short(j)} at step {step} is below the cutoff {_short(cutoff)} "
        f"of the rung at {milestone:g}",
    )


def _last_step(trial: Trial) -> float:
    """The last step that a trial reported, 0 before its first report.

    Tune keeps the extremes of what a trial reported with the trial, also when it starts again.
    """
    return float(trial.metric_analysis.get("step", {"max": 0})["max"])


def _write(trial: Trial, ending: Ending) -> None:
    # A new dict: the old one also stands in the trial's list of checkpoints.
    metadata = trial.run_metadata
    metadata.last_result = {
        **metadata.last_result,
        "ended": ending.ended,
        "ended_reason": ending.reason,
    }


def _error_line(trial: Trial) -> str:
    """The error of a failed trial as one line; Tune gives the scheduler a file with it."""
    if trial.pickled_error_file:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        error = getattr(error, "cause", None) or error
        message = str(error).strip().splitlines() or ["no message"]
        return f"{type(error).__name__}: {message[0]}"
    assert trial.error_file, "Tune writes an error before it tells of it"
    return Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()[-1]


def _short(number: float) -> str:
    """Three digits without the leading zero: .93, .0012, 1."""
    text = f"{number:.3g}"
    return text[1:] if text.startswith("0.") else text
