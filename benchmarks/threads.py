"""python benchmarks/threads.py --out results: pre-training a pocket base, threads set in four ways.

Seconds of a step when nothing else runs, and beside as many busy processes as there are cores. All
settings in turn, in processes of their own; medians. Writes `threads.md`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from tables import commit, markdown_table

from detox_tune.cli import OneLineParser, run_command
from detox_tune.files import write_text
from detox_tune.machine import cores

SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "as it comes": (0, {}),
    "passive waiting": (0, {"OMP_WAIT_POLICY": "PASSIVE"}),
    "spinning for a moment only": (0, {"GOMP_SPINCOUNT": "1000"}),
    "one thread": (1, {}),
}
"""Threads (0 for as many as cores), and variables of the environment."""
STEPS, WARM = 25, 5
CODE = f"""
import random, sys, time, torch
from detox_tune.model.denoising import pretrain
from detox_tune.model.pocket import new_model
if int(sys.argv[1]):
    torch.set_num_threads(int(sys.argv[1]))
rng = random.Random(0)
sentences = [
    [[rng.randrange(10, 1000) for _ in range(rng.randint(1, 2))] for _ in range(rng.randint(6, 14))]
    for _ in range(2000)
]
times = []
pretrain(new_model(1000), lambda: sentences, sentinel=4, end=1, steps={STEPS + WARM}, rng=rng,
         progress=lambda step: times.append(time.perf_counter()))
print((times[-1] - times[{WARM - 1}]) / {STEPS})
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the table."""
    options = _parser().parse_args(arguments)
    seconds: dict[tuple[str, bool], list[float]] = {}
    for _ in range(options.repeats):
        for busy in (False, True):
            for name in SETTINGS:
                with busy_processes(cores() if busy else 0):
                    seconds.setdefault((name, busy), []).append(step_seconds(name))
                print(f"{name}, {'busy' if busy else 'idle'}: {seconds[name, busy][-1]:.3f} s")
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    rows = [[name, *(f"{medians[name, busy]:.3f}" for busy in (False, True))] for name in SETTINGS]
    head = ("threads", "idle: s a step", "busy: s a step")
    about = (
        "# Threads on a busy machine\n\n"
        f"`python benchmarks/threads.py`, commit {commit()}, {date.today()}, {cores()} CPU cores "
        f"({platform.machine()}). Pre-training of the pocket base, {STEPS} steps of 64 sentences, "
        f"medians of {options.repeats} runs of each. Busy: beside {cores()} processes that compute "
        "all the time.\n\n"
    )
    write_text(options.out / "threads.md", about + markdown_table(head, rows))
    return 0


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        time.sleep(1 if count else 0)  # until they compute
        yield


def step_seconds(name: str) -> float:
    """Of one step with a setting, in a process of its own."""
    n_threads, environment = SETTINGS[name]
    answer = subprocess.run(
        [sys.executable, "-c", CODE, str(n_threads)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(answer.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python benchmarks/threads.py", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each setting (default 3)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for threads.md")
    return parser


if __name__ == "__main__":
    run_command(main)
