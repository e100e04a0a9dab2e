"""Parallel axes: a line per trial, from its settings to its scores."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from detox_tune.tuning.domains import Choice, Domain
from detox_tune.tuning.report.chart_parts import (
    INK,
    AnyChart,
    Rows,
    chosen,
    rows_of,
    trial_lines,
)
from detox_tune.tuning.report.run_data import Run, shown

_NOT_READ = -0.14  # where parallel axes show that a trial has no such setting


def parallel_tables(run: Run, rows: Rows) -> tuple[Rows, Rows]:
    """Places of trials on axes, from 0 to 1, and what stands beside the axes."""
    lines: Rows = []
    ticks: Rows = []
    for name in (*run.space.searched, "j", "copy_rate"):
        values = [row[name] for row in rows if row[name] is not None]
        place, marks = _axis(values, run.space.domains.get(name))
        ticks += [{"axis": name, "y": y, "text": text} for text, y in marks.items()]
        if len(values) < len(rows) and name in run.space.domains:
            ticks.append({"axis": name, "y": _NOT_READ, "text": "not read"})
        lines += [
            {
                "key": row["key"],
                "mask_strategy": row["mask_strategy"],
                "axis": name,
                "y": _NOT_READ if row[name] is None else place(row[name]),
            }
            for row in rows
            if row[name] is not None or name in run.space.domains
        ]
    return lines, ticks


def _axis(values: list[Any], domain: Domain | None) -> tuple[Any, dict[str, float]]:
    """Where values stand on an axis, as a function, and its marks."""
    if isinstance(domain, Choice):
        names = [str(shown(value)) for value in domain.choice]
        places = {name: n / max(1, len(names) - 1) for n, name in enumerate(names)}
        return lambda value: places.get(str(value), 0.5), _few(
            {_short(n): places[n] for n in names}
        )
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    log = domain is not None and bool(getattr(domain, "log", False)) and high > 0
    unit = min((value for value in values if value > 0), default=1.0)

    def scale(value: float) -> float:
        return math.log1p(value / unit) if log else value  # log1p: zero may be among them

    def place(value: float) -> float:
        return (scale(value) - scale(low)) / (scale(high) - scale(low)) if high > low else 0.5

    return place, {_short(low): place(low), _short(high): place(high)}


def _few(marks: dict[str, float]) -> dict[str, float]:
    names = list(marks)
    return marks if len(names) <= 6 else {name: marks[name] for name in (names[0], names[-1])}


def _short(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return (text if len(text) <= 16 else text[:15] + "…") or "(empty)"


def parallel_axes(run: Run) -> AnyChart:
    """The chart; its axes are the searched settings, then `j` and copy rate."""
    names = [*run.space.searched, "j", "copy_rate"]
    x = alt.X(
        "axis:N",
        sort=names,
        title=None,
        scale=alt.Scale(type="point", padding=0.35),
        axis=alt.Axis(
            orient="top", labelAngle=0, offset=4, domain=False, ticks=False, labelLimit=110
        ),
    )
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[_NOT_READ, 1.06], nice=False))
    text = rows_of("ticks").mark_text(dx=6, align="left", fontSize=11, color=INK)
    return alt.layer(
        alt.Chart(alt.InlineData(values=[{"axis": name} for name in names]))
        .mark_rule(color="#888888")
        .encode(x=x),
        trial_lines("parallel", "axis", "y", run).encode(x=x, y=y),
        chosen("parallel").mark_line(strokeWidth=3, color=INK).encode(x=x, y=y, detail="key:N"),
        text.encode(x=x, y=y, text="text:N"),
        height=320,
    )
