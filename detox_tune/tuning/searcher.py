"""What Optuna proposes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import BaseTrial, FixedTrial, TrialState
from ray.tune.search import Searcher

from detox_tune.tuning.study import SearchStudy

_ATTEMPTS = 50  # a space with fewer settings than trials repeats them


def make_samplers(
    name: Literal["tpe", "random"], seed: int, number: int, n_startup_trials: int
) -> tuple[optuna.samplers.BaseSampler, optuna.samplers.BaseSampler]:
    """The sampler of a proposal, and the random one of those that `propose` puts in its place.

    Proposals come from Optuna's tree-structured Parzen estimator (Bergstra et al., 2011), or are
    random themselves: then both are one sampler, which never starts its stream anew.

    Args:
        name: of the sampler.
        seed: of the search.
        number: of the trial, from 0. Each has a stream of its own, so it does not matter which
            process proposes it.
        n_startup_trials: random proposals before TPE learns from trials (failed ones not counted).
    """
    own, other = map(int, np.random.SeedSequence([seed, number]).generate_state(2))
    if name == "random":
        sampler = optuna.samplers.RandomSampler(seed=own)
        return sampler, sampler
    return (
        optuna.samplers.TPESampler(seed=own, n_startup_trials=n_startup_trials),
        optuna.samplers.RandomSampler(seed=other),
    )


def propose(
    study: optuna.Study,
    define_space: Callable[[BaseTrial], dict[str, Any]],
    *,
    sampler: Literal["tpe", "random"],
    seed: int,
    n_startup_trials: int,
) -> dict[str, Any]:
    """Add a trial to the study; returns its settings: those that no trial has, if there are any.

    Everything in a trial is seeded, so the same settings give the same numbers again. After a
    proposal that repeats settings the next ones are random, since a sampler that likes them goes on
    proposing them. The last of 50 is taken in any case.

    All of that happens in a copy. The study gets the trial in one piece, or not at all.
    """
    trials = study.get_trials(deepcopy=False)
    known = [define_space(FixedTrial(trial.params, trial.number)) for trial in trials]
    own, at_random = make_samplers(sampler, seed, len(trials), n_startup_trials)
    asked = optuna.create_study(direction="maximize", sampler=own)
    asked.add_trials(trials)
    for _ in range(_ATTEMPTS):
        proposal = asked.ask()
        settings = dict(define_space(proposal))
        if settings not in known:
            break
        asked.tell(proposal, state=TrialState.FAIL)
        asked.sampler = at_random
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=proposal.params,
            distributions=proposal.distributions,
        )
    )
    return settings


class DetoxSearch(Searcher):
    """Gives Tune the trials of a study that have not ended, then new ones.

    With the same seed and one trial at a time the proposals repeat themselves; with several at
    once they depend on the order in which results arrive.

    Args:
        study: knows the trials, and how they end.
        sampler: `tpe` or `random`.
        seed: of the sampler.
        n_startup_trials: see `make_samplers`.
    """

    def __init__(
        self,
        study: SearchStudy,
        *,
        sampler: Literal["tpe", "random"],
        seed: int,
        n_startup_trials: int,
    ) -> None:
        super().__init__(metric="j", mode="max")
        self._study = study
        self._waiting = [trial for trial in study.trials() if not trial.ended]
        self._settings: dict[str, Any] = {
            "sampler": sampler,
            "seed": seed,
            "n_startup_trials": n_startup_trials,
        }

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial: its name as `trial`, beside its settings."""
        if not self._waiting:
            propose(self._study.optuna, self._study.define_space, **self._settings)
            self._waiting = self._study.trials()[-1:]
        trial = self._waiting.pop(0)
        return {"trial": trial.name, **trial.settings}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the study hears of it as a callback, which is told more."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what must outlive this process is in the study."""
