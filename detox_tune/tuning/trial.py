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
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.evaluation.scores import mean_scores
from detox_tune.files import disk_is_full
from detox_tune.model.lora import adapted
from detox_tune.model.vocabulary import CutTokenizer
from detox_tune.training.detox_trainer import DetoxTrainer
from detox_tune.training.masking import MaskStatistics
from detox_tune.training.trainer import build_trainer
from detox_tune.tuning.base import base_on_this_node, load_cut_base
from detox_tune.tuning.checkpoints import find_checkpoint, seal
from detox_tune.tuning.outputs import keep_outputs
from detox_tune.tuning.results import feasible_j
from detox_tune.tuning.storage import Storage
from detox_tune.tuning.task import Task

_SCHEDULES = {"constant": "constant_with_warmup"}  # where transformers has another name
_WAITS = (5, 10, 20, 40, 80)  # seconds between tries to write to a storage that fails


def run_trial(
    settings: Mapping[str, Any], *, config: SearchConfig, task: Task, storage: Storage
) -> None:
    """Train one adapter and report its validation scores, with a checkpoint, as it goes.

    Runs in a Ray Tune process. It continues from the trial's last whole checkpoint, if there is
    one, exactly where that was written: adapter, optimiser, schedule, random state and place in the
    data. First it repeats the report that belongs to it, since the driver may have died before it
    heard of it.

    Args:
        settings: of the trial, and its name as `trial`.
        config: of the search.
        task: what its trials share.
        storage: for its checkpoints.
    """
    trial = TrialConfig.model_validate({n: v for n, v in settings.items() if n != "trial"})
    device = use_device(config.gpus_per_trial)
    folder = base_on_this_node(task.base, task.base_files)
    base, tokenizer = load_cut_base(folder, config.quantization, device, task.vocabulary)
    with adapted(base, trial, seed=config.seed) as model:
        arguments = training_arguments(trial, config, Path("trainer"), device)
        trainer = trial_trainer(trial, model, arguments, config, task, task.rows(trial))
        trainer.add_callback(ReportToTune(tokenizer, trial, config, task, trainer.mask_statistics))
        last = find_checkpoint(storage, settings["trial"], lambda report: report["step"])
        if last is None:
            trainer.train()
        else:
            tune.report(last.report)
            with last.checkpoint.as_directory() as folder:
                trainer.train(resume_from_checkpoint=folder)


def trial_trainer(
    trial: TrialConfig,
    model: PeftModel,
    arguments: TrainingArguments,
    config: SearchConfig,
    task: Task,
    rows: Sequence[Mapping[str, Any]],
) -> DetoxTrainer:
    """The trainer of a trial, on rows that `Task.rows` gave."""
    return build_trainer(
        trial.trainer_name,
        model,
        arguments,
        {"train": rows},
        forbidden_token_ids=task.forbidden_token_ids,
        mask_strategy=trial.mask_strategy,
        context_window=trial.context_window,
        masked_weight=trial.masked_weight,
        gamma=trial.gamma,
        token_budget=config.token_budget,
    )


def use_device(gpus: float) -> str:
    """The device of this process; a trial without a share of a GPU must not see any."""
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return "cpu"
    return "cuda"


def training_arguments(
    trial: TrialConfig, config: SearchConfig, folder: Path, device: str
) -> TrainingArguments:
    """The Hugging Face trainer's arguments for a trial."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=trial.batch_size,
        gradient_accumulation_steps=trial.gradient_accumulation,
        learning_rate=trial.learning_rate,
        lr_scheduler_type=_SCHEDULES.get(trial.schedule, trial.schedule),
        weight_decay=trial.weight_decay,
        warmup_steps=math.ceil(trial.warmup_share * config.steps),
        save_strategy="steps",
        save_steps=config.eval_every,
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        train_sampling_strategy="group_by_length",
        seed=config.seed,
        data_seed=config.seed,
    )


class ReportToTune(TrainerCallback):
    """After every checkpoint: decode the validation sample, score it, report both to Tune."""

    def __init__(
        self,
        tokenizer: CutTokenizer,
        trial: TrialConfig,
        config: SearchConfig,
        task: Task,
        masked: MaskStatistics,
    ) -> None:
        self.tokenizer = tokenizer
        self.trial = trial
        self.config = config
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
        pairs = self.task.validation
        outputs = rewrite(
            model,  # type: ignore[arg-type]
            self.tokenizer,
            [pair.source for pair in pairs],
            task_prefix=self.trial.task_prefix,
            max_tokens=self.config.max_tokens,
        )
        scored = self.task.score(outputs, pairs, self.trial.task_prefix)
        scores = mean_scores(scored)
        report = {
            **scores,
            "step": state.global_step,
            "feasible_j": feasible_j(
                scores, self.config.max_copy_rate, self.task.copy_j, beams=self.config.beams
            ),
            "trained_share": self.masked.share,
            "pairs_dropped": self.masked.dropped,
            "seconds": time.monotonic() - self.started,
        }
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        keep_outputs(folder, state.global_step, outputs, pairs, scored)
        seal(folder, report)
        report_patiently(report, folder)


def report_patiently(report: dict[str, Any], folder: Path) -> None:
    """Report to Tune, which copies the checkpoint to the storage; try again while that fails.

    Raises:
        OSError: of the last try, some minutes after the first, or at once where the disk is full.
    """
    checkpoint = tune.Checkpoint.from_directory(folder)
    for seconds in _WAITS:
        try:
            tune.report(report, checkpoint=checkpoint)
        except OSError as error:
            if disk_is_full(error):  # only its user can help; the driver ends the search
                raise
            time.sleep(seconds)
        else:
            return
    tune.report(report, checkpoint=checkpoint)
