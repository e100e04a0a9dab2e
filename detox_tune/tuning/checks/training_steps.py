"""A few real training steps for each mask: do the adapters move, and nothing else?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.errors import UserError
from detox_tune.model.lora import adapted
from detox_tune.training.detox_trainer import DetoxTrainer
from detox_tune.tuning.checks.result import CheckResult, Status
from detox_tune.tuning.task import Task
from detox_tune.tuning.trial import training_arguments, trial_trainer


@dataclass
class StepWatch(TrainerCallback):
    """Times steps and looks at their gradients."""

    seconds: list[float] = field(default_factory=list)
    """Duration of each step."""
    bad_gradients: list[str] = field(default_factory=list)
    """Weights that had an infinite gradient, or one that is not a number."""
    _started: float = 0.0

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer before the forward pass."""
        self._started = time.perf_counter()

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer when the gradients of a step are complete."""
        assert model is not None
        self.bad_gradients += [
            name
            for name, weight in model.named_parameters()
            if weight.grad is not None and not torch.isfinite(weight.grad).all()
        ]

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer when the weights have moved."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._started)


@dataclass(frozen=True)
class StepsTaken:
    """What some training steps did."""

    loss: float
    """Mean over the steps, in nats."""
    penalty_share: float
    """gamma times the toxic penalty, over the cross-entropy; means over the steps."""
    seconds: float
    """Of one step, the first left out."""
    bad_gradients: tuple[str, ...]
    adapters: int
    """Adapter tensors."""
    adapters_moved: int
    base_moved: bool


def trainer_check(
    name: str,
    trial: TrialConfig,
    base: PreTrainedModel,
    config: SearchConfig,
    task: Task,
    rows: Sequence[dict[str, Any]],
    steps: int = 3,
) -> tuple[CheckResult, float]:
    """Build the trainer of a trial and take some steps on `rows`, which `Task.rows` gives.

    Fails where the trainer can't be built, a loss or gradient is not finite, no adapter moves,
    something else does, or memory runs out. The base is as before afterwards.

    Returns:
        The row, and the seconds of one step (0 where none was taken).
    """
    try:
        taken = take_steps(trial, base, config, task, rows, steps)
    except UserError as error:
        remedy = "follow what the message says, or leave this out of the space"
        return CheckResult(name, Status.FAIL, str(error), remedy), 0.0
    except torch.OutOfMemoryError as error:
        remedy = "lower batch_size (and raise gradient_accumulation) or max_tokens"
        return CheckResult(name, Status.FAIL, " ".join(str(error).split())[:200], remedy), 0.0
    return judge_steps(name, taken), taken.seconds


def judge_steps(name: str, taken: StepsTaken) -> CheckResult:
    """A row that says whether the steps did what training must do, and nothing else."""
    seen = (
        f"loss {taken.loss:.2f}, {taken.adapters_moved} of {taken.adapters} adapter tensors moved, "
        f"the base {'moved' if taken.base_moved else 'did not'}; {taken.seconds:.2f} s a step"
    )
    if taken.penalty_share:
        seen += f"; gamma x penalty is {taken.penalty_share:.1%} of the cross-entropy"
    remedy = ""
    if taken.bad_gradients:
        seen += f"; gradients not finite in {len(set(taken.bad_gradients))} weights"
        remedy = "lower the learning rate or gamma, or take quantization: none"
    elif taken.base_moved:
        remedy = "the base must be frozen: report this with the name of the base and your versions"
    elif not taken.adapters_moved:
        remedy = "no gradient reaches the adapters: try quantization: none, or another base"
    return CheckResult(name, Status.FAIL if remedy else Status.PASS, seen, remedy)


def take_steps(
    trial: TrialConfig,
    base: PreTrainedModel,
    config: SearchConfig,
    task: Task,
    rows: Sequence[dict[str, Any]],
    steps: int,
) -> StepsTaken:
    """Train fresh adapters on `rows` for some steps, then take them off the base again.

    Raises:
        UserError: the trainer refuses the settings, or a loss is not finite.
    """
    with adapted(base, trial, seed=config.seed) as model:
        with tempfile.TemporaryDirectory() as folder:
            trainer = _trainer(trial, model, config, task, rows, steps, Path(folder))
            watch = StepWatch()
            trainer.add_callback(watch)
            trainer.remove_callback(PrinterCallback)
            adapters = {
                name: weight.detach().clone()
                for name, weight in model.named_parameters()
                if "lora_" in name
            }
            sums = _base_sums(model)
            loss = trainer.train().training_loss
        after = dict(model.named_parameters())
        timed = watch.seconds[1:] or watch.seconds
        logged = [entry for entry in trainer.state.log_history if "cross_entropy" in entry]
        penalty = trial.gamma * sum(entry["toxic_penalty"] for entry in logged)
        return StepsTaken(
            loss=loss,
            penalty_share=penalty / sum(entry["cross_entropy"] for entry in logged),
            seconds=sum(timed) / len(timed),
            bad_gradients=tuple(watch.bad_gradients),
            adapters=len(adapters),
            adapters_moved=sum(not torch.equal(after[n], was) for n, was in adapters.items()),
            base_moved=_base_sums(model) != sums,
        )


def _trainer(
    trial: TrialConfig,
    model: PeftModel,
    config: SearchConfig,
    task: Task,
    rows: Sequence[dict[str, Any]],
    steps: int,
    folder: Path,
) -> DetoxTrainer:
    device = "cuda" if next(model.parameters()).is_cuda else "cpu"
    short = config.model_copy(update={"steps": steps})
    arguments = training_arguments(trial, short, folder, device)
    arguments.warmup_steps = 0  # or the first step, at a learning rate of 0, would move nothing
    arguments.save_strategy = SaveStrategy.NO
    arguments.logging_strategy, arguments.logging_steps = IntervalStrategy.STEPS, 1
    return trial_trainer(trial, model, arguments, config, task, rows)


def _base_sums(model: torch.nn.Module) -> list[float]:
    """A sum of each base weight: a copy of half a billion weights would be too much memory."""
    weights = [weight for name, weight in model.named_parameters() if "lora_" not in name]
    return [float(weight.detach().sum(dtype=torch.float64)) for weight in weights]
