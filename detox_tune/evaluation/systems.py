"""Systems side by side: what the outputs of each scored, per language, between three baselines.

The baselines are the untouched sources (duplicate), the sources without the lexicon's words
(delete) and the first human reference. A score means little without them: how good is a system
that a deletion beats?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.evaluation.collapse import OutputLabel, is_exact_copy, label_output
from detox_tune.evaluation.edits import edit_recall, toxic_retention
from detox_tune.evaluation.intervals import bootstrap_mean
from detox_tune.evaluation.pan import PanScorers, pan_scores
from detox_tune.evaluation.scores import copy_outputs, delete_outputs

PAN_SCORES = ("j", "sta", "sim", "fl", "j_2025")
SCORES = (
    *PAN_SCORES,
    "copy_rate",
    "exact_copy_rate",
    *map(str, OutputLabel),
    "edit_recall",
    "toxic_retention",
)
"""Scores of a sample, each in [0, 1]; the last two are nan where they are not defined."""
SHOWN = (*PAN_SCORES, "copy_rate", "exact_copy_rate")

Part = tuple[Sequence[int], PanScorers]
"""Places of some pairs, and the scorers for them; the parts of an evaluation cover every pair."""


@dataclass(frozen=True)
class System:
    """The outputs of a system on some of the pairs."""

    outputs: Sequence[str]
    places: Sequence[int]
    """Which pairs, in the order of the outputs."""


def baselines(pairs: Sequence[Pair], lexicons: Mapping[str, Lexicon]) -> dict[str, System]:
    """The baselines: `duplicate`, `delete` (where the lexicon has entries) and `reference`.

    Args:
        lexicons: by language; one without entries finds no word and leaves its language out of
            `delete`.
    """
    everywhere = range(len(pairs))
    systems = {"duplicate": System(copy_outputs(pairs), everywhere)}
    places = [i for i, pair in enumerate(pairs) if lexicons[pair.language].entries(pair.language)]
    if places:
        deleted = [delete_outputs([pairs[i]], lexicons[pairs[i].language])[0] for i in places]
        systems["delete"] = System(deleted, places)
    systems["reference"] = System([pair.references[0] for pair in pairs], everywhere)
    return systems


def score_system(
    system: System,
    pairs: Sequence[Pair],
    *,
    lexicons: Mapping[str, Lexicon],
    parts: Sequence[Part],
) -> NDArray[np.float64]:
    """Every score of every output, shape (pairs, len(SCORES)).

    Rows of pairs that the system has no output for are nan.
    """
    values_nk = np.full((len(pairs), len(SCORES)), np.nan)
    outputs = dict(zip(system.places, system.outputs, strict=True))
    for i, output in outputs.items():
        pair, lexicon = pairs[i], lexicons[pairs[i].language]
        label = label_output(output, pair, lexicon)
        values_nk[i, len(PAN_SCORES) :] = (
            label == OutputLabel.COPIED,
            is_exact_copy(output, pair.source),
            *(label == other for other in OutputLabel),
            edit_recall(output, pair),
            toxic_retention(output, pair, lexicon),
        )
    for places, scorers in parts:
        here = [i for i in places if i in outputs]
        if not here:
            continue
        scores = pan_scores(
            [outputs[i] for i in here],
            [pairs[i].source for i in here],
            [pairs[i].references for i in here],
            scorers,
        )
        for column, name in enumerate(PAN_SCORES):
            values_nk[here, column] = getattr(scores, name)
    return values_nk


def summarise(
    values_nk: NDArray[np.float64], languages: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Means with 95% bootstrap intervals, over all samples and per language.

    Args:
        values_nk: what `score_system` returned.
        languages: the language of each row.
        seed: of the resampling.

    Returns:
        `overall` (the mean over all samples), `languages` by code, each with `n` and for each of
        SCORES `value`, `low` and `high` (None where no sample has it), and `mean_of_languages`:
        the mean of the languages' `j` and `j_2025`, as PAN ranks systems. `overall` and
        `mean_of_languages` are left out where the system lacks outputs for a language.
    """
    there = ~np.isnan(values_nk[:, 0])
    codes = np.array(languages)
    of_languages = {
        str(code): _means(values_nk[there & (codes == code)], seed)
        for code in np.unique(codes[there])
    }
    if not there.all():
        return {"languages": of_languages}
    mean_of_languages = {
        name: float(np.mean([scores[name]["value"] for scores in of_languages.values()]))
        for name in ("j", "j_2025")
    }
    return {
        "overall": _means(values_nk, seed),
        "mean_of_languages": mean_of_languages,
        "languages": of_languages,
    }


def _means(values_nk: NDArray[np.float64], seed: int) -> dict[str, Any]:
    lows, highs = bootstrap_mean(values_nk, seed=seed)
    means: dict[str, Any] = {"n": len(values_nk)}
    for column, name in enumerate(SCORES):
        values = values_nk[~np.isnan(values_nk[:, column]), column]
        mean = float(values.mean()) if len(values) else math.nan
        numbers = {"value": mean, "low": float(lows[column]), "high": float(highs[column])}
        means[name] = {
            kind: None if math.isnan(number) else number for kind, number in numbers.items()
        }
    return means


def systems_table(systems: Mapping[str, Mapping[str, Any]], scorers: str) -> Table:
    """Summaries of systems as a table: a group of rows a language, then over all samples.

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


def _cell(score: Mapping[str, float]) -> str:
    """`.512 .490-.534`; in a narrow terminal the interval goes below the mean."""
    value, low, high = (f"{score[kind]:.3f}".removeprefix("0") for kind in ("value", "low", "high"))
    return f"{value} {low}-{high}"
