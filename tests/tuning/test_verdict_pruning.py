"""benchmarks/verdict/pruning.py: an unpruned search, judged again."""

import math
from pathlib import Path
from typing import Any

import pytest
from verdict_pruning import Replay, by_run, judged, read_reports, replay, table
from verdict_samplers import after

from detox_tune.errors import UserError
from detox_tune.tuning.results import feasible_j
from tests.tuning.conftest import CURVES, Search
from tests.tuning.report.made_run import made_run

PRUNER = {"grace": 0.4, "reduction": 2.0, "collapse_grace": 0.3, "threshold": 0.8}  # of `search`


def reports(curve: list[tuple[int, float, float]]) -> list[dict[str, Any]]:
    made = [{"step": step, "j": j, "copy_rate": rate, "n": 100} for step, j, rate in curve]
    return [one | {"feasible_j": feasible_j(one, max_copy_rate=0.1, copy_j=0.0)} for one in made]


def test_a_replay_stops_what_the_search_stopped(search: Search) -> None:
    trials = [reports(curve) for curve in CURVES.values()]
    made = replay(trials, range(len(trials)), PRUNER, slots=1, max_copy_rate=1.0)
    assert made.steps == {n: search.trials[name].steps for n, name in enumerate(CURVES)}
    assert made.reached == 80  # the first trial's best, and nothing ran before it


def test_several_at_once_report_in_turn() -> None:
    """Of two like trials that start together neither has a rival at the rung; a later one has."""
    weak, strong = ([(s, j, 0.0) for s in range(10, 101, 10)] for j in (0.1, 0.5))
    trials = [reports(weak), reports(strong), reports(weak)]
    pruner = {"grace": 0.2, "reduction": 2.0}
    one_by_one = replay(trials, (0, 1, 2), pruner, slots=1, max_copy_rate=1.0)
    assert one_by_one.steps == {0: 100, 1: 100, 2: 20}
    assert one_by_one.reached == 110
    together = replay(trials, (0, 1, 2), pruner, slots=2, max_copy_rate=1.0)
    assert together.steps[0] == 30  # judged again when the strong one is at the rung, too
    assert together.steps[1] == 100


def test_without_pruning_all_trials_run_to_their_end() -> None:
    trials = [reports(CURVES[name]) for name in ("good", "weak", "killed")]
    made = replay(trials, (0, 1, 2), {}, slots=2, max_copy_rate=1.0)
    assert set(made.steps.values()) == {100}
    assert judged(trials, made)["compute"] == 1
    assert judged(trials, made)["false_kills"] == 0


def test_the_best_so_far() -> None:
    """One after the other: `good` may win from its third report on, `early` ends by itself."""
    trials = [reports(CURVES["early"]), reports(CURVES["good"])]
    made = replay(trials, (0, 1), {}, slots=1, max_copy_rate=1.0)
    assert made.steps == {0: 40, 1: 100}
    found = [after(made, steps) for steps in (0, 99, 100, 119, 120, 140, 999)]
    assert found == [0, 0, 0.5, 0.5, 0.6, 0.6, 0.6]


def test_figures() -> None:
    """Three trials: the best one is stopped too early, and the collapsed one at a fifth."""
    good = [(20, 0.1, 0.05), (60, 0.3, 0.05), (100, 0.6, 0.05)]
    fair = [(20, 0.2, 0.05), (60, 0.3, 0.05), (100, 0.4, 0.05)]
    copies = [(20, 0.1, 0.9), (60, 0.1, 0.9), (100, 0.1, 0.9)]
    made = Replay(steps={0: 20, 1: 100, 2: 20})
    found = judged([reports(good), reports(fair), reports(copies)], made)
    assert found["compute"] == pytest.approx(140 / 300)
    assert found["collapsed_at"] == pytest.approx(0.2)
    assert found["false_kills"] == 1
    assert found["lost"] == pytest.approx(1 - 0.4 / 0.6)
    assert found["reached"] == 0
    assert math.isnan(found["to_good"])


def test_a_table_is_a_mean_over_orders() -> None:
    trials = [reports(CURVES[name]) for name in ("good", "weak", "killed")]
    frame = table([trials], {"none": {}, "ASHA": PRUNER}, orders=5, slots=1, max_copy_rate=1.0)
    assert list(frame.index) == ["none", "ASHA"]
    assert frame.loc["none", "compute"] == 1
    assert frame.loc["ASHA", "compute"] < 1


def test_published_reports_are_those_of_the_runs(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, name, trials=3) for name in ("one", "other")]
    table = tmp_path / "reports.csv"
    with pytest.raises(UserError, match=r"reports.csv is not there: name runs, or an --out beside"):
        read_reports([], table)
    found = by_run(read_reports(runs, table), max_copy_rate=0.1)
    assert by_run(read_reports([], table), max_copy_rate=0.1) == found
    assert list(found) == ["one", "other"]
    assert [trial[0]["trial"] for trial in found["other"]] == [1, 2, 3]
    for report in found["one"][0]:
        assert report["feasible_j"] == feasible_j(report, max_copy_rate=0.1, copy_j=0.0)
