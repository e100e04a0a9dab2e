"""Search spaces: from YAML to what Optuna samples, define-by-run.

A space file holds the settings of `SearchConfig`, and under `trial:` those of `TrialConfig`, each
fixed (`lora: second`) or searched:

    gamma:          {zero_or: [1.0, 100.0], log: true}     # zero, or a range
    learning_rate:  {range: [1.0e-4, 1.0e-2], log: true}
    mask_strategy:  {choice: [none, toxic_only, toxic_context]}
    context_window: {range: [1, 4], when: {mask_strategy: toxic_context}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import optuna
from optuna.trial import BaseTrial
from pydantic import TypeAdapter, ValidationError

from detox_tune.config import READ_WITH, SearchConfig, TrialConfig, unread_setting
from detox_tune.errors import UserError, nearest
from detox_tune.settings import refuse_boolean, validated
from detox_tune.tuning.domains import KINDS, Choice, Domain, Range, Value, ZeroOr
from detox_tune.tuning.searcher import propose


class SearchSpace:
    """The settings of a trial, fixed or searched.

    Called with an Optuna trial it returns a trial's settings (a dict that `TrialConfig` accepts),
    sampling conditions before what depends on them.

    Raises:
        UserError: for unknown names, values outside a setting's rule, conditions that can't hold
            and searched settings that no trial would read.
    """

    def __init__(self, settings: Mapping[str, Any], where: str = "trial") -> None:
        self.where = where
        self.fixed: dict[str, Value] = {}
        self.domains: dict[str, Domain] = {}
        for name, value in settings.items():
            self._add(name, value)
        self._order = self._dependency_order()
        for name in self.domains:
            self._check_condition(name)
        for name in READ_WITH:
            self._check_read(name)
        self._check_fixed()

    def __call__(self, trial: BaseTrial) -> dict[str, Any]:
        settings: dict[str, Any] = dict(self.fixed)
        for name in self._order:
            domain = self.domains[name]
            if all(settings.get(key) in values for key, values in domain.condition().items()):
                settings[name] = domain.suggest(trial, name, _kind(name))
        return settings

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the settings that trials differ in."""
        return tuple(self._order)

    def possible(self, name: str) -> list[Value]:
        """The values, or the bounds of the range, that a setting can take."""
        if name in self.domains:
            return self.domains[name].bounds()
        if name in self.fixed:
            return [self.fixed[name]]
        default: Value = TrialConfig.model_fields[name].default
        return [default]

    def task_prefixes(self) -> list[str]:
        """The task prefixes that a trial may have."""
        return list(map(str, self.possible("task_prefix")))

    def describe(self) -> dict[str, Any]:
        """The space in the form that YAML would have, for search.json and --dry-run."""
        searched = {
            name: self.domains[name].model_dump(exclude_defaults=True) for name in self._order
        }
        return {**self.fixed, **searched}

    def _add(self, name: str, value: Any) -> None:
        if name not in TrialConfig.model_fields:
            raise UserError(
                f"{self.where}: {name!r} is not a setting of a trial; "
                f"{nearest(name, TrialConfig.model_fields)}"
            )
        if isinstance(value, Mapping):
            self.domains[name] = domain = self._domain(name, value)
            for bound in domain.bounds():
                self._check_value(name, bound)
        else:
            self._check_value(name, value)
            self.fixed[name] = value

    def _domain(self, name: str, value: Mapping[str, Any]) -> Domain:
        kinds = [kind for kind in KINDS if kind in value]
        if len(kinds) != 1:
            keys = ", ".join(map(str, value)) or "nothing"
            raise UserError(
                f"{self.where}: {name} has {keys}, but a searched setting has exactly one of "
                f"{', '.join(KINDS)} (with `log` and `when` beside it)"
            )
        try:
            domain = KINDS[kinds[0]].model_validate(dict(value))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"{self.where}: {name}: {key}={first['input']!r}: {first['msg'].lower()}; "
                f"write {kinds[0]}: [...] with `log` or `when` at most beside it"
            ) from None
        if not isinstance(domain, Choice):
            self._check_range(name, domain)
        return domain

    def _check_range(self, name: str, domain: Range | ZeroOr) -> None:
        low, high = domain.range if isinstance(domain, Range) else domain.zero_or
        if _kind(name) not in (int, float):
            raise UserError(f"{self.where}: {name} is not a number, so it takes choice: [...]")
        if _kind(name) is int and (low != int(low) or high != int(high)):
            raise UserError(
                f"{self.where}: {name} counts whole things, but its range is [{low:g}, {high:g}]: "
                "write whole bounds"
            )
        if not low < high:
            raise UserError(
                f"{self.where}: {name} has the range [{low:g}, {high:g}], but the lower bound must "
                "be below the upper one: swap them, or write one fixed value"
            )
        if domain.log and low <= 0:
            raise UserError(
                f"{self.where}: {name} has log: true and the lower bound {low:g}, which must be "
                "above 0: raise it, or use zero_or for zero or a range"
            )

    def _check_value(self, name: str, value: Any) -> None:
        field = TrialConfig.model_fields[name]
        refuse_boolean(f"{self.where}: {name}", value, field.annotation)
        if isinstance(value, str) and _kind(name) in (int, float):
            raise UserError(
                f"{self.where}: {name}={value!r} is text, and must be a number: write it without "
                "quotes"
            )
        kind: Any = Annotated[field.annotation, *field.metadata, field]
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            rule = " ".join((field.description or "").split())
            message = error.errors()[0]["msg"]
            raise UserError(
                f"{self.where}: {name}={value!r}: {message[0].lower()}{message[1:]} ({rule})"
            ) from None

    def _check_condition(self, name: str) -> None:
        for key, values in self.domains[name].condition().items():
            if key not in self.domains and key not in self.fixed:
                raise UserError(
                    f"{self.where}: {name} depends on {key!r}, which the space does not set; "
                    f"{nearest(key, [*self.domains, *self.fixed])}"
                )
            if isinstance(self.domains.get(key), (Range, ZeroOr)):
                raise UserError(
                    f"{self.where}: {name} depends on {key}, which is a range; a condition can "
                    "only name settings that are fixed or have choices"
                )
            for value in values:
                if value not in self.possible(key):
                    raise UserError(
                        f"{self.where}: {name} waits for {key}={value!r}, which no trial has; "
                        f"{nearest(str(value), [str(v) for v in self.possible(key)])}"
                    )

    def _check_read(self, name: str) -> None:
        """Refuse a setting that some trial would get where nothing reads it."""
        if name not in self.domains and name not in self.fixed:
            return
        rule = READ_WITH[name]
        others = tuple(self.possible(rule.setting))
        if name in self.domains:
            others = self.domains[name].condition().get(rule.setting, others)
        for other in others:
            if other not in rule.values:
                value = self.possible(name)[0]
                raise UserError(f"{self.where}: {unread_setting(name, value, str(other))}")

    def _check_fixed(self) -> None:
        """What is fixed alone must already make a valid trial."""
        fixed = {k: v for k, v in self.fixed.items() if k not in READ_WITH}
        validated(TrialConfig, fixed, self.where)

    def _dependency_order(self) -> list[str]:
        done: list[str] = []
        waiting = dict(self.domains)
        while waiting:
            ready = [n for n, d in waiting.items() if not any(key in waiting for key in d.when)]
            if not ready:
                raise UserError(
                    f"{self.where}: the conditions of {', '.join(waiting)} depend on each other in "
                    "a circle: remove one `when`"
                )
            for name in ready:
                done.append(name)
                del waiting[name]
        return done


def _kind(name: str) -> type:
    """int, float or str: what a setting of `TrialConfig` is counted or measured in."""
    annotation = str(TrialConfig.model_fields[name].annotation)
    for kind in (int, float):
        if kind.__name__ in annotation:
            return kind
    return str


def first_samples(space: SearchSpace, config: SearchConfig, n: int) -> Iterator[dict[str, Any]]:
    """The settings of the first trials, as the sampler gives them before any result is known."""
    study = optuna.create_study(direction="maximize")
    for _ in range(n):
        yield propose(
            study,
            space,
            sampler=config.sampler,
            seed=config.seed,
            n_startup_trials=config.startup_trials,
        )
