"""python benchmarks/search.py RUN --commit HASH --out FILE: a finished search as tables to publish.

Reads `search.json`, `trials.csv` and `best/metrics.json` of a run; nothing is measured here.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tables import markdown_table, output_file

from detox_tune.cli import OneLineParser, run_command
from detox_tune.errors import UserError
from detox_tune.files import write_text

SETTINGS = (
    "lora",
    "lora_r",
    "mask_strategy",
    "masked_weight",
    "context_window",
    "gamma",
    "learning_rate",
    "task_prefix",
)
INTERVALS = ("j", "copy_rate")
SCORES = ("j", "sta", "sim", "fl", "copy_rate", "exact_copy_rate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables of one run."""
    options = _parser().parse_args(arguments)
    try:
        record = json.loads((options.run / "search.json").read_text(encoding="utf-8"))
        metrics = json.loads((options.run / "best" / "metrics.json").read_text(encoding="utf-8"))
        with (options.run / "trials.csv").open(encoding="utf-8", newline="") as file:
            trials = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}: give the folder of a search that has a winner"
        ) from error
    write_text(options.out, page(record, trials, metrics, options.commit))
    print(options.out)
    return 0


def page(
    record: Mapping[str, Any],
    trials: Sequence[Mapping[str, str]],
    metrics: Mapping[str, Any],
    code: str,
) -> str:
    """The page as markdown: what was run, the test split, every trial."""
    command = shlex.join(record["command"])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    systems = [
        [
            name,
            *(f"{scores[score]:.3f}" for score in SCORES),
            *("{:.3f}-{:.3f}".format(*metrics["intervals"][name][score]) for score in INTERVALS),
        ]
        for name, scores in metrics["test"].items()
    ]
    rows = [
        [
            trial["trial"],
            trial["ended"],
            trial["steps"],
            f"{float(trial['seconds']):.0f}",
            *(_setting(trial[name]) for name in SETTINGS),
            *(f"{float(trial[name]):.3f}" for name in ("j", "copy_rate")),
        ]
        for trial in trials
    ]
    finalists = [
        [
            one["trial"],
            str(one["step"]),
            str(one["averaged"]),
            *(f"{one['whole'][s]:.3f}" for s in INTERVALS),
        ]
        for one in record["finalists"]
    ]
    count = int(metrics["test"]["tuned"]["n"])
    return "\n".join(
        [
            f"# {record['search']['name']}",
            "",
            f"`{command}`",
            "",
            f"Commit {code}, started {record['started']}, {record['wall_seconds']:.0f} s in all "
            f"({versions}).",
            "",
            f"Winner: {metrics['trial']}, reloaded from disk and scored once on the test split "
            f"({count} pairs, {metrics['scorers']} scorers).",
            "",
            markdown_table(["system", *SCORES, *(f"{s}, 95%" for s in INTERVALS)], systems),
            "The best trials, scored again on the whole validation split: the adapter of the best "
            "report, and the mean of those that were kept.",
            "",
            markdown_table(["trial", "step", "averaged", "j", "copy_rate"], finalists),
            "Trials, each with its best report on the validation sample.",
            "",
            markdown_table(["trial", "ended", "steps", "s", *SETTINGS, "j", "copy_rate"], rows),
        ]
    )


def _setting(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return f"`{value}`" if value.endswith(" ") else value or "-"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/search.py", description="A finished search as markdown."
    )
    parser.add_argument("--commit", required=True, help="of the code that the search ran on")
    parser.add_argument("run", type=Path, help="the folder of a finished search")
    parser.add_argument("--out", type=output_file, required=True, help="markdown file to write")
    return parser


if __name__ == "__main__":
    run_command(main)
