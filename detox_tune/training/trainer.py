"""The Hugging Face Trainer with the losses of a trial.

`build_trainer` is the way in; it needs no Ray and no other part of this package but tokenised rows:

    trainer = build_trainer(
        "toxic_mask_v1", model, args, {"train": rows}, mask_strategy="toxic_only"
    )
    print(trainer.mask_statistics)
    trainer.train()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from detox_tune.config import MaskStrategy
from detox_tune.errors import UserError
from detox_tune.training.collator import DetoxCollator, masked_rows
from detox_tune.training.detox_trainer import DetoxTrainer
from detox_tune.training.trainer_checks import check_arguments, check_settings, forbidden_tokens


def build_trainer(
    trainer_name: str,
    model: PreTrainedModel | nn.Module,
    args: TrainingArguments,
    dataset_dict: Mapping[str, Dataset | Sequence[Mapping[str, Any]]],
    data_collator: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
    forbidden_token_ids: Iterable[int] = (),
    mask_strategy: MaskStrategy = "none",
    context_window: int | None = None,
    *,
    masked_weight: float | None = None,
    gamma: float = 0.0,
    fast: bool = True,
    token_budget: int | None = None,
) -> DetoxTrainer:
    """A Hugging Face Trainer that tunes `model` to rewrite, not to copy.

    Args:
        trainer_name: `original` (cross-entropy), `toxic_penalty_v1` (plus gamma x toxic penalty)
            or `toxic_mask_v1` (cross-entropy at the positions that `mask_strategy` picks, the
            others weighing `masked_weight`, plus gamma x toxic penalty where gamma > 0).
        model: an encoder-decoder of the T5 family, with or without a PEFT adapter.
        args: of the Trainer; what would change the loss, and several processes, are refused.
        dataset_dict: a `DatasetDict` or a dict with "train" and perhaps "validation". A row holds
            `input_ids` and `labels` (unpadded, with the end token) and, with one flag for each
            label token, `label_toxic` (in a toxic span of the reference) and `toxic_positions`
            (from `masking.toxic_positions`). Pairs left with no trained position are dropped, but
            for a masked weight above 0.
        data_collator: makes the batches of `DetoxCollator`, the default.
        callbacks: of the Trainer.
        forbidden_token_ids: the tokens that the penalty keeps down; read where gamma > 0.
        mask_strategy: see `masking.trained_positions`.
        context_window: neighbours on either side, in tokens, for `toxic_context` alone.
        masked_weight: weight, in [0, 1], of the positions that the mask leaves out; 0 by default.
        gamma: weight of the toxic penalty, at least 0.
        fast: project only the positions that a loss reads, in chunks; the same loss and gradients
            as without. A head that is trained itself is always projected whole.
        token_budget: padded tokens, of sources and labels, that go through the model at once; a
            larger batch goes through in parts, with the same step. None for no limit.

    Returns:
        The trainer, ready for `train()`; what the mask did is in `trainer.mask_statistics`.

    Raises:
        UserError: an unknown name, a setting that this trainer would not read, rows that lack
            something, or a split that is left with no pair.
    """
    config: Any = model.config
    settings = check_settings(
        trainer_name,
        mask_strategy=mask_strategy,
        context_window=context_window,
        masked_weight=masked_weight,
        gamma=gamma,
    )
    weight = settings.masked_weight or 0.0
    check_arguments(args)
    if "train" not in dataset_dict:
        found = ", ".join(map(str, dataset_dict)) or "nothing"
        raise UserError(f"dataset_dict holds {found} but needs a split named 'train': rename one")
    splits = {
        name: masked_rows(
            name,
            dataset_dict[name],
            mask_strategy,
            settings.context_window,
            keep_all=weight > 0,
        )
        for name in ("train", "validation")
        if name in dataset_dict
    }
    train_rows, statistics = splits["train"]
    validation_rows, _ = splits.get("validation", (None, None))
    return DetoxTrainer(
        model=model,
        args=args,
        train_dataset=cast(Any, train_rows),
        eval_dataset=cast(Any, validation_rows),
        data_collator=data_collator or DetoxCollator(config.pad_token_id),
        callbacks=list(callbacks),
        gamma=gamma,
        forbidden_token_ids=forbidden_tokens(forbidden_token_ids, gamma, config.vocab_size),
        mask_strategy=mask_strategy,
        masked_weight=weight,
        mask_statistics=statistics,
        fast=fast,
        token_budget=token_budget,
    )
