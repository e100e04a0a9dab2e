"""The page about runs, one file that opens offline: what `report.html` holds."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from detox_tune import __version__
from detox_tune.config import TrialConfig
from detox_tune.errors import UserError
from detox_tune.files import write_text
from detox_tune.tuning.report import findings
from detox_tune.tuning.report.chart_parts import ENDS, LABELS, MARKS, STRATEGIES
from detox_tune.tuning.report.charts import (
    MARGINALS,
    VEGA_LITE,
    charts,
    marginal_settings,
    tables,
)
from detox_tune.tuning.report.run_data import Run, read_run, shown
from detox_tune.tuning.run_folder import now

REPORT = "report.html"
COMPARISON = "comparison.html"
MAX_BYTES = 5_000_000
"""Size of a page at most; outputs of the worst trials are left out where it would be more."""

_SECTIONS = {
    "winner": "The winner",
    "copying": "Copying against quality",
    "trials": "All trials",
    "curves": "How trials learned, and why they stopped",
    "settings": "Settings and scores",
    "mattered": "What mattered",
    "failures": "How outputs fail",
    "outputs": "Outputs",
    "compute": "Compute",
    "repeat": "How to repeat it",
}


def write_report(folder: Path) -> Path:
    """Write report.html of a run; returns its path.

    Raises:
        UserError: the folder is none of a run, or damaged.
    """
    path = folder / REPORT
    write_text(path, page([read_run(folder)]))
    return path


def write_comparison(folders: Sequence[Path]) -> Path:
    """Write one page about several runs into the folder of the first; returns its path.

    Raises:
        UserError: a folder is none of a run, or damaged; or scorers differ, whose scores do not
            compare.
    """
    runs = [read_run(folder, number) for number, folder in enumerate(folders)]
    for run in runs[1:]:
        if run.config.scorers != runs[0].config.scorers:
            raise UserError(
                f"{runs[0].folder} has scorers={runs[0].config.scorers!r}, {run.folder} "
                f"{run.config.scorers!r}: their scores do not compare, so write a page for each"
            )
    path = folders[0] / COMPARISON
    write_text(path, page(runs))
    return path


def page(runs: Sequence[Run]) -> str:
    """The page about runs, side by side if there are several."""
    several = len(runs) > 1
    library, script = _library(), _resource("page.js")
    shown_runs = [_shown_run(run, several) for run in runs]
    data = {
        "ended": findings.ENDED,
        "first": _first(shown_runs),
        "second": _second(shown_runs),
        "languages": len({language for run in runs for language in run.config.languages}),
        "runs": [
            {"name": run["name"], "tables": run["tables"], "charts": run["charts"]}
            for run in shown_runs
        ],
    }
    parts = {
        "title": ("Runs side by side" if several else f"Run {runs[0].name}"),
        "policy": _policy(library, script),
        "style": Markup(_resource("page.css")),
        "library": Markup(library),
        "script": Markup(script),
        "data": Markup(_in_script(data)),
        "version": __version__,
        "written": now(),
        "sections": _SECTIONS,
        "systems": findings.SYSTEMS,
        "ended": findings.ENDED,
        "labels": LABELS,
        "strategy_legend": [
            (name, colour, MARKS[shape])
            for name, (colour, shape) in STRATEGIES.items()
            if any(name in run.space.possible("mask_strategy") for run in runs)
        ],
        "end_legend": [(findings.ENDED[name], MARKS[shape]) for name, shape in ENDS.items()],
        "several": several,
        "beams": any(run.config.beams > 1 for run in runs),
        "unfinished": any("finished" not in run.record for run in runs),
        "warnings": shown(_warnings(runs)),
        "runs": shown_runs,
    }
    without = _template().render(parts | {"outputs": [], "left_out": []})
    packed, left_out = _packed_outputs(runs, MAX_BYTES - len(without.encode()))
    return _template().render(parts | {"outputs": packed, "left_out": shown(left_out)})


def _shown_run(run: Run, several: bool) -> dict[str, Any]:
    """What the template asks of a run."""
    made, rows = tables(run), run.rows()
    explained = {row["setting"].removesuffix("_is_zero") for row in made["importances"]}
    fixed = [name for name in MARGINALS if name not in run.space.searched]
    settings = TrialConfig.model_fields
    winner = next((row for row in rows if row["winner"]), None)
    return shown(  # type: ignore[no-any-return]
        {
            "number": run.number,
            "name": run.name,
            "of": f", run {run.name}" if several else "",
            "record": run.record,
            "metrics": run.metrics,
            "n_test": int(run.metrics["test"]["tuned"]["n"]) if run.metrics else 0,
            "winner_key": winner["key"] if winner else "",
            "winner_settings": _settings(run.metrics["settings"]) if run.metrics else "",
            "rewrite": findings.rewrite_command(run),
            "rows": rows,
            "searched": [name for name in settings if name in run.space.searched],
            "state": findings.state(run),
            "trust": findings.trust(run),
            "caution": findings.caution(run),
            "compute": findings.compute(run),
            "repeat": findings.repeat_command(run),
            "left_out": ", ".join(n for n in run.space.searched if n not in explained),
            "fixed": ", ".join(f"{name}={run.space.possible(name)[0]}" for name in fixed),
            "marginals": marginal_settings(run),
            "axes_width": 110 * (2 + len(run.space.searched)),
            "facts": _facts(run),
            "tables": made,
            "charts": charts(run),
        }
    )


def _settings(settings: dict[str, Any]) -> str:
    present = {name: value for name, value in settings.items() if value is not None}
    return ", ".join(f"{name}={_short(value)}" for name, value in present.items())


def _facts(run: Run) -> dict[str, dict[str, Any]]:
    """Tables of what a run was: names and values."""
    record = run.record
    data: dict[str, Any] = {
        f"{split}, {fact}": value
        for split, facts in record["data"].items()
        for fact, value in facts.items()
    }
    for name in ("bad_rows", "lexicon_entries", "lexicon_sha256", "over_long_examples", "resumed"):
        if name in record:
            data[name] = record[name]
    return {
        "Settings of the search, with its seed": record["search"],
        "The space": record["space"],
        "Versions": record["versions"],
        "Data": data,
    }


def _warnings(runs: Sequence[Run]) -> list[str]:
    first = runs[0]
    return [
        f"{run.name} has other {split} pairs than {first.name}: their scores do not compare."
        for run in runs[1:]
        for split in ("validation", "test")
        if run.record["data"].get(split) != first.record["data"].get(split)
    ]


def _first(runs: Sequence[dict[str, Any]]) -> str:
    """The trial that is selected when the page opens: the winner, or the best so far."""
    rows = [row for run in runs for row in run["rows"] if row["rank"] is not None]
    rows.sort(key=lambda row: (not row["winner"], -row["rank"]))
    return str(rows[0]["key"]) if rows else ""


def _second(runs: Sequence[dict[str, Any]]) -> str:
    """The trial beside it: the one that copies most."""
    first = _first(runs)
    rows = [row for run in runs for row in run["rows"] if row["copy_rate"] is not None]
    rows = [row for row in rows if row["key"] != first]
    return str(max(rows, key=lambda row: row["copy_rate"])["key"]) if rows else ""


def _packed_outputs(runs: Sequence[Run], room: int) -> tuple[list[str], list[str]]:
    """The outputs of each run, compressed, as text; and what is said of those left out."""
    packed, said = [], []
    for run in runs:
        keep = sorted(run.rows(), key=lambda row: -(row["rank"] if row["rank"] is not None else -9))
        keys = [row["key"] for row in keep]
        text = _packed(run, keys)
        while len(text) > room // len(runs) and len(keys) > 1:
            keys = keys[: min(len(keys) - 1, len(keys) * (room // len(runs)) // len(text))]
            text = _packed(run, keys)
        if len(keys) < len(keep):
            said.append(
                f"{run.name}: the outputs of the {len(keep) - len(keys)} worst trials are left "
                f"out, or this page would be larger than {MAX_BYTES / 1e6:g} MB; outputs/ has them."
            )
        packed.append(text)
    return packed, said


def _packed(run: Run, keys: Sequence[str]) -> str:
    pairs: dict[str, int] = {}
    trials: dict[str, list[list[Any]]] = {}
    for trial in run.trials:
        if run.key(trial.name) in keys and (rows := run.outputs(trial)):
            trials[run.key(trial.name)] = [
                [pairs.setdefault(_pair(row), len(pairs)), row["output"], row["label"], row["j"]]
                for row in rows
            ]
    content = {"pairs": [json.loads(pair) for pair in pairs], "trials": trials}
    return base64.b64encode(gzip.compress(json.dumps(content).encode(), mtime=0)).decode()


def _pair(row: dict[str, Any]) -> str:
    return json.dumps([row["language"], row["source"], row["references"]])


def _in_script(value: Any) -> str:
    """JSON that ends no script element, whatever texts are in it."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(*scripts: str) -> str:
    """What a browser may do with the page: run these scripts, and load nothing."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    # Vega compiles expressions.
    scripts_allowed = f"script-src {allowed} 'unsafe-eval'"
    # Neither of the last two falls back to default-src.
    nowhere = "base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {scripts_allowed}; style-src 'unsafe-inline'; {nowhere}"


@cache
def _library() -> str:
    """Vega as one script, from vl-convert's own copy, which it knows by this address."""
    address = f"https://cdn.jsdelivr.net/npm/vega@{vl_convert.get_vega_version()}/+esm"
    script = (
        f'import {{View, parse, Error}} from "{address}"; window.vega = {{View, parse, Error}};'
    )
    bundle = vl_convert.javascript_bundle(script, vl_version=VEGA_LITE)
    return bundle.replace("</script", "<\\/script")


@cache
def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(score=_score, setting=_short)
    return environment.from_string(_resource("page.html"))


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value) or "(empty)"
