"""What the page says in numbers and sentences: importances, compute, how far to trust it."""

from __future__ import annotations

import math
import shlex
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from detox_tune.command_line import program
from detox_tune.evaluation.collapse import OutputLabel
from detox_tune.long_work import clock
from detox_tune.tuning.report.run_data import Run
from detox_tune.tuning.results import best_report

SHARES = {
    str(label): "copy_rate" if label == OutputLabel.COPIED else str(label) for label in OutputLabel
}
"""Label of an output -> the score that is its share."""
ENDED = {
    "finished": "trained to the end",
    "asha": "stopped early: others did better",
    "collapse": "stopped early: it copied its input",
    "failed": "failed",
    "unfinished": "not ended yet",
}
SYSTEMS = {
    "copy": "the untouched source",
    "base": "the untuned model",
    "delete": "the lexicon's words deleted",
    "tuned": "the winner",
    "reference": "the first human rewrite",
}
_TRIALS_PER_SETTING = 10
_TREES, _DEPTH = 32, 8  # of the forest behind importances; Optuna's 64 and 64 take 6 times as long
_FEWEST = 4  # trials for importances


def importances(run: Run) -> list[dict[str, Any]]:
    """How much of the differences in `j` and copy rate each setting explains, by Optuna.

    All trials that reported count, with their best report; settings that only some trials have
    are left out. Empty where there are too few trials, or none that differ.
    """
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=run.config.seed)
    )
    frozen = run.study.get_trials(deepcopy=False)
    for trial, known in zip(frozen, run.trials, strict=True):
        best = best_report(known.reports) if known.reports and known.ended != "failed" else {}
        if best and math.isfinite(best["j"]) and math.isfinite(best["copy_rate"]):
            study.add_trial(_as_complete(trial, best))
    forest = optuna.importance.FanovaImportanceEvaluator(
        n_trees=_TREES, max_depth=_DEPTH, seed=run.config.seed
    )
    found = []
    for score, name in (("j", "j"), ("copy_rate", "copy rate")):
        values = [trial.user_attrs[score] for trial in study.get_trials(deepcopy=False)]
        if len(values) < _FEWEST or len(set(values)) == 1:
            continue
        parts = optuna.importance.get_param_importances(
            study,
            evaluator=forest,
            target=lambda trial, score=score: trial.user_attrs[score],  # type: ignore[misc]
        )
        found += [
            {"setting": setting, "score": name, "share": float(share)}
            for setting, share in parts.items()
        ]
    return found


def _as_complete(trial: optuna.trial.FrozenTrial, best: Any) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        value=best["j"],
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={"j": best["j"], "copy_rate": best["copy_rate"]},
    )


def caution(run: Run) -> str:
    """A word on how far importances and marginal plots can be trusted."""
    known, searched = sum(bool(trial.reports) for trial in run.trials), len(run.space.searched)
    always = "Trials that were stopped early are judged by fewer steps than the others."
    if known >= _TRIALS_PER_SETTING * searched:
        return always
    return (
        f"Only {known} trials for {searched} settings: read this as a hint. With other seeds the "
        f"order may change. {always}"
    )


def compute(run: Run) -> list[str]:
    """What was spent, and what pruning saved: sentences."""
    rows = run.rows()
    spent = sum(row["seconds"] for row in rows)
    steps = sum(row["steps"] for row in rows)
    lines = [f"{len(rows)} trials trained {steps:,} steps in {clock(spent)} of their own time."]
    if "wall_seconds" in run.record:
        lines.append(f"The whole search took {clock(run.record['wall_seconds'])}.")
    for ended, rule in (("asha", "comparing trials (ASHA)"), ("collapse", "the collapse rule")):
        stopped = [row for row in rows if row["ended"] == ended and row["steps"]]
        if stopped:
            left = [run.config.steps - row["steps"] for row in stopped]
            saved = sum(n * r["seconds"] / r["steps"] for n, r in zip(left, stopped, strict=True))
            lines.append(
                f"An estimate: {rule} stopped {len(stopped)} trials and so saved about "
                f"{sum(left):,} steps or {clock(saved)}, had they gone on at their speed."
            )
    return lines


def trust(run: Run) -> list[str]:
    """What to know before the winner is used: sentences."""
    if run.metrics is None:
        return []
    test, intervals = run.metrics["test"], run.metrics["intervals"]
    tuned, delete = test["tuned"], test["delete"]
    low, high = intervals["tuned"]["j"]
    lines = []
    if delete["j"] >= tuned["j"]:
        overlap = intervals["delete"]["j"][0] <= high
        lines.append(
            f"Deleting the lexicon's words scores higher: j {delete['j']:.3f} against "
            f"{tuned['j']:.3f}{'; the intervals overlap' * overlap}."
        )
    elif intervals["delete"]["j"][1] >= low:
        lines.append("The intervals of the winner and of plain deletion overlap.")
    else:
        lines.append(f"The winner's j, {low:.3f} to {high:.3f}, lies above that of plain deletion.")
    limit, rates = run.config.max_copy_rate, intervals["tuned"]["copy_rate"]
    if tuned["copy_rate"] > limit:
        lines.append(
            f"On the test split it copies more than max_copy_rate={limit:g}: "
            f"{tuned['copy_rate']:.3f}. It was within that on the validation split."
        )
    elif rates[1] > limit:
        lines.append(
            f"Its copy rate may be above max_copy_rate={limit:g}: the interval ends at "
            f"{rates[1]:.3f}."
        )
    if run.metrics["scorers"] == "embedded":
        lines.append("The scores are embedded ones, which compare systems within one run only.")
    return lines


def state(run: Run) -> str:
    """How far the search is: one line."""
    ended = sum(bool(trial.ended) for trial in run.trials)
    if "finished" in run.record:
        return f"finished, {ended} trials"
    return f"not finished: {ended} of {run.config.trials} trials have ended"


def repeat_command(run: Run) -> str:
    """The command line that began the search."""
    return shlex.join(map(str, run.record["command"]))


def rewrite_command(run: Run) -> str:
    """The command line that uses the winner."""
    best = str(run.folder / "best")
    return f'{program("rewrite")} {shlex.quote(best)} "a sentence"'
