"""python benchmarks/verdict_pruning.py [RUN…]: what pruning saves, and what it kills wrongly.

RUN is a search that pruned nothing (`verdict_pruning.yaml`), so it is known what became of every
trial; without one, those whose reports are published in pruning.csv. The search's own scheduler
judges the reports again, as they would have come with some trials at once and steps of equal time:
in the order of the trials, and in others drawn at random. Random trials do not depend on one
another, so a pruner sees here what it would have seen. With TPE they do, see verdict_samplers.py.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from tables import commit, markdown_table, output_file

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.errors import UserError
from detox_tune.files import write_text

Reports = Sequence[Mapping[str, Any]]
_NEVER = 10**9
PRUNERS: dict[str, dict[str, Any]] = {
    "no pruning": {},
    "collapse rule": {"threshold": 0.6},
    "ASHA by j alone": {"grace": 0.2, "reduction": 3.0, "max_copy_rate": 1.0},
    "ASHA": {"grace": 0.2, "reduction": 3.0},
    "ASHA + collapse rule": {"grace": 0.2, "reduction": 3.0, "threshold": 0.6},
}
"""Grace as a share of the steps; `max_copy_rate` is the search's where none is given."""
GRID = {"grace": (0.1, 0.2, 0.3), "reduction": (2.0, 3.0, 4.0), "threshold": (0.5, 0.8)}
GOOD = 0.99
"""Of the best j that any trial has, what a search is to reach."""
COLLAPSED = 0.6
"""Copy rate at the end from which an unpruned trial counts as collapsed."""
TOP = 0.1
"""Share of the trials that a pruner should never stop before their best."""


@dataclass
class Replay:
    """What a pruner did with the trials of a search, in one order."""

    steps: dict[int, int] = field(default_factory=dict)
    """Trial -> training steps that it got."""
    reached: int | None = None
    """Steps of all trials until the first report of at least GOOD of the best j; None if never."""
    best: list[tuple[int, float]] = field(default_factory=list)
    """After each report: steps of all trials so far, and the highest feasible j."""


def replay(
    trials: Sequence[Reports],
    order: Sequence[int],
    pruner: Mapping[str, Any],
    *,
    slots: int,
    max_copy_rate: float,
) -> Replay:
    """Let the scheduler judge the reports of trials that run `slots` at once.

    Args:
        trials: of each all reports, at the same steps.
        order: indices of trials as they start.
        pruner: grace and threshold as in PRUNERS.
        slots: trials at once.
        max_copy_rate: of the search.
    """
    from ray.tune.schedulers import TrialScheduler

    from detox_tune.tuning.scheduler import CollapseScheduler

    last = max(reports[-1]["step"] for reports in trials)
    scheduler = CollapseScheduler(
        max_steps=last,
        grace_steps=round(pruner.get("grace", 1.0) * last),
        reduction_factor=pruner.get("reduction", 4.0),
        max_copy_rate=pruner.get("max_copy_rate", max_copy_rate),
        collapse_grace=pruner.get("collapse_grace", 0.3) * last
        if "threshold" in pruner
        else _NEVER,
        collapse_threshold=pruner.get("threshold", 1.0),
    )
    scheduler.set_search_properties("j", "max")
    controller: Any = None  # which the scheduler does not read
    good, done, made = GOOD * best_j(trials), 0, Replay()
    waiting = list(reversed(order))
    running: list[tuple[int, int, int]] = []  # when the next report comes, trial, which report

    def start(now: int) -> None:
        if waiting:
            trial = waiting.pop()
            scheduler.on_trial_add(controller, _named(trial))
            heapq.heappush(running, (now + trials[trial][0]["step"], trial, 0))

    for _ in range(slots):
        start(0)
    while running:
        now, trial, number = heapq.heappop(running)
        report = trials[trial][number]
        done += report["step"] - (trials[trial][number - 1]["step"] if number else 0)
        made.steps[trial] = report["step"]
        if made.reached is None and report["feasible_j"] >= good:
            made.reached = done
        before = made.best[-1][1] if made.best else 0.0
        made.best.append((done, max(before, float(report["feasible_j"]))))
        decision = scheduler.on_trial_result(controller, _named(trial), dict(report))
        if decision == TrialScheduler.STOP or number + 1 == len(trials[trial]):
            start(now)
        else:
            wait = trials[trial][number + 1]["step"] - report["step"]
            heapq.heappush(running, (now + wait, trial, number + 1))
    return made


def _named(trial: int) -> Any:
    """What the scheduler reads of Tune's trial."""

    class Named(SimpleNamespace):
        def __str__(self) -> str:
            return str(self.trial_id)

    return Named(trial_id=f"trial_{trial + 1:03d}")


def best_j(trials: Sequence[Reports]) -> float:
    """The highest feasible j of any report."""
    return max(float(report["feasible_j"]) for reports in trials for report in reports)


def judged(trials: Sequence[Reports], made: Replay) -> dict[str, float]:
    """The figures of one replay; nan where there is nothing to count."""
    whole = sum(reports[-1]["step"] for reports in trials)
    budget = trials[0][-1]["step"]
    bests = [max(float(report["feasible_j"]) for report in reports) for reports in trials]
    top = sorted(range(len(trials)), key=lambda i: -bests[i])[: max(1, round(TOP * len(trials)))]
    top = [i for i in top if bests[i] > 0]  # the others can't win
    least = min(bests[i] for i in top)
    seen = [
        max(float(r["feasible_j"]) for r in reports if r["step"] <= made.steps[i])
        for i, reports in enumerate(trials)
    ]
    collapsed = [i for i, reports in enumerate(trials) if reports[-1]["copy_rate"] >= COLLAPSED]
    return {
        "compute": sum(made.steps.values()) / whole,
        "reached": float(made.reached is not None),
        "to_good": np.nan if made.reached is None else made.reached / whole,
        "collapsed_at": float(np.median([made.steps[i] / budget for i in collapsed]))
        if collapsed
        else np.nan,
        "false_kills": sum(seen[i] < least for i in top) / len(top),
        "lost": 1 - max(seen) / max(bests),
    }


def table(
    searches: Sequence[Sequence[Reports]],
    pruners: Mapping[str, Mapping[str, Any]],
    *,
    orders: int,
    slots: int,
    max_copy_rate: float,
    seed: int = 0,
) -> pd.DataFrame:
    """Means over searches and orders of the figures of each pruner, a row each."""
    rows = []
    for name, pruner in pruners.items():
        rng = np.random.default_rng(seed)
        for trials in searches:
            own = np.arange(len(trials))
            for order in [own, *(rng.permutation(own) for _ in range(orders - 1))]:
                made = replay(
                    trials,
                    list(map(int, order)),
                    pruner,
                    slots=slots,
                    max_copy_rate=max_copy_rate,
                )
                rows.append({"pruner": name, **judged(trials, made)})
    return pd.DataFrame(rows).groupby("pruner", sort=False).mean()


def grid() -> dict[str, dict[str, Any]]:
    """All pruners of GRID, by name."""
    return {
        f"grace {g:g}, reduction {r:g}, threshold {t:g}": {
            "grace": g,
            "reduction": r,
            "threshold": t,
        }
        for g, r, t in product(*GRID.values())
    }


def read_reports(runs: Sequence[Path], table: Path) -> pd.DataFrame:
    """The reports of searches, which are then written to a table; without runs, those in it.

    Returns:
        A row for each report: run, trial, step, j, copy_rate, n (sentences that were scored).

    Raises:
        UserError: if there are neither runs nor a table.
    """
    if not runs:
        if not table.is_file():
            raise UserError(f"{table} is not there: name runs, or an --out beside a {table.name}")
        return pd.read_csv(table)
    frame = pd.DataFrame(row for run in runs for row in _reports(run))
    frame.to_csv(table, index=False)
    return frame


def _reports(run: Path) -> Iterator[dict[str, Any]]:
    from detox_tune.tuning.study import read_study

    search = json.loads((run / "search.json").read_text(encoding="utf-8"))["search"]
    for one in read_study(run).get_trials(deepcopy=False):
        for report in one.user_attrs["history"]["reports"]:
            shown = {name: report[name] for name in ("step", "j", "copy_rate")}
            named = {"run": run.name, "trial": one.number + 1}
            yield named | shown | {"n": search["validation_pairs"]}


def by_run(reports: pd.DataFrame, max_copy_rate: float) -> dict[str, list[list[dict[str, Any]]]]:
    """Run -> its trials -> their reports, as if the search had that bound of the copy rate."""
    from detox_tune.tuning.results import feasible_j

    return {
        str(run): [
            [
                report | {"feasible_j": feasible_j(report, max_copy_rate, copy_j=0.0)}
                for report in trial.to_dict("records")
            ]
            for _, trial in of_run.groupby("trial")
        ]
        for run, of_run in reports.groupby("run", sort=False)
    }


_HEAD = {
    "compute": "steps of all",
    "reached": "reach it",
    "to_good": "steps to it",
    "collapsed_at": "collapsed end at",
    "false_kills": "top tenth stopped",
    "lost": "j lost",
}
ABOUT = f"""\
Shares of the steps that all trials take without pruning. "It" is a report of {GOOD:.0%} of the
best `j` that any trial has at a copy rate that may win. Collapsed are trials that end with a copy
rate of at least {COLLAPSED:g} if nothing stops them; where in their budget they end is a median.
"Top tenth stopped": of the best {TOP:.0%} of the trials, those that may win, the share that ends
before it is as good as the last of these: false kills. "j lost": how far the best that is left is
below the best of all.
"Steps to it" is a mean over the orders that reach it. ASHA compares trials by `j` less the copy
rate beyond `max_copy_rate`. The command reads all reports from pruning.csv. Each search:

    detox-tune search benchmarks/verdict_pruning.yaml --name pruning_SEED --seed SEED \\
        --data paradetox_en.tsv --lexicon multilingual_toxic_lexicon
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay, and write the page."""
    parser = OneLineParser(prog="python benchmarks/verdict_pruning.py", description=__doc__)
    parser.add_argument(
        "runs", type=path, nargs="*", help="folders of searches without pruning (default: the CSV)"
    )
    parser.add_argument("--orders", type=int, default=100, help="of the trials (default: 100)")
    parser.add_argument("--slots", type=int, default=2, help="trials at once (default: 2)")
    parser.add_argument("--max-copy-rates", type=float, nargs="+", default=[0.1, 0.2, 0.3])
    parser.add_argument("--out", type=output_file, default="results/verdict/pruning.md")
    options: argparse.Namespace = parser.parse_args(arguments)
    reports = read_reports(options.runs, options.out.with_suffix(".csv"))
    text = (
        f"# What pruning saves, and what it kills wrongly\n\n"
        f"`python benchmarks/verdict_pruning.py --orders {options.orders} --slots "
        f"{options.slots}`, commit {commit()}\n\n{ABOUT}"
    )
    for bound in options.max_copy_rates:
        named_searches = by_run(reports, bound)
        searches = list(named_searches.values())
        text += f"\n## Where a winner's copy rate is at most {bound:g}\n\n{_may_win(searches)}\n"
        named = {"orders": options.orders, "slots": options.slots, "max_copy_rate": bound}
        for run, trials in named_searches.items():
            text += f"\n{run}:\n\n{_markdown(table([trials], PRUNERS, **named))}"
        for title, pruners in (("All", PRUNERS), ("Grace, reduction and threshold, all", grid())):
            text += f"\n{title}:\n\n{_markdown(table(searches, pruners, **named))}"
    write_text(options.out, text)
    print(text)
    return 0


def _may_win(searches: Sequence[Sequence[Reports]]) -> str:
    counts = [
        f"{sum(any(r['feasible_j'] > 0 for r in reports) for reports in trials)} of {len(trials)}"
        for trials in searches
    ]
    return f"Trials that may win, by search: {', '.join(counts)}."


def _markdown(frame: pd.DataFrame) -> str:
    rows = [
        [str(name), *(f"{values[column]:.3f}" for column in _HEAD)]
        for name, values in frame.iterrows()
    ]
    return markdown_table(["pruner", *_HEAD.values()], rows)


if __name__ == "__main__":
    run_command(main)
