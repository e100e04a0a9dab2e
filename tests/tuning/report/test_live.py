"""The page is written while a search runs, and never stops one."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import fs

from detox_tune.config import SearchConfig
from detox_tune.data.pairs import Pair
from detox_tune.tuning import outputs as outputs_module
from detox_tune.tuning.checkpoints import seal
from detox_tune.tuning.outputs import collect_outputs, keep_outputs, read_outputs
from detox_tune.tuning.report import live, page
from detox_tune.tuning.report.live import LiveReport, update_report
from detox_tune.tuning.report.run_data import read_run
from detox_tune.tuning.results import TrialRecord
from detox_tune.tuning.storage import Storage

PAIRS = [Pair("you damn fool", ("you fool",), "en"), Pair("ein Satz\n", ("ein Satz",), "de")]


def checkpoint(folder: Path, step: int, feasible_j: float, text: str) -> dict[str, Any]:
    """A sealed checkpoint of trial_001 with two outputs; returns its report."""
    place = folder / "ray" / "session_1" / "trial_001" / f"checkpoint_{step:06d}"
    place.mkdir(parents=True)
    scored = pd.DataFrame({"label": ["rewritten", "copied"], "j": [0.5, 0.0]})
    keep_outputs(place, step, [f"{text}\u2028{step}", "ein Satz"], PAIRS, scored)
    report = {"step": step, "feasible_j": feasible_j}
    seal(place, report)
    return report


def storage(folder: Path) -> Storage:
    return Storage(fs.LocalFileSystem(), str(folder / "ray"))


def test_outputs_of_the_best_report_are_collected(tmp_path: Path) -> None:
    reports = [checkpoint(tmp_path, 10, 0.2, "first"), checkpoint(tmp_path, 20, 0.4, "best")]
    trial = TrialRecord("trial_001", {}, reports)
    collect_outputs(tmp_path, [trial, TrialRecord("trial_002", {}, [])], storage(tmp_path))
    rows = read_outputs(tmp_path, "trial_001")
    assert [row["output"] for row in rows] == ["best\u202820", "ein Satz"]
    assert rows[1] == {
        "step": 20,
        "language": "de",
        "source": "ein Satz\n",
        "references": ["ein Satz"],
        "output": "ein Satz",
        "label": "copied",
        "j": 0.0,
    }
    assert read_outputs(tmp_path, "trial_002") == []


def test_outputs_follow_a_better_report_and_survive_its_checkpoint(tmp_path: Path) -> None:
    reports = [checkpoint(tmp_path, 10, 0.2, "first")]
    collect_outputs(tmp_path, [TrialRecord("trial_001", {}, reports)], storage(tmp_path))
    reports.append(checkpoint(tmp_path, 20, 0.4, "second"))
    collect_outputs(tmp_path, [TrialRecord("trial_001", {}, reports)], storage(tmp_path))
    assert read_outputs(tmp_path, "trial_001")[0]["output"] == "second\u202820"
    file = tmp_path / "outputs" / "trial_001.jsonl"
    written = file.stat().st_mtime_ns
    collect_outputs(tmp_path, [TrialRecord("trial_001", {}, reports)], storage(tmp_path / "lost"))
    assert file.stat().st_mtime_ns == written


def test_a_damaged_file_of_outputs_is_written_again(tmp_path: Path) -> None:
    trial = TrialRecord("trial_001", {}, [checkpoint(tmp_path, 10, 0.2, "whole")])
    file = tmp_path / "outputs" / "trial_001.jsonl"
    file.parent.mkdir()
    file.write_text('{"step": 1', encoding="utf-8")
    assert read_outputs(tmp_path, "trial_001") == []
    collect_outputs(tmp_path, [trial], storage(tmp_path))
    assert len(read_outputs(tmp_path, "trial_001")) == 2


def test_checkpoints_without_outputs_are_passed_over(tmp_path: Path) -> None:
    place = tmp_path / "ray" / "session_1" / "trial_001" / "checkpoint_000010"
    place.mkdir(parents=True)
    report = {"step": 10, "feasible_j": 0.1}
    seal(place, report)
    collect_outputs(tmp_path, [TrialRecord("trial_001", {}, [report])], storage(tmp_path))
    assert not (tmp_path / outputs_module.OUTPUTS).exists()


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
