"""Seconds from the start of a trial to its first step: by stock, and in a worker."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from report import Row
from stock import computes_bfloat16, stock_model, stock_trainer
from transformers import TrainerCallback

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.model.base import load_tokenizer
from detox_tune.model.lora import TARGETS, adapted
from detox_tune.training.collator import masked_rows
from detox_tune.training.examples import encode_sources
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.corpus import load_corpus
from detox_tune.tuning.space_file import load_space
from detox_tune.tuning.task import Task, build_task
from detox_tune.tuning.trial import training_arguments, trial_trainer

TRIAL = TrialConfig(lora="first", mask_strategy="toxic_context", batch_size=16)


class _FirstStep(Exception):
    """The first step is about to begin."""


class _StopThere(TrainerCallback):
    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        raise _FirstStep


def start_rows(
    bases: Mapping[str, Path], space_file: Path, options: argparse.Namespace
) -> Iterator[Row]:
    """Starts on the embedded pairs, for each base."""
    gpus = 1.0 if options.device.startswith("cuda") else 0.0
    for shape, folder in bases.items():
        quantization = "nf4" if computes_bfloat16(options.device) else "none"
        settings = {"quantization": quantization, "gpus_per_trial": gpus}
        config, space = load_space(space_file, settings)
        corpus = load_corpus(config)
        task = build_task(config, corpus, str(folder), task_prefixes=space.task_prefixes())
        full = config.model_copy(update={"vocabulary": "full"})
        plain = build_task(full, corpus, str(folder), task_prefixes=space.task_prefixes())
        stock, first, second = [], [], []
        for _ in range(options.repeats):
            stock.append(seconds_to_first_step(_stock, config, plain, options.device))
            load_cut_base.cache_clear()
            first.append(seconds_to_first_step(_fast, config, task, options.device))
            second.append(seconds_to_first_step(_fast, config, task, options.device))
        medians = [statistics.median(times) for times in (stock, first, second)]
        yield Row(f"trial start to first step, {shape}, first of a worker", "s", *medians[:2])
        yield Row(f"trial start to first step, {shape}, second of a worker", "s", *medians[::2])


def seconds_to_first_step(
    start: Callable[[SearchConfig, Task, str], None], config: SearchConfig, task: Task, device: str
) -> float:
    """How long until a trainer is about to take its first step."""
    started = time.perf_counter()
    try:
        start(config, task, device)
    except _FirstStep:
        return time.perf_counter() - started
    raise RuntimeError("the trial took no step")


def _stock(config: SearchConfig, task: Task, device: str) -> None:
    """Loads the base and tokenises the sources anew, as a script that runs once a trial does."""
    quantized = config.quantization == "nf4"
    model = stock_model(task.base, TARGETS[TRIAL.lora], quantized=quantized, device=device)
    tokenizer = load_tokenizer(task.base)
    encode_sources([pair.source for pair in task.train], tokenizer, TRIAL.task_prefix)
    rows = task.rows(TRIAL)
    kept, _ = masked_rows("train", rows, TRIAL.mask_strategy, TRIAL.context_window)
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(TRIAL, config, Path(folder), device)
        stock_trainer(model, arguments, kept, _StopThere()).train()


def _fast(config: SearchConfig, task: Task, device: str) -> None:
    base, _ = load_cut_base(task.base, config.quantization, device, task.vocabulary)
    with adapted(base, TRIAL, seed=0) as model, tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(TRIAL, config, Path(folder), device)
        trainer = trial_trainer(TRIAL, model, arguments, config, task, task.rows(TRIAL))
        trainer.add_callback(_StopThere())
        trainer.train()
