"""python -m detox_tune.report: the page about a run, or about several side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.command_line import program
from detox_tune.files import check_can_write


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parser().parse_args(arguments)
    # Imported late, so that --help and wrong flags answer at once.
    import optuna

    from detox_tune.tuning.report.page import (
        COMPARISON,
        REPORT,
        write_comparison,
        write_report,
    )
    from detox_tune.tuning.run_folder import read_record

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for folder in options.runs:
        read_record(folder)  # before a folder that is none is written to
    several = len(options.runs) > 1
    check_can_write(options.runs[0] / (COMPARISON if several else REPORT), "RUN")
    written = write_comparison(options.runs) if several else write_report(options.runs[0])
    print(written)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("report"),
        description="Write the page about a run, finished or not: RUN/report.html, one file that "
        "opens offline. Of several runs: one page with them side by side, comparison.html in the "
        "folder of the first.",
    )
    parser.add_argument(
        "runs", nargs="+", type=path, metavar="RUN", help="folder of a run, such as results/<run>"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
