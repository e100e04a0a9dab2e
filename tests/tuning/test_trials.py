"""When all trials are stopped."""

import time

import pytest

from detox_tune.tuning.trials import StopAfter


def test_hours_pass_by_a_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    stop = StopAfter(3600)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 4e9)  # set to the year 2096
        assert not stop.stop_all()
        patch.setattr(time, "monotonic", lambda: started + 3610)
        assert stop.stop_all()
