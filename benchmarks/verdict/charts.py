"""The charts of the verdict: Altair draws them, vl-convert makes SVG of them."""

from __future__ import annotations

import altair as alt
import pandas as pd
import vl_convert

from detox_tune.tuning.report.charts import VEGA_LITE

LOSSES = {
    "cross-entropy": "#d55e00",
    "penalty": "#b5608f",
    "mask": "#009e73",
    "mask and penalty": "#0072b2",
    "unlikelihood": "#56b4e9",
    "orpo": "#8a8a8a",
    "penalty on probabilities": "#333333",
}
"""What an arm trains with -> its colour (Okabe and Ito's)."""
SHARED_RATE = 1e-3
"""The learning rate of arms of the experiment `collapse` that name none."""
COLOUR = alt.Color(
    "loss:N", title=None, scale=alt.Scale(domain=list(LOSSES), range=list(LOSSES.values()))
)
ALL_PAIRS, ALL_STEPS = 10000, 3000
"""About how many pairs, and how many pre-training steps, arms have that name none."""
_WIDTH, _HEIGHT = 560, 340


def loss_of(arm: str) -> str:
    """The name in LOSSES of an arm."""
    for remedy in ("unlikelihood", "orpo", "probability"):
        if remedy in arm:
            return "penalty on probabilities" if remedy == "probability" else remedy
    mask, penalty = "mask_strategy" in arm, "gamma" in arm
    if mask:
        return "mask and penalty" if penalty else "mask"
    return "penalty" if penalty else "cross-entropy"


def charts(reports: pd.DataFrame) -> dict[str, str]:
    """SVG of each chart that there are rows for, by name."""
    final = reports[(reports["split"] == "test") & ~reports["arm"].str.contains("pocket_steps")]
    made: dict[str, alt.TopLevelMixin] = {
        "frontier": frontier(final),
        "loss": loss_beside_copying(reports),
    }
    collapse = reports[reports["experiment"] == "collapse"]
    if len(collapse):
        made["collapse"] = collapse_map(collapse[collapse["split"] == "validation"])
        made["pairs_and_base"] = pairs_and_base(collapse[collapse["split"] == "test"])
    return {name: vl_convert.vegalite_to_svg(c.to_dict(), VEGA_LITE) for name, c in made.items()}


def frontier(final: pd.DataFrame) -> alt.Chart:
    """`j` against copy rate on the test split, a point for each arm (mean over seeds)."""
    points = final.groupby("arm", as_index=False)[["j", "copy_rate"]].mean()
    points["loss"] = points["arm"].map(loss_of)
    chart: alt.Chart = (
        alt.Chart(points, title="Every arm on the test split, mean over seeds")
        .mark_point(filled=True, size=70, opacity=0.85)
        .encode(
            alt.X("copy_rate:Q", title="copy rate (greedy)"),
            alt.Y("j:Q", title="j"),
            COLOUR,
            alt.Shape("loss:N", title=None, scale=alt.Scale(domain=list(LOSSES))),
        )
        .properties(width=_WIDTH, height=_HEIGHT)
    )
    return chart


def loss_beside_copying(reports: pd.DataFrame) -> alt.Chart:
    """Validation loss of all reports against their copy rate."""
    points = reports[reports["split"] == "validation"]
    chart: alt.Chart = (
        alt.Chart(points, title="Loss and copying, at every report of every arm")
        .mark_point(filled=True, size=20, opacity=0.5)
        .encode(
            alt.X("validation_loss:Q", title="validation loss, nats a token").scale(zero=False),
            alt.Y("copy_rate:Q", title="copy rate on the validation sample"),
            alt.Color("experiment:N", title=None),
        )
        .properties(width=_WIDTH, height=_HEIGHT)
    )
    return chart


def collapse_map(reports: pd.DataFrame) -> alt.FacetChart:
    """Copy rate and `j` over steps, a line for each learning rate, a column for each loss."""
    lines = reports[~reports["arm"].str.contains("pairs=|pocket_steps=")].copy()
    lines["loss"] = lines["arm"].map(loss_of)
    rates = lines["arm"].str.extract(r"learning_rate=(\S+)")[0].astype(float)
    lines["learning rate"] = rates.fillna(SHARED_RATE).map("{:.0e}".format)
    base = _copying_and_j(lines, alt.X("step:Q", title="steps")).encode(
        alt.Color("learning rate:O", sort=sorted(lines["learning rate"].unique(), key=float)).scale(
            scheme="viridis"
        ),
    )
    chart: alt.FacetChart = base.facet(
        column=alt.Column("loss:N", title=None, sort=list(LOSSES)),
        row=_SCORES,
        title="Where collapse begins and ends",
    )
    return chart


def pairs_and_base(final: pd.DataFrame) -> alt.HConcatChart:
    """Copy rate and `j` on the test split over training pairs, and over the base's pre-training."""
    shown, panels = ["cross-entropy", "mask and penalty"], []
    colours = alt.Scale(domain=shown, range=[LOSSES[loss] for loss in shown])
    for name, title in (("pairs", "training pairs"), ("pocket_steps", "pre-training steps")):
        of_panel = final["arm"].str.contains(f"{name}=")
        whole = ~final["arm"].str.contains("learning_rate=|pairs=|pocket_steps=")
        points = final[of_panel | whole].copy()
        points["loss"] = points["arm"].map(loss_of)
        points = points[points["loss"].isin(shown)]
        found = points["arm"].str.extract(rf"{name}=(\S+)")[0].astype(float)
        points[name] = found.fillna({"pairs": ALL_PAIRS, "pocket_steps": ALL_STEPS}[name])
        axis = alt.Axis(values=sorted(points[name].unique()), format="~d", labelOverlap=False)
        x = alt.X(f"{name}:Q", title=title, axis=axis).scale(type="log", nice=False)
        colour = alt.Color("loss:N", title=None, scale=colours)
        panels.append(_copying_and_j(points, x).encode(colour).facet(row=_SCORES))
    return alt.hconcat(*panels, title="Fewer pairs, and a base that copies less well")


_SCORES = alt.Row("score:N", title=None, sort=["copy rate", "j"])


def _copying_and_j(reports: pd.DataFrame, x: alt.X) -> alt.Chart:
    """Lines of means over seeds, to be split into rows by _SCORES."""
    named = reports.rename(columns={"copy_rate": "copy rate"})
    others = [name for name in named if name not in ("copy rate", "j")]
    long = named.melt(others, ["copy rate", "j"], "score")
    chart: alt.Chart = (
        alt.Chart(long)
        .mark_line(point=True, strokeWidth=2)
        .encode(x, alt.Y("mean(value):Q", title=None).scale(domain=(0, 1)))
        .properties(width=170, height=140)
    )
    return chart
