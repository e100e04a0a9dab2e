"""python benchmarks/verdict_page.py: the verdict's tables and charts from results/verdict/*.csv.

Writes results/verdict/claims.md and arms.md, and the charts as SVG beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tables import commit, markdown_table
from verdict.analysis import RATIOS, Effect, effect, read_reports, read_sentences, steering
from verdict.charts import charts
from verdict.claims import CLAIMS, COMPARISONS, Comparison

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.files import write_text

SHOWN = (
    *("j", "copy_rate", "exact_copy_rate", "sta", "sim", "fl", "edit_recall", "kept"),
    *("toxic_retention", "dropped_toxic", "validation_loss", "trained_share"),
)
ABOUT_CLAIMS = """\
Each line is a comparison that was written down, with its bound, before it was run
(`benchmarks/verdict/claims.py`). It **holds** if the whole 95% interval lies on the claimed side of
the bound, **does not hold** if the whole interval lies on the other side, else it is **open**. A
difference is paired, sentence by sentence and seed by seed; its interval is a bootstrap over the
test sentences of all seeds together. Ratios of time and steps are geometric means over seeds.
Greedy answers, embedded scorers, a pocket base: what this can't say about mt5-base stands in
docs/verdict.md.
"""
ABOUT_ARMS = """\
Means over seeds on the test split, greedy answers. `kept` is the share of the words kept by every
reference that the answer keeps, `dropped_toxic` the share of the words it drops that the lexicon
marks, `validation_loss` plain cross-entropy in nats a token, `trained_share` the share of the label
positions that a mask trains.
"""
ABOUT_STEERING = """\
Spearman's correlation, over arms and seeds, of a figure after a fifth of the steps with `j` on the
test split at the end; 1 is a figure that ranks all arms as their end does (signs are turned so that
higher is better). Intervals: bootstrap over arms and seeds.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what there is to write."""
    parser = OneLineParser(prog="python benchmarks/verdict_page.py", description=__doc__)
    parser.add_argument("--folder", type=path, default=Path("results/verdict"))
    folder: Path = parser.parse_args(arguments).folder
    reports = read_reports(folder)
    made = f"`python benchmarks/verdict_page.py`, commit {commit()}; arms trained at "
    made += f"{', '.join(sorted(map(str, reports['commit'].unique())))}.\n"
    write_text(
        folder / "claims.md",
        f"# The claims, measured\n\n{made}\n{ABOUT_CLAIMS}\n{_claims(folder, reports)}\n"
        f"## What to steer by\n\n{ABOUT_STEERING}\n{_steering(reports)}",
    )
    write_text(folder / "arms.md", f"# All arms\n\n{made}\n{ABOUT_ARMS}\n{_arms(reports)}")
    for name, svg in charts(reports).items():
        write_text(folder / f"{name}.svg", svg)
    print(f"written to {folder}")
    return 0


def _claims(folder: Path, reports: pd.DataFrame) -> str:
    sentences = read_sentences(folder)
    text = ""
    for number, claim in CLAIMS.items():
        rows = [
            _claim_row(one, effect(one, reports, sentences))
            for one in COMPARISONS
            if one.claim == number
        ]
        head = ["arm", "score", "claimed", "measured", "95%", "n", "verdict"]
        text += f"### {number}. {claim}\n\n{markdown_table(head, rows, texts=3)}\n"
    return text


def _claim_row(one: Comparison, found: Effect | None) -> list[str]:
    sign = "/" if one.score in RATIOS else "-"
    score = one.score + (f" {sign} that of {one.against}" if one.against else "")
    score += f", {one.language}" if one.language else ""
    asked = [one.arm, score, f"{one.side} {one.bound:g}"]
    if found is None:
        return [*asked, "not run", "", "", ""]
    interval = f"{found.low:.3f} to {found.high:.3f}"
    n = f"{found.n}, {found.seeds} seed{'s' * (found.seeds > 1)}"
    return [*asked, f"{found.value:.3f}", interval, n, f"**{found.verdict(one)}**"]


def _steering(reports: pd.DataFrame) -> str:
    rows = [
        [
            str(row.experiment),
            str(row.figure),
            f"{row.rho:.2f}",
            f"{row.low:.2f} to {row.high:.2f}",
            str(row.n),
        ]
        for row in steering(reports).itertuples()
    ]
    return markdown_table(["experiment", "figure", "rho", "95%", "n"], rows, texts=2)


def _arms(reports: pd.DataFrame) -> str:
    final = reports[reports["split"] == "test"]
    text = ""
    for experiment, table in final.groupby("experiment", sort=False):
        means = table.groupby("arm", sort=False)[list(SHOWN)].mean()
        seeds = table.groupby("arm", sort=False)["seed"].nunique()
        rows = [
            [
                str(arm).partition("/")[2],
                str(seeds[arm]),
                *("-" if pd.isna(v) else f"{v:.3f}" for v in values),
            ]
            for arm, values in means.iterrows()
        ]
        text += f"## {experiment}\n\n{markdown_table(['arm', 'seeds', *SHOWN], rows)}\n"
    return text


if __name__ == "__main__":
    run_command(main)
