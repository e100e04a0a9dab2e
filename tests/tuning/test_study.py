"""What Optuna is told of trials, and what is left when the process dies."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import BaseTrial, TrialState
from ray.tune.experiment import Trial

from detox_tune.tuning.results import feasible_j
from detox_tune.tuning.searcher import propose
from detox_tune.tuning.study import SearchStudy

Report = tuple[int, float, float]


def space(trial: BaseTrial) -> dict[str, Any]:
    return {"lora": "first", "gamma": trial.suggest_float("gamma", 0, 1)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its path holds what means something else in a URL or a template."""
    folder = tmp_path / "a {run} ?x=1#ü%20"
    folder.mkdir()
    return folder


def opened(folder: Path) -> SearchStudy:
    return SearchStudy(folder, space, max_copy_rate=0.1)


def start(study: SearchStudy) -> Trial:
    propose(study.optuna, space, sampler="random", seed=0, n_startup_trials=1)
    name = study.trials()[-1].name
    return Trial("toy", stub=True, trial_name_creator=lambda _: name)


def tell(
    study: SearchStudy, trial: Trial, reports: list[Report], ended: str = "", beams: int = 1
) -> None:
    """Do as Tune does: the report that ends a trial is marked, then the trial is complete."""
    for n, (step, j, copy_rate) in enumerate(reports, 1):
        result = {"step": step, "j": j, "copy_rate": copy_rate, "seconds": 1.0}
        result["feasible_j"] = feasible_j(result, 0.1, copy_j=0.0, beams=beams)
        last = bool(ended) and n == len(reports)
        study.on_trial_result(1, [trial], trial, {**result, "done": last})
        trial.update_last_result(result)
    if ended:
        last_result = trial.run_metadata.last_result
        trial.run_metadata.last_result = {**last_result, "ended": ended, "ended_reason": "because"}
        end = study.on_trial_error if ended == "failed" else study.on_trial_complete
        end(1, [trial], trial)


def known(study: SearchStudy) -> optuna.trial.FrozenTrial:
    return study.optuna.trials[-1]


@pytest.mark.parametrize(
    ("ended", "state", "value"),
    [
        ("finished", TrialState.COMPLETE, 0.4),
        ("asha", TrialState.PRUNED, 0.3),  # Optuna takes the last intermediate value
        ("collapse", TrialState.PRUNED, 0.3),
        ("failed", TrialState.FAIL, None),
    ],
)
def test_what_optuna_is_told(
    ended: str, state: TrialState, value: float | None, folder: Path
) -> None:
    study = opened(folder)
    tell(study, start(study), [(50, 0.2, 0.9), (100, 0.4, 0.1), (150, 0.3, 0.02)], ended)
    told = known(opened(folder))
    assert (told.state, told.value) == (state, value)
    assert told.intermediate_values == {50: 0.2, 100: 0.4, 150: 0.3}
    assert told.constraints == ({} if ended == "failed" else {"copy_rate": 0.0})
    [trial] = opened(folder).trials()
    assert (trial.ended, trial.reason, trial.steps) == (ended, "because", 150)


@pytest.mark.parametrize("reports", [[], [(50, float("nan"), 0.5)]])
def test_a_trial_without_a_score_failed(reports: list[Report], folder: Path) -> None:
    study = opened(folder)
    tell(study, start(study), reports, "failed")
    told = known(study)
    assert (told.state, told.values, told.intermediate_values) == (TrialState.FAIL, None, {})


def test_a_trial_that_copies_tells_by_how_much_it_misses(folder: Path) -> None:
    study = opened(folder)
    tell(study, start(study), [(50, 0.2, 0.5), (100, 0.9, 0.8)], "finished")
    assert known(study).constraints == {"copy_rate": pytest.approx(0.4)}
    assert known(study).value == 0.2  # of the report that copies least


def test_with_beams_a_trial_tells_its_j_less_the_copies(folder: Path) -> None:
    study = opened(folder)
    tell(study, start(study), [(50, 0.2, 0.1), (100, 0.5, 0.2)], "finished", beams=8)
    assert known(study).constraints == {"copy_rate": 0.0}
    assert known(study).value == pytest.approx(0.4)


def test_repeated_steps_are_no_news(folder: Path) -> None:
    study = opened(folder)
    trial = start(study)
    tell(study, trial, [(20, 0.1, 0.5), (40, 0.3, 0.4)])
    again = opened(folder)
    tell(again, trial, [(40, 0.9, 0.9), (60, 0.5, 0.2)])
    assert [(r["step"], r["j"]) for r in again.trials()[0].reports] == [
        (20, 0.1),
        (40, 0.3),
        (60, 0.5),
    ]
    assert known(again).intermediate_values == {20: 0.1, 40: 0.3, 60: 0.5}


class Died(BaseException):
    """The process, here."""


@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("ended", ["finished", "asha"])
def test_a_death_between_any_two_writes_leaves_all_of_a_report_or_nothing(
    after: int, ended: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(folder)
    trial = start(study)
    tell(study, trial, [(20, 0.1, 0.5)])
    storage, left = optuna.storages.RDBStorage, iter(range(after))

    def dying(write: Any) -> Any:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if next(left, None) is None:
                raise Died
            return write(*arguments, **named)

        return wrapper

    with monkeypatch.context() as patch:
        for name in vars(storage):
            if name.startswith("set_trial_"):
                patch.setattr(storage, name, dying(getattr(storage, name)))
        try:
            tell(study, trial, [(40, 0.3, 0.04)], ended)
            assert after >= 4  # it has that many writes
        except Died:
            assert after < 5
    found = opened(folder)
    [record] = found.trials()
    if record.ended:  # then Optuna knows all of it, too
        assert (record.ended, record.steps) == (ended, 40)
        assert known(found).state == (
            TrialState.COMPLETE if ended == "finished" else TrialState.PRUNED
        )
        assert known(found).intermediate_values == {20: 0.1, 40: 0.3}
        assert known(found).constraints == {"copy_rate": pytest.approx(-0.06)}
    else:
        assert (after, record.steps, known(found).state) == (0, 20, TrialState.RUNNING)


def test_what_a_real_search_told(search: Any) -> None:
    told = dict(zip(search.trials, search.study.trials, strict=True))
    assert {name: trial.state.name for name, trial in told.items()} == {
        "good": "COMPLETE",
        "weak": "PRUNED",
        "copies": "PRUNED",
        "raises": "FAIL",
        "nan": "FAIL",
        "early": "COMPLETE",
        "dies": "FAIL",
        "killed": "COMPLETE",
    }
    assert told["good"].value == 0.6
    assert told["good"].constraints == {"copy_rate": pytest.approx(-0.05)}
    assert told["weak"].intermediate_values == {20: 0.05, 40: 0.08}
    assert told["copies"].last_step == 60
    assert told["killed"].intermediate_values == {20: 0.2, 40: 0.4, 60: 0.5, 80: 0.7, 100: 0.7}
    assert told["early"].constraints == {"copy_rate": pytest.approx(0.2)}
