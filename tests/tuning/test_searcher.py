"""Proposals: seeded, new each time, steered by what is feasible, the same in any process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import BaseTrial
from ray.tune.experiment import Trial

from detox_tune.tuning.searcher import DetoxSearch, propose
from detox_tune.tuning.study import SearchStudy


def space(trial: BaseTrial) -> dict[str, Any]:
    """A fixed value, a condition, and a name that is no setting."""
    config: dict[str, Any] = {
        "lora": "first",
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
    }
    config["gamma"] = 0.0
    if not trial.suggest_categorical("gamma_is_zero", [True, False]):
        config["gamma"] = trial.suggest_float("gamma", 0.01, 1.0)
    return config


def ask(
    study: optuna.Study, define_space: Callable[[BaseTrial], dict[str, Any]], **changes: Any
) -> dict[str, Any]:
    settings = {"sampler": "tpe", "seed": 3, "n_startup_trials": 4, **changes}
    return propose(study, define_space, **settings)


def answer(study: optuna.Study, j: float, copy_rate: float = 0.0) -> None:
    trial = optuna.Trial(study, study.trials[-1]._trial_id)
    trial.set_constraint("copy_rate", copy_rate - 0.1)
    study.tell(trial, j)


def run(n: int, **changes: Any) -> list[dict[str, Any]]:
    """One trial at a time, its score a function of its settings."""
    study, proposed = optuna.create_study(direction="maximize"), []
    for _ in range(n):
        proposed.append(ask(study, space, **changes))
        answer(study, proposed[-1]["learning_rate"] - proposed[-1]["gamma"])
    return proposed


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_gives_the_same_search(sampler: str) -> None:
    first = run(14, sampler=sampler)
    assert first == run(14, sampler=sampler)
    assert first != run(14, sampler=sampler, seed=4)
    assert all(set(config) == {"lora", "learning_rate", "gamma"} for config in first)
    assert {config["gamma"] == 0 for config in first} == {True, False}
    assert len({config["learning_rate"] for config in first}) == 14


def test_tpe_prefers_what_is_feasible() -> None:
    """The highest `j` is at x = .8, the highest with a low copy rate at x = .2."""

    def share_of_large(copy_rate_of_large: float) -> float:
        study, large = optuna.create_study(direction="maximize"), []
        for _ in range(40):
            x = ask(study, lambda trial: {"x": trial.suggest_float("x", 0, 1)})["x"]
            large.append(x > 0.5)
            j, copy_rate = (
                (1 - abs(x - 0.8), copy_rate_of_large) if x > 0.5 else (0.7 - abs(x - 0.2), 0.0)
            )
            answer(study, j, copy_rate)
        return sum(large[10:]) / 30

    assert share_of_large(0.0) > 0.8
    assert share_of_large(0.9) < 0.2


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_settings_are_tried_twice_while_there_are_others(sampler: str) -> None:
    def small(trial: BaseTrial) -> dict[str, Any]:
        return {"a": trial.suggest_int("a", 1, 3), "b": trial.suggest_categorical("b", [0, 1])}

    study, proposed = optuna.create_study(direction="maximize"), []
    for _ in range(7):
        proposed.append(ask(study, small, sampler=sampler))
        answer(study, proposed[-1]["a"] / 10)
    assert len({tuple(config.items()) for config in proposed[:6]}) == 6
    assert proposed[6] in proposed[:6]
    assert len(study.trials) == 7  # what was passed over is no trial


def test_another_process_gives_what_is_open_and_then_what_would_have_come(tmp_path: Path) -> None:
    def take(folder: Path, n: int) -> list[dict[str, Any]]:
        """Of each three trials the third stays open."""
        folder.mkdir(exist_ok=True)
        study = SearchStudy(folder, space, max_copy_rate=0.1)
        searcher = DetoxSearch(study, sampler="tpe", seed=3, n_startup_trials=2)
        taken = []
        for _ in range(n):
            taken.append(searcher.suggest("an id of Tune's"))
            trial = Trial("toy", stub=True, config=taken[-1], trial_name_creator=name_of)
            if int(str(trial)[-1]) % 3:
                scores = {"j": taken[-1]["gamma"], "copy_rate": 0.0, "feasible_j": 0.5}
                end = {"step": 10, "seconds": 1.0, "ended": "finished"}
                trial.run_metadata.last_result = {**scores, **end}
                study.on_trial_complete(1, [trial], trial)
        return taken

    def name_of(trial: Trial) -> str:
        return str(trial.config["trial"])

    undisturbed = take(tmp_path / "whole", 8)
    before, after = take(tmp_path / "broken", 6), take(tmp_path / "broken", 4)
    assert [trial["trial"] for trial in undisturbed] == [f"trial_{n:03d}" for n in range(1, 9)]
    assert before == undisturbed[:6]
    assert after == [undisturbed[2], undisturbed[5], *undisturbed[6:]]
