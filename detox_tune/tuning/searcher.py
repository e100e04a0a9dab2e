"""What Optuna proposes, and how each trial is reported to it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import optuna
from optuna.trial import TrialState
from ray import cloudpickle
from ray.tune.search.optuna import OptunaSearch

from detox_tune.tuning.results import best_report

_STATES = {
    "finished": TrialState.COMPLETE,
    "asha": TrialState.PRUNED,
    "collapse": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


_ATTEMPTS = 50  # a space with fewer settings than trials repeats them


def make_samplers(
    name: Literal["tpe", "random"], seed: int, n_startup_trials: int
) -> tuple[optuna.samplers.BaseSampler, optuna.samplers.BaseSampler]:
    """The sampler of proposals, and the random one of those that `ask_new` puts in their place.

    Proposals come from Optuna's tree-structured Parzen estimator (Bergstra et al., 2011), or are
    random themselves: then both are one sampler, which never starts its stream anew.
    """
    if name == "random":
        sampler = optuna.samplers.RandomSampler(seed=seed)
        return sampler, sampler
    # TPE draws its first proposals at random with its own seed, so that is taken.
    other = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    return (
        optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup_trials),
        optuna.samplers.RandomSampler(seed=other),
    )


def ask_new(
    study: optuna.Study,
    define_space: Callable[[optuna.Trial], dict[str, Any]],
    proposed: Collection[dict[str, Any]],
    at_random: optuna.samplers.BaseSampler,
) -> tuple[optuna.Trial, dict[str, Any]]:
    """A proposal whose config was not proposed before; the last of 50 where there is none.

    Everything in a trial is seeded, so the same settings give the same numbers again. A proposal
    that is passed over is reported as failed, from which a sampler learns nothing; the next come
    from `at_random`, since a sampler that likes a config goes on proposing it.
    """
    own, attempts = study.sampler, 0
    try:
        while True:
            attempts += 1
            proposal = study.ask()
            config = dict(define_space(proposal))
            if config not in proposed or attempts == _ATTEMPTS:
                return proposal, config
            study.tell(proposal, state=TrialState.FAIL)
            study.sampler = at_random
    finally:
        study.sampler = own


class DetoxSearch(OptunaSearch):
    """Optuna's proposals; pruned, failed and copying trials are reported to Optuna correctly.

    The parent reports a trial that ASHA stopped as complete, with the value of its low budget, and
    leaves one that ended with NaN running for ever. Here the state follows from `ended`, which
    `CollapseScheduler` puts into the last result: `finished` COMPLETE, `asha` and `collapse`
    PRUNED, `failed` FAIL (the sampler passes over it).

    - Intermediate values are `j` at training steps. The sampler ranks pruned trials by their last
      step, then by `j` there.
    - `best_report` stands for a trial, as it does when the winner is chosen. It gives the value of
      a complete trial and, for every trial that did not fail, the constraint
      `copy_rate - max_copy_rate <= 0`. The sampler ranks all trials that violate it behind those
      that do not, by how far they miss it.

    With the same seed and one trial at a time the proposals repeat themselves; with several at
    once they depend on the order in which results arrive.

    Args:
        define_space: called with an Optuna trial, returns the trial's config: suggested values,
            and any others. Names that it only asks Optuna for do not get into the config.
        max_copy_rate: highest copy rate, in [0, 1], that a winner may have.
        sampler: `tpe` or `random`.
        seed: of the sampler.
        n_startup_trials: random proposals before TPE learns from trials (failed ones not counted).
    """

    def __init__(
        self,
        define_space: Callable[[optuna.Trial], dict[str, Any]],
        *,
        max_copy_rate: float,
        sampler: Literal["tpe", "random"],
        seed: int,
        n_startup_trials: int,
    ) -> None:
        chosen, self._at_random = make_samplers(sampler, seed, n_startup_trials)
        super().__init__(space=define_space, metric="j", mode="max", sampler=chosen)
        self._define_space = define_space
        self._max_copy_rate = max_copy_rate
        self._reports: dict[str, dict[int, dict[str, Any]]] = {}
        self._proposed: list[dict[str, Any]] = []

    @property
    def study(self) -> optuna.Study:
        """Optuna's own record of all proposals and of how they ended."""
        return cast(optuna.Study, self._ot_study)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The config of a new trial: one that no trial had before, as long as there is one."""
        proposal, config = ask_new(self.study, self._define_space, self._proposed, self._at_random)
        self._ot_trials[trial_id] = proposal
        self._proposed.append(config)
        return dict(config)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note a report, once per step: trials repeat steps when they start again."""
        reports = self._reports.setdefault(trial_id, {})
        step = int(result["step"])
        if step not in reports:
            reports[step] = {n: float(result[n]) for n in ("j", "copy_rate", "feasible_j")}
            self._ot_trials[trial_id].report(reports[step]["j"], step)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Report to Optuna how a trial ended."""
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        proposal = self._ot_trials[trial_id]
        state = TrialState.FAIL if error or not result else _STATES[result["ended"]]
        value = None
        if result and state != TrialState.FAIL:
            self.on_trial_result(trial_id, result)  # Tune keeps the report that ends a trial back
            best = best_report(list(self._reports[trial_id].values()))
            proposal.set_constraint("copy_rate", best["copy_rate"] - self._max_copy_rate)
            value = best["j"] if state == TrialState.COMPLETE else None
        self.study.tell(proposal, value, state)
        self._reports.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Save the state as the parent does, also when the space is a closure."""
        Path(checkpoint_path).write_bytes(cloudpickle.dumps(self.__dict__))
