"""What this process may use: cores by affinity, memory by cgroup, threads of PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detox_tune import machine

RESOURCES = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from detox_tune.cli import quiet_environment
quiet_environment()
from detox_tune.config import SearchConfig
from detox_tune.tuning.cluster import concurrency, connected
config = SearchConfig(name="one-core")
with connected(config) as slots:
    print("trials at once:", concurrency(config, slots))
"""


def test_a_process_that_is_held_to_one_core_runs_one_trial_at_a_time() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", RESOURCES], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "trials at once: 1"


def test_threads_are_told_not_to_spin_before_torch_is_loaded() -> None:
    code = "import os, sys, detox_tune.search as search; search.run_command(lambda: print("
    code += "os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules) or 0)"
    environment = {name: v for name, v in os.environ.items() if name != "GOMP_SPINCOUNT"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "1000 False\n"


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
@pytest.mark.parametrize("content", ["max", "9223372036854771712"])
def test_a_cgroup_without_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str
) -> None:
    assert limited(tmp_path, monkeypatch, file, content) == physical()


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_cgroup_s_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    assert limited(tmp_path, monkeypatch, file, "1048576") == 1048576


def physical() -> int:
    """Bytes that the kernel says the machine has."""
    first = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()[0]
    return int(first.split()[1]) * 1024


def limited(folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str) -> int:
    """Memory where the cgroup's file says so."""
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(f"{content}\n")
    monkeypatch.setattr(machine, "_CGROUP", folder)
    return machine.memory()


def test_threads_are_never_more_than_cores_and_those_of_before_afterwards() -> None:
    before = torch.get_num_threads()
    with machine.threads(10_000):
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
        with machine.threads(0):
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
