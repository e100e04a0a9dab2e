"""A search whose driver dies, again and again: real Ray, real processes, killed for good."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs

from detox_tune.tuning.results import TrialRecord
from detox_tune.tuning.storage import Storage
from detox_tune.tuning.study import SearchStudy
from tests.tuning.test_storage import below
from tests.tuning.toy_search import EVERY, SPACE, scores

TOYS = Path(__file__).with_name("toy_search.py")
TRIALS = 6


def run_toys(
    folder: Path, at_once: int, *death: str, storage: str = "", trials: int = TRIALS
) -> None:
    folder.mkdir(exist_ok=True)
    driver = subprocess.run(
        [sys.executable, TOYS, folder, str(trials), str(at_once), *death],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TOYS_STORAGE": storage},
    )
    assert driver.returncode == (-signal.SIGKILL if death else 0), driver.stderr


def known(folder: Path) -> list[TrialRecord]:
    return SearchStudy(folder, SPACE, max_copy_rate=0.1).trials()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return [row | {"seconds": ""} for row in csv.DictReader(file)]


def first_steps(folder: Path) -> dict[str, int]:
    """The first step that each trial reported in the last process of the driver."""
    session = max(folder.glob("ray/session_*"))
    return {
        file.parent.name: json.loads(file.read_text(encoding="utf-8").splitlines()[0])["step"]
        for file in session.glob("*/result.json")
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_toys(folder, 1)
    return folder


# More of them, at a fraction of the time, are in test_study.py.
DEATHS = [
    ("add", 2),  # a trial is proposed, and not yet written down
    ("write", 7),  # it has judged it, and not yet written it down
    ("rename", 1),  # trials.csv is written, and not yet in its place
]


@pytest.mark.slow
def test_with_one_trial_at_a_time_no_death_leaves_a_trace(
    undisturbed: Path, tmp_path: Path
) -> None:
    for moment, n in DEATHS:
        run_toys(tmp_path, 1, moment, str(n))
    run_toys(tmp_path, 1)
    assert rows(tmp_path) == rows(undisturbed)
    assert known(tmp_path) == known(undisturbed)
    ends = {row["ended"] for row in rows(undisturbed)}
    assert ends == {"finished", "asha", "collapse", "failed"}


@pytest.mark.slow
@pytest.mark.parametrize("between", ["die", "late"])
def test_a_process_that_cannot_take_the_next_trial_costs_none(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    monkeypatch.setenv("TOYS_BETWEEN", between)
    monkeypatch.setenv("TOYS_FAILURES", "1")
    run_toys(tmp_path, 1)
    assert known(tmp_path) == known(undisturbed)


@pytest.mark.slow
def test_a_machine_without_memory_is_one_line_in_the_rows_of_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # of which Ray says all is used
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    monkeypatch.setenv("TOYS_PAUSE", "1")
    run_toys(tmp_path, 1, trials=2)
    reason = "its machine had no memory left, so Ray ended its process: a higher cpus_per_trial"
    assert [row["ended"] for row in rows(tmp_path)] == ["failed"] * 2
    assert all(row["reason"].startswith(reason) for row in rows(tmp_path))


@pytest.mark.slow
def test_with_two_at_a_time_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    run_toys(tmp_path, 2, "judge", "9")
    run_toys(tmp_path, 2, "write", "6")
    before = {trial.name: trial for trial in known(tmp_path)}
    run_toys(tmp_path, 2)
    after = known(tmp_path)
    assert [trial.name for trial in after] == [f"trial_{n:03d}" for n in range(1, TRIALS + 1)]
    assert all(trial.ended for trial in after)
    first = first_steps(tmp_path)
    for trial in after:
        earlier = before.get(trial.name, TrialRecord(trial.name, trial.settings, []))
        assert trial.settings == earlier.settings
        if earlier.ended:
            assert trial == earlier
            assert trial.name not in first
        elif trial.name in first:
            assert first[trial.name] in (max(earlier.steps, EVERY), earlier.steps + EVERY)
        for step, report in enumerate(trial.reports, 1):
            assert report["step"] == EVERY * step
            assert (report["j"], report["copy_rate"]) == scores(
                trial.settings["learning_rate"], report["step"]
            )


@pytest.mark.slow
def test_a_search_whose_checkpoints_are_in_a_bucket_survives_its_driver_and_its_machine(
    undisturbed: Path, s3: str, tmp_path: Path
) -> None:
    here, uri = tmp_path / "here", below(s3, "moved")
    run_toys(here, 1, "write", "25", storage=uri)
    elsewhere = tmp_path / "elsewhere"  # another machine, on which somebody put the copies
    elsewhere.mkdir()
    server, root = fs.FileSystem.from_uri(uri)
    fs.copy_files(f"{root}/toys/study.db", str(elsewhere / "study.db"), server)
    run_toys(elsewhere, 1, storage=uri)
    assert rows(elsewhere) == rows(undisturbed)
    assert not (here / "ray").exists()
    assert Storage(server, f"{root}/toys/ray").names() == ["session_1", "session_2"]
