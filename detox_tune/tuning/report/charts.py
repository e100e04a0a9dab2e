"""The charts of the page: Altair builds and checks them, vl-convert compiles them to Vega.

Each holds no data but the names of its tables, which the page hands to it (`tables`). The page
tells each which trial is picked and which is pointed at; it is drawn once more on top, in ink.
Colours of text, lines and ink are the style sheet's, for light, dark and paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

import altair as alt
import vl_convert

from detox_tune.config import TrialConfig
from detox_tune.tuning.domains import Choice, Domain
from detox_tune.tuning.report.chart_parts import (
    COLOUR,
    COLOURS,
    ENDS,
    INK,
    LABELS,
    SHAPE,
    AnyChart,
    Rows,
    chosen,
    named_scale,
    rows_of,
    trial_lines,
)
from detox_tune.tuning.report.findings import SHARES, importances
from detox_tune.tuning.report.parallel_axes import parallel_axes, parallel_tables
from detox_tune.tuning.report.run_data import Run, shown

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""The version of Vega-Lite that Altair writes, as vl-convert names it."""

MARGINALS = ("gamma", "mask_strategy", "lora", "context_window", "learning_rate")
"""Settings that come first among the plots of single settings."""

_WHOLE = (int, int | None)
_GOLDEN = 0.6180339887  # spreads points that would hide each other
_TOLD = (
    *("key", "trial", "winner", "feasible", "mask_strategy", "read", "j", "copy_rate"),
    *("best_step", "steps", "ended", "reason"),
)
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "aria": False,  # the table of trials says the same in words
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axisQuantitative": {"tickCount": 6},
    "legend": {"labelFontSize": 12},
    "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
}


def charts(run: Run) -> dict[str, dict[str, Any]]:
    """The Vega specifications of a run, by the name of their place on the page."""
    built: dict[str, AnyChart] = {
        "scatter": _scatter(run),
        "curve-j": _curve(run, "j", "j", None),
        "curve-copy": _curve(run, "copy_rate", "copy rate", run.config.max_copy_rate),
        "parallel": parallel_axes(run),
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
    lines, ticks = parallel_tables(run, rows)
    made = {
        "trials": _trials(run, rows),
        "reports": _reports(run),
        "parallel": lines,
        "ticks": ticks,
        "importances": importances(run),
        "labels": [
            {"key": row["key"], "trial": row["trial"], "label": label, "share": row[score]}
            for row in rows
            for label, score in SHARES.items()
            if row[score]  # no bars of no height
        ],
        "winner": _winner_rows(run),
    }
    return {name: shown(table) for name, table in made.items()}


def _trials(run: Run, rows: Rows) -> Rows:
    names = [*_TOLD, *run.space.searched]
    return [
        {name: row[name] for name in names} | {"spread": (n * _GOLDEN) % 1}
        for n, row in enumerate(rows)
    ]


def _finished(chart: AnyChart) -> dict[str, Any]:
    """The specification of a chart that fills its place, and knows two trials."""
    whole = chart.add_params(
        alt.param(name="picked", value=""), alt.param(name="pointed", value="")
    ).properties(width="container")
    compiled = vl_convert.vegalite_to_vega(whole.to_dict() | {"config": _CONFIG}, VEGA_LITE)
    return {name: part for name, part in compiled.items() if name != "$schema"}


def _scatter(run: Run) -> AnyChart:
    limit = run.config.max_copy_rate
    rates = [float(row["copy_rate"]) for row in run.rows() if row["copy_rate"] is not None]
    high = min(1.0, 1.1 * max([*rates, 2 * limit])) or 1.0
    shade = (
        alt.Chart(alt.InlineData(values=[{"from": min(limit, high), "to": high}]))
        .mark_rect(color="#888888", opacity=0.16)
        .encode(x="from:Q", x2="to:Q")
    )
    scale = alt.Scale(domain=[0, high], nice=False)
    x = alt.X("copy_rate:Q", title="copy rate of the best report", scale=scale)
    y = alt.Y("j:Q", title="j of the best report", scale=alt.Scale(zero=False, nice=True))
    points = rows_of("trials").mark_point(filled=True, size=80, opacity=0.75)
    top = chosen("trials").mark_point(size=260, strokeWidth=2.5, color=INK)
    return alt.layer(
        shade,
        points.encode(x=x, y=y, color=COLOUR, shape=SHAPE),
        top.encode(x=x, y=y, shape=SHAPE),
        height=340,
    )


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


def _curve(run: Run, score: str, title: str, limit: float | None) -> AnyChart:
    x = alt.X("step:Q", title="training step")
    y = alt.Y(f"{score}:Q", title=title, scale=alt.Scale(zero=limit is not None))
    shape = alt.Shape("ended:N", scale=named_scale(ENDS), legend=None)
    ends = rows_of("reports").transform_filter("datum.ended").mark_point(filled=True, size=70)
    layers = [
        trial_lines("reports", "step", score, run).encode(x=x, y=y),
        ends.encode(x=x, y=y, color=COLOUR, shape=shape),
        chosen("reports")
        .mark_line(strokeWidth=3, color=INK, interpolate="linear")
        .encode(x=x, y=y, detail="key:N"),
        chosen("reports")
        .transform_filter("datum.ended")
        .mark_point(size=220, strokeWidth=2.5, color=INK)
        .encode(x=x, y=y, shape=shape),
    ]
    if limit is not None:
        rule = alt.Chart(alt.InlineData(values=[{"limit": limit}]))
        layers.append(rule.mark_rule(strokeDash=[5, 4], color=INK).encode(y="limit:Q"))
    return alt.layer(*layers, height=300)


def _importances() -> AnyChart:
    scores = named_scale({"j": "#0072b2", "copy rate": "#d55e00"})
    chart: AnyChart = (
        rows_of("importances")
        .mark_bar()
        .encode(
            y=alt.Y("setting:N", title=None, sort="-x"),
            yOffset=alt.YOffset("score:N", scale=alt.Scale(domain=["j", "copy rate"])),
            x=alt.X("share:Q", title="share of the differences that it explains"),
            color=alt.Color("score:N", scale=scores, legend=alt.Legend(title=None, orient="top")),
        )
        .properties(height=alt.Step(14))
    )
    return chart


def _marginal(name: str, domain: Domain) -> AnyChart:
    encoded: dict[str, Any] = {
        "y": alt.Y("j:Q", title="best j", scale=alt.Scale(zero=False)),
    }
    if isinstance(domain, Choice):
        axis = alt.Axis(labelAngle=-20 if len(domain.choice) > 2 else 0, labelLimit=110)
        order = [shown(value) for value in domain.choice]
        encoded["x"] = alt.X(f"{name}:N", title=name, axis=axis, sort=order)
        encoded["xOffset"] = alt.XOffset("spread:Q", scale=alt.Scale(domain=[-0.5, 1.5]))
    else:
        whole = get_type_hints(TrialConfig)[name] in _WHOLE
        axis = alt.Axis(tickMinStep=1, format="d") if whole else alt.Axis()
        encoded["x"] = alt.X(f"{name}:Q", title=name, scale=_number_scale(domain), axis=axis)
    points = rows_of("trials").transform_filter(f"isValid(datum.{name})")
    hollow = alt.condition("datum.feasible", alt.value(0.75), alt.value(0))
    shaped = encoded | {"shape": SHAPE}
    base = points.mark_point(size=50, strokeWidth=1.5, opacity=0.8)
    colour = alt.Fill("mask_strategy:N", scale=COLOURS, legend=None)
    top = chosen("trials").transform_filter(f"isValid(datum.{name})")
    return alt.layer(
        base.encode(**shaped, fill=colour, stroke=COLOUR, fillOpacity=hollow),
        top.mark_point(size=200, strokeWidth=2.5, color=INK).encode(**shaped),
        height=190,
    )


def _number_scale(domain: Domain) -> alt.Scale:
    low = min(float(str(bound)) for bound in domain.bounds() if bound)
    if not getattr(domain, "log", False):
        return alt.Scale(zero=False, padding=6)
    if 0 in domain.bounds():
        return alt.Scale(type="symlog", constant=low, padding=6)
    return alt.Scale(type="log", nice=False, padding=6)


def _labels(n_trials: int) -> AnyChart:
    axis = alt.Axis(labels=n_trials <= 24, ticks=False, labelAngle=-60)
    x = alt.X("trial:N", sort=None, title="trial", axis=axis)
    y = alt.Y("share:Q", stack="zero", title="share of outputs", scale=alt.Scale(domain=[0, 1]))
    order = alt.Order("label:N")
    colour = alt.Color("label:N", scale=named_scale(LABELS), legend=None)
    bars = rows_of("labels").mark_bar().encode(x=x, y=y, color=colour, order=order)
    frame = chosen("labels").transform_aggregate(groupby=["trial", "key"], share="sum(share)")
    top = frame.mark_bar(filled=False, stroke=INK, strokeWidth=3).encode(x=x, y=y)
    return alt.layer(bars, top, height=220)


def _winner_rows(run: Run) -> Rows:
    if run.metrics is None:
        return []
    return [
        {"system": system, "score": title, "value": run.metrics["test"][system][score]}
        | dict(zip(("low", "high"), run.metrics["intervals"][system][score], strict=True))
        for system in ("copy", "base", "delete", "tuned", "reference")
        for score, title in (("j", "j"), ("copy_rate", "copy rate"))
    ]


def _winner() -> AnyChart:
    scores = named_scale({"j": "#0072b2", "copy rate": "#d55e00"})
    colour = alt.Color("score:N", scale=scores, legend=alt.Legend(title=None, orient="top"))
    order: Mapping[str, Any] = {
        "y": alt.Y("system:N", sort=None, title=None),
        "yOffset": alt.YOffset("score:N", scale=alt.Scale(domain=["j", "copy rate"])),
        "color": colour,
    }
    x = alt.X("low:Q", title="test split, with 95% intervals", scale=alt.Scale(domain=[0, 1]))
    table = rows_of("winner")
    return alt.layer(
        table.mark_rule(strokeWidth=3).encode(x=x, x2="high:Q", **order),
        table.mark_point(filled=True, size=80, opacity=1).encode(x="value:Q", **order),
        height=alt.Step(18),
    )
