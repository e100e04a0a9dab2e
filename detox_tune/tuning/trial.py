"""The one function that every trial runs, here and on a cluster."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from ray import tune
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.errors import UserError
from detox_tune.evaluation.system import evaluate
from detox_tune.model.lora import adapted
from detox_tune.model.vocabulary import CutTokenizer
from detox_tune.training.masking import MaskStatistics
from detox_tune.training.trainer import DetoxTrainer, build_trainer
from detox_tune.tuning.task import Task
from detox_tune.tuning.worker import trial_base


def run_trial(settings: Mapping[str, Any], *, search: SearchConfig, task: Task) -> None:
    """Train one adapter and report its validation scores, with a checkpoint, as it goes.

    Runs in a Ray Tune process. It continues from Tune's checkpoint, if there is one, exactly where
    that was written: adapter, optimiser, schedule, random state and place in the data.
    """
    trial = TrialConfig.model_validate(dict(settings))
    device = use_device(search.gpus_per_trial)
    base, tokenizer = trial_base(search, task, device)
    rows = task.rows(task_prefix=trial.task_prefix, anchor=trial.mask_anchor or "edits")
    with adapted(base, trial.lora, seed=search.seed) as model:
        arguments = training_arguments(trial, search, Path("trainer"), device)
        trainer = trial_trainer(trial, model, arguments, search, task, rows)
        trainer.add_callback(ReportToTune(tokenizer, trial, search, task, trainer.mask_statistics))
        checkpoint = tune.get_checkpoint()
        if checkpoint is None:
            trainer.train()
        else:
            with checkpoint.as_directory() as folder:
                trainer.train(resume_from_checkpoint=folder)


def trial_trainer(
    trial: TrialConfig,
    model: PeftModel,
    arguments: TrainingArguments,
    search: SearchConfig,
    task: Task,
    rows: Sequence[Mapping[str, Any]],
) -> DetoxTrainer:
    """The trainer of a trial, on rows that `Task.rows` gave."""
    return build_trainer(
        trial.trainer_name,
        model,
        arguments,
        {"train": rows},
        forbidden_token_ids=task.trained_ids(task.forbidden_token_ids) if trial.gamma > 0 else (),
        mask_strategy=trial.mask_strategy,
        context_window=trial.context_window,
        gamma=trial.gamma,
        fast=search.fast,
        token_budget=search.token_budget if search.fast else None,
    )


def use_device(gpus: float) -> str:
    """The device of this process; a trial without a share of a GPU must not see any."""
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return "cpu"
    return "cuda"


def training_arguments(
    trial: TrialConfig, search: SearchConfig, folder: Path, device: str
) -> TrainingArguments:
    """The Hugging Face trainer's arguments for a trial."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=search.steps,
        per_device_train_batch_size=trial.batch_size,
        gradient_accumulation_steps=trial.gradient_accumulation,
        learning_rate=trial.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(trial.warmup_share * search.steps),
        save_strategy="steps",
        save_steps=search.eval_every,
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        train_sampling_strategy="group_by_length",
        seed=search.seed,
        data_seed=search.seed,
    )


class ReportToTune(TrainerCallback):
    """After every checkpoint: decode the validation sample, score it, report both to Tune."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | CutTokenizer,
        trial: TrialConfig,
        search: SearchConfig,
        task: Task,
        masked: MaskStatistics,
    ) -> None:
        self.tokenizer = tokenizer
        self.trial = trial
        self.search = search
        self.task = task
        self.masked = masked
        self.started = time.monotonic()

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer when `checkpoint-N` has been written."""
        scores = evaluate(
            model,  # type: ignore[arg-type]
            self.tokenizer,
            self.task.validation,
            task_prefix=self.trial.task_prefix,
            max_tokens=self.search.max_tokens,
            lexicon=self.task.lexicon,
            scorers=self.task.scorers,
            fast=self.search.fast,
        ).summary()
        report = {
            **scores,
            "step": state.global_step,
            "feasible_j": feasible_j(scores, self.search.max_copy_rate),
            "trained_share": self.masked.share,
            "pairs_dropped": self.masked.dropped,
            "seconds": time.monotonic() - self.started,
        }
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


def feasible_j(scores: Mapping[str, float], max_copy_rate: float) -> float:
    """`j`, less 1 where the copy rate is too high: any feasible report ranks above any other.

    Raises:
        UserError: if `j` is not a number; ASHA would never stop such a trial.
    """
    j = scores["j"]
    if not math.isfinite(j):
        raise UserError(f"j={j} is not a number, so the trial can't be ranked: see its scores")
    return j if scores["copy_rate"] <= max_copy_rate else j - 1.0
