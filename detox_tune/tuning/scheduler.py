"""When a trial is stopped, and the record of why it ended.

ASHA (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020) compares trials by
one number at rungs of training steps: here by `j` less the copy rate beyond `max_copy_rate`, since
a winner may not copy more. A trial that copies its input still lives as long as the others do no
better; the collapse rule stops it by its copy rate. ASHA also judges each rung only once: early
trials have no rivals there and would run to their end, however poor. Here they are compared again,
at every report, with what came to that rung after them.

Every trial that ends has `ended` and `ended_reason` in its last result, where callbacks read it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from detox_tune.tuning.results import TrialRecord, penalised_j

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
    """ASHA on `penalised_j` over training steps, plus the collapse rule.

    Reports need `step`, `j`, `copy_rate` and `n`, the number of sentences. A report is judged once:
    one at a step that the trial has passed already (it was continued from an earlier checkpoint) is
    a repetition. ASHA judges at the highest rung that a report is the first to reach; between rungs
    a trial is stopped once its best is below the cutoff that a rung which it passed has by now.
    A report that is not finite, which ASHA would let run for ever, ends its trial as `failed`.

    Trials are known by their names, which they keep when a search goes on in another process.

    Args:
        max_steps: training steps of a trial that runs to its end.
        grace_steps: training steps before ASHA may stop a trial; its first rung.
        reduction_factor: about one in this many trials passes a rung; rungs are this factor apart.
        max_copy_rate: copy rate, in [0, 1], up to which ASHA compares by `j` alone.
        collapse_grace: training steps after which a trial may be stopped for identity collapse.
        collapse_threshold: copy rate, in [0, 1], from which a trial counts as collapsed when its
            copy rate has not fallen, by more than one sentence, over the last two reports.
        past: trials of a search that goes on. Their reports were judged, and are compared with.
    """

    def __init__(
        self,
        *,
        max_steps: int,
        grace_steps: int,
        reduction_factor: float,
        max_copy_rate: float,
        collapse_grace: int,
        collapse_threshold: float,
        past: Iterable[TrialRecord] = (),
    ) -> None:
        super().__init__(
            time_attr="step",
            max_t=max_steps,
            grace_period=grace_steps,
            reduction_factor=reduction_factor,
        )
        self._max_copy_rate = max_copy_rate
        self._collapse_grace = collapse_grace
        self._collapse_threshold = collapse_threshold
        self._reports: dict[str, list[dict[str, Any]]] = {}  # of each trial, as they were judged
        # Between the decision to stop a trial and its end lies the saving of its checkpoint. A
        # trial whose process dies in between starts again, and must be stopped again.
        self._decided: dict[str, Ending] = {}
        for trial in past:
            for report in trial.reports:
                self._remember(trial.name, report)

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        """Judge a report: `TrialScheduler.STOP` or `CONTINUE`."""
        if result["step"] > self._last_step(str(trial)):
            ending = self._judge(str(trial), result)
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
        self._reports.pop(str(trial), None)
        ending = self._decided.pop(trial.trial_id, None)
        if ending is None and "step" not in result:
            ending = Ending("failed", "it ended without a report")
        _write(trial, ending or Ending("finished", f"it returned at step {result['step']}"))

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Write down the error of a trial that failed for good."""
        if trial.status == Trial.ERROR:  # Tune sets this first where it will start the trial again
            return
        self._trial_info.pop(trial.trial_id, None)
        self._reports.pop(str(trial), None)
        self._decided.pop(trial.trial_id, None)
        _write(trial, Ending("failed", error_line(trial)))

    def _judge(self, trial: str, result: dict[str, Any]) -> Ending | None:
        step, j, copy_rate = result["step"], result["j"], result["copy_rate"]
        # ASHA goes first and in any case: its rungs are to hold every trial that reached them.
        below = self._below_cutoff(trial, result)
        self._remember(trial, result)
        if not _finite(result):
            return Ending("failed", f"j {j} and copy rate {copy_rate} at step {step}: not finite")
        if step >= self._max_t:
            return Ending("finished", f"all {self._max_t} steps are done")
        copy_rates = [report["copy_rate"] for report in self._reports[trial]]
        return self._collapsed(step, copy_rates, 1 / result["n"]) or below

    def _remember(self, trial: str, report: Mapping[str, Any]) -> None:
        """Note a report, at its rung too if it is the first to reach one."""
        rung = self._new_rung(trial, report)
        if rung and _finite(report) and report["step"] < self._max_t:
            rung[1][trial] = self._penalised(report)
        self._reports.setdefault(trial, []).append(dict(report))

    def _passed(self, step: int) -> list[tuple[float, dict[str, float]]]:
        """The rungs up to a step, the highest first: milestone, and `j` of each trial there."""
        return [rung for rung in self._brackets[0]._rungs if rung[0] <= step]

    def _new_rung(
        self, trial: str, report: Mapping[str, Any]
    ) -> tuple[float, dict[str, float]] | None:
        """The highest rung that this report reaches, if the trial had not reached it before."""
        passed = self._passed(report["step"])
        return passed[0] if passed and self._last_step(trial) < passed[0][0] else None

    def _last_step(self, trial: str) -> int:
        """The last step that a trial reported, 0 before its first report."""
        return int(self._reports[trial][-1]["step"]) if self._reports.get(trial) else 0

    def _penalised(self, report: Mapping[str, Any]) -> float:
        return penalised_j(report, self._max_copy_rate)

    def _below_cutoff(self, trial: str, result: Mapping[str, Any]) -> Ending | None:
        """ASHA's decision at a new rung; else a comparison of the best with the rungs passed."""
        step, rung = result["step"], self._new_rung(trial, result)
        if rung:
            what, judged, rungs = "j", result, [rung]
        else:
            reports = [result, *self._reports.get(trial, [])]
            what, judged, rungs = "best j", max(reports, key=self._penalised), self._passed(step)
        for milestone, recorded in rungs:
            cutoff: Any = self._brackets[0].cutoff(recorded)
            if cutoff is not None and self._penalised(judged) < cutoff:
                copies = judged["copy_rate"] - self._max_copy_rate
                less = f" less {_short(copies)} for copies" if copies > 0 else ""
                best = f"the best {100 / self._reduction_factor:.0f}% have {_short(cutoff)} or more"
                seen = f"{what} {_short(judged['j'])}{less} at step {step}"
                return Ending("asha", f"{seen}; {best} at {milestone:g}")
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
            f"copy rate {_short(copy_rate)} at step {step} does not fall ({_short(before)} before)",
        )


def _finite(report: Mapping[str, Any]) -> bool:
    return math.isfinite(report["j"]) and math.isfinite(report["copy_rate"])


def _write(trial: Trial, ending: Ending) -> None:
    # A new dict: the old one also stands in the trial's list of checkpoints.
    metadata = trial.run_metadata
    metadata.last_result = {
        **metadata.last_result,
        "ended": ending.ended,
        "ended_reason": ending.reason,
    }


def error_line(trial: Trial) -> str:
    """The last error of a trial as one line; Tune gives the scheduler a file with it."""
    if trial.pickled_error_file:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        error = getattr(error, "cause", None) or error
        if isinstance(error, RayActorError):  # whose message is a page
            times = f"{trial.num_failures} time{'s' * (trial.num_failures > 1)}"
            return f"its process died {times}: killed, out of memory, or lost with its node"
        message = str(error).strip().splitlines() or ["no message"]
        return f"{type(error).__name__}: {message[0]}"
    assert trial.error_file, "Tune writes an error before it tells of it"
    return Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()[-1]


def _short(number: Any) -> str:
    """Three digits without the leading zero: .93, -.12, .0012, 1."""
    return f"{number:.3g}".replace("0.", ".", 1) if abs(number) < 1 else f"{number:.3g}"
