"""The rank of reports; rows and the winner, from what Tune gives back."""

import csv
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune import Checkpoint, Result

from detox_tune.evaluation.scores import SCORES
from detox_tune.tuning.results import (
    COLUMNS,
    best_report,
    feasible_j,
    find_winner,
    trial_row,
    write_trials,
)


def report(step: int, j: float, copy_rate: float, seconds: float) -> dict[str, Any]:
    scores = {name: 0.0 for name in SCORES} | {"j": j, "copy_rate": copy_rate}
    extra = {"step": step, "seconds": seconds, "trained_share": 1.0, "pairs_dropped": 0}
    return scores | extra | {"feasible_j": feasible_j(scores, 0.1)}


def result(
    folder: Path, name: str, reports: list[dict[str, Any]], ended: str = "finished"
) -> Result:
    checkpoints = []
    for one in reports:
        path = folder / name / f"checkpoint_{one['step']}"
        path.mkdir(parents=True)
        checkpoints.append((Checkpoint.from_directory(path), one))
    last = (reports[-1] if reports else {}) | {
        "ended": ended,
        "ended_reason": "because",
        "config": {"gamma": 0.5},
    }
    return Result(
        metrics=last,
        checkpoint=None,
        error=None,
        path=str(folder / name),
        metrics_dataframe=pd.DataFrame(reports) if reports else None,
        best_checkpoints=checkpoints,
    )


TENTHS = st.integers(0, 10).map(lambda tenths: tenths / 10)


@given(st.lists(st.tuples(TENTHS, TENTHS), min_size=1, max_size=6))
def test_the_best_report_as_a_sentence(curve: list[tuple[float, float]]) -> None:
    """The highest `j` among those that copy little enough; where none does, who copies least."""
    reports = [{"step": step, "j": j, "copy_rate": c} for step, (j, c) in enumerate(curve)]
    allowed = [one for one in reports if one["copy_rate"] <= 0.3]
    best = best_report(reports, 0.3)
    if allowed:
        expected = max(one["j"] for one in allowed)
        assert best == next(one for one in allowed if one["j"] == expected)
    else:
        expected = min(one["copy_rate"] for one in reports)
        assert best == next(one for one in reports if one["copy_rate"] == expected)


def test_a_row_tells_of_the_best_feasible_report_not_of_the_last(tmp_path: Path) -> None:
    reports = [report(10, 0.3, 0.05, 1.0), report(20, 0.6, 0.5, 2.0), report(30, 0.2, 0.0, 3.0)]
    row = trial_row(result(tmp_path, "trial_001", reports), 0.1)
    assert (row["trial"], row["ended"], row["reason"]) == ("trial_001", "finished", "because")
    assert (row["steps"], row["best_step"], row["j"], row["copy_rate"]) == (30, 10, 0.3, 0.05)
    assert (row["gamma"], row["lora"], row["seconds"]) == (0.5, "second", 3.0)


def test_a_continued_trial_counts_all_its_seconds_and_a_failed_one_has_a_row(
    tmp_path: Path,
) -> None:
    reports = [report(10, 0.3, 0.05, 4.0), report(20, 0.4, 0.05, 9.0), report(30, 0.2, 0.0, 2.5)]
    assert trial_row(result(tmp_path, "trial_001", reports), 0.1)["seconds"] == 11.5
    row = trial_row(result(tmp_path, "trial_002", [], ended="failed"), 0.1)
    assert (row["ended"], row["steps"], row["j"], row["seconds"]) == ("failed", 0, None, 0)


def test_the_winner_is_the_best_feasible_report_with_its_own_checkpoint(tmp_path: Path) -> None:
    results = [
        result(tmp_path, "trial_001", [report(10, 0.9, 0.4, 1), report(20, 0.3, 0.1, 2)]),
        result(tmp_path, "trial_002", [report(10, 0.5, 0.02, 1), report(20, 0.4, 0.0, 2)]),
    ]
    winner = find_winner(results, 0.1)
    assert winner is not None
    assert (winner.trial, winner.report["step"]) == ("trial_002", 10)
    assert winner.checkpoint.path.endswith("trial_002/checkpoint_10")
    assert find_winner(results, 0.0).report["step"] == 20  # type: ignore[union-attr]
    assert find_winner(results[:1], 0.05) is None  # all copy
    assert find_winner([], 0.1) is None


@pytest.mark.parametrize(("j", "copy_rate"), [(math.nan, 0.0), (math.inf, 0.0), (0.9, math.nan)])
def test_what_is_not_finite_never_wins(tmp_path: Path, j: float, copy_rate: float) -> None:
    broken = result(tmp_path, "trial_001", [report(10, j, copy_rate, 1)])
    sound = result(tmp_path, "trial_002", [report(10, 0.1, 0.0, 1)])
    assert find_winner([broken], 0.1) is None
    for results in ([broken, sound], [sound, broken]):
        assert find_winner(results, 0.1).trial == "trial_002"  # type: ignore[union-attr]


def test_trials_csv_has_a_line_a_trial_in_order(tmp_path: Path) -> None:
    results = [result(tmp_path, f"trial_00{n}", [report(5, 0.1, 0, 1)]) for n in (2, 1)]
    rows = [trial_row(one, 0.1) for one in results]
    write_trials(tmp_path / "trials.csv", rows)
    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["trial"] for row in read] == ["trial_001", "trial_002"]
    assert tuple(read[0]) == COLUMNS
