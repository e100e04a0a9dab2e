"""Checks that load the base: its head and answers, a few training steps, the cost of a trial."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from detox_tune.config import READ_WITH, SearchConfig, TrialConfig
from detox_tune.data.lexicon import Lexicon
from detox_tune.errors import UserError
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.machine import threads
from detox_tune.model.vocabulary import CutTokenizer
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.checks.cost import estimate_check, longest_rows, peak_memory
from detox_tune.tuning.checks.masks import mask_name, trials_to_check
from detox_tune.tuning.checks.result import CheckResult, Status
from detox_tune.tuning.checks.training_steps import trainer_check
from detox_tune.tuning.checks.untuned_base import answer_check, head_check, is_pocket_like
from detox_tune.tuning.corpus import Corpus, load_corpus, with_lexicon
from detox_tune.tuning.space import SearchSpace
from detox_tune.tuning.task import Task

_PAIRS_DECODED = 32  # of the validation sample: enough to see what a base does


def corpus_check(config: SearchConfig) -> tuple[Corpus, list[CheckResult]]:
    """The corpus, and a failed row where its lexicon is there but cannot be used.

    The corpus then has an empty lexicon, so that the other checks still say what they see.

    Raises:
        UserError: data that can't be read, or a lexicon that is not there at all.
    """
    corpus = load_corpus(config.model_copy(update={"lexicon": None}))
    if config.lexicon is None:
        return corpus, []
    splits = corpus.splits
    pairs = (*splits.train, *splits.validation, *splits.test)
    languages = sorted({pair.language for pair in pairs})
    try:
        lexicon = Lexicon.load(config.lexicon, languages)
        return with_lexicon(corpus, lexicon, config.lexicon_purity), []
    except UserError as error:
        if not Path(config.lexicon).exists():
            raise
        result = CheckResult(
            "lexicon",
            Status.FAIL,
            str(error),
            f"give a --lexicon with toxic words of {', '.join(languages)}",
        )
        empty = Lexicon({language: () for language in languages})
        return dataclasses.replace(corpus, lexicon=empty), [result]


def base_checks(
    config: SearchConfig, space: SearchSpace, task: Task, tell: Callable[[str], None]
) -> list[CheckResult]:
    """The checks that load the base: head, answers, a trainer for each mask, cost of a trial.

    Args:
        config: of the search.
        space: of the search.
        task: what its trials share.
        tell: called with what is being done.
    """
    tell("loading the base")
    device, results = _device(config)
    base, tokenizer = load_cut_base(task.base, config.quantization, device, task.vocabulary)
    with threads(int(config.cpus_per_trial)):  # as many as Ray gives a trial
        results.append(head_check(base))
        tell("decoding with the untouched base")
        trials = trials_to_check(space)
        answers, report_seconds = _answers(config, space, task, base, tokenizer)
        results.append(answers)
        step_seconds = 0.0
        for trial in trials:
            tell(f"training steps: {mask_name(trial)}")
            result, seconds = trainer_check(
                f"trainer {mask_name(trial)}", trial, base, config, task, task.rows(trial)
            )
            results.append(result)
            step_seconds = max(step_seconds, seconds)
        if step_seconds:
            tell("training steps: longest batch")
            results.append(_heaviest_step(config, task, base, trials[0]))
            results.append(
                estimate_check(
                    config,
                    step_seconds=step_seconds,
                    report_seconds=report_seconds,
                    peak_bytes=peak_memory(),
                )
            )
    return results


def _device(config: SearchConfig) -> tuple[str, list[CheckResult]]:
    """The device of a trial; the processor, with a warning, where its GPU is not here."""
    if config.gpus_per_trial and not torch.cuda.is_available():
        result = CheckResult(
            "device",
            Status.WARN,
            f"gpus_per_trial={config.gpus_per_trial:g}, but this machine has no GPU: what follows "
            "was measured on its processor",
            "run the checks, and the search, on a machine with a GPU, or use --gpus-per-trial 0",
        )
        return "cpu", [result]
    return "cuda" if config.gpus_per_trial else "cpu", []


def _answers(
    config: SearchConfig,
    space: SearchSpace,
    task: Task,
    base: PreTrainedModel,
    tokenizer: CutTokenizer,
) -> tuple[CheckResult, float]:
    """The row on the base's own answers, and the seconds that one report of a trial would take."""
    pairs = task.validation[:_PAIRS_DECODED]
    # untuned, a prefix is only more text to copy
    prefix = min(space.task_prefixes(), key=len)
    started = time.perf_counter()
    outputs = rewrite(
        base,
        tokenizer,
        [pair.source for pair in pairs],
        task_prefix=prefix,
        max_tokens=config.max_tokens,
    )
    task.mean_scores(outputs, pairs, prefix)
    seconds = (time.perf_counter() - started) * len(task.validation) / len(pairs)
    result = answer_check(
        outputs, pairs, task.lexicon, task_prefix=prefix, pocket_like=is_pocket_like(base)
    )
    return result, seconds


def _heaviest_step(
    config: SearchConfig,
    task: Task,
    base: PreTrainedModel,
    trial: TrialConfig,
) -> CheckResult:
    """One step on the longest rows, all positions trained, so that the peak of memory is met."""
    heaviest = trial.model_copy(
        update={"mask_strategy": "none"}
        | {name: None for name, rule in READ_WITH.items() if rule.setting == "mask_strategy"}
        | ({} if task.forbidden_token_ids else {"gamma": 0.0})
    )
    longest = longest_rows(task.rows(heaviest), heaviest)
    return trainer_check("longest batch", heaviest, base, config, task, longest, steps=1)[0]
