"""python benchmarks/multilingual.py REFERENCE --lexicon LEXICON: baselines in every language.

Scores duplicate, delete and the human reference with the embedded scorers of `evaluate`, and
measures their STA on held-out pairs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from tables import commit, markdown_table, output_file

from detox_tune.cli import OneLineParser, run_command
from detox_tune.files import write_text

SCORES = ("sta", "sim", "fl", "j_2025", "copy_rate")
FIGURES = ("auc", "f1", "log_loss", "ece")
ABOUT = """\
`j` is the mean of STA x SIM x FL (PAN 2024) with a 95% bootstrap interval, `j_2025` the joint score
of PAN 2025. Scorers are embedded: SIM is chrF to the source, FL (of both years) chrF to the
reference, STA a linear classifier. `duplicate` copies the source, `delete` leaves the lexicon's
words out, `reference` is the (first) human one.

**What the embedded STA is.** The pairs of each language are cut into ten folds; one is scored by a
classifier fitted on the other nine, sources as toxic and references as neutral. It weighs n-grams
of the sentence, how many words of the lexicon are in it, and labelled texts, without those scored
here. The weights, and with them the probabilities, are those of highest likelihood on held-out
pairs. But its features were chosen by what they did for held-out pairs of this very corpus: expect
a little less elsewhere.
**What it is not:** the official classifier (`textdetox/xlmr-large-toxicity-classifier`). It knows
how *these* annotators rewrite, so it tells sources from references of this corpus, which is
narrower than toxicity; and it knows the lexicon's words, which favours `delete`. Scores of the two
must not be compared.
"""
ABOUT_HELD_OUT = """\
## The STA on pairs held out

Each source and reference by a classifier that has not seen it. AUC and F1 (of the toxic class, at a
probability of 0.5): 1 is best. Log loss (always saying one half has 0.693 on balanced data) and
calibration error (10 bins): 0 is best.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, score, and write the page."""
    options = _parser().parse_args(arguments)
    # Imported late, so that --help and wrong flags answer at once.
    from detox_tune.data.lexicon import Lexicon
    from detox_tune.data.toxicity import load_toxicity_data
    from detox_tune.evaluation.comparison import score_baselines, summarise
    from detox_tune.evaluation.cross_fitting import cross_fitted
    from detox_tune.evaluation.references import load_references

    console = Console()
    start = time.perf_counter()
    references = load_references(str(options.reference))
    pairs = references.pairs
    languages = sorted({pair.language for pair in pairs})
    lexicon = Lexicon.load(str(options.lexicon), languages, all_needed=False)
    labelled = (
        load_toxicity_data(options.toxicity_data, languages) if options.toxicity_data else None
    )
    with console.status(f"fitting {len(languages)} languages, about 20 seconds each"):
        fitted = cross_fitted(pairs, lexicon=lexicon, labelled=labelled, seed=options.seed)
    codes = [pair.language for pair in pairs]
    scored = score_baselines(pairs, lexicon=lexicon, scorers=fitted.scorers)
    systems = {
        name: summarise(frame, codes, seed=options.seed)["languages"]
        for name, frame in scored.items()
    }
    seconds = time.perf_counter() - start
    command = ["python benchmarks/multilingual.py", options.reference.name]
    for flag in ("lexicon", "toxicity_data"):
        if path := getattr(options, flag):
            command += [f"--{flag.replace('_', '-')}", path.name]
    command.append(f"--seed {options.seed}")
    counts = references.loaded.report().splitlines()[0]
    write_text(
        options.out,
        f"# Baselines in {len(languages)} languages\n\n`{' '.join(command)}`,\n"
        f"commit {commit()}, {date.today().isoformat()}\n\n{counts.capitalize()}; STA "
        f"{fitted.fitted_on}; {seconds:.0f} s in all.\n\n{_scores_table(systems)}\n{ABOUT}\n"
        f"{ABOUT_HELD_OUT}\n{_held_out_table(fitted.held_out)}",
    )
    console.print(f"written to {options.out}", highlight=False)
    return 0


def _scores_table(systems: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, languages in systems.items():
        for language, scores in languages.items():
            j = scores["j"]
            values = [f"{j['value']:.3f}", f"{j['low']:.3f}-{j['high']:.3f}"]
            values += [f"{scores[score]['value']:.3f}" for score in SCORES]
            rows.append([name, language, str(scores["n"]), *values])
        means = (
            f"{sum(scores[score]['value'] for scores in languages.values()) / len(languages):.3f}"
            for score in ("j", *SCORES)
        )
        j_mean, *others = means
        count = sum(scores["n"] for scores in languages.values())
        rows.append([name, "**mean**", str(count), f"**{j_mean}**", "", *others])
    return markdown_table(["system", "language", "n", "j", "interval", *SCORES], rows, texts=2)


def _held_out_table(held_out: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [row["language"], str(row["n"]), *(f"{row[name]:.3f}" for name in FIGURES)]
        for row in held_out
    ]
    means = [f"{sum(row[name] for row in held_out) / len(held_out):.3f}" for name in FIGURES]
    rows.append(["**mean**", str(sum(row["n"] for row in held_out)), *means])
    head = ["language", "texts", "AUC", "F1", "log loss", "calibration error"]
    return markdown_table(head, rows)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python benchmarks/multilingual.py",
        description="Scores of duplicate, delete and the reference in every language.",
    )
    parser.add_argument("reference", type=Path, help="pairs: a file, or a folder of files")
    parser.add_argument("--lexicon", type=Path, required=True, help="toxic words: file or folder")
    parser.add_argument("--toxicity-data", type=Path, help="labelled texts: a file or folder")
    parser.add_argument("--out", type=output_file, default="results/multilingual.md")
    parser.add_argument("--seed", type=int, default=0, help="of fits and intervals (default: 0)")
    return parser


if __name__ == "__main__":
    run_command(main)
