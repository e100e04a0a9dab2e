"""Ray for the tests of this room, and one search in which trials end in every way there is."""

import io
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
from ray import tune
from rich.console import Console

from detox_tune.tuning.progress import SearchProgress
from detox_tune.tuning.scheduler import CollapseScheduler
from detox_tune.tuning.searcher import DetoxSearch

# What a toy trial reports, [step, j, copy rate], and what it does after that.
CURVES: dict[str, list[tuple[int, float, float]]] = {
    "good": [(20, 0.1, 0.9), (40, 0.3, 0.5), (60, 0.5, 0.08), (80, 0.6, 0.05), (100, 0.55, 0.04)],
    "weak": [(20, 0.05, 0.8), (40, 0.08, 0.7), (60, 0.1, 0.65), (80, 0.1, 0.5), (100, 0.1, 0.4)],
    "copies": [(20, 0.2, 0.95), (40, 0.4, 0.93), (60, 0.6, 0.94), (80, 0.7, 0.95)],
    "raises": [(20, 0.2, 0.5)],
    "nan": [(20, 0.2, 0.5), (40, float("nan"), 0.5), (60, 0.2, 0.5)],
    "early": [(20, 0.2, 0.5), (40, 0.4, 0.3)],
    "killed": [(20, 0.2, 0.95), (40, 0.4, 0.9), (60, 0.5, 0.7), (80, 0.7, 0.3), (100, 0.7, 0.2)],
}


def toy() -> Callable[[dict[str, Any]], None]:
    """A trial that reports its curve; a closure, since Ray's workers can't import tests."""
    curves = CURVES

    def train(config: dict[str, Any]) -> None:
        curve, checkpoint = config["curve"], tune.get_checkpoint()
        start = int(Path(checkpoint.path, "step").read_text()) if checkpoint else 0
        for step, j, copy_rate in curves[curve]:
            if step <= start:
                continue
            report = {"step": step, "j": j, "copy_rate": copy_rate, "seconds": 1.0}
            report["feasible_j"] = j if copy_rate <= 0.1 else j - 1
            if (curve, step, start) == ("killed", 40, 0):
                tune.report(report)
                os.kill(os.getpid(), signal.SIGKILL)
            Path("state").mkdir(exist_ok=True)
            Path("state", "step").write_text(str(step))
            tune.report(report, checkpoint=tune.Checkpoint.from_directory("state"))
        if curve == "raises":
            raise FloatingPointError("the loss is nan at step 25\nlower learning_rate=1")

    return train


@contextmanager
def ray_here() -> Iterator[None]:
    """Ray on two cores of this machine, quiet, and gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AIR_NEW_OUTPUT", "0")
        patch.setenv("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
        try:
            yield
        finally:
            ray.shutdown()


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """Ray for the tests of one module."""
    with ray_here():
        yield


@dataclass(frozen=True)
class Search:
    """What is left of the search."""

    results: dict[str, dict[str, Any]]
    """The last result of each trial by the name of its curve, as `Tuner.fit` gives it."""
    errors: dict[str, Exception | None]
    restored: dict[str, dict[str, Any]]
    """The same read from the files that Tune left."""
    study: optuna.Study
    lines: list[str]
    """What was printed where there is no terminal."""


def by_curve(grid: tune.ResultGrid) -> dict[str, dict[str, Any]]:
    """The last result of each trial by the name of its curve."""
    results = [grid[n].metrics or {} for n in range(len(grid))]
    return {result["config"]["curve"]: result for result in results}


@pytest.fixture(scope="session")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Run all curves, one at a time in their order."""
    output = io.StringIO()
    names = list(CURVES)
    searcher = DetoxSearch(
        lambda trial: {"curve": names[trial.number], "x": trial.suggest_float("x", 0, 1)},
        max_copy_rate=0.1,
        sampler="random",
        seed=0,
        n_startup_trials=1,
    )
    scheduler = CollapseScheduler(
        max_steps=100,
        grace_steps=40,
        reduction_factor=2,
        collapse_grace=30,
        collapse_threshold=0.8,
    )
    with ray_here():
        tuner = tune.Tuner(
            toy(),
            tune_config=tune.TuneConfig(
                metric="j",
                mode="max",
                num_samples=len(names),
                max_concurrent_trials=1,
                search_alg=searcher,
                scheduler=scheduler,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="toys",
                storage_path=str(tmp_path_factory.mktemp("ray")),
                callbacks=[SearchProgress(100, ["curve", "x"], Console(file=output))],
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
        grid = tuner.fit()
        stored = tune.Tuner.restore(grid.experiment_path, toy()).get_results()
    return Search(
        results=by_curve(grid),
        errors={name: grid[n].error for n, name in enumerate(by_curve(grid))},
        restored=by_curve(stored),
        study=searcher.study,
        lines=output.getvalue().splitlines(),
    )
