"""python benchmarks/toxicity.py DATA --out results/toxicity.md: how good is the embedded STA?

Fits the embedded toxicity classifier on labelled texts and writes its held-out figures a language.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from detox_tune.cli import OneLineParser, run_command
from detox_tune.files import write_text
from detox_tune.publish import commit, markdown_table

COLUMNS = ("language", "held-out texts", "AUC", "F1", "calibration error")
ABOUT = """\
This is one of the things that the embedded STA of `evaluate --toxicity-data` weighs, and all of it
where there are too few references: a linear classifier on n-grams of characters and words, a model
a language, calibrated, fitted on labelled texts. It is **not** the
official classifier of the shared task (`textdetox/xlmr-large-toxicity-classifier`); it stands in
for it where that cannot be loaded, and scores of the two must not be compared.

A fifth of the distinct texts of each language was held out, and neither fitted nor calibrated on.
The classifier is not told the language of a text, it guesses it. AUC and F1 (of the toxic class,
at a probability of 0.5; calling every text toxic has 0.67 on balanced data): 1 is best.
Calibration error (expected, 10 bins): 0 is best. These texts are of the same kind as those fitted
on; on others, such as rewritten sentences, expect less.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, print the table and write it."""
    options = _parser().parse_args(arguments)
    # Imported late, so that --help and wrong flags answer at once.
    from detox_tune.evaluation.toxicity import fit_toxicity, load_toxicity_data

    console = Console()
    data = load_toxicity_data(options.data)
    console.print(data.report(), highlight=False, markup=False)
    summary = data.report().splitlines()[0]
    start = time.perf_counter()
    with console.status(f"fitting {len(set(data.languages))} languages, about 2 minutes at most"):
        _, held_out = fit_toxicity(*data, seed=options.seed)
    seconds = time.perf_counter() - start
    rows = [_cells(h.language, h.n, h.auc, h.f1, h.ece) for h in held_out]
    means = (sum(getattr(h, name) for h in held_out) / len(held_out) for name in _FIGURES)
    rows.append(_cells("all (mean)", sum(h.n for h in held_out), *means))

    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    command = f"python benchmarks/toxicity.py {options.data.name} --seed {options.seed}"
    write_text(
        options.out,
        f"# The embedded toxicity classifier, held out\n\n`{command}`, commit {commit()}, "
        f"{date.today().isoformat()}\n\n{ABOUT}\n{summary.capitalize()}; fitted and measured in "
        f"{seconds:.0f} s on one core.\n\n{markdown_table(COLUMNS, rows)}",
    )
    console.print(f"written to {options.out}", highlight=False)
    return 0


_FIGURES = ("auc", "f1", "ece")


def _cells(language: str, n: int, *figures: float) -> list[str]:
    return [language, f"{n:,}", *(f"{figure:.3f}" for figure in figures)]


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/toxicity.py",
        description="Held-out figures of the embedded toxicity classifier, a language a row.",
    )
    parser.add_argument("data", type=Path, help="labelled texts: a file, or a folder of files")
    parser.add_argument("--out", type=Path, default=Path("results/toxicity.md"))
    parser.add_argument("--seed", type=int, default=0, help="decides what is held out (default: 0)")
    return parser


if __name__ == "__main__":
    run_command(main)
