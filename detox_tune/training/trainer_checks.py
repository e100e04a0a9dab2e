"""What `build_trainer` refuses, each with one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from transformers import TrainingArguments

from detox_tune.config import TrainerName, TrialConfig
from detox_tune.errors import UserError, nearest
from detox_tune.settings import validated

# Training arguments that would change the loss behind a trial's back: name, needed value, why.
_FIXED_ARGUMENTS: tuple[tuple[str, object, str], ...] = (
    ("label_smoothing_factor", 0.0, "smoothing would replace the trainer's own loss"),
    ("neftune_noise_alpha", None, "noise on the embeddings would be part of the loss"),
    ("use_liger_kernel", False, "its fused loss would bypass the masks and the penalty"),
    ("label_names", None, "the loss reads the column 'labels'"),
    ("fp16", False, "it overflows in T5 and mT5; bf16=True is safe"),
    ("fp16_full_eval", False, "it overflows in T5 and mT5; bf16_full_eval=True is safe"),
)


def check_settings(trainer_name: str, **settings: Any) -> TrialConfig:
    """The settings as a trial has them, with defaults where they are read.

    Args:
        trainer_name: one of `TrainerName`; each of them reads what those before it read.
        settings: `mask_strategy`, `context_window`, `masked_weight` and `gamma`.

    Raises:
        UserError: settings that break a rule of `TrialConfig`, or that this trainer does not read.
    """
    trial = validated(TrialConfig, settings, "build_trainer")
    names = get_args(TrainerName)
    if trainer_name not in names:
        raise UserError(
            f"trainer_name={trainer_name!r} is not a trainer: {nearest(trainer_name, names)}"
        )
    if names.index(trainer_name) < names.index(trial.trainer_name):
        raise UserError(
            f"trainer {trainer_name!r} does not read mask_strategy={trial.mask_strategy!r} with "
            f"gamma={trial.gamma:g}: use {trial.trainer_name!r}, or leave these settings out"
        )
    return trial


def forbidden_tokens(ids: Iterable[int], gamma: float, vocabulary: int) -> list[int]:
    """The ids that the penalty keeps down, sorted; none where `gamma` is 0.

    Raises:
        UserError: there are none though `gamma` weighs them, or they are not ids of the model.
    """
    if gamma == 0:
        return []
    forbidden = sorted(set(ids))
    if not forbidden:
        raise UserError(
            f"gamma={gamma:g} weighs a penalty on forbidden_token_ids, but there are none: give a "
            "lexicon whose words occur in the data, lower min_purity, or set gamma=0"
        )
    if not 0 <= forbidden[0] <= forbidden[-1] < vocabulary > len(forbidden):
        raise UserError(
            f"{len(forbidden)} forbidden_token_ids from {forbidden[0]} to {forbidden[-1]} must be "
            f"a part of the model's {vocabulary} tokens: take them from this model's tokenizer"
        )
    return forbidden


def check_arguments(args: TrainingArguments) -> None:
    """Refuse arguments that would change the loss, and several processes.

    Raises:
        UserError: the argument, its value and what it must be.
    """
    for name, needed, why in _FIXED_ARGUMENTS:
        value = getattr(args, name)
        if value != needed:
            raise UserError(f"{name}={value!r} must be {needed!r} here: {why}")
    devices = args.world_size * max(1, args.n_gpu)
    if devices > 1:
        raise UserError(
            f"{devices} devices or processes must be 1: a trial trains on one; set "
            "CUDA_VISIBLE_DEVICES to one GPU, and let the search run several trials"
        )
