"""What charts have in common: colours, shapes, and how they read their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from detox_tune.config import MASK_STRATEGIES
from detox_tune.tuning.report.findings import ENDED, SHARES
from detox_tune.tuning.report.run_data import Run

Rows = list[dict[str, Any]]
AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

# Okabe and Ito's colours, which people with any colour vision tell apart, the two palest darkened.
STRATEGIES = dict(
    zip(
        MASK_STRATEGIES,
        (
            ("#d55e00", "circle"),
            ("#0072b2", "square"),
            ("#009e73", "triangle-up"),
            ("#b5608f", "diamond"),
        ),
        strict=True,
    )
)
"""Mask strategy -> its colour and shape."""
LABELS = dict(zip(SHARES, ("#009e73", "#d55e00", "#0072b2", "#8a8a8a", "#b5608f"), strict=True))
"""Label of an output -> its colour."""
ENDS = dict(zip(ENDED, ("circle", "square", "diamond", "cross", "triangle-right"), strict=True))
"""How a trial ended -> its shape."""
MARKS = {
    "circle": "●",
    "square": "■",
    "triangle-up": "▲",
    "diamond": "◆",
    "cross": "✚",
    "triangle-right": "▶",
}
"""Shape of a point -> a character like it, for legends."""
_MANY = 40  # trials
INK = "#123456"
"""The colour of what is picked; the style sheet replaces it by that of text."""


def rows_of(name: str) -> alt.Chart:
    """A chart of a table that the page hands over."""
    return alt.Chart(alt.NamedData(name=name))


def chosen(name: str) -> alt.Chart:
    """The rows of the trial that is picked, and of that which is pointed at."""
    return rows_of(name).transform_filter("datum.key === picked || datum.key === pointed")


def named_scale(named: Mapping[str, str]) -> alt.Scale:
    """Names and what stands for them."""
    return alt.Scale(domain=list(named), range=list(named.values()))


COLOURS = named_scale({name: colour for name, (colour, _) in STRATEGIES.items()})
COLOUR = alt.Color("mask_strategy:N", scale=COLOURS, legend=None)
SHAPE = alt.Shape(
    "mask_strategy:N",
    scale=named_scale({name: shape for name, (_, shape) in STRATEGIES.items()}),
    legend=None,
)


def trial_lines(name: str, x: str, y: str, run: Run) -> alt.Chart:
    """The lines of all trials, from each row of a table to the next one of its trial.

    One rule per stretch, since line marks are a group per trial, which takes browsers far longer.
    """
    opacity = 0.75 if len(run.trials) <= _MANY else 0.4  # many hide each other
    chart: alt.Chart = (
        rows_of(name)
        .transform_window(from_x=f"lag({x})", from_y=f"lag({y})", groupby=["key"])
        .transform_filter("isValid(datum.from_x)")
        .mark_rule(strokeWidth=2, opacity=opacity)
        .encode(x2="from_x", y2="from_y", color=COLOUR)
    )
    return chart
