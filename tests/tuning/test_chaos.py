"""A short form of what `python -m tests.tuning.chaos` does for hours."""

from pathlib import Path

import pytest

from tests.tuning.chaos import TOYS_DO, disturb
from tests.tuning.test_resume import known

SEED = 2  # a worker, a node and the driver die, in this order


@pytest.mark.slow
def test_a_worker_a_node_and_the_driver_die_and_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**TOYS_DO, "TOYS_PAUSE": "0.5"}.items():  # few trials, which must last
        monkeypatch.setenv(name, value)
    plain, disturbed = tmp_path / "plain", tmp_path / "disturbed"
    for folder, times in ((plain, 0), (disturbed, 3)):
        folder.mkdir()
        assert len(disturb(folder, SEED, at_once=1, trials=6, times=times)) == times
    assert known(disturbed) == known(plain)
