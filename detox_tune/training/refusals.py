"""What `build_trainer` refuses, each with one line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from transformers import TrainingArguments

from detox_tune.errors import UserError
from detox_tune.training.masking import check_mask, check_name

TRAINERS = ("original", "toxic_penalty_v1", "toxic_mask_v1")
"""Cross-entropy alone; plus gamma x toxic penalty; masked cross-entropy plus gamma x penalty."""

# Training arguments that would change the loss behind a trial's back: name, needed value, why.
_FIXED_ARGUMENTS: tuple[tuple[str, object, str], ...] = (
    ("label_smoothing_factor", 0.0, "smoothing would replace the trainer's own loss"),
    ("neftune_noise_alpha", None, "noise on the embeddings would be part of the loss"),
    ("use_liger_kernel", False, "its fused loss would bypass the masks and the penalty"),
    ("label_names", None, "the loss reads the column 'labels'"),
    ("fp16", False, "it overflows in T5 and mT5; bf16=True is safe"),
    ("fp16_full_eval", False, "it overflows in T5 and mT5; bf16_full_eval=True is safe"),
)


def check_settings(
    trainer_name: str,
    gamma: float,
    forbidden: Sequence[int],
    mask_strategy: str,
    context_window: int | None,
) -> None:
    """Refuse settings that no trainer of this name would read, or that make no sense.

    Raises:
        UserError: see `build_trainer`.
    """
    check_name("trainer_name", trainer_name, TRAINERS)
    check_mask(mask_strategy, context_window)
    if not (math.isfinite(gamma) and gamma >= 0):
        raise UserError(f"gamma={gamma} must be a finite number of at least 0: try 0.15")
    if trainer_name != "toxic_mask_v1" and mask_strategy != "none":
        raise UserError(
            f"mask_strategy={mask_strategy!r} is not read by trainer {trainer_name!r}: use "
            "'toxic_mask_v1', or mask_strategy='none'"
        )
    if trainer_name == "original" and gamma > 0:
        raise UserError(
            f"gamma={gamma} is not read by trainer 'original': use 'toxic_penalty_v1', or gamma=0"
        )
    if trainer_name == "original" and forbidden:
        raise UserError(
            f"{len(forbidden)} forbidden_token_ids are not read by trainer 'original': use "
            "'toxic_penalty_v1', or leave them out"
        )
    if gamma > 0 and not forbidden:
        raise UserError(
            f"gamma={gamma} weighs a penalty on forbidden_token_ids, but there are none: give a "
            "lexicon whose words occur in the data, lower min_purity, or set gamma=0"
        )


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
