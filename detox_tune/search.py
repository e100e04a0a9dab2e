"""python -m detox_tune.search: from a YAML space to an exported adapter."""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.errors import UserError

DEFAULT_SPACE = Path("search_spaces/pocket.yaml")

# Flag, type, help. The settings' rules and defaults stand in SearchConfig.
FLAGS: tuple[tuple[str, type, str], ...] = (
    ("--trials", int, "settings to try"),
    ("--steps", int, "optimiser steps of a trial that runs to its end"),
    ("--data", str, "pairs: a tsv, csv, jsonl or parquet file, a folder, or a hub data set"),
    ("--lexicon", str, "toxic words: a file, or a folder with one file per language"),
    ("--base-model", str, "`pocket`, or a T5-family checkpoint by hub name or path"),
    ("--seed", int, "decides sampling, splits, adapters, data order and dropout"),
    ("--address", str, "Ray cluster to join: `auto` on its head, or host:port"),
    ("--gpus-per-trial", float, "GPUs of a trial; fractions share a GPU"),
    ("--hours", float, "stop trials after so many hours, and export the best so far"),
    ("--name", str, "name of the run; default: <space>-<time>"),
    ("--out", str, "folder that holds runs; default: results"),
    ("--storage", str, "where nodes of a cluster leave checkpoints: a URI, such as s3://bucket/x"),
)


_WITH_RESUME = ("trials", "address", "hours")
"""Settings that a search which goes on may have other than before."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code.

    0, or 1 if no trial is good enough to export, or 130 if it was interrupted.
    """
    options = _parser().parse_args(arguments)
    if options.resume is not None:
        _check_flags(options)
    # Imported late, so that --help and wrong flags answer at once.
    import optuna

    from detox_tune.tuning.dry_run import dry_run
    from detox_tune.tuning.space_file import load_space

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.resume is not None:
        return _resume(options)
    config, space = load_space(options.space, overrides(options))
    if options.dry_run:
        print(dry_run(config, space))
        return 0
    from detox_tune.tuning.run import run_search

    return run_search(config, space)


def _parser() -> argparse.ArgumentParser:
    parser = space_parser(
        "python -m detox_tune.search",
        "Search for the fine-tuning that rewrites toxic sentences instead of copying "
        "them: trials on Ray, collapsed ones pruned, the best adapter exported to OUT/NAME/best.",
    )
    parser.add_argument(
        "--resume",
        type=path,
        metavar="RUN",
        help="go on with the search in this folder, which died, was stopped, or (with a higher "
        "--trials) ended; its own settings hold, and only --trials, --address and --hours go with "
        "this",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved search and its first trials; run nothing",
    )
    return parser


def _check_flags(options: argparse.Namespace) -> None:
    given = [flag for flag, _, _ in FLAGS if getattr(options, _setting(flag)) is not None]
    refused = [flag for flag in given if _setting(flag) not in _WITH_RESUME]
    refused += ["--dry-run"] if options.dry_run else []
    refused += [] if options.space is DEFAULT_SPACE else [str(options.space)]
    if refused:
        raise UserError(
            f"{', '.join(refused)}: a search that goes on has the settings of its search.json, and "
            "only --trials, --address and --hours go with --resume: leave the others out, or start "
            "a new search"
        )


def _resume(options: argparse.Namespace) -> int:
    from detox_tune.tuning.run import resume_search
    from detox_tune.tuning.run_folder import stopped_run

    changes = {name: getattr(options, name) for name in _WITH_RESUME}
    run = stopped_run(
        options.resume, {name: value for name, value in changes.items() if value is not None}
    )
    # Its settings name files as they were named there.
    if os.path.isdir(run.record.get("directory", "")):
        os.chdir(run.record["directory"])
    return resume_search(run)


def space_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The command line of what takes a search space and flags that override its settings."""
    parser = OneLineParser(prog=prog, description=description)
    parser.add_argument(
        "space",
        nargs="?",
        type=Path,
        default=DEFAULT_SPACE,
        help=f"search space, a YAML file (default: {DEFAULT_SPACE})",
    )
    for flag, kind, text in FLAGS:
        parser.add_argument(flag, type=kind, help=text, metavar=kind.__name__.upper())
    return parser


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags give; the run's name always, since every run has its own folder."""
    settings = {_setting(flag) for flag, _, _ in FLAGS}
    given = {name: value for name, value in vars(options).items() if name in settings}
    given = {name: value for name, value in given.items() if value is not None}
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return {"name": f"{options.space.stem}-{now}", **given}


def _setting(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


if __name__ == "__main__":
    run_command(main)
