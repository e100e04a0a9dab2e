"""Systems side by side: what the outputs of each scored, per language, between three baselines.

The baselines are the untouched sources (duplicate), the sources without the lexicon's words
(delete) and the first human reference. A score means little without them: how good is a system
that a deletion beats?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.intervals import bootstrap_mean, mean_intervals
from detox_tune.evaluation.scores import (
    SCORES,
    Scorers,
    copy_outputs,
    delete_outputs,
    score_outputs,
)

BASELINES = ("duplicate", "delete", "reference")
"""Names that no system may have."""
SHOWN = ("j", "sta", "sim", "fl", "j_2025", "copy_rate", "exact_copy_rate")


def score_baselines(
    pairs: Sequence[Pair], *, lexicon: Lexicon, scorers: Scorers
) -> dict[str, pd.DataFrame]:
    """The baselines `duplicate`, `delete` and `reference`, each as `score_outputs` gives it.

    `delete` has rows only for pairs in whose language the lexicon has entries, and is left out if
    there are none. The index of a row is the place of its pair.
    """
    outputs = {
        "duplicate": copy_outputs(pairs),
        "delete": delete_outputs(pairs, lexicon),
        "reference": [pair.references[0] for pair in pairs],
    }
    known = [place for place, pair in enumerate(pairs) if lexicon.entries(pair.language)]
    scored = {}
    for name, texts in outputs.items():
        places = known if name == "delete" else list(range(len(pairs)))
        if places:
            some, of_some = [texts[place] for place in places], [pairs[place] for place in places]
            frame = score_outputs(some, of_some, lexicon=lexicon, scorers=scorers)
            scored[name] = frame.set_axis(places)
    return scored


def why_no_deletion(path: str | None, lexicon: Lexicon) -> str:
    """Why the baseline `delete` is left out, for some languages or for all; empty if it is not.

    Args:
        path: of the lexicon, if one was given.
        lexicon: what it holds.
    """
    if path is None:
        return ", it needs a --lexicon"
    without = [language for language in lexicon.languages if not lexicon.entries(language)]
    if not without:
        return ""
    return (
        f" for {', '.join(without)}, which {path} has no words for, and therefore over all "
        "languages"
    )


def summarise(scored: pd.DataFrame, languages: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Means with 95% intervals, over all samples and per language.

    Args:
        scored: what `score_outputs` gave for a system, indexed by the place of the pair.
        languages: the language of every pair, also of those that the system has no row for.
        seed: of the resampling.

    Returns:
        `overall` (the mean over all samples), `languages` by code, each with `n` and for each of
        SCORES `value`, `low` and `high` (None where no sample has it), and `mean_of_languages`:
        the mean of the languages' `j` and `j_2025`, as PAN ranks systems. `overall` and
        `mean_of_languages` are left out where the system lacks outputs for a language.
    """
    codes = pd.Series(languages)[scored.index]
    groups = {str(code): of_language for code, of_language in scored.groupby(codes)}
    of_languages = {code: _means(of_language, seed) for code, of_language in groups.items()}
    if len(scored) < len(languages):
        return {"languages": of_languages}
    ranked = {
        name: float(np.mean([of_language[name].mean() for of_language in groups.values()]))
        for name in ("j", "j_2025")
    }
    return {
        "overall": _means(scored, seed),
        "mean_of_languages": {name: _none_if_nan(mean) for name, mean in ranked.items()},
        "languages": of_languages,
    }


def paired_differences(systems: Mapping[str, pd.DataFrame], *, seed: int) -> list[dict[str, Any]]:
    """How much the mean `j` of each system differs from that of the first, with 95% intervals.

    Paired bootstrap: the same sentences are drawn for both (Koehn, 2004).

    Args:
        systems: what `score_outputs` gave for each, on the same pairs.
        seed: of the resampling.

    Returns:
        For each but the first: `system`, `than` (the first), `value`, `low` and `high`.
    """
    (first, scored), *others = systems.items()
    differences: list[dict[str, Any]] = []
    for name, frame in others:
        each = (frame["j"] - scored["j"]).to_numpy()
        low, high = bootstrap_mean(each[:, None], seed=seed)
        found = {"value": float(each.mean()), "low": float(low[0]), "high": float(high[0])}
        differences.append({"system": name, "than": first, **found})
    return differences


def _means(scored: pd.DataFrame, seed: int) -> dict[str, Any]:
    columns = scored[list(SCORES)]
    means: dict[str, Any] = {"n": len(scored)}
    for name, (low, high) in mean_intervals(columns, seed=seed).items():
        numbers = {"value": float(columns[name].mean()), "low": low, "high": high}
        means[name] = {kind: _none_if_nan(number) for kind, number in numbers.items()}
    return means


def _none_if_nan(number: float) -> float | None:
    return None if math.isnan(number) else number


def show_comparison(
    systems: Mapping[str, Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    scorers: str,
    console: Console,
) -> None:
    """Print summaries as a table, means of languages and paired differences as lines below it.

    Args:
        systems: what `summarise` returned, by the name of the system.
        differences: what `paired_differences` returned.
        scorers: name of the scorers.
        console: where to.
    """
    console.print(comparison_table(systems, scorers))
    for name, summary in systems.items():
        if "mean_of_languages" in summary and len(summary["languages"]) > 1:
            means = summary["mean_of_languages"].items()
            shown = ", ".join(f"{score} {mean:.3f}" for score, mean in means if mean is not None)
            console.print(f"mean of languages, {name}: {shown}", soft_wrap=True)
    for found in differences:
        numbers = f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
        console.print(
            f"j of {found['system']} less that of {found['than']}: {numbers}", soft_wrap=True
        )


def comparison_table(systems: Mapping[str, Mapping[str, Any]], scorers: str) -> Table:
    """Summaries of systems as a table: one group of rows per language, then over all samples.

    Args:
        systems: what `summarise` returned, by the name of the system, in the order of the rows.
        scorers: name of the scorers; it stands in the title.
    """
    table = Table(
        title=f"means with 95% intervals, {scorers} scorers",
        title_justify="left",
        box=None,
        padding=(0, 1),
    )
    for name in ("language", "system"):
        table.add_column(name)
    for name in ("n", *SHOWN):
        table.add_column(name.upper() if name in ("sta", "sim", "fl") else name, justify="right")
    codes = dict.fromkeys(code for summary in systems.values() for code in summary["languages"])
    groups = [(code, {n: s["languages"].get(code) for n, s in systems.items()}) for code in codes]
    if len(codes) > 1:
        groups.append(("all", {n: s.get("overall") for n, s in systems.items()}))
    for code, summaries in groups:
        rows = [(name, scores) for name, scores in summaries.items() if scores is not None]
        for place, (name, scores) in enumerate(rows):
            cells = [_cell(scores[score]) for score in SHOWN]
            last = place == len(rows) - 1
            table.add_row("" if place else code, name, str(scores["n"]), *cells, end_section=last)
    return table


def held_out_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """How well a fitted STA tells held-out texts apart, one row for each language."""
    table = Table(box=None, padding=(0, 1))
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "language" else "right")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    return table


def _cell(score: Mapping[str, float | None]) -> str:
    """`.512 .490-.534`, or `-`; in a narrow terminal the interval goes below the mean."""
    if score["value"] is None:
        return "-"
    value, low, high = (f"{score[kind]:.3f}".removeprefix("0") for kind in ("value", "low", "high"))
    return f"{value} {low}-{high}"
