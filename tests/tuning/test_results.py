"""The rank of reports; rows and candidates, from what trials reported and their checkpoints."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from detox_tune.evaluation.scores import SCORES
from detox_tune.tuning.checkpoints import drop_training_state, find_checkpoint, seal
from detox_tune.tuning.results import (
    COLUMNS,
    TrialRecord,
    best_report,
    candidates,
    feasible_j,
    write_trials,
)
from detox_tune.tuning.storage import Storage

COPY_J = 0.15
"""What the untouched copy is worth."""


def report(
    step: int, j: float, copy_rate: float, seconds: float = 1.0, beams: int = 1
) -> dict[str, Any]:
    scores = {name: 0.0 for name in SCORES} | {"j": j, "copy_rate": copy_rate}
    extra = {"step": step, "seconds": seconds, "trained_share": 1.0, "pairs_dropped": 0}
    return scores | extra | {"feasible_j": feasible_j(scores, 0.1, COPY_J, beams=beams)}


def record(
    folder: Path, name: str, reports: list[dict[str, Any]], ended: str = "finished"
) -> TrialRecord:
    for one in reports:
        checkpoint(folder / "session_1" / name / f"checkpoint_{one['step']:06d}", one)
    return TrialRecord(name, {"gamma": 0.5}, reports, ended, "because")


def checkpoint(folder: Path, report: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "adapter_config.json", "optimizer.pt"):
        (folder / name).write_bytes(f"{name} at {report['step']}".encode() * 9)
    seal(folder, report)


def storage(folder: Path) -> Storage:
    return Storage(LocalFileSystem(), str(folder))


TENTHS = st.integers(0, 10).map(lambda tenths: tenths / 10)


@given(st.lists(st.tuples(TENTHS, TENTHS), min_size=1, max_size=6))
def test_the_best_report_as_a_sentence(curve: list[tuple[float, float]]) -> None:
    """The highest `j` of those that may win, else who copies least of those that copy too much."""
    reports = [report(step, j, copy_rate, 1.0) for step, (j, copy_rate) in enumerate(curve)]
    best = best_report(reports)
    little = [one for one in reports if one["copy_rate"] <= 0.1]
    much = [one for one in reports if one not in little]
    if any(one["j"] > COPY_J for one in little):
        assert best == max(little, key=lambda one: one["j"])
    elif much:
        assert best == min(much, key=lambda one: one["copy_rate"])
    else:
        assert best == max(little, key=lambda one: one["j"])


def test_a_row_tells_of_the_best_feasible_report_not_of_the_last(tmp_path: Path) -> None:
    reports = [report(10, 0.3, 0.05, 1.0), report(20, 0.6, 0.5, 2.0), report(30, 0.2, 0.0, 3.0)]
    row = record(tmp_path, "trial_001", reports).row
    assert (row["trial"], row["ended"], row["reason"]) == ("trial_001", "finished", "because")
    assert (row["steps"], row["best_step"], row["j"], row["copy_rate"]) == (30, 10, 0.3, 0.05)
    assert (row["gamma"], row["lora"], row["seconds"]) == (0.5, "all", 3.0)


def test_a_continued_trial_counts_all_its_seconds_and_a_failed_one_has_a_row(
    tmp_path: Path,
) -> None:
    reports = [report(10, 0.3, 0.05, 4.0), report(20, 0.4, 0.05, 9.0), report(30, 0.2, 0.0, 2.5)]
    assert record(tmp_path, "trial_001", reports).row["seconds"] == 11.5
    row = record(tmp_path, "trial_002", [], ended="failed").row
    assert (row["ended"], row["steps"], row["j"], row["seconds"]) == ("failed", 0, None, 0)


def unsealed(folder: Path) -> None:
    (folder / "seal.json").unlink()


def half_a_seal(folder: Path) -> None:
    half(folder / "seal.json")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        unsealed,
        half_a_seal,
        lambda folder: (folder / "optimizer.pt").unlink(),
        lambda folder: half(folder / "optimizer.pt"),
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 9 * 31),
    ],
)
def test_of_checkpoints_only_whole_ones_count(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    reports = [report(step, step / 100, 0.0, 1.0) for step in (10, 20, 30)]
    trial = record(tmp_path, "trial_001", reports[:2])
    # the search went on elsewhere, and Tune counted its checkpoints anew
    checkpoint(tmp_path / "session_2" / "trial_001" / "checkpoint_000000", reports[2])
    last = find_checkpoint(storage(tmp_path), "trial_001", lambda one: one["step"])
    assert last is not None
    assert last.report == reports[2]
    damage(Path(last.checkpoint.path))
    before = find_checkpoint(storage(tmp_path), "trial_001", lambda one: one["step"])
    assert before is not None
    assert before.report == reports[1]
    trial.reports.append(reports[2])
    assert [one.report["step"] for one in candidates([trial], storage(tmp_path))] == [20]
    assert find_checkpoint(storage(tmp_path), "trial_002", lambda one: one["step"]) is None


def test_of_a_trial_that_ended_the_adapters_are_left(tmp_path: Path) -> None:
    trial = record(tmp_path, "trial_001", [report(s, s / 100, 0.0, 1.0) for s in (10, 20)])
    record(tmp_path, "trial_002", [report(10, 0.5, 0.0, 1.0)])
    half_a_seal(tmp_path / "session_1" / "trial_001" / "checkpoint_000010")
    (before,) = candidates([trial], storage(tmp_path))
    drop_training_state(storage(tmp_path), "trial_001")
    (after,) = candidates([trial], storage(tmp_path))
    assert after.report == before.report == trial.reports[1]
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("optimizer.pt")}
    assert left == {
        "session_1/trial_001/checkpoint_000010/optimizer.pt",  # not a checkpoint that counts
        "session_1/trial_002/checkpoint_000010/optimizer.pt",
    }
    best = Path(after.checkpoints[0].path)
    half(best / "adapter_model.safetensors")
    assert candidates([trial], storage(tmp_path)) == []


def test_candidates_are_the_best_reports_of_trials_with_their_checkpoints(tmp_path: Path) -> None:
    results = [
        record(tmp_path, "trial_001", [report(10, 0.9, 0.4, 1), report(20, 0.3, 0.1, 2)]),
        record(tmp_path, "trial_002", [report(10, 0.5, 0.02, 1), report(20, 0.4, 0.0, 2)]),
        record(tmp_path, "trial_003", [report(10, 0.9, 0.2, 1)]),  # copies
        record(tmp_path, "trial_004", [report(10, 0.1, 0.0, 1)]),  # no better than the copy
        record(tmp_path, "trial_005", []),
    ]
    found = candidates(results, storage(tmp_path))
    assert [(one.trial, one.report["step"]) for one in found] == [
        ("trial_002", 10),
        ("trial_001", 20),
    ]
    assert found[0].checkpoints[0].path.endswith("trial_002/checkpoint_000010")
    assert candidates(results[2:], storage(tmp_path)) == []


def test_with_beams_a_trial_that_copies_a_little_too_much_may_win(tmp_path: Path) -> None:
    curves = {
        "trial_001": [(0.30, 0.10), (0.50, 0.13), (0.52, 0.25)],
        "trial_002": [(0.40, 0.10)],
        "trial_003": [(0.50, 0.50)],  # less the copies it is below the copy's j
        "trial_004": [(COPY_J, 0.00)],
    }
    results = [
        record(tmp_path, name, [report(n, *one, beams=8) for n, one in enumerate(curve)])
        for name, curve in curves.items()
    ]
    found = candidates(results, storage(tmp_path))
    assert [(one.trial, one.report["step"]) for one in found] == [
        ("trial_001", 1),
        ("trial_002", 0),
    ]
    assert found[0].report["feasible_j"] == pytest.approx(0.47)
    names = [Path(one.path).name[-1] for one in found[0].checkpoints]
    assert names == ["1", "2", "0"]


@pytest.mark.parametrize(("j", "copy_rate"), [(math.nan, 0.0), (math.inf, 0.0), (0.9, math.nan)])
def test_what_is_not_finite_never_wins(tmp_path: Path, j: float, copy_rate: float) -> None:
    broken = record(tmp_path, "trial_001", [report(10, j, copy_rate, 1)])
    sound = record(tmp_path, "trial_002", [report(10, 0.2, 0.0, 1)])
    for results in ([broken, sound], [sound, broken]):
        assert [one.trial for one in candidates(results, storage(tmp_path))] == ["trial_002"]


def test_trials_csv_has_a_line_for_each_trial(tmp_path: Path) -> None:
    ends = {"trial_001": "collapse", "trial_002": ""}
    trials = [record(tmp_path, name, [report(5, 0.1, 0, 1)], end) for name, end in ends.items()]
    write_trials(tmp_path / "trials.csv", trials)
    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["trial"], row["ended"]) for row in read] == [
        ("trial_001", "collapse"),
        ("trial_002", "unfinished"),
    ]
    assert tuple(read[0]) == COLUMNS
