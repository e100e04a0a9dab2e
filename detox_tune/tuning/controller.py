"""Tune's own loop, with a fault of it mended that costs a search trials."""

from __future__ import annotations

from ray.exceptions import RayActorError
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


class Controller(TuneController):
    """A trial whose process dies before it has begun is started again, as any other.

    Processes go from one trial to the next. Where one dies in between (its machine was lost, say),
    Tune handles it twice: as the end of the process, for which it starts the next trial again, and
    as the end of what the process was asked to do, to begin that trial. The second time the trial
    waits already, and Tune takes that for a reason to give it up, however many tries are left.
    """

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        if isinstance(exception, RayActorError) and trial.status != Trial.RUNNING:
            return
        self._resetting_trials.discard(trial)  # or it would wait for the dead process for ever
        super()._trial_task_failure(trial, exception)


def mend_tune() -> None:
    """Have `Tuner.fit` use the mended loop; Tune has no setting for it."""
    vars(tune)["TuneController"] = Controller
