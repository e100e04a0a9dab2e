"""python -m detox_tune.schema: the JSON schema of a space file, by which editors complete it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from detox_tune.cli import OneLineParser, run_command
from detox_tune.command_line import program
from detox_tune.config import SearchConfig, TrialConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser().parse_args(arguments)
    print(json.dumps(space_schema(), indent=2))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return OneLineParser(
        prog=program("schema"),
        description="Print the JSON schema of a space file. Editors with a YAML language server "
        "complete and check a file that names it: # yaml-language-server: $schema=space.json",
    )


def space_schema() -> dict[str, Any]:
    """JSON Schema of a space file: names, rules, defaults, descriptions and ways to search.

    It knows each setting by itself; rules between settings are checked when a space is read.
    """
    from detox_tune.tuning.domains import KINDS

    search = SearchConfig.model_json_schema()
    trial = TrialConfig.model_json_schema()
    domains = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in KINDS.values()]
    trial["properties"] = {
        name: _searchable(schema, domains) for name, schema in trial["properties"].items()
    }
    search["properties"]["trial"] = {
        "type": "object",
        "description": "Settings of a trial, each fixed or searched.",
        "properties": trial["properties"],
        "additionalProperties": False,
    }
    search["title"] = "detox_tune search space"
    search["required"] = []  # a space without a name has that of its file
    definitions = {kind.__name__: kind.model_json_schema() for kind in KINDS.values()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **search} | {
        "$defs": {**search.get("$defs", {}), **trial.get("$defs", {}), **definitions}
    }


def _searchable(schema: dict[str, Any], domains: list[dict[str, str]]) -> dict[str, Any]:
    """The schema of a setting that is fixed, or searched."""
    names = ("title", "description", "default")
    about: dict[str, Any] = {name: schema[name] for name in names if name in schema}
    rule = {key: value for key, value in schema.items() if key not in about}
    return {**about, "anyOf": [rule, *domains]}


if __name__ == "__main__":
    run_command(main)
