"""python benchmarks/stock_search.py SPACE: the trials of a space by the stock recipe, one by one.

The settings are those that the search itself would try; training, evaluation and the loop over
trials are what one writes with Hugging Face's tools. Data, masks, penalty and scores are ours, or
there would be nothing to compare.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stock import stock_model, stock_trainer
from torch import nn
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback

from detox_tune.cli import quiet_environment
from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.evaluation.scores import mean_scores, score_outputs
from detox_tune.model.lora import TARGETS
from detox_tune.training.collator import masked_rows
from detox_tune.training.losses import penalised_positions, toxic_penalty
from detox_tune.tuning.base import find_base
from detox_tune.tuning.corpus import load_corpus
from detox_tune.tuning.space import first_samples
from detox_tune.tuning.space_file import load_space
from detox_tune.tuning.task import Task, build_task
from detox_tune.tuning.trial import training_arguments


class Evaluate(TrainerCallback):
    """Decodes and scores the validation sample with `generate`, every so many steps."""

    def __init__(self, config: SearchConfig, trial: TrialConfig, task: Task) -> None:
        self.config, self.trial, self.task = config, trial, task
        self.tokenizer = AutoTokenizer.from_pretrained(task.base)
        self.scores: dict[str, float] = {}

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Called by the trainer when the weights have moved."""
        if state.global_step % self.config.eval_every:
            return
        pairs = self.task.validation
        outputs = rewrite(
            model,
            self.tokenizer,
            [pair.source for pair in pairs],
            task_prefix=self.trial.task_prefix,
            max_tokens=self.config.max_tokens,
            fast=False,
        )
        self.scores = mean_scores(
            score_outputs(outputs, pairs, lexicon=self.task.lexicon, scorers=self.task.scorers)
        )


def main() -> None:
    """Every trial of the space, from its first step to its last."""
    quiet_environment()
    config, space = load_space(Path(sys.argv[1]), {"vocabulary": "full"})
    corpus = load_corpus(config)
    base = find_base(config, corpus, Console(stderr=True))
    task = build_task(config, corpus, base, task_prefixes=space.task_prefixes())
    for number, settings in enumerate(first_samples(space, config, config.trials), start=1):
        trial = TrialConfig.model_validate(settings)
        scores = run_trial(config, trial, task)
        print(f"trial_{number:03d} j {scores['j']:.3f} copy_rate {scores['copy_rate']:.2f}")


def run_trial(config: SearchConfig, trial: TrialConfig, task: Task) -> dict[str, float]:
    """One trial; returns the scores of its last evaluation."""
    device = "cuda" if config.gpus_per_trial > 0 else "cpu"
    model = stock_model(
        task.base, TARGETS[trial.lora], quantized=config.quantization == "nf4", device=device
    )
    kept, _ = masked_rows("train", task.rows(trial), trial.mask_strategy, trial.context_window)
    evaluation = Evaluate(config, trial, task)
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(trial, config, Path(folder), device)
        arguments.train_sampling_strategy = "random"  # as it comes
        trainer = stock_trainer(model, arguments, kept, evaluation)
        trainer.remove_callback(PrinterCallback)
        if trial.gamma > 0:
            _add_penalty(trainer, kept, trial.gamma, torch.tensor(task.forbidden_token_ids))
        trainer.train()
    return evaluation.scores


def _add_penalty(
    trainer: Any, rows: Sequence[Mapping[str, Any]], gamma: float, forbidden_ids: torch.Tensor
) -> None:
    """Add gamma x toxic penalty to the trainer's loss, on the logits that it has anyway."""

    def compute_loss(
        model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        outputs = model(**inputs)
        labels, device = inputs["labels"], outputs.logits.device
        ids = forbidden_ids.to(device)
        scored = penalised_positions(labels, torch.zeros_like(labels, dtype=torch.bool), ids)
        penalty = toxic_penalty(outputs.logits, scored, ids, count=scored.sum().clamp(min=1))
        loss = outputs.loss + gamma * penalty
        return (loss, outputs) if return_outputs else loss

    trainer.compute_loss = compute_loss


if __name__ == "__main__":
    main()
