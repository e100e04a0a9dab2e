"""What the masks of a space train on real pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from operator import ne

from detox_tune.config import LORA_APPROACHES, MASK_STRATEGIES, READ_WITH, TrialConfig
from detox_tune.model.base import load_tokenizer
from detox_tune.training.masking import (
    MaskStatistics,
    marked,
    mask_statistics,
    trained_positions,
)
from detox_tune.tuning.checks.pairs import languages_of
from detox_tune.tuning.checks.result import CheckResult, Status
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.task import Task

_DROPPED_WARN = 0.5
_ALIKE = 0.01  # share of positions; inverse_toxic leaves out .4% of English ones
_PAIRS_SHOWN = 2


def trials_to_check(space: SearchSpace) -> list[TrialConfig]:
    """A trial for each mask (strategy and anchor) that the space can draw.

    The other settings are the heaviest that the space allows: the highest gamma and learning rate,
    the largest batch, the most adapters, the longest prefix. Of context windows the smallest, since
    it trains on the fewest positions.
    """
    heaviest = {
        "gamma": max(float(value or 0) for value in space.possible("gamma")),
        "learning_rate": max(float(value or 0) for value in space.possible("learning_rate")),
        "batch_size": max(int(value or 0) for value in space.possible("batch_size")),
        "gradient_accumulation": max(
            int(value or 0) for value in space.possible("gradient_accumulation")
        ),
        "lora": next(n for n in reversed(LORA_APPROACHES) if n in space.possible("lora")),
        "task_prefix": max(space.task_prefixes(), key=len),
    }
    ranks = [int(value) for value in space.possible("lora_r") if value is not None]
    if ranks and heaviest["lora"] == "all":
        heaviest["lora_r"] = max(ranks)
    windows = [int(value) for value in space.possible("context_window") if value is not None]
    return [
        TrialConfig.model_validate(
            heaviest
            | {"mask_strategy": strategy, "mask_anchor": anchor}
            | ({"context_window": min(windows)} if windows and strategy == "toxic_context" else {})
        )
        for strategy in dict.fromkeys(map(str, space.possible("mask_strategy")))
        for anchor in _anchors(space, strategy)
    ]


def all_masks(used: Sequence[TrialConfig]) -> list[TrialConfig]:
    """The given trials, and one for each mask strategy that none of them uses."""
    strategies = {trial.mask_strategy for trial in used}
    others = [s for s in MASK_STRATEGIES if s not in strategies]
    prefix = used[0].task_prefix  # the examples are made for the space's prefixes only
    return [
        *used,
        *(TrialConfig.model_validate({"mask_strategy": s, "task_prefix": prefix}) for s in others),
    ]


def mask_name(trial: TrialConfig) -> str:
    """The mask of a trial in a few words: strategy, anchor and window, where they are read."""
    parts = (trial.mask_strategy, trial.mask_anchor, trial.context_window)
    return " ".join(str(part) for part in parts if part is not None)


def _anchors(space: SearchSpace, strategy: str) -> list[str | None]:
    """The anchors that the space can draw with a strategy; None stands for the default."""
    if strategy not in READ_WITH["mask_anchor"].values:
        return [None]
    domain = space.domains.get("mask_anchor")
    if domain and strategy not in domain.condition().get("mask_strategy", (strategy,)):
        return [None]
    return [None if anchor is None else str(anchor) for anchor in space.possible("mask_anchor")]


def mask_check(task: Task, trial: TrialConfig, *, in_space: bool = True) -> CheckResult:
    """How many label positions a trial's mask trains; fails where all labels are masked."""
    name = f"mask {mask_name(trial)}"
    statistics = _statistics(task, trial, languages_of(task))
    seen = (
        f"{statistics.share:.1%} of {statistics.positions:,} label positions trained, "
        f"{statistics.dropped:,} of {statistics.examples:,} pairs dropped"
    )
    if not in_space:
        return CheckResult(name, Status.PASS, f"{seen} (not in this space)")
    if not statistics.trained:
        return CheckResult(
            name,
            Status.FAIL,
            f"{seen}: all labels are masked",
            "give a --lexicon whose words occur in the data, use mask_anchor: answers, or leave "
            f"this mask out of the space ({statistics.toxic_words} toxic words in references)",
        )
    bare = [
        language
        for language in languages_of(task)
        if not _statistics(task, trial, [language]).trained
    ]
    if bare:
        seen += f", nothing trained in {', '.join(bare)}"
    if bare or statistics.dropped > _DROPPED_WARN * statistics.examples:
        remedy = "use mask_anchor: answers, or a lexicon that knows more of the data's words"
        return CheckResult(name, Status.WARN, seen, remedy)
    return CheckResult(name, Status.PASS, seen)


def alike_checks(task: Task, trials: Sequence[TrialConfig]) -> list[CheckResult]:
    """A warning for each two masks of a space that train nearly the same positions."""
    trained = {
        mask_name(trial): [flag for flags in _trained(task, trial) for flag in flags]
        for trial in trials
    }
    results = []
    for (one, flags), (other, others) in combinations(trained.items(), 2):
        differ = sum(map(ne, flags, others)) / len(flags)
        if differ < _ALIKE:
            results.append(
                CheckResult(
                    f"masks {one}, {other}",
                    Status.WARN,
                    f"they differ at {differ:.1%} of the label positions",
                    "leave one of them out of the space: their trials are nearly the same",
                )
            )
    return results


def marked_pairs(task: Task, trials: Sequence[TrialConfig]) -> str:
    """References of a few pairs with the tokens marked that each trial's mask trains."""
    tokenizer = load_tokenizer(task.base)
    rows = {mask_name(trial): _trained(task, trial) for trial in trials}
    chosen = [i for i, example in enumerate(task.examples) if any(example.toxic["answers"])]
    lines = ["what each mask trains ([[...]] marks trained tokens)"]
    for index in chosen[:_PAIRS_SHOWN]:
        example = task.examples[index]
        lines.append(f"  source: {task.train[example.pair].source}")
        tokens = tokenizer.convert_ids_to_tokens(task.vocabulary.full(example.label_ids))
        lines += [f"    {name}: {marked(tokens, trained[index])}" for name, trained in rows.items()]
    return "\n".join(lines)


def _trained(task: Task, trial: TrialConfig) -> list[list[bool]]:
    """The trained label positions of every example."""
    return [
        trained_positions(
            trial.mask_strategy,
            toxic=row["toxic_positions"],
            label_toxic=row["label_toxic"],
            context_window=trial.context_window,
        )
        for row in task.rows(trial)
    ]


def _statistics(task: Task, trial: TrialConfig, languages: Sequence[str]) -> MaskStatistics:
    """What the trial's mask makes of the examples in the given languages."""
    every = zip(task.examples, task.rows(trial), _trained(task, trial), strict=True)
    return mask_statistics(
        (row["toxic_positions"], row["label_toxic"], trained)
        for example, row, trained in every
        if task.train[example.pair].language in languages
    )
