"""python benchmarks/scale.py: what the driver of a long search does, beside Tune's own part of it.

A thousand trials that do no work, 64 at a time: once as a search runs them, once by Tune alone with
its ASHA and its random search. Times are those of the driver's processor, since the trials of this
make-believe cluster share its cores. Writes `scale.md`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tables import commit, markdown_table

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.files import check_can_write, write_text

EVERY, STEPS = 10, 100
SPACE: dict[str, Any] = {
    "learning_rate": {"range": [0.0001, 0.01], "log": True},
    "gamma": {"zero_or": [0.1, 10.0]},
    "lora": "all",
    "lora_r": {"choice": [8, 16, 32, 64]},
}
SIDES = {"search": "detox_tune", "tune": "Tune alone"}
ABOUT = """\
A report is one of ten that a trial makes before ASHA stops it or it ends. `ms a report` is all that
the driver's processor does from the first to the last trial, divided by the reports: Tune's loop,
scheduler, searcher, records, page and progress. The quarters are those of the trials. `state` is
what the driver has written at the end, without checkpoints; `restored in` is the time to open that
and to know all trials, rungs and proposals again (Tune's own restore loses the rungs, and is not
used).
"""


def toy(settings: dict[str, Any], **shared: Any) -> None:
    """A trial whose `j` and copy rate follow from its settings."""
    from ray import tune

    for step in range(EVERY, STEPS + 1, EVERY):
        j = step / STEPS * (0.3 + abs(hash(settings["learning_rate"])) % 1000 / 2000)
        copy_rate = 0.9 - 0.85 * step / STEPS
        report = {"step": step, "j": j, "copy_rate": copy_rate, "feasible_j": j, "n": 50}
        folder = Path("state")
        folder.mkdir(exist_ok=True)
        (folder / "step").write_text(str(step))
        tune.report(
            {**report, "seconds": 1.0}, checkpoint=tune.Checkpoint.from_directory(str(folder))
        )


class Clock:
    """Notes, as a callback of Tune's, the driver's processor time at each report."""

    def __init__(self) -> None:
        self.trials: list[float] = []
        self.reports: list[float] = []
        self.begun = time.process_time()


def clock_callback(clock: Clock) -> Any:
    """The callback that fills a clock."""
    from ray.tune import Callback

    class Filler(Callback):
        def on_trial_result(self, *_: Any, **named: Any) -> None:
            clock.reports.append(time.process_time())

        def on_trial_complete(self, *_: Any, **named: Any) -> None:
            clock.trials.append(time.process_time())

    return Filler()


def run_side(side: str, trials: int, slots: int, folder: Path) -> dict[str, Any]:
    """Run one side; returns its measurements."""
    import optuna
    import ray

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ray.init(
        address="local",
        num_cpus=slots,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
    )
    clock = Clock()
    run = _search if side == "search" else _tune_alone
    clock.begun = time.process_time()
    restore = run(clock, trials, slots, folder)
    ended = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    started = time.process_time()
    restore()
    state = [file for file in folder.rglob("*") if file.is_file() and _is_state(file)]
    quarters = _quarters(clock)
    measured = {
        "reports": len(clock.reports),
        "total": 1000 * (ended - clock.begun) / len(clock.reports),
        "first": quarters[0],
        "last": quarters[-1],
        "memory": memory,
        "state": sum(file.stat().st_size for file in state) / 2**20,
        "restore": time.process_time() - started,
    }
    ray.shutdown()
    return measured


def _is_state(file: Path) -> bool:
    return not any(part.startswith("checkpoint_") for part in file.parts)


def _quarters(clock: Clock) -> list[float]:
    """Milliseconds a report in each quarter of the trials."""
    ends = [clock.begun]
    ends += [clock.trials[len(clock.trials) * n // 4 - 1] for n in range(1, 5)]
    times = []
    for start, end in itertools.pairwise(ends):
        reports = sum(start < moment <= end for moment in clock.reports)
        times.append(1000 * (end - start) / max(reports, 1))
    return times


def _search(clock: Clock, trials: int, slots: int, folder: Path) -> Any:
    from rich.console import Console

    from detox_tune.config import SearchConfig
    from detox_tune.tuning import trials as room
    from detox_tune.tuning.scheduler import CollapseScheduler
    from detox_tune.tuning.searcher import DetoxSearch
    from detox_tune.tuning.space import SearchSpace
    from detox_tune.tuning.study import SearchStudy

    config = SearchConfig(
        name="scale",
        trials=trials,
        steps=STEPS,
        eval_every=EVERY,
        grace_steps=20,
        collapse_grace=50,
        startup_trials=10,
    )
    space = SearchSpace(SPACE)
    vars(room)["tracker_callback"] = lambda *_: [clock_callback(clock)]  # in a tracker's place
    study = SearchStudy(folder, space, config.max_copy_rate)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=80, height=40)
        room.run_trials(toy, config, space, None, study, folder, concurrent=slots, console=console)  # type: ignore[arg-type]

    def restore() -> None:
        again = SearchStudy(folder, space, config.max_copy_rate)
        past = again.trials()
        DetoxSearch(again, sampler="tpe", seed=0, n_startup_trials=10)
        CollapseScheduler(
            max_steps=STEPS,
            grace_steps=20,
            reduction_factor=config.reduction_factor,
            max_copy_rate=config.max_copy_rate,
            collapse_grace=50,
            collapse_threshold=config.collapse_threshold,
            past=past,
        )
        assert len(past) == trials

    return restore


def _tune_alone(clock: Clock, trials: int, slots: int, folder: Path) -> Any:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    space = {
        "learning_rate": tune.loguniform(0.0001, 0.01),
        "gamma": tune.uniform(0.1, 10.0),
        "lora_r": tune.choice([8, 16, 32, 64]),
    }
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(toy), {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="j",
            mode="max",
            num_samples=trials,
            scheduler=ASHAScheduler(
                time_attr="step", max_t=STEPS, grace_period=20, reduction_factor=3
            ),
            max_concurrent_trials=slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="alone",
            storage_path=str(folder),
            verbose=0,
            callbacks=[clock_callback(clock)],
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=3, checkpoint_score_attribute="feasible_j"
            ),
        ),
    )
    tuner.fit()
    return lambda: tune.Tuner.restore(str(folder / "alone"), toy)


def measure(side: str, trials: int, slots: int) -> dict[str, Any]:
    """The same in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        command = [sys.executable, __file__, "--trials", str(trials), "--slots", str(slots)]
        command += ["--side", side, "--out", folder]
        # A new process for each of 64 places: they are many for one machine.
        environment = os.environ | {"RAY_worker_register_timeout_seconds": "600"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            sys.exit(done.returncode)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both sides, write the page."""
    options = _parser().parse_args(arguments)
    if options.side:
        measured = run_side(options.side, options.trials, options.slots, options.out)
        print(json.dumps(measured))
        return 0
    check_can_write(options.out, "--out")
    rows = []
    for side, name in SIDES.items():
        one = measure(side, options.trials, options.slots)
        times = (f"{one[key]:.1f}" for key in ("total", "first", "last"))
        rest = (f"{one['memory']:.0f}", f"{one['state']:.1f}", f"{one['restore']:.1f}")
        rows.append([name, str(one["reports"]), *times, *rest])
        print(" ".join(rows[-1]), flush=True)
    head = ("driver", "reports", "ms a report", "first quarter", "last quarter")
    table = markdown_table((*head, "memory, MiB", "state, MiB", "restored in, s"), rows)
    print(table)
    write_text(
        options.out,
        f"# The driver of a long search\n\n`python benchmarks/scale.py --trials {options.trials} "
        f"--slots {options.slots}`, commit {commit()}, {date.today().isoformat()}\n\n"
        f"{ABOUT}\n{table}",
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/scale.py", description="Cost of the driver, beside Tune alone."
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=64, help="trials at a time (default: 64)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=path, default=Path("results/scale.md"))
    return parser


if __name__ == "__main__":
    run_command(main)
