"""The table on a terminal, the lines elsewhere, and the estimate of the time left."""

import io
import pickle
import re
from typing import Any

import pytest
from ray.tune.experiment import Trial
from rich.console import Console

from detox_tune.tuning.progress import SearchProgress, seconds_left, settings
from detox_tune.tuning.results import TrialRecord, feasible_j


def trial(number: int, **config: Any) -> Trial:
    return Trial("toy", stub=True, config=config, trial_name_creator=lambda _: f"trial{number}")


def report(to: Trial, step: int, j: float, copy_rate: float) -> None:
    result = {"step": step, "j": j, "copy_rate": copy_rate}
    to.status = Trial.RUNNING
    to.update_last_result(
        result | {"feasible_j": feasible_j(result, max_copy_rate=0.1, copy_j=0.0)}
    )


def end(progress: SearchProgress, trials: list[Trial], ended: Trial, how: str, why: str) -> None:
    """Do as scheduler and Tune do: the ending goes into the last result, the status comes last."""
    last = ended.run_metadata.last_result
    ended.run_metadata.last_result = {**last, "ended": how, "ended_reason": why}
    hook = progress.on_trial_error if how == "failed" else progress.on_trial_complete
    hook(iteration=1, trials=trials, trial=ended)
    ended.status = Trial.ERROR if how == "failed" else Trial.TERMINATED


def terminal(height: int = 25, width: int = 130) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        height=height,
        _environ={"TERM": "xterm"},
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_steering(console: Console) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written(console)).replace("\r", "")


def last_frame(console: Console) -> list[str]:
    """The lines of the last table that was drawn, without what steers the terminal."""
    plain = without_steering(console)
    frame = plain[[m.start() for m in re.finditer(r"\d+/\d+ trials done", plain)][-1] :]
    return [line.rstrip() for line in frame.splitlines() if line.strip()]


@pytest.fixture
def trials() -> list[Trial]:
    return [trial(0, rate=0.00312, lora="first"), trial(1, rate=0.1, lora=None), trial(2, rate=0.2)]


def test_the_table_shows_every_trial_and_why_it_ended(trials: list[Trial]) -> None:
    console = terminal()
    progress = SearchProgress(300, ["rate", "lora"], console)
    progress.setup(total_num_samples=5)
    progress.on_step_end(iteration=0, trials=trials)
    report(trials[0], 100, 0.5, 0.05)
    report(trials[0], 200, 0.4, 0.08)
    report(trials[1], 100, 0.3, 0.93)
    end(progress, trials, trials[1], "collapse", "copy rate .93")
    progress.on_experiment_end(trials=trials)
    assert "trial1 collapsed: copy rate .93\n" in without_steering(console)
    headline, states, names, *rows = last_frame(console)
    assert headline == "1/5 trials done in 0s, about 0s left"
    assert states == "1 waiting, 1 running, 1 collapsed"
    assert re.split(r"\s{2,}", names) == [
        "trial", "state", "step", "j", "copy", "best j", "settings",
    ]  # fmt: skip
    assert [re.split(r"\s{2,}", row) for row in rows] == [
        ["trial0", "running", "200/300", "0.400", "0.080", "0.500", "rate=0.00312 lora=first"],
        ["trial1", "collapsed", "100/300", "0.300", "0.930", "-", "rate=0.1"],
        ["trial2", "waiting", "0/300", "-", "-", "-", "rate=0.2"],
    ]  # fmt: skip


def test_a_trial_that_starts_again_waits_and_one_that_tune_stops_is_interrupted(
    trials: list[Trial],
) -> None:
    console = terminal()
    progress = SearchProgress(300, [], console)
    progress.setup(total_num_samples=3)
    report(trials[0], 100, 0.5, 0.05)
    trials[0].status = Trial.PENDING
    report(trials[1], 100, 0.5, 0.05)
    trials[1].status = Trial.TERMINATED  # Tune stops what runs without a word to anyone
    progress.on_step_end(iteration=1, trials=[trials[1], trials[2], trials[0]])
    progress.on_experiment_end(trials=[trials[1], trials[2], trials[0]])
    assert last_frame(console)[:2] == [
        "0/3 trials done in 0s, at most 0s left",
        "2 waiting, 1 interrupted",
    ]


def test_a_low_terminal_keeps_what_runs_and_the_end_shows_all() -> None:
    many = [trial(n) for n in range(20)]
    console = terminal(height=12)
    progress = SearchProgress(300, [], console)
    progress.setup(total_num_samples=20)
    for number, one in enumerate(many):
        report(one, 100, 0.5, 0.05)
        if number not in (2, 19):
            end(progress, many[: number + 1], one, "asha", "a reason that is rather long " * 9)
    progress.on_step_end(iteration=1, trials=many)
    rows = last_frame(console)[3:]
    assert len(rows) + 6 <= 12
    shown = [row.split()[0] for row in rows]
    assert shown == ["trial2", "trial15", "trial16", "trial17", "trial18", "trial19"]
    progress.on_experiment_end(trials=many)
    whole = last_frame(console)
    assert [f"trial{n}" for n in range(20)] == [
        line.split()[0] for line in whole if line.startswith("trial") and line.split()[0] != "trial"
    ]


def test_a_running_search_fits_80_columns() -> None:
    console = terminal(width=80)
    searched = {"lora": "second", "gamma": 12.3456, "mask_strategy": "toxic_context", "rate": 1e-3}
    many = [trial(n, **searched) for n in range(100, 118)]
    progress = SearchProgress(20000, list(searched), console)
    progress.setup(total_num_samples=1000)
    for one in many:
        report(one, 15000, 0.5, 0.05)
    end(
        progress,
        many,
        many[0],
        "collapse",
        "copy rate .93 at step 15000 does not fall (.94 before)",
    )
    progress.on_step_end(iteration=1, trials=many)
    lines = without_steering(console).splitlines()
    assert len([line for line in lines if line.startswith("trial1")]) == 1 + len(many)
    assert max(map(len, lines)) <= 80
    assert all(len(line) <= 80 - len("^C") for line in last_frame(console))


def test_without_a_terminal_one_plain_line_for_each_trial_that_ends(trials: list[Trial]) -> None:
    console = Console(file=io.StringIO(), width=40)
    progress = SearchProgress(300, ["rate", "lora"], console)
    progress.setup(total_num_samples=5)
    report(trials[0], 100, 0.5, 0.05)
    progress.on_step_end(iteration=1, trials=trials)
    assert written(console) == ""
    end(progress, trials, trials[0], "asha", "j [red].12[/] is below the cutoff")
    end(progress, trials, trials[1], "failed", "OSError: full")
    progress.on_step_end(iteration=2, trials=trials)
    progress.on_experiment_end(trials=trials)
    assert written(console).splitlines() == [
        "[1/5] trial0 stopped at step 100/300: j 0.500, copy rate 0.050, best j 0.500 "
        "(rate=0.00312 lora=first): j [red].12[/] is below the cutoff",
        "[2/5] trial1 failed at step 0/300: j -, copy rate -, best j - (rate=0.1): OSError: full",
    ]


def test_it_travels_without_its_console(trials: list[Trial]) -> None:
    """Tune pickles callbacks when a search starts."""
    console = terminal()
    progress = SearchProgress(300, ["rate"], console)
    again = pickle.loads(pickle.dumps(progress))
    again.setup(total_num_samples=5)
    report(trials[0], 100, 0.5, 0.05)
    end(again, trials, trials[0], "finished", "all is done")
    assert written(console) == ""


def test_lines_of_a_real_search(search: Any) -> None:
    again = [line for line in search.lines if not line.startswith("[")]
    assert [line.partition(":")[0] for line in again] == [
        "trial_004 stopped at step 20 and starts again",  # raises
        "trial_007 stopped at step 40 and starts again",  # dies
        "trial_008 stopped at step 40 and starts again",  # killed
    ]
    assert again[0].endswith(": FloatingPointError: the loss is nan at step 25")
    assert again[1].endswith(
        ": its process died 1 time: killed, out of memory, or lost with its node"
    )
    ends = [line for line in search.lines if line.startswith("[")]
    assert len(ends) == len(search.trials)
    for number, trial in enumerate(search.trials.values(), 1):
        line = ends[number - 1]
        ended = {"asha": "stopped", "collapse": "collapsed"}.get(trial.ended, trial.ended)
        assert line.startswith(f"[{number}/{len(search.trials)}] {trial.name} {ended} at step ")
        assert f" (batch_size={number} learning_rate=" in line
        assert line.endswith(f"): {trial.reason}")
        assert "\x1b" not in line
    assert "j 0.550, copy rate 0.040, best j 0.600" in search.lines[0]


def test_a_search_that_goes_on_counts_what_ended_before(trials: list[Trial]) -> None:
    console = terminal()
    report_ = {"j": 0.5, "copy_rate": 0.0, "feasible_j": 0.5}
    past = [
        TrialRecord("trial8", {}, [{**report_, "step": 300}], "finished", "all"),
        TrialRecord("trial0", {}, [{**report_, "step": 200}]),
    ]
    progress = SearchProgress(300, [], console, past)
    progress.setup(total_num_samples=3)
    report(trials[0], 200, 0.5, 0.05)  # it repeats its last report, which takes no time
    progress.on_step_end(iteration=1, trials=trials)
    assert last_frame(console)[:2] == ["1/4 trials done in 0s", "2 waiting, 1 running"]
    end(progress, trials, trials[0], "asha", "a reason")
    progress.on_experiment_end(trials=trials)
    assert last_frame(console)[1] == "2 waiting, 1 stopped"


def test_settings_in_short() -> None:
    config = {"a": 0.00123456, "b": "second", "c": None, "d": 3, "e": 0.0, "f": True}
    names = ["e", "a", "b", "c", "d", "missing"]
    assert settings(config, names) == "e=0 a=0.00123 b=second d=3"


def test_without_a_terminal_something_is_said_every_half_minute(
    trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO())
    progress = SearchProgress(300, ["rate"], console)
    progress.setup(total_num_samples=3)
    report(trials[0], 100, 0.5, 0.05)
    progress.on_step_end(iteration=1, trials=trials)
    assert written(console) == ""
    monkeypatch.setattr("detox_tune.tuning.progress.SECONDS_BETWEEN_LINES", 0.0)
    progress.on_step_end(iteration=2, trials=trials)
    expected = "0/3 trials done in 0s, at most 0s left | 2 waiting, 1 running\n"
    assert written(console) == expected


@pytest.mark.parametrize(
    ("ended", "running", "left"),
    [
        ([], [50], 350),  # nothing known: 100 steps each
        ([100, 20], [], 2 * 60),  # 60 on average
        ([100, 20], [50], 60 + 10),
        ([100, 20], [70], 60 + 30),  # beyond the average: goes on to the end
        ([100, 20, 0, 100], [], 0),
    ],
)
def test_time_left_by_hand(ended: list[int], running: list[int], left: float) -> None:
    speed = sum(ended + running) / 30
    estimate = seconds_left(30, total=4, ended=ended, running=running, max_steps=100)
    assert estimate == pytest.approx(left / speed)
    if sum(ended) > 100:  # steps that an earlier run trained took no time now
        now = seconds_left(
            30, total=4, ended=ended, running=running, max_steps=100, steps_before=100
        )
        assert now == pytest.approx(left * 30 / (sum(ended + running) - 100))


def test_nothing_is_said_of_the_time_left_before_the_first_step() -> None:
    assert seconds_left(30, total=4, ended=[], running=[0], max_steps=100) is None
