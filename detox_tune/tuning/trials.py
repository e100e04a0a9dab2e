"""All trials of a search, on Ray Tune."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console

from detox_tune.config import SearchConfig
from detox_tune.tuning.checkpoints import drop_training_state
from detox_tune.tuning.controller import mend_tune
from detox_tune.tuning.progress import SearchProgress
from detox_tune.tuning.report.live import LiveReport
from detox_tune.tuning.results import BEST_KEPT
from detox_tune.tuning.scheduler import CollapseScheduler
from detox_tune.tuning.searcher import DetoxSearch
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.storage import checkpoint_storage, keep_results
from detox_tune.tuning.study import STUDY_FILE, SearchStudy
from detox_tune.tuning.tracker import tracker_callback

if TYPE_CHECKING:
    from detox_tune.tuning.task import Task


def run_trials(
    run_trial: Callable[..., None],
    config: SearchConfig,
    space: SearchSpace,
    task: Task,
    study: SearchStudy,
    folder: Path,
    *,
    concurrent: int,
    seconds: float | None = None,
    console: Console | None = None,
) -> None:
    """Run the trials that `study` knows and that have not ended, and new ones.

    Each call is an experiment of its own for Tune, session_N in the storage: what is to be known
    of earlier ones comes from the study and from the checkpoints of the trials.

    Args:
        run_trial: runs one trial, as `detox_tune.tuning.trial.run_trial` does.
        config: of the search.
        space: to name the settings that trials differ in.
        task: what the trials share.
        study: hears how they end.
        folder: of the run.
        concurrent: trials that may be pending or running at once.
        seconds: after these, what still runs is stopped; None for no limit.
        console: shows how far it is; stderr by default.
    """
    storage, past = checkpoint_storage(config, folder), study.trials()
    earlier = [name for name in storage.names() if name.startswith("session_")]
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, config=config, task=task, storage=storage),
        {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="j",
            mode="max",
            num_samples=config.trials - sum(bool(trial.ended) for trial in past),
            search_alg=DetoxSearch(
                study,
                sampler=config.sampler,
                seed=config.seed,
                n_startup_trials=config.startup_trials,
            ),
            scheduler=CollapseScheduler(
                max_steps=config.steps,
                grace_steps=config.grace_steps,
                reduction_factor=config.reduction_factor,
                max_copy_rate=config.max_copy_rate,
                collapse_grace=config.collapse_grace,
                collapse_threshold=config.collapse_threshold,
                past=past,
            ),
            max_concurrent_trials=concurrent,
            reuse_actors=True,  # a new process takes seconds to import everything
            trial_name_creator=_name_trial,
            trial_dirname_creator=_name_trial,
        ),
        run_config=tune.RunConfig(
            name=f"session_{1 + len(earlier)}",
            storage_path=storage.path,
            storage_filesystem=storage.filesystem,
            verbose=0,
            stop=None if seconds is None else StopAfter(seconds),
            callbacks=[
                study,
                LiveReport(config, folder, study),
                _TidyUp(config, folder),
                SearchProgress(config.steps, space.searched, console, past),
                *tracker_callback(config, folder),
            ],
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=BEST_KEPT,
                checkpoint_score_attribute="feasible_j",
                checkpoint_score_order="max",
            ),
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
        ),
    )
    mend_tune()
    tuner.fit()


class StopAfter(tune.Stopper):
    """Stops all trials after so many seconds. Tune's own way goes by a clock that may be set."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return time.monotonic() >= self._end


class _TidyUp(Callback):
    """When a trial has ended: what nobody needs is removed, what is known copied to the storage."""

    def __init__(self, config: SearchConfig, folder: Path) -> None:
        self._config, self._folder = config, folder

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        with suppress(OSError):  # records are copied again later; what was not removed does no harm
            drop_training_state(checkpoint_storage(self._config, self._folder), str(trial))
            keep_results(self._config, self._folder, (STUDY_FILE, "trials.csv"))

    on_trial_error = on_trial_complete


def _name_trial(trial: Any) -> str:
    """trial_001, trial_002, ...: the searcher says which."""
    return str(trial.config["trial"])
