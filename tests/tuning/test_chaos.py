"""A short form of what `python -m tests.tuning.chaos` does for hours."""

from pathlib import Path

import pytest

from tests.tuning.chaos import TOYS_DO, disturb
from tests.tuning.test_resume import known, run_toys

SEED = 4  # a worker, a node and the driver die, in this order


@pytest.mark.slow
def test_a_worker_a_node_and_the_driver_die_and_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TOYS_DO.items():
        monkeypatch.setenv(name, value)
    plain, disturbed = tmp_path / "plain", tmp_path / "disturbed"
    disturbed.mkdir()
    monkeypatch.setenv("TOYS_PAUSE", "0.5")  # few trials, which must last
    done = disturb(disturbed, SEED, at_once=1, trials=6, times=3)
    assert done == ["worker", "node", "driver"]
    monkeypatch.setenv("TOYS_PAUSE", "0")
    run_toys(plain, 1)
    assert known(disturbed) == known(plain)
