"""The charts of the page, as Vega-Lite specifications that Altair builds and checks.

Each holds no data but the names of its tables, which the page hands to it (`tables`). The page
tells each which trial is picked and which is pointed at; it is drawn once more on top, in ink.
Colours of text, lines and ink are the style sheet's, for light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt

from detox_tune.config import MASK_STRATEGIES
from detox_tune.tuning.domains import Choice, Domain
from detox_tune.tuning.report.findings import ENDED, SHARES, importances
from detox_tune.tuning.report.run_data import Run, shown

Rows = list[dict[str, Any]]

# Okabe and Ito's colours, which people with any colour vision tell apart, the two palest darkened.
STRATEGIES = dict(
    zip(
        MASK_STRATEGIES,
        (("#d55e00", "circle"), ("#0072b2", "square"), ("#009e73", "triangle-up"))
        + (("#b5608f", "diamond"),),
        strict=True,
    )
)
"""Mask strategy -> its colour and shape."""
LABELS = dict(zip(SHARES, ("#009e73", "#d55e00", "#0072b2", "#8a8a8a", "#b5608f"), strict=True))
"""Label of an output -> its colour."""
ENDS = dict(
    zip(ENDED, ("circle", "square", "diamond", "cross", "triangle-right"), strict=True)
)
"""How a trial ended -> its shape."""
MARGINALS = ("gamma", "mask_strategy", "lora", "context_window", "learning_rate")
"""Settings that come first among the plots of single settings."""

_INK = "#123456"  # the style sheet replaces it
_NOT_READ = -0.14  # where parallel axes show that a trial has no such setting
_GOLDEN = 0.6180339887  # spreads points that would hide each other
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "aria": False,  # the table of trials says the same in words
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
}


def charts(run: Run) -> dict[str, dict[str, Any]]:
    """The Vega-Lite specifications of a run, by the name of their place on the page."""
    built: dict[str, alt.Chart | alt.LayerChart] = {
        "scatter": _scatter(run),
        "curve-j": _curve("j", "j", None),
        "curve-copy": _curve("copy_rate", "copy rate", run.config.max_copy_rate),
        "parallel": _parallel(run),
        "importances": _importances(),
        "labels": _labels(len(run.trials)),
    }
    if run.metrics is not None:
        built["winner"] = _winner()
    for name in marginal_settings(run):
        built[f"marginal-{name}"] = _marginal(name, run.space.domains[name])
    return {name: _finished(chart) for name, chart in built.items()}


def marginal_settings(run: Run) -> list[str]:
    """The searched settings, those of most interest first."""
    first = [name for name in MARGINALS if name in run.space.searched]
    return first + [name for name in run.space.searched if name not in first]


def tables(run: Run) -> dict[str, Rows]:
    """The tables that the charts of a run read."""
    rows = run.rows()
    lines, ticks = _parallel_tables(run, rows)
    made = {
        "trials": [row | {"spread": (n * _GOLDEN) % 1} for n, row in enumerate(rows)],
        "reports": _reports(run),
        "parallel": lines,
        "ticks": ticks,
        "importances": importances(run),
        "labels": [
            {"key": row["key"], "trial": row["trial"], "label": label, "share": row[score]}
            for row in rows
            for label, score in SHARES.items()
            if row[score] is not None
        ],
        "winner": _winner_rows(run),
    }
    return {name: shown(table) for name, table in made.items()}


def _finished(chart: alt.Chart | alt.LayerChart) -> dict[str, Any]:
    """The specification of a chart that fills its place, and knows two trials."""
    whole = chart.add_params(
        alt.param(name="picked", value=""), alt.param(name="pointed", value="")
    ).properties(width="container")
    return whole.to_dict() | {"config": _CONFIG}


def _table(name: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=name))


def _chosen(name: str) -> alt.Chart:
    """The rows of the trial that is picked, and of that which is pointed at."""
    return _table(name).transform_filter("datum.key === picked || datum.key === pointed")


def _scale(named: Mapping[str, str]) -> alt.Scale:
    return alt.Scale(domain=list(named), range=list(named.values()))


_COLOURS = _scale({name: colour for name, (colour, _) in STRATEGIES.items()})
_COLOUR = alt.Color("mask_strategy:N", scale=_COLOURS, legend=None)
_SHAPE = alt.Shape(
    "mask_strategy:N",
    scale=_scale({name: shape for name, (_, shape) in STRATEGIES.items()}),
    legend=None,
)


def _scatter(run: Run) -> alt.LayerChart:
    limit = run.config.max_copy_rate
    shade = (
        alt.Chart(alt.InlineData(values=[{"from": limit, "to": 1}]))
        .mark_rect(color="#888888", opacity=0.16)
        .encode(x="from:Q", x2="to:Q")
    )
    scale = alt.Scale(domain=[0, 1])
    x = alt.X("copy_rate:Q", title="copy rate of the best report", scale=scale)
    y = alt.Y("j:Q", title="j of the best report", scale=alt.Scale(zero=False, nice=True))
    points = _table("trials").mark_point(filled=True, size=80, opacity=0.75)
    top = _chosen("trials").mark_point(size=260, strokeWidth=2.5, color=_INK)
    return alt.layer(
        shade,
        points.encode(x=x, y=y, color=_COLOUR, shape=_SHAPE),
        top.encode(x=x, y=y, shape=_SHAPE),
    ).properties(height=340)


def _reports(run: Run) -> Rows:
    """A row per report; the last one of a trial says how it ended."""
    found = []
    for trial in run.trials:
        strategy = trial.settings.get("mask_strategy", "none")
        for report in trial.reports:
            last = report is trial.reports[-1]
            found.append(
                {
                    "key": run.key(trial.name),
                    "mask_strategy": strategy,
                    "ended": (trial.ended or "unfinished") if last else None,
                    **{name: report[name] for name in ("step", "j", "copy_rate")},
                }
            )
    return found


def _curve(score: str, title: str, limit: float | None) -> alt.LayerChart:
    x = alt.X("step:Q", title="training step")
    y = alt.Y(f"{score}:Q", title=title, scale=alt.Scale(zero=True))
    shape = alt.Shape("ended:N", scale=_scale(ENDS), legend=None)
    ends = _table("reports").transform_filter("datum.ended").mark_point(filled=True, size=70)
    layers = [
        _table("reports")
        .mark_line(strokeWidth=2, opacity=0.45)
        .encode(x=x, y=y, detail="key:N", color=_COLOUR),
        ends.encode(x=x, y=y, color=_COLOUR, shape=shape),
        _chosen("reports")
        .mark_line(strokeWidth=3, color=_INK, interpolate="linear")
        .encode(x=x, y=y, detail="key:N"),
        _chosen("reports")
        .transform_filter("datum.ended")
        .mark_point(size=220, strokeWidth=2.5, color=_INK)
        .encode(x=x, y=y, shape=shape),
    ]
    if limit is not None:
        rule = alt.Chart(alt.InlineData(values=[{"limit": limit}]))
        layers.append(rule.mark_rule(strokeDash=[5, 4], color=_INK).encode(y="limit:Q"))
    return alt.layer(*layers).properties(height=300)


def _parallel_tables(run: Run, rows: Rows) -> tuple[Rows, Rows]:
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
        return lambda value: places.get(str(value), 0.5), _few({_short(n): places[n] for n in names})
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    log = bool(domain) and bool(getattr(domain, "log", False)) and low > 0
    scale = math.log if log else float

    def place(value: float) -> float:
        return (scale(value) - scale(low)) / (scale(high) - scale(low)) if high > low else 0.5

    return place, {_short(low): place(low), _short(high): place(high)}


def _few(marks: dict[str, float]) -> dict[str, float]:
    names = list(marks)
    return marks if len(names) <= 6 else {name: marks[name] for name in (names[0], names[-1])}


def _short(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return (text if len(text) <= 16 else text[:15] + "…") or "(empty)"


def _parallel(run: Run) -> alt.LayerChart:
    names = [*run.space.searched, "j", "copy_rate"]
    x = alt.X(
        "axis:N",
        sort=names,
        title=None,
        scale=alt.Scale(type="point", padding=0.35),
        axis=alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False, labelLimit=110),
    )
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[_NOT_READ, 1], nice=False))
    line = {"x": x, "y": y, "detail": "key:N"}
    text = _table("ticks").mark_text(dx=6, align="left", fontSize=11, color=_INK)
    return alt.layer(
        alt.Chart(alt.InlineData(values=[{"axis": name} for name in names]))
        .mark_rule(color="#888888")
        .encode(x=x),
        _table("parallel")
        .mark_line(strokeWidth=1.5, opacity=0.4)
        .encode(**line, color=_COLOUR),
        _chosen("parallel").mark_line(strokeWidth=3, color=_INK).encode(**line),
        text.encode(x=x, y=y, text="text:N"),
    ).properties(height=320)


def _importances() -> alt.Chart:
    scores = _scale({"j": "#0072b2", "copy rate": "#d55e00"})
    return (
        _table("importances")
        .mark_bar()
        .encode(
            y=alt.Y("setting:N", title=None, sort="-x"),
            yOffset=alt.YOffset("score:N", scale=alt.Scale(domain=["j", "copy rate"])),
            x=alt.X("share:Q", title="share of the differences that it explains"),
            color=alt.Color("score:N", scale=scores, legend=alt.Legend(title=None, orient="top")),
        )
        .properties(height=alt.Step(14))
    )


def _marginal(name: str, domain: Domain) -> alt.LayerChart:
    x: alt.X | alt.XOffset
    encoded: dict[str, Any] = {
        "y": alt.Y("j:Q", title="best j", scale=alt.Scale(zero=False)),
    }
    if isinstance(domain, Choice):
        axis = alt.Axis(labelAngle=-20 if len(domain.choice) > 2 else 0, labelLimit=110)
        encoded["x"] = alt.X(f"{name}:N", title=name, axis=axis)
        encoded["xOffset"] = alt.XOffset("spread:Q", scale=alt.Scale(domain=[-0.5, 1.5]))
    else:
        encoded["x"] = alt.X(f"{name}:Q", title=name, scale=_number_scale(domain))
    points = _table("trials").transform_filter(f"isValid(datum.{name})")
    hollow = alt.condition("datum.feasible", alt.value(0.75), alt.value(0))
    shaped = encoded | {"shape": _SHAPE}
    base = points.mark_point(size=50, strokeWidth=1.5, opacity=0.8)
    colour = alt.Fill("mask_strategy:N", scale=_COLOURS, legend=None)
    top = _chosen("trials").transform_filter(f"isValid(datum.{name})")
    return alt.layer(
        base.encode(**shaped, fill=colour, stroke=_COLOUR, fillOpacity=hollow),
        top.mark_point(size=200, strokeWidth=2.5, color=_INK).encode(**shaped),
    ).properties(height=190)


def _number_scale(domain: Domain) -> alt.Scale:
    low = min(float(str(bound)) for bound in domain.bounds() if bound)
    if not getattr(domain, "log", False):
        return alt.Scale(zero=False)
    if 0 in domain.bounds():
        return alt.Scale(type="symlog", constant=low)
    return alt.Scale(type="log")


def _labels(n_trials: int) -> alt.LayerChart:
    axis = alt.Axis(labels=n_trials <= 24, ticks=False, labelAngle=-60)
    x = alt.X("trial:N", sort=None, title="trial", axis=axis)
    y = alt.Y("share:Q", stack="zero", title="share of outputs", scale=alt.Scale(domain=[0, 1]))
    order = alt.Order("label:N")
    colour = alt.Color("label:N", scale=_scale(LABELS), legend=None)
    bars = _table("labels").mark_bar().encode(x=x, y=y, color=colour, order=order)
    frame = _chosen("labels").transform_aggregate(groupby=["trial", "key"], share="sum(share)")
    top = frame.mark_bar(filled=False, stroke=_INK, strokeWidth=3).encode(x=x, y=y)
    return alt.layer(bars, top).properties(height=220)


def _winner_rows(run: Run) -> Rows:
    if run.metrics is None:
        return []
    return [
        {"system": system, "score": title, "value": run.metrics["test"][system][score]}
        | dict(zip(("low", "high"), run.metrics["intervals"][system][score], strict=True))
        for system in ("copy", "base", "delete", "tuned", "reference")
        for score, title in (("j", "j"), ("copy_rate", "copy rate"))
    ]


def _winner() -> alt.LayerChart:
    scores = _scale({"j": "#0072b2", "copy rate": "#d55e00"})
    colour = alt.Color("score:N", scale=scores, legend=alt.Legend(title=None, orient="top"))
    order: Mapping[str, Any] = {
        "y": alt.Y("system:N", sort=None, title=None),
        "yOffset": alt.YOffset("score:N", scale=alt.Scale(domain=["j", "copy rate"])),
        "color": colour,
    }
    x = alt.X("low:Q", title="test split, with 95% intervals", scale=alt.Scale(domain=[0, 1]))
    table = _table("winner")
    return alt.layer(
        table.mark_rule(strokeWidth=3).encode(x=x, x2="high:Q", **order),
        table.mark_point(filled=True, size=80, opacity=1).encode(x="value:Q", **order),
    ).properties(height=alt.Step(18))
