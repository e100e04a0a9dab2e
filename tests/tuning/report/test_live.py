"""The page is written while a search runs, and never stops one."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from detox_tune.config import SearchConfig
from detox_tune.tuning.report import live, page
from detox_tune.tuning.report.live import LiveReport, update_report
from detox_tune.tuning.report.run_data import read_run
from detox_tune.tuning.results import TrialRecord


def test_what_goes_wrong_is_said_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SearchConfig(name="none")
    assert "has no search.json" in update_report(config, tmp_path, [])

    def broken(folder: Path) -> None:
        raise RuntimeError

    monkeypatch.setattr(page, "write_report", broken)
    said = "report.html could not be written: RuntimeError: no message"
    assert update_report(config, tmp_path, []) == said


class Study:
    def trials(self) -> list[TrialRecord]:
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; it stands still but while a page is written, which takes a second."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_page_takes_little_of_the_time(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(*_: object) -> str:
        written.append(clock[0])
        clock[0] += 1
        return ""

    monkeypatch.setattr(live, "update_report", write)
    callback = LiveReport(SearchConfig(name="toys"), tmp_path, Study())  # type: ignore[arg-type]
    for _ in range(60):
        callback.on_trial_complete(1, [], None)  # type: ignore[arg-type]
        clock[0] += 1
    assert written == [100.0, 121.0, 142.0]


def test_a_page_of_a_running_search(make_run: Any) -> None:
    folder = make_run(trials=3, winner=False)
    run = read_run(folder)
    record = {name: v for name, v in run.record.items() if name not in ("finished", "no_winner")}
    (folder / "search.json").write_text(json.dumps(record), encoding="utf-8")
    assert update_report(run.config, folder, run.trials) == ""
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "not finished: 3 of 3 trials have ended" in text
    assert "There is no winner yet" in text
    assert "reload it" in text
