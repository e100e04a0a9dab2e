"""python -m detox_tune.search: from a YAML space to an exported adapter."""

from __future__ import annotations

import argparse
import datetime
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detox_tune.cli import VERBOSE, OneLineParser, path, run_command
from detox_tune.command_line import program
from detox_tune.errors import UserError, nearest

if TYPE_CHECKING:
    from detox_tune.tuning.cluster import Loudness

SPACES = Path(__file__).parent / "search_spaces"
"""The shipped spaces, which are found by their names."""
_ASSIGNMENT = re.compile(r"[A-Za-z_]+=")

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
    ("--track", str, "report to a tracker, too: mlflow"),
    ("--storage", str, "where nodes of a cluster leave checkpoints: a URI, such as s3://bucket/x"),
)


_WITH_RESUME = ("trials", "address", "hours")
"""Settings that a search which goes on may have other than before."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code.

    0, or 1 if no trial is good enough to export, or 130 if it was interrupted.
    """
    options = parser().parse_intermixed_args(arguments)
    if options.resume is not None:
        _check_flags(options)
    # Imported late, so that --help and wrong flags answer at once.
    import optuna

    from detox_tune.tuning.dry_run import dry_run
    from detox_tune.tuning.space_file import load_space

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.resume is not None:
        return _resume(options)
    config, space = load_space(*chosen(options))
    if options.dry_run:
        print(dry_run(config, space))
        return 0
    from detox_tune.tuning.run import run_search

    return run_search(config, space, _loudness(options))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = space_parser(
        "search",
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
    told = parser.add_mutually_exclusive_group()
    told.add_argument(
        "--quiet", action="store_true", help="show no progress, only what was read and the result"
    )
    told.add_argument(
        VERBOSE, action="store_true", help="show what Ray and other libraries say, too"
    )
    return parser


def _check_flags(options: argparse.Namespace) -> None:
    given = [flag for flag, _, _ in FLAGS if getattr(options, _setting(flag)) is not None]
    refused = [flag for flag in given if _setting(flag) not in _WITH_RESUME]
    refused += ["--dry-run"] if options.dry_run else []
    refused += options.words
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
    return resume_search(run, _loudness(options))


def _loudness(options: argparse.Namespace) -> Loudness:
    return "quiet" if options.quiet else "verbose" if options.verbose else "normal"


def space_parser(command: str, description: str) -> argparse.ArgumentParser:
    """The command line of what takes a search space and settings that override its own."""
    parser = OneLineParser(prog=program(command), description=description)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="SPACE | SETTING=VALUE",
        help="a YAML file or a shipped space (default: pocket), and any setting of it, such as "
        f"gamma=3 or 'lora_r={{choice: [16, 64]}}'; shipped: {', '.join(_shipped())}",
    )
    for flag, kind, text in FLAGS:
        parser.add_argument(flag, type=kind, help=text, metavar=kind.__name__.upper())
    return parser


def chosen(options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The file of the space, and the settings that the command line gives.

    The run's name is among them always, since every run has its own folder.
    """
    from detox_tune.tuning.space_file import parse_assignments

    assigned = parse_assignments([word for word in options.words if _ASSIGNMENT.match(word)])
    named = [word for word in options.words if not _ASSIGNMENT.match(word)] or ["pocket"]
    if len(named) > 1:
        raise UserError(f"{' '.join(named)}: give one space, and settings as name=value")
    settings = {_setting(flag) for flag, _, _ in FLAGS}
    given = {name: value for name, value in vars(options).items() if name in settings}
    given = {name: value for name, value in given.items() if value is not None}
    twice = sorted(given.keys() & assigned.keys())
    if twice:
        raise UserError(f"--{twice[0].replace('_', '-')} and {twice[0]}=…: give one of the two")
    space = _space_file(named[0])
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return space, {"name": f"{space.stem}-{now}", **assigned, **given}


def _space_file(text: str) -> Path:
    """The file of a shipped space, or that at a path."""
    if text in _shipped():
        return SPACES / f"{text}.yaml"
    file = path(text)
    if not file.exists() and text == file.stem:
        raise UserError(
            f"{text} is neither a file nor a shipped space; {nearest(text, _shipped())}"
        )
    return file


def _shipped() -> list[str]:
    return sorted(file.stem for file in SPACES.glob("*.yaml"))


def _setting(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


if __name__ == "__main__":
    run_command(main)
