"""The page while a search runs, and at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ray.tune import Callback
from ray.tune.experiment import Trial

from detox_tune.config import SearchConfig
from detox_tune.tuning.outputs import collect_outputs
from detox_tune.tuning.results import TrialRecord
from detox_tune.tuning.storage import checkpoint_storage
from detox_tune.tuning.study import SearchStudy

_SHARE = 0.05  # of the search's time that the page may take


def update_report(config: SearchConfig, run: Path, trials: Sequence[TrialRecord]) -> str:
    """Bring outputs/ and report.html up to what is known; returns what went wrong, if anything.

    Nothing that goes wrong here may stop a search, so every exception ends here.

    Args:
        config: of the search.
        run: its folder.
        trials: all that are known.
    """
    try:
        # Imported here, so that plotting libraries that do not load stop no search either.
        from detox_tune.tuning.report.page import write_report

        collect_outputs(run, trials, checkpoint_storage(config, run))
        write_report(run)
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        return f"report.html could not be written: {type(error).__name__}: {lines[0]}"
    return ""


class LiveReport(Callback):
    """Writes the page whenever a trial has ended, as long as that takes little of the time."""

    def __init__(self, config: SearchConfig, run: Path, study: SearchStudy) -> None:
        self._config, self._run, self._study = config, run, study
        self._next = 0.0

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        """Write the page; if that fails, it is tried again, and the end of the search says so."""
        begun = time.monotonic()
        if begun < self._next:
            return
        update_report(self._config, self._run, self._study.trials())
        ended = time.monotonic()
        self._next = ended + (ended - begun) / _SHARE

    on_trial_error = on_trial_complete
