"""What classes of settings have in common: they refuse what is wrong in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from detox_tune.errors import UserError, nearest


@dataclass(frozen=True)
class ReadWith:
    """Marks a setting that is only read with some values of another one."""

    setting: str
    """The other setting."""
    values: tuple[str, ...]
    """Its values with which this one is read."""
    default: Any
    """The default there, or a function that takes it from the other settings."""


class Settings(BaseModel):
    """Frozen; unknown names, infinite numbers and booleans for numbers are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_booleans(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if name in cls.model_fields:
                refuse_boolean(name, value, cls.model_fields[name].annotation)
        return values


_BOOLEANS = "YAML reads yes, no, on and off as true or false: put text in quotes, or give a number"
S = TypeVar("S", bound=BaseModel)


def refuse_boolean(name: str, value: object, annotation: object) -> None:
    """Refuse true and false for a setting that is neither; pydantic takes them for 1 and 0.

    Raises:
        UserError: that says where they come from.
    """
    if isinstance(value, bool) and annotation is not bool:
        raise UserError(f"{name}={value}: {_BOOLEANS}")


def validated(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """Build settings, turning the first thing that is wrong into one line.

    Raises:
        UserError: with `where`, the name, the value, the rule and the remedy.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a pydantic validation as one line: name, value, rule, remedy."""
    first = error.errors()[0]
    if "ctx" in first and isinstance(first["ctx"].get("error"), UserError):
        return str(first["ctx"]["error"])
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"{name!r} is not a setting here; {nearest(name, model.model_fields)}"
    if first["type"] == "missing":
        return f"{name!r} is missing: give it a value"
    rule = " ".join((model.model_fields[name].description or "").split())
    problem = first["msg"][0].lower() + first["msg"][1:]
    if isinstance(first["input"], bool):
        problem = _BOOLEANS
    return f"{name}={first['input']!r}: {problem} ({rule})"
