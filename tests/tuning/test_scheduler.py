"""ASHA, the collapse rule, and the record of why trials end."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from detox_tune.tuning.results import TrialRecord
from detox_tune.tuning.scheduler import CollapseScheduler

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE
CONTROLLER: Any = None  # the scheduler passes it on, and asks nothing of it


def scheduler(**changes: Any) -> CollapseScheduler:
    settings = {
        "max_steps": 1000,
        "grace_steps": 900,
        "reduction_factor": 2,
        "max_copy_rate": 1.0,
        "collapse_grace": 50,
        "collapse_threshold": 0.6,
        **changes,
    }
    made = CollapseScheduler(**settings)
    made.set_search_properties("j", "max")
    return made


def add(to: CollapseScheduler, name: str | None = None) -> Trial:
    trial = Trial("toy", stub=True, trial_name_creator=(lambda _: name) if name else None)
    to.on_trial_add(CONTROLLER, trial)
    return trial


def tell(
    to: CollapseScheduler, trial: Trial, step: int, j: float = 0.5, copy_rate: float = 0.0
) -> str:
    """Do as Tune does with a report: the scheduler sees it before the trial takes it."""
    result = {"step": step, "j": j, "copy_rate": copy_rate, "n": 10}
    decision = to.on_trial_result(CONTROLLER, trial, dict(result))
    trial.update_last_result(result)
    return decision


def end(to: CollapseScheduler, trial: Trial) -> tuple[str, str]:
    to.on_trial_complete(CONTROLLER, trial, dict(trial.run_metadata.last_result))
    return trial.last_result["ended"], trial.last_result["ended_reason"]


@given(
    curve=st.lists(st.integers(0, 10).map(lambda tenths: tenths / 10), min_size=1, max_size=8),
    grace=st.integers(0, 6).map(lambda tens: 10 * tens),
    threshold=st.integers(0, 10).map(lambda tenths: tenths / 10),
)
def test_collapse_rule_as_a_sentence(curve: list[float], grace: int, threshold: float) -> None:
    judge = scheduler(collapse_grace=grace, collapse_threshold=threshold)
    trial = add(judge)
    for n, copy_rate in enumerate(curve):
        step = 10 * (n + 1)
        # one of ten sentences may be noise
        falling = n >= 2 and round(10 * curve[n - 2]) - round(10 * copy_rate) > 1
        collapsed = n >= 2 and step > grace and copy_rate >= threshold and not falling
        assert (tell(judge, trial, step, copy_rate=copy_rate) == STOP) is collapsed
        if collapsed:
            return


def test_collapse_is_the_reason_where_asha_would_stop_too() -> None:
    judge = scheduler(grace_steps=60)
    better, copying = add(judge), add(judge)
    tell(judge, better, 60, j=0.9)
    tell(judge, copying, 20, j=0.1, copy_rate=0.9)
    tell(judge, copying, 40, j=0.1, copy_rate=0.9)
    assert tell(judge, copying, 60, j=0.1, copy_rate=0.9) == STOP
    assert end(judge, copying)[0] == "collapse"
    recorded = [sorted(js.values()) for _, js in judge._brackets[0]._rungs]
    assert [0.1, 0.9] in recorded  # it reached the rung, so later ones are compared with it


def test_an_early_trial_is_compared_with_those_that_come_after_it() -> None:
    judge = scheduler(grace_steps=40)
    early, late = add(judge), add(judge)
    assert tell(judge, early, 40, j=0.1) == CONTINUE  # nothing to compare it with
    assert tell(judge, early, 80, j=0.2) == CONTINUE
    assert tell(judge, late, 40, j=0.5) == CONTINUE
    assert tell(judge, early, 60, j=0.1) == CONTINUE  # a repetition
    assert tell(judge, early, 100, j=0.15) == STOP
    reason = "best j .2 at step 100; the best 50% have .3 or more at 40"
    assert end(judge, early) == ("asha", reason)


def slow_asha(
    reports: list[tuple[int, int, float]], grace: int, factor: int, last: int
) -> list[tuple[int, int]]:
    """Which (trial, step) is stopped: rungs as plain lists, one after the other."""
    rungs: dict[int, list[float]] = {}
    milestone = grace
    while milestone <= last:
        rungs[milestone] = []
        milestone *= factor
    stopped: list[tuple[int, int]] = []
    seen: dict[int, int] = {}
    best: dict[int, float] = {}
    for trial, step, j in reports:
        if trial in [t for t, _ in stopped]:
            continue
        reached = [m for m in rungs if seen.get(trial, 0) < m <= step]
        seen[trial] = step
        best[trial] = max(j, best.get(trial, j))
        if step >= last:
            stopped.append((trial, step))
        elif reached:
            others = rungs[max(reached)]
            if others and j < np.percentile(others, (1 - 1 / factor) * 100):
                stopped.append((trial, step))
            others.append(j)
        elif any(
            best[trial] < np.percentile(rungs[m], (1 - 1 / factor) * 100)
            for m in rungs
            if m <= step and rungs[m]
        ):
            stopped.append((trial, step))
    return stopped


@given(
    moves=st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 40), st.integers(0, 20), st.integers(0, 10)),
        max_size=40,
    ),
    factor=st.integers(2, 4),
    allowed=st.integers(0, 10),
)
def test_asha_against_plain_lists(
    moves: list[tuple[int, int, int, int]], factor: int, allowed: int
) -> None:
    """Trials report in any order, at any distance in steps."""
    steps: dict[int, int] = {}
    reports = []
    for trial, distance, twentieths, tenths in moves:
        steps[trial] = steps.get(trial, 0) + distance
        reports.append((trial, steps[trial], twentieths / 20, tenths / 10))
    rules = {"grace_steps": 10, "reduction_factor": factor, "max_copy_rate": allowed / 10}
    judge = scheduler(max_steps=100, collapse_grace=100, **rules)
    trials = {number: add(judge) for number in steps}
    stopped: list[tuple[int, int]] = []
    for number, step, j, copy_rate in reports:
        if number in [t for t, _ in stopped]:
            continue
        if tell(judge, trials[number], step, j=j, copy_rate=copy_rate) == STOP:
            stopped.append((number, step))
            end(judge, trials[number])
    compared = [
        (number, step, j - (copy_rate - allowed / 10 if copy_rate > allowed / 10 else 0))
        for number, step, j, copy_rate in reports
    ]
    assert stopped == slow_asha(compared, 10, factor, 100)


def test_copies_beyond_what_may_win_count_against_a_trial() -> None:
    judge = scheduler(grace_steps=40, max_copy_rate=0.1)
    rewrites, copies = add(judge), add(judge)
    tell(judge, rewrites, 40, j=0.3, copy_rate=0.05)
    assert tell(judge, copies, 40, j=0.5, copy_rate=0.4) == STOP
    reason = "j .5 less .3 for copies at step 40; the best 50% have .3 or more at 40"
    assert end(judge, copies) == ("asha", reason)


def test_a_repeated_step_counts_once() -> None:
    """A trial goes on from step 20 after it had reported step 60, and reports 40 and 60 again."""
    judge = scheduler(grace_steps=40)
    first, again = add(judge), add(judge)
    tell(judge, first, 40, j=0.4)
    for step, copy_rate in [(20, 0.9), (40, 0.8), (60, 0.7), (40, 0.8), (60, 0.7), (80, 0.65)]:
        # .7 at step 60 is not below the .7 that it reported before, yet no sign of a collapse
        assert tell(judge, again, step, j=0.5, copy_rate=copy_rate) == CONTINUE
        judge.on_trial_add(CONTROLLER, again)
    rungs = [sorted(recorded.values()) for _, recorded in judge._brackets[0]._rungs]
    assert [0.4, 0.5] in rungs
    assert sum(map(len, rungs)) == 3  # the second trial is at 80, too


def test_a_decision_outlives_the_process_that_it_was_made_for() -> None:
    judge = scheduler()
    trial = add(judge)
    tell(judge, trial, 20, copy_rate=0.9)
    tell(judge, trial, 40, copy_rate=0.9)
    assert tell(judge, trial, 60, copy_rate=0.9) == STOP
    trial.status = Trial.ERROR  # Tune's mark for: died while saving, starts again
    judge.on_trial_error(CONTROLLER, trial)
    judge.on_trial_add(CONTROLLER, trial)
    assert "ended" not in trial.last_result
    assert tell(judge, trial, 60, copy_rate=0.9) == STOP
    assert end(judge, trial)[0] == "collapse"


@pytest.mark.parametrize(
    ("j", "copy_rate"), [(float("nan"), 0.0), (float("inf"), 0.0), (0.5, float("nan"))]
)
def test_what_is_not_finite_fails_and_leaves_no_trace_at_the_rungs(
    j: float, copy_rate: float
) -> None:
    judge = scheduler(grace_steps=10)
    broken, sound = add(judge), add(judge)
    assert tell(judge, broken, 10, j=j, copy_rate=copy_rate) == STOP
    ended, reason = end(judge, broken)
    assert ended == "failed"
    assert reason == f"j {j} and copy rate {copy_rate} at step 10: not finite"
    assert tell(judge, sound, 10, j=0.0) == CONTINUE


def test_the_last_step_is_the_end_whatever_the_copy_rate() -> None:
    judge = scheduler(max_steps=100, grace_steps=100)
    trial = add(judge)
    tell(judge, trial, 50, copy_rate=1.0)
    assert tell(judge, trial, 100, copy_rate=1.0) == STOP
    assert end(judge, trial) == ("finished", "all 100 steps are done")


def test_a_trial_that_never_reports_has_failed() -> None:
    judge = scheduler()
    assert end(judge, add(judge)) == ("failed", "it ended without a report")


def test_endings_of_a_real_search(search: Any) -> None:
    assert {name: (trial.ended, trial.reason) for name, trial in search.trials.items()} == {
        "good": ("finished", "all 100 steps are done"),
        "weak": ("asha", "j .08 at step 40; the best 50% have .3 or more at 40"),
        "copies": (
            "collapse",
            "copy rate .94 at step 60 does not fall (.95 before)",
        ),
        "raises": ("failed", "FloatingPointError: the loss is nan at step 25"),
        "nan": ("failed", "j nan and copy rate 0.5 at step 40: not finite"),
        "early": ("finished", "it returned at step 40"),
        "dies": (
            "failed",
            "its process died 2 times: killed, out of memory, or lost with its node",
        ),
        "killed": ("finished", "all 100 steps are done"),
    }
    assert {name: row["ended"] for name, row in search.rows.items()} == {
        name: trial.ended for name, trial in search.trials.items()
    }
    assert {name for name, error in search.errors.items() if error} == {"raises", "dies"}


@given(
    moves=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 20), st.integers(0, 10)),
        max_size=40,
    ),
    death=st.integers(0, 40),
    heard=st.booleans(),
)
def test_a_new_process_judges_as_the_old_one_would_have(
    moves: list[tuple[int, int, int, int]], death: int, heard: bool
) -> None:
    """The driver dies before a report, or when it has judged it and told nobody."""

    def run(death: int | None) -> tuple[dict[int, str], list[dict[str, float]]]:
        judge, records, ended = (
            scheduler(**rules),
            [TrialRecord(str(n), {}, []) for n in range(5)],
            {},
        )
        trials = {n: add(judge, str(n)) for n in range(5)}
        for time, (number, distance, twentieths, tenths) in enumerate(moves):
            if number in ended:
                continue
            step = 10 * distance + (records[number].steps)
            report: dict[str, Any] = {"step": step, "j": twentieths / 20, "copy_rate": tenths / 10}
            if time == death:
                if heard:
                    tell(judge, trials[number], **report)
                judge = scheduler(past=records, **rules)
                trials = {n: add(judge, str(n)) for n in range(5)}
                for n, trial in trials.items():  # what continues repeats its last report
                    if n not in ended and records[n].reports:
                        assert tell(judge, trial, **records[n].reports[-1]) == CONTINUE
            decision = tell(judge, trials[number], **report)
            records[number].reports.append(report)
            if decision == STOP:
                ended[number] = end(judge, trials[number])[1]
        return ended, [dict(rung) for _, rung in judge._brackets[0]._rungs]

    rules = {"max_steps": 100, "grace_steps": 20, "collapse_grace": 30}
    assert run(death) == run(None)
