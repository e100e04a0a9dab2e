"""A driver of toy trials in a process of its own, which can die at a chosen moment.

    python toy_search.py FOLDER TRIALS AT_ONCE [FUNCTION N]

runs what `run_trials` does of a search in FOLDER. With FUNCTION and N the process kills itself
instead of calling FUNCTION for the Nth time.
"""

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.train._internal.session import _TrainSession

from detox_tune.config import SearchConfig
from detox_tune.tuning.checkpoints import find_checkpoint, seal
from detox_tune.tuning.results import feasible_j
from detox_tune.tuning.scheduler import CollapseScheduler
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.storage import Storage
from detox_tune.tuning.study import SearchStudy
from detox_tune.tuning.trials import run_trials

SPACE = SearchSpace({"learning_rate": {"range": [0.0001, 0.01]}, "gamma": {"zero_or": [0.1, 1.0]}})
EVERY = 10  # steps between reports
MOMENTS: dict[str, tuple[Any, str]] = {
    "add": (optuna.Study, "add_trial"),
    "judge": (CollapseScheduler, "on_trial_result"),
    "write": (optuna.storages.RDBStorage, "set_trial_user_attr"),
    "rename": (Path, "replace"),
}


def scores(learning_rate: float, step: int) -> tuple[float, float]:
    """`j` and copy rate of a toy trial: some are poor, some collapse, some finish."""
    kind = int(learning_rate * 1e6) % 4
    return step / 100 * (0.3, 0.9, 0.5, 0.7)[kind], 0.9 if kind == 1 else 0.9 - step / 120


def toy(settings: dict[str, Any], *, config: SearchConfig, task: None, storage: Storage) -> None:
    """Does as `run_trial` does."""
    between = os.environ.get("TOYS_BETWEEN")  # what happens when this process gets the next trial
    if between == "die":
        _TrainSession.reset = _die  # type: ignore[method-assign]
    elif between == "late":  # as if this trial had not come to its end by then
        _TrainSession.finish = _not_yet  # type: ignore[method-assign]
    last = find_checkpoint(storage, settings["trial"], lambda report: report["step"])
    start = 0
    if last:
        tune.report(last.report)
        with last.checkpoint.as_directory() as folder:
            start = int(Path(folder, "step").read_text())
    for step in range(start + EVERY, 101, EVERY):
        time.sleep(float(os.environ.get("TOYS_PAUSE", "0")))  # as if it trained
        j, copy_rate = scores(settings["learning_rate"], step)
        if settings["gamma"] > 0.4 and step == 30 and "TOYS_SOUND" not in os.environ:
            raise FloatingPointError("the loss is nan")
        report = {"step": step, "j": j, "copy_rate": copy_rate, "seconds": 1.0, "n": 50}
        report["feasible_j"] = feasible_j(report, max_copy_rate=0.1, copy_j=0.0)
        shutil.rmtree("state", ignore_errors=True)
        Path("state").mkdir()
        Path("state", "step").write_text(str(step))
        seal(Path("state"), report)
        tune.report(report, checkpoint=tune.Checkpoint.from_directory("state"))


def _die(*_: Any, **named: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _not_yet(*_: Any, **named: Any) -> None:
    """Leaves the thread of a trial waiting."""


def die_at(moment: str, n: int) -> None:
    """Kill this process instead of the nth call."""
    owner, name = MOMENTS[moment]
    function: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, n))

    def wrapper(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    setattr(owner, name, wrapper)


def main(folder: Path, n_trials: int, at_once: int) -> None:
    config = SearchConfig(
        name="toys",
        storage=os.environ.get("TOYS_STORAGE") or None,
        seed=2,  # trials end in each way that there is
        trials=n_trials,
        steps=100,
        eval_every=EVERY,
        grace_steps=30,
        reduction_factor=2,
        max_copy_rate=1.0,
        collapse_grace=50,
        startup_trials=3,
        max_failures=int(os.environ.get("TOYS_FAILURES", "0")),
    )
    started: dict[str, Any] = (
        {}
        if "RAY_ADDRESS" in os.environ
        else {"address": "local", "num_cpus": 2, "include_dashboard": False}
    )
    ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **started)
    known = SearchStudy(folder, SPACE, max_copy_rate=0.1)
    run_trials(toy, config, SPACE, None, known, folder, concurrent=at_once)  # type: ignore[arg-type]
    ray.shutdown()


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if sys.argv[4:]:
        die_at(sys.argv[4], int(sys.argv[5]))
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
