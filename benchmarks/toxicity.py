"""python benchmarks/toxicity.py DATA --out results/toxicity.md: how good is the embedded STA?

Fits the embedded toxicity classifier on labelled texts; writes its held-out figures per language.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import track
from tables import commit, markdown_table, output_file

from detox_tune.cli import OneLineParser, run_command
from detox_tune.files import write_text

COLUMNS = ("language", "held-out texts", "AUC", "F1", "log loss", "calibration error")
FIGURES = ("auc", "f1", "log_loss", "ece")
ABOUT = """\
This classifier is what the embedded STA of `evaluate --toxicity-data` weighs beside the pairs, and
all of it where there are too few references. For each language it weighs n-grams of characters and
words, fitted on labelled texts; no lexicon was given here. It is **not** the official classifier of
the shared task (`textdetox/xlmr-large-toxicity-classifier`); it stands in for it where that cannot
be loaded, and scores of the two must not be compared.

A fifth of the distinct texts of each language was held out, and neither fitted nor calibrated on.
AUC and F1 (of the toxic class, at a probability of 0.5; calling every text toxic has 0.67 on
balanced data): 1 is best. Log loss and calibration error (expected, 10 bins): 0 is best. These
texts are of the same kind as those fitted on; on others, such as rewritten sentences, expect less.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, print the table and write it."""
    options = _parser().parse_args(arguments)
    # Imported late, so that --help and wrong flags answer at once.
    from detox_tune.data.lexicon import Lexicon
    from detox_tune.data.toxicity import load_toxicity_data
    from detox_tune.evaluation.cross_fitting import fit_and_measure, texts_of_language

    console = Console(markup=False, highlight=False)
    data = load_toxicity_data(options.data)
    console.print(data.report())
    start = time.perf_counter()
    figures = {}
    for language in track(sorted(set(data.languages)), "fitting", console=console, transient=True):
        texts, is_toxic = texts_of_language(data, language)
        lexicon = Lexicon({language: ()})
        _, figures[language] = fit_and_measure(
            texts, is_toxic, language=language, lexicon=lexicon, seed=options.seed
        )
    seconds = time.perf_counter() - start
    means = {name: sum(f[name] for f in figures.values()) / len(figures) for name in FIGURES}
    figures["all (mean)"] = means | {"n": sum(f["n"] for f in figures.values())}
    rows = [
        [name, f"{f['n']:,.0f}", *(f"{f[figure]:.3f}" for figure in FIGURES)]
        for name, f in figures.items()
    ]
    command = f"python benchmarks/toxicity.py {options.data.name} --seed {options.seed}"
    summary = data.report().splitlines()[0].capitalize()
    table = markdown_table(COLUMNS, rows)
    console.print(table)
    write_text(
        options.out,
        f"# The embedded toxicity classifier, held out\n\n`{command}`, commit {commit()}, "
        f"{date.today().isoformat()}\n\n{ABOUT}\n{summary}; fitted and measured in {seconds:.0f} s "
        f"on one core.\n\n{table}",
    )
    console.print(f"written to {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/toxicity.py",
        description="Held-out figures of the embedded toxicity classifier, one row per language.",
    )
    parser.add_argument("data", type=Path, help="labelled texts: a file, or a folder of files")
    parser.add_argument("--out", type=output_file, default="results/toxicity.md")
    parser.add_argument("--seed", type=int, default=0, help="decides what is held out (default: 0)")
    return parser


if __name__ == "__main__":
    run_command(main)
