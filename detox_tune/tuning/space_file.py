"""Reading a search space from a YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import regex
import yaml

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.errors import UserError, nearest
from detox_tune.settings import validated
from detox_tune.tuning.space import SearchSpace

_EXPONENT = regex.compile(r"([-+]?\d+)(?:\.(\d*))?[eE]([-+]?)(\d+)")
_KINDS = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "seq": "a list",
    "map": "a mapping",
    "timestamp": "a date",
}


def load_space(path: Path, overrides: Mapping[str, Any]) -> tuple[SearchConfig, SearchSpace]:
    """Read a space file; `overrides` are the settings that the command line gives, and win.

    Raises:
        UserError: if the file is missing, is not YAML, or breaks a rule.
    """
    values = _read_yaml(path)
    trial = values.pop("trial", {})
    values.setdefault("name", path.stem)
    if not isinstance(trial, Mapping):
        raise UserError(f"{path}: trial={trial!r} must map settings to values or ranges")
    of_trial = {n: value for n, value in overrides.items() if n in TrialConfig.model_fields}
    values |= {n: value for n, value in overrides.items() if n not in of_trial}
    trial = {**_still_read(trial, of_trial), **of_trial}
    config = validated(SearchConfig, values, str(path))
    space = SearchSpace(trial, f"{path}: trial")
    _check_collapse_grace(config, space, path)
    return config, space


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """Settings written as `name=value`, the value as YAML has it; `1e-3` is a number here.

    Raises:
        UserError: for an unknown setting, one that is given twice, or a value that is not YAML.
    """
    given: dict[str, Any] = {}
    known = {**SearchConfig.model_fields, **TrialConfig.model_fields}
    for word in words:
        name, _, text = word.partition("=")
        if name not in known:
            raise UserError(f"{word}: {name!r} is not a setting; {nearest(name, known)}")
        if name in given:
            raise UserError(f"{word}: {name} is given twice: leave one of them out")
        given[name] = float(text) if _EXPONENT.fullmatch(text) else _read_value(word, text)
    return given


def _read_value(word: str, text: str) -> Any:
    try:
        return yaml.load(text, Loader=_SpaceLoader) if text else ""
    except (_Refused, yaml.YAMLError) as error:
        reason = error.rule if isinstance(error, _Refused) else "it is not valid YAML"
        raise UserError(
            f"{word}: {reason}; in a shell, put the whole word in single quotes"
        ) from None


def _still_read(trial: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a trial without those that wait for values which `overrides` take away."""
    kept: dict[str, Any] = {}
    for name, domain in trial.items():
        when = domain.get("when") if isinstance(domain, Mapping) else None
        if not isinstance(when, Mapping):
            kept[name] = domain
            continue
        narrowed = {key: _possible(values, overrides, key) for key, values in when.items()}
        if all(values != [] for values in narrowed.values()):
            kept[name] = {**domain, "when": narrowed}
    return kept


def _possible(values: Any, overrides: Mapping[str, Any], key: str) -> Any:
    if key not in overrides:
        return values
    now = overrides[key]
    left = now.get("choice", values) if isinstance(now, Mapping) else [now]
    return [one for one in (values if isinstance(values, list) else [values]) if one in left]


def _check_collapse_grace(config: SearchConfig, space: SearchSpace, path: Path) -> None:
    """No trial may be judged as collapsed before it had a chance to move."""
    warmup = max(float(share or 0) for share in space.possible("warmup_share")) * config.steps
    least = math.ceil(warmup) + 2 * config.eval_every
    last_judged = (config.steps - 1) // config.eval_every * config.eval_every
    if config.collapse_grace < min(least, last_judged):
        raise UserError(
            f"{path}: collapse_grace={config.collapse_grace} must be at least the warm-up "
            f"({math.ceil(warmup)} steps) and two reports ({2 * config.eval_every} steps): raise "
            f"it to {least}, or lower eval_every or warmup_share"
        )


def _read_yaml(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        content = yaml.load(text, Loader=_SpaceLoader)
    except _Refused as error:
        raise UserError(f"{path}:{error.line}: {error.rule}") from None
    except yaml.reader.ReaderError as error:
        before = text.count("\n", 0, error.position)
        raise UserError(
            f"{path}:{before + 1}: the character {error.character:#x} may not stand in YAML; "
            "remove it"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(
            f"{path}{line}: not valid YAML: {error.problem}; correct that line"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must map setting names to values, as the shipped spaces do")
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {_spaces_beside(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; {_spaces_beside(path / 'x')}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give another file") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from None


def _spaces_beside(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return f"spaces there: {', '.join(names)}" if names else "give the path of a YAML space"


class _Refused(Exception):
    """Valid YAML that a space must not have."""

    def __init__(self, node: yaml.Node, rule: str) -> None:
        self.line = node.start_mark.line + 1
        self.rule = rule


class _SpaceLoader(yaml.SafeLoader):
    """PyYAML's safe loader without three of its surprises.

    1. Of two equal keys it keeps the last, without a word.
    2. `on`, `no`, `1` and the like are no text as keys, but booleans and numbers.
    3. `1e-3` is no number, but text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not key.tag.endswith((":str", ":merge")):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "with brackets"
                raise _Refused(
                    key,
                    f"the key {shown or 'of nothing'} is read as "
                    f"{_KINDS.get(key.tag.rpartition(':')[2], 'something else')}, and must be the "
                    "name of a setting: put it in quotes, or correct it",
                )
            if key.value in seen:
                raise _Refused(key, f"the key {key.value!r} stands twice: remove one of the two")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        number = plain and node.tag.endswith(":str") and _EXPONENT.fullmatch(node.value)
        if number:
            whole, fraction, sign, power = number.groups()
            raise _Refused(
                node,
                f"YAML reads {node.value} as text: write {whole}.{fraction or 0}e{sign or '+'}"
                f"{power} for the number, or put the text in quotes",
            )
        return value
