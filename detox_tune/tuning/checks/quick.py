"""Checks that need no weights: do the data, the lexicon and the masks give a search a chance?

They run on what the driver has anyway (a `Task`), in seconds, so a search runs them before its
first trial; `python -m detox_tune.checks` adds those of `thorough`.
"""

from __future__ import annotations

from collections.abc import Sequence

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.model.base import load_tokenizer
from detox_tune.tuning.checks.masks import alike_checks, all_masks, mask_check, trials_to_check
from detox_tune.tuning.checks.pairs import (
    label_check,
    lexicon_checks,
    penalty_check,
    sentence_checks,
)
from detox_tune.tuning.checks.result import CheckResult
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.task import Task


def quick_checks(config: SearchConfig, space: SearchSpace, task: Task) -> list[CheckResult]:
    """Everything that can be said without the base's weights, in seconds.

    Sentences and lexicon coverage of each language, labels, the penalty's tokens (where the space
    uses gamma), and every mask strategy; those that the space does not use pass.
    """
    tokenizer = load_tokenizer(task.base)
    used = trials_to_check(space)
    results = [
        *sentence_checks(task, tokenizer, config.max_tokens),
        *lexicon_checks(task, needed_by=_lexicon_readers(used)),
        label_check(task, tokenizer),
    ]
    if any(trial.gamma > 0 for trial in used):
        results.append(penalty_check(task, tokenizer))
    results += [mask_check(task, trial, in_space=trial in used) for trial in all_masks(used)]
    return results + alike_checks(task, used)


def _lexicon_readers(used: Sequence[TrialConfig]) -> list[str]:
    """What in a space cannot work without toxic words, as a user would name it."""
    masks = dict.fromkeys(t.mask_strategy for t in used if t.mask_strategy != "none")
    return [*masks, *(["gamma"] if any(trial.gamma > 0 for trial in used) else [])]
