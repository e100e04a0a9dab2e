"""What an experiment of the verdict trains: its arms, read from a YAML file.

    search: what all arms share, as in a search space
    seeds: of splits, base, adapters and data order
    trial: settings of every arm that says nothing else
    arms: lists of values are crossed; what comes twice is trained once

An arm sets what a trial may set, `steps` and `pocket_steps` of the search, and two things that only
stand here: `pairs`, how many training pairs it gets, and `remedy` (see `remedies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from verdict.remedies import REMEDIES

from detox_tune.config import READ_WITH, SearchConfig, TrialConfig
from detox_tune.errors import UserError
from detox_tune.settings import validated

OF_SEARCH = ("steps", "pocket_steps")


@dataclass(frozen=True)
class Arm:
    """One setting that is trained with every seed."""

    name: str
    """How it differs from `trial`, as `gamma=5 mask_strategy=none`; `default` if it does not."""
    trial: TrialConfig
    search: Mapping[str, int]
    """What it sets of OF_SEARCH."""
    pairs: int | None
    """Training pairs that it gets; None for all."""
    remedy: str | None


@dataclass(frozen=True)
class Experiment:
    """An experiment file."""

    search: Mapping[str, Any]
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]

    @property
    def prefixes(self) -> set[str]:
        """The task prefixes of all arms."""
        return {arm.trial.task_prefix for arm in self.arms}

    def config(self, arm: Arm, seed: int, overrides: Mapping[str, Any]) -> SearchConfig:
        """The search that an arm with a seed belongs to."""
        # nothing is pruned here, whatever the grace
        values = {
            "name": "verdict",
            "grace_steps": 1,
            **self.search,
            **arm.search,
            **overrides,
            "seed": seed,
        }
        return validated(SearchConfig, values, "search")


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        UserError: a setting is unknown or breaks a rule.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    shared = content["trial"]
    arms: list[Arm] = []
    for crossing in content["arms"]:
        for changes in _crossed(crossing):
            arm = _arm({n: v for n, v in changes.items() if shared.get(n) != v}, shared, path)
            if not any(replace(arm, name=other.name) == other for other in arms):
                arms.append(arm)
    return Experiment(content["search"], tuple(content["seeds"]), tuple(arms))


def _crossed(crossing: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lists = [value if isinstance(value, list) else [value] for value in crossing.values()]
    for values in product(*lists):
        yield dict(zip(crossing, values, strict=True))


def _arm(changes: Mapping[str, Any], shared: Mapping[str, Any], path: Path) -> Arm:
    own = {n: v for n, v in changes.items() if n not in (*OF_SEARCH, "pairs", "remedy")}
    trial = {**shared, **own}
    for name, rule in READ_WITH.items():  # what nothing reads any more with the changes
        if name not in own and trial.get(rule.setting) not in rule.values:
            trial.pop(name, None)
    remedy = changes.get("remedy")
    if remedy is not None and remedy not in REMEDIES:
        raise UserError(f"{path}: remedy={remedy!r} must be one of {', '.join(REMEDIES)}")
    return Arm(
        " ".join(f"{n}={_shown(changes[n])}" for n in sorted(changes)) or "default",
        validated(TrialConfig, trial, str(path)),
        {n: v for n, v in changes.items() if n in OF_SEARCH},
        changes.get("pairs"),
        remedy,
    )


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).strip().rstrip(":") or "none"
