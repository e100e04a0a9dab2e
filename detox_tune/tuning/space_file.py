"""Reading a search space from a YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from detox_tune.config import SearchConfig, validated
from detox_tune.errors import UserError
from detox_tune.tuning.space import SearchSpace


def load_space(path: Path, overrides: Mapping[str, Any]) -> tuple[SearchConfig, SearchSpace]:
    """Read a space file; `overrides` are the settings that flags give, and win.

    Raises:
        UserError: if the file is missing, is not YAML, or breaks a rule.
    """
    values = {**_read_yaml(path), **overrides}
    trial = values.pop("trial", {})
    values.setdefault("name", path.stem)
    if not isinstance(trial, Mapping):
        raise UserError(f"{path}: trial={trial!r} must map settings to values or ranges")
    config = validated(SearchConfig, values, str(path))
    space = SearchSpace(trial, f"{path}: trial")
    _check_collapse_grace(config, space, path)
    return config, space


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
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {_spaces_beside(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; {_spaces_beside(path / 'x')}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise UserError(f"{path}{line}: not valid YAML: {problem}; correct that line") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must map setting names to values; see search_spaces/pocket.yaml")
    return content


def _spaces_beside(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return f"spaces there: {', '.join(names)}" if names else "give the path of a YAML space"


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; a space must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)
