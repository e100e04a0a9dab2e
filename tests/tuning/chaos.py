"""Searches whose workers, nodes and driver are killed at random moments, until they are done.

    python -m tests.tuning.chaos ROUNDS [FIRST_SEED]

Each round is a search of 24 toy trials over three raylets on this machine; what it leaves is
compared with what an undisturbed search leaves. It prints a line for each, and fails at the first
fault.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import optuna
from ray.cluster_utils import Cluster

from detox_tune.tuning.results import TrialRecord
from tests.tuning.test_resume import TOYS, known, rows
from tests.tuning.toy_search import EVERY, scores

TRIALS, DISTURBANCES = 24, 6
SECONDS = (0.5, 6.0)  # between two disturbances
LOG = "driver.log"
# In the environment of the raylets, whose workers run the trials. None fails by itself: each of its
# tries would take a new process, which takes long to start.
TOYS_DO = {"TOYS_PAUSE": "0.2", "TOYS_FAILURES": "6", "TOYS_SOUND": "1"}


class Search:
    """A driver of toy trials over three raylets, and what is done to it."""

    def __init__(self, folder: Path, trials: int, at_once: int) -> None:
        self.folder, self.trials, self.at_once = folder, trials, at_once
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        self.before: dict[Path, dict[str, TrialRecord]] = {}  # by session: what was known then
        self.driver = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        # The driver before may have died before it made its session, whose number this one takes.
        self.session = self.folder / f"ray/session_{1 + len([*self.folder.glob('ray/session_*')])}"
        self.before[self.session] = {trial.name: trial for trial in known(self.folder)}
        with (self.folder / LOG).open("ab") as log:  # a pipe that nobody reads would fill up
            return subprocess.Popen(
                [sys.executable, TOYS, self.folder, str(self.trials), str(self.at_once)],
                stdout=log,
                stderr=log,
                env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            )

    def kill_worker(self, rng: random.Random) -> bool:
        """The process of a trial that reported last; whether there is one."""
        found = self.session.glob("*/result.json")
        files = sorted(found, key=lambda file: file.stat().st_mtime)
        lines = files[-1].read_text(encoding="utf-8").splitlines() if files else []
        if not lines:
            return False
        with suppress(ProcessLookupError):
            os.kill(json.loads(lines[-1])["pid"], signal.SIGKILL)
            return True
        return False

    def kill_node(self, rng: random.Random) -> bool:
        """A raylet, with all its workers; another one comes."""
        node = self.nodes.pop(rng.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))
        return True

    def kill_driver(self, rng: random.Random) -> bool:
        self.driver.kill()
        self.driver.wait()
        self.driver = self.start()
        return True

    def close(self) -> None:
        self.driver.kill()
        self.driver.wait()
        self.cluster.shutdown()


def disturb(folder: Path, seed: int, at_once: int, trials: int, times: int) -> list[str]:
    """Run a search to its end; returns what was done to it."""
    rng, waits = random.Random(seed), random.Random(seed)
    done: list[str] = []
    kill: Callable[[random.Random], bool] | None = None
    search = Search(folder, trials, at_once)
    try:
        while True:
            try:
                wait = waits.uniform(*SECONDS) if len(done) < times else 600
                assert search.driver.wait(timeout=wait) == 0, (folder / LOG).read_text()
                break
            except subprocess.TimeoutExpired:
                assert len(done) < times, "the search hangs"
            # Where no worker has reported yet, the next try is to kill one again.
            kill = kill or rng.choice((search.kill_worker, search.kill_node, search.kill_driver))
            if kill(rng):
                done.append(kill.__name__.removeprefix("kill_"))
                kill = None
        check(folder, search.before, trials)
    finally:
        search.close()
    return done


def check(folder: Path, before: dict[Path, dict[str, TrialRecord]], trials: int) -> None:
    """Nothing is lost, nothing done twice, and all scores are what they must be.

    Args:
        folder: of the run.
        before: by the folder of a session, what was known when it began.
        trials: how many there must be.
    """
    after = known(folder)
    assert [trial.name for trial in after] == [f"trial_{n:03d}" for n in range(1, trials + 1)]
    for trial in after:
        assert trial.ended, trial.name
        assert [report["step"] for report in trial.reports] == [
            EVERY * n for n in range(1, len(trial.reports) + 1)
        ]
        for report in trial.reports:
            expected = scores(trial.settings["learning_rate"], report["step"])
            assert (report["j"], report["copy_rate"]) == expected
    for session, earlier in before.items():
        for file in session.glob("*/result.json"):
            lines = file.read_text(encoding="utf-8").splitlines()
            past = earlier.get(file.parent.name)
            if past and lines:
                assert not past.ended, f"{past.name} was run twice"
                first = json.loads(lines[0])["step"]  # at most one interval is trained again
                assert first in (max(past.steps, EVERY), past.steps + EVERY), past.name


def main(rounds: int, first_seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        plain = Path(scratch, "plain")
        plain.mkdir()
        disturb(plain, 0, 1, TRIALS, 0)
        for seed in range(first_seed, first_seed + rounds):
            started = time.monotonic()
            for at_once in (3, 1):
                folder = Path(scratch, f"{seed}-{at_once}")
                folder.mkdir()
                done = disturb(folder, seed, at_once, TRIALS, DISTURBANCES)
                if at_once == 1:
                    assert rows(folder) == rows(plain)
                print(
                    f"round {seed}, {at_once} at once: {', '.join(done)}; all as it must be "
                    f"after {time.monotonic() - started:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    os.environ |= TOYS_DO
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 1)
