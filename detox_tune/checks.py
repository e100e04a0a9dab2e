"""python -m detox_tune.checks: is this search sound, before GPU hours are spent?"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detox_tune.cli import run_command

# The flags are those of the search, so that one command line serves both.
from detox_tune.search import chosen, space_parser

if TYPE_CHECKING:
    from rich.console import Console

    from detox_tune.config import SearchConfig
    from detox_tune.tuning.checks.result import CheckResult
    from detox_tune.tuning.space import SearchSpace

_WIDTH = 120  # columns of the table where there is no terminal to fit it to
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "bold red"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 1 if a check fails."""
    options = parser().parse_intermixed_args(arguments)
    # Imported late, so that --help and wrong flags answer at once.
    from detox_tune.plain_console import PlainConsole
    from detox_tune.tuning.space_file import load_space

    config, space = load_space(*chosen(options))
    console = PlainConsole()
    if not console.is_terminal:
        console.width = _WIDTH
    log = PlainConsole(stderr=True, soft_wrap=True)
    results = run_checks(config, space, console, log)
    show(results, console)
    return 1 if any(result.status == "fail" for result in results) else 0


def run_checks(
    config: SearchConfig, space: SearchSpace, console: Console, log: Console
) -> list[CheckResult]:
    """All checks in their order; a few pairs with the tokens that each mask trains are printed.

    Raises:
        UserError: what the search itself would refuse as bad input.
    """
    from rich.text import Text

    from detox_tune.tuning.base import find_base
    from detox_tune.tuning.checks.masks import all_masks, marked_pairs, trials_to_check
    from detox_tune.tuning.checks.quick import quick_checks
    from detox_tune.tuning.checks.thorough import base_checks, corpus_check
    from detox_tune.tuning.task import build_task

    corpus, results = corpus_check(config)
    log.print(corpus.report())
    base = find_base(config, corpus, log)
    task = build_task(config, corpus, base, task_prefixes=space.task_prefixes())
    console.print(marked_pairs(task, all_masks(trials_to_check(space))), soft_wrap=True)
    results += quick_checks(config, space, task)
    with log.status("checking") as status:

        def tell(doing: str) -> None:
            if log.is_terminal:
                status.update(Text(doing))  # not as a string, which is read as markup
            else:
                log.print(doing)

        results += base_checks(config, space, task, tell)
    return results


def show(results: Sequence[CheckResult], console: Console) -> None:
    """The table of checks: under what was seen stands the remedy; then the counts."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("result", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("what was seen, and the remedy")
    for result in results:
        seen = console.render_str(result.seen)
        if result.remedy:
            seen.append(f"\nremedy: {result.remedy}", style="bold")
        table.add_row(Text(result.status, style=_COLOURS[result.status]), result.name, seen)
    console.print(table)
    counts = Counter(result.status.value for result in results)
    console.print(", ".join(f"{counts[status]} {status}" for status in _COLOURS))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return space_parser(
        "checks",
        "Check a search before it runs: data, lexicon, masks, base, a few training "
        "steps for each mask, and what a trial will cost here. Takes the flags of the search.",
    )


if __name__ == "__main__":
    run_command(main)
