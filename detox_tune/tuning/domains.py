"""What a searched setting may be: one of some values, a number of a range, or zero or a range."""

from __future__ import annotations

from typing import Annotated, Any

from optuna.trial import BaseTrial
from pydantic import BaseModel, ConfigDict, Field

Value = str | int | float | bool | None
Condition = dict[str, tuple[Value, ...]]


class _Domain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    when: dict[str, Any] = Field(default_factory=dict)
    """Setting -> value or values under which this one is sampled at all."""

    def condition(self) -> Condition:
        return {
            name: tuple(values) if isinstance(values, list) else (values,)
            for name, values in self.when.items()
        }


class Choice(_Domain):
    """One of the listed values."""

    choice: Annotated[list[Value], Field(min_length=1)]

    def bounds(self) -> list[Value]:
        return self.choice

    def suggest(self, trial: BaseTrial, name: str, kind: type) -> Value:
        value: Value = trial.suggest_categorical(name, self.choice)
        return value


class Range(_Domain):
    """A number between two bounds, both included; with `log`, uniform in its logarithm."""

    range: tuple[int | float, int | float]
    log: bool = False

    def bounds(self) -> list[Value]:
        return list(self.range)

    def suggest(self, trial: BaseTrial, name: str, kind: type) -> Value:
        return _suggest_number(trial, name, kind, self.range, self.log)


class ZeroOr(_Domain):
    """Zero in about half of the trials, else a number of the range."""

    zero_or: tuple[int | float, int | float]
    log: bool = False

    def bounds(self) -> list[Value]:
        return [0, *self.zero_or]

    def suggest(self, trial: BaseTrial, name: str, kind: type) -> Value:
        if trial.suggest_categorical(f"{name}_is_zero", [True, False]):
            zero: Value = kind(0)
            return zero
        return _suggest_number(trial, name, kind, self.zero_or, self.log)


def _suggest_number(
    trial: BaseTrial, name: str, kind: type, bounds: tuple[float, float], log: bool
) -> float:
    low, high = bounds
    if kind is int:
        return trial.suggest_int(name, int(low), int(high), log=log)
    return trial.suggest_float(name, low, high, log=log)


Domain = Choice | Range | ZeroOr
KINDS: dict[str, type[Domain]] = {"choice": Choice, "range": Range, "zero_or": ZeroOr}
"""The key that names a domain in YAML -> the domain."""
