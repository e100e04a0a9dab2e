"""Tune's own loop, with two faults of it mended that cost a search trials."""

from __future__ import annotations

from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune import TuneError, tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from detox_tune.files import disk_is_full

_NO_MEMORY = (
    "its machine had no memory left, so Ray ended its process: a higher cpus_per_trial runs fewer "
    "trials at once, a lower batch_size makes each smaller"
)


class Controller(TuneController):
    """A trial whose process cannot begin it is started in another one.

    Processes go from one trial to the next. Where one dies in between (its machine was lost, say),
    Tune handles it twice: as the end of the process, for which it starts the next trial again, and
    as the end of what the process was asked to do, to begin that trial. The second time the trial
    waits already, and Tune takes that for a reason to give it up, however many tries are left.

    Where the trial before has not ended within two seconds, Tune forgets the next one, and waits
    for it for ever.

    A full disk ends the search instead of one trial after the other, so that all can go on later.
    Of a process that Ray ended for want of memory, a trial's row says just that; Ray says a page.
    """

    def _process_trial_failure(
        self, trial: Trial, exception: TuneError | RayTaskError | RayActorError
    ) -> None:
        if disk_is_full(exception):
            raise exception
        if isinstance(exception, OutOfMemoryError):
            exception = TuneError(_NO_MEMORY)
        super()._process_trial_failure(trial, exception)

    def _trial_task_failure(self, trial: Trial, exception: Exception) -> None:
        if isinstance(exception, RayActorError) and trial.status != Trial.RUNNING:
            return
        self._resetting_trials.discard(trial)  # or it would wait for the dead process for ever
        super()._trial_task_failure(trial, exception)

    def _on_trial_reset(self, trial: Trial, success: bool) -> None:
        if success:
            super()._on_trial_reset(trial, success)
            return
        self._resetting_trials.remove(trial)
        self._set_trial_status(trial, Trial.RUNNING)  # as Tune does where a process fails to start
        self._unstage_trial_with_resources(trial)
        self._try_recover(trial, TuneError("its process has not ended the trial before"))


def mend_tune() -> None:
    """Have `Tuner.fit` use the mended loop; Tune has no setting for it."""
    vars(tune)["TuneController"] = Controller
