"""What Optuna is told, and that its proposals repeat themselves."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from detox_tune.tuning.results import feasible_j
from detox_tune.tuning.searcher import DetoxSearch

Report = tuple[int, float, float]


def space(trial: optuna.Trial) -> dict[str, Any]:
    """A fixed value, a condition, a name that is no setting, and one that is left empty."""
    config: dict[str, Any] = {
        "lora": "first",
        "rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True),
    }
    config["gamma"] = None
    if not trial.suggest_categorical("gamma_is_zero", [True, False]):
        config["gamma"] = trial.suggest_float("gamma", 0.01, 1.0)
    return config


def searcher_of(define_space: Callable[..., Any] = space, **changes: Any) -> DetoxSearch:
    settings = {"max_copy_rate": 0.1, "sampler": "tpe", "seed": 3, "n_startup_trials": 4, **changes}
    return DetoxSearch(define_space, **settings)


def tell(to: DetoxSearch, trial_id: str, reports: list[Report], ended: str = "finished") -> None:
    """Do as Tune does: the report that a scheduler stops a trial at comes with the end alone."""
    results: list[dict[str, Any]] = [{"step": s, "j": j, "copy_rate": c} for s, j, c in reports]
    for result in results:
        result["feasible_j"] = feasible_j(result, max_copy_rate=0.1, copy_j=0.0)
    for result in results[:-1]:
        to.on_trial_result(trial_id, result)
    if ended == "finished":  # the trial returned: its last report comes again with the end
        to.on_trial_result(trial_id, results[-1])
    to.on_trial_complete(trial_id, {**results[-1], "ended": ended})


def run(searcher: DetoxSearch, names: list[str]) -> list[dict[str, Any]]:
    """One trial at a time, its scores a function of its config."""
    configs = []
    for name in names:
        config = searcher.suggest(name)
        configs.append(config)
        j = 1 - abs(math.log10(config["rate"]) + 2) / 4 - (config["gamma"] or 0) / 4
        copy_rate = 0.5 if config["rate"] < 1e-3 else 0.05
        tell(searcher, name, [(20, j / 2, 1.0), (40, j, copy_rate)])
    return configs


NAMES = [f"trial{n}" for n in range(14)]


def last(searcher: DetoxSearch) -> optuna.trial.FrozenTrial:
    return searcher.study.trials[-1]


@pytest.mark.parametrize(
    ("ended", "state", "value"),
    [
        ("finished", TrialState.COMPLETE, 0.4),
        ("asha", TrialState.PRUNED, 0.3),  # Optuna takes the last intermediate value
        ("collapse", TrialState.PRUNED, 0.3),
    ],
)
def test_what_optuna_is_told(ended: str, state: TrialState, value: float) -> None:
    searcher = searcher_of()
    searcher.suggest("a")
    tell(searcher, "a", [(50, 0.2, 0.9), (100, 0.4, 0.1), (150, 0.3, 0.02)], ended)
    told = last(searcher)
    assert told.state == state
    assert told.value == value
    assert told.intermediate_values == {50: 0.2, 100: 0.4, 150: 0.3}
    assert told.constraints == {"copy_rate": 0.0}


@pytest.mark.parametrize(
    "complete",
    [
        lambda s: s.on_trial_complete("a", error=True),
        lambda s: s.on_trial_complete("a"),
        lambda s: tell(s, "a", [(50, float("nan"), 0.5)], "failed"),
        lambda s: s.on_trial_complete("a", {"ended": "failed"}),
    ],
)
def test_a_failed_trial_is_told_as_failed(complete: Callable[[DetoxSearch], None]) -> None:
    searcher = searcher_of()
    searcher.suggest("a")
    complete(searcher)
    told = last(searcher)
    assert (told.state, told.values, told.intermediate_values) == (TrialState.FAIL, None, {})


def test_a_trial_that_copies_tells_by_how_much_it_misses() -> None:
    searcher = searcher_of()
    searcher.suggest("a")
    tell(searcher, "a", [(50, 0.2, 0.5), (100, 0.9, 0.8)])
    assert last(searcher).constraints == {"copy_rate": pytest.approx(0.4)}
    assert last(searcher).value == 0.2  # of the report that copies least


def test_repeated_steps_and_ends_are_no_news() -> None:
    searcher = searcher_of()
    searcher.suggest("a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            searcher.on_trial_result(
                "a", {"step": 50, "j": 0.2, "copy_rate": 0.0, "feasible_j": 0.2}
            )
        for _ in range(2):
            searcher.on_trial_complete(
                "a",
                {"step": 50, "j": 0.2, "copy_rate": 0.0, "feasible_j": 0.2, "ended": "finished"},
            )
    assert last(searcher).intermediate_values == {50: 0.2}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_gives_the_same_search(sampler: str) -> None:
    first = run(searcher_of(sampler=sampler), NAMES)
    assert first == run(searcher_of(sampler=sampler), NAMES)
    assert first != run(searcher_of(sampler=sampler, seed=4), NAMES)
    assert all(set(config) == {"lora", "rate", "gamma"} for config in first)
    assert {config["gamma"] is None for config in first} == {True, False}


def test_tpe_prefers_what_is_feasible() -> None:
    """The highest `j` is at x = .8, the highest with a low copy rate at x = .2."""

    def share_of_large(copy_rate_of_large: float) -> float:
        searcher = searcher_of(lambda trial: {"x": trial.suggest_float("x", 0, 1)})
        large = []
        for n in range(40):
            x = searcher.suggest(str(n))["x"]
            large.append(x > 0.5)
            j, copy_rate = (
                (1 - abs(x - 0.8), copy_rate_of_large) if x > 0.5 else (0.7 - abs(x - 0.2), 0.0)
            )
            tell(searcher, str(n), [(10, j, copy_rate)])
        return sum(large[10:]) / 30

    assert share_of_large(0.0) > 0.8
    assert share_of_large(0.9) < 0.2


def test_a_restored_search_goes_on_as_if_unbroken(tmp_path: Path) -> None:
    def ask(searcher: DetoxSearch) -> None:
        searcher.suggest("open")
        searcher.on_trial_result(
            "open", {"step": 20, "j": 0.3, "copy_rate": 0.0, "feasible_j": 0.3}
        )

    def answer(searcher: DetoxSearch) -> list[dict[str, Any]]:
        tell(searcher, "open", [(20, 0.3, 0.0), (40, 0.1, 0.3)], "asha")
        assert last(searcher).state == TrialState.PRUNED
        assert last(searcher).intermediate_values == {20: 0.3, 40: 0.1}
        return run(searcher, NAMES[7:])

    whole = searcher_of(lambda trial: space(trial))  # a closure, which plain pickle refuses
    run(whole, NAMES[:7])
    ask(whole)
    whole.save(str(tmp_path / "searcher"))
    restored = searcher_of(seed=99)
    restored.restore(str(tmp_path / "searcher"))
    assert answer(restored) == answer(whole)


def test_what_a_real_search_told(search: Any) -> None:
    told = dict(zip(search.results, search.study.trials, strict=True))
    assert {name: trial.state.name for name, trial in told.items()} == {
        "good": "COMPLETE",
        "weak": "PRUNED",
        "copies": "PRUNED",
        "raises": "FAIL",
        "nan": "FAIL",
        "early": "COMPLETE",
        "killed": "COMPLETE",
    }
    assert told["good"].value == 0.6
    assert told["good"].constraints == {"copy_rate": pytest.approx(-0.05)}
    assert told["weak"].intermediate_values == {20: 0.05, 40: 0.08}
    assert told["copies"].last_step == 60
    assert told["killed"].intermediate_values == {20: 0.2, 40: 0.4, 60: 0.5, 80: 0.7, 100: 0.7}
    assert told["early"].constraints == {"copy_rate": pytest.approx(0.2)}


def test_no_settings_are_tried_twice_while_there_are_others() -> None:
    def small(trial: optuna.Trial) -> dict[str, Any]:
        return {"a": trial.suggest_int("a", 1, 3), "b": trial.suggest_categorical("b", [0, 1])}

    searcher = searcher_of(small)
    configs = []
    for name in "uvwxyz":
        configs.append(searcher.suggest(name))
        tell(searcher, name, [(10, configs[-1]["a"] / 10, 0.0)])
    assert len({tuple(config.items()) for config in configs}) == 6
    fixed = searcher_of(lambda trial: {"lora": "first"})
    assert [fixed.suggest("x"), fixed.suggest("y")] == [{"lora": "first"}] * 2


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_replacements_are_seeded_and_no_second_run_of_the_proposals(sampler: str) -> None:
    def coarse(trial: optuna.Trial) -> dict[str, Any]:
        """Two settings of what is proposed, so that most proposals are replaced."""
        return {"high": trial.suggest_float("x", 0, 1) > 0.5}

    def drawn() -> list[float]:
        searcher = searcher_of(coarse, sampler=sampler, n_startup_trials=100)
        for name in "abc":
            searcher.suggest(name)
        return [trial.params["x"] for trial in searcher.study.trials]

    numbers = drawn()
    assert numbers == drawn()
    assert len(numbers) > 40
    assert len(set(numbers)) == len(numbers)
