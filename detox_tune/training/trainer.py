"""The Hugging Face Trainer with the losses of a trial.

`build_trainer` is the way in; it needs no Ray and no other part of this package but tokenised rows:

    trainer = build_trainer(
        "toxic_mask_v1", model, args, {"train": rows}, mask_strategy="toxic_only"
    )
    print(trainer.mask_statistics)
    trainer.train()
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from detox_tune.errors import UserError
from detox_tune.training.batches import LikeLengthSampler
from detox_tune.training.collator import DetoxCollator, masked_rows
from detox_tune.training.losses import masked_cross_entropy, penalised_positions, toxic_penalty
from detox_tune.training.masking import MaskStatistics, check_mask, check_name

TRAINERS = ("original", "toxic_penalty_v1", "toxic_mask_v1")
"""Cross-entropy alone; plus gamma x toxic penalty; masked cross-entropy plus gamma x penalty."""

_BATCH_COLUMNS = ("label_toxic", "trained")  # what a batch holds beyond the model's own arguments

# Training arguments that would change the loss behind a trial's back: name, needed value, why.
_FIXED_ARGUMENTS: tuple[tuple[str, object, str], ...] = (
    ("label_smoothing_factor", 0.0, "smoothing would replace the trainer's own loss"),
    ("neftune_noise_alpha", None, "noise on the embeddings would be part of the loss"),
    ("use_liger_kernel", False, "its fused loss would bypass the masks and the penalty"),
    ("label_names", None, "the loss reads the column 'labels'"),
    ("fp16", False, "it overflows in T5 and mT5; bf16=True is safe"),
    ("fp16_full_eval", False, "it overflows in T5 and mT5; bf16_full_eval=True is safe"),
)


class NonFiniteLossError(UserError):
    """A loss became infinite or not a number; the message names the step and the settings."""


class DetoxTrainer(Trainer):
    """A Trainer whose loss is masked cross-entropy + gamma x toxic penalty.

    Each mean runs over its positions (trained, penalised) of the whole accumulated batch, so
    accumulating k batches of b pairs gives the step of one batch of k x b. In evaluation they run
    over the whole data set. Both terms are logged beside `loss`, as `cross_entropy` and
    `toxic_penalty` (without gamma), with the evaluation's prefix there. `build_trainer` checks the
    settings and makes the data.
    """

    loss_is_scaled_for_ga = True  # the losses divide by counts over the whole accumulated batch

    def __init__(
        self,
        *args: Any,
        gamma: float,
        forbidden_token_ids: Iterable[int],
        mask_strategy: str,
        mask_statistics: MaskStatistics,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._base: Any = self.model  # typed as any module; ours are encoder-decoders
        self.gamma = gamma
        self.mask_strategy = mask_strategy
        self.mask_statistics = mask_statistics
        self._forbidden_ids = torch.tensor(
            sorted(set(forbidden_token_ids)), dtype=torch.long, device=self.args.device
        )
        # Sums since the last log: terms of the steps, and the global step at which they started.
        self._step_terms: tuple[Tensor, int] | None = None
        # Sums over an evaluation: cross-entropy, its positions, penalty, its positions.
        self._evaluated = torch.zeros(4, dtype=torch.float64)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of one optimizer step and their [trained, penalised] position counts."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [self._counts(*self._positions(batch)) for batch in batches]
        return batches, torch.stack(counts).sum(0).to(device) if counts else None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of one batch, over the counts of all batches of its step.

        Args:
            model: the model, as Accelerate wrapped it.
            inputs: a batch of the collator.
            return_outputs: whether to return (loss, outputs).
            num_items_in_batch: the counts from `get_batch_samples`; not read in evaluation, where
                the batch's own counts serve.

        Raises:
            NonFiniteLossError: the loss is infinite or not a number.
        """
        labels_bt = inputs["labels"]
        trained_bt, penalised_bt = self._positions(inputs)
        own_counts = self._counts(trained_bt, penalised_bt)
        of_step = model.training and isinstance(num_items_in_batch, Tensor)
        counts = cast(Tensor, num_items_in_batch) if of_step else own_counts
        count_trained, count_penalised = counts.clamp(min=1)
        # Without `labels` the model computes no loss of its own; what the decoder reads comes from
        # all labels, whatever the mask.
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=self._base.prepare_decoder_input_ids_from_labels(labels_bt),
        )
        logits_btv = outputs.logits
        loss = masked_cross_entropy(logits_btv, labels_bt, trained_bt, count=count_trained)
        terms = [loss]
        if self.gamma > 0:
            penalty = toxic_penalty(
                logits_btv, penalised_bt, self._forbidden_ids, count=count_penalised
            )
            loss = loss + self.gamma * penalty
            terms.append(penalty)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._non_finite(loss, is_training=model.training))
        self._remember(torch.stack(terms).detach(), own_counts, is_training=model.training)
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As the Trainer's; the loss is the mean over all positions, not the mean of batches."""
        self._evaluated = torch.zeros(4, dtype=torch.float64)
        output: EvalLoopOutput = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        cross_entropy, trained, penalty, penalised = self._evaluated.tolist()
        metrics = {"cross_entropy": cross_entropy / max(trained, 1)}
        metrics["loss"] = metrics["cross_entropy"]
        if self.gamma > 0:
            metrics["toxic_penalty"] = penalty / max(penalised, 1)
            metrics["loss"] += self.gamma * metrics["toxic_penalty"]
        losses = {f"{prefix}_{name}": value for name, value in metrics.items()}
        return output._replace(metrics=(output.metrics or {}) | losses)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with the terms of the loss beside it."""
        if self._step_terms is not None and ("loss" in logs or "train_loss" in logs):
            sums, first_step = self._step_terms
            self._step_terms = None
            if "loss" in logs:
                means = (sums / max(self.state.global_step - first_step, 1)).tolist()
                logs |= dict(zip(("cross_entropy", "toxic_penalty"), means, strict=False))
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """With `train_sampling_strategy="group_by_length"`, batches of like length."""
        args = self.args
        rows: Any = train_dataset or self.train_dataset
        if args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(rows)
        return LikeLengthSampler(
            [len(row["input_ids"]) + len(row["labels"]) for row in rows],
            args.train_batch_size * args.gradient_accumulation_steps,
            args.seed if args.data_seed is None else args.data_seed,
        )

    def _set_signature_columns_if_needed(self) -> None:
        # with remove_unused_columns, its default, the Trainer drops what `forward` does not take
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            columns = [*(self._signature_columns or ()), *_BATCH_COLUMNS]
            self._signature_columns = columns  # type: ignore[assignment]  # there: None at first

    def _positions(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Trained and penalised positions, bool, [b, t] each."""
        labels_bt = inputs["labels"]
        trained_bt = inputs["trained"] & (labels_bt != -100)
        if self.gamma == 0:
            return trained_bt, torch.zeros_like(trained_bt)
        forbidden_ids = self._forbidden_ids.to(labels_bt.device)
        return trained_bt, penalised_positions(labels_bt, inputs["label_toxic"], forbidden_ids)

    @staticmethod
    def _counts(trained_bt: Tensor, penalised_bt: Tensor) -> Tensor:
        return torch.stack([trained_bt.sum(), penalised_bt.sum()])

    def _remember(self, terms: Tensor, own_counts: Tensor, *, is_training: bool) -> None:
        if is_training:
            sums, first_step = self._step_terms or (torch.zeros_like(terms), self.state.global_step)
            self._step_terms = (sums + terms, first_step)
            return
        for index, term in enumerate(terms):
            count = own_counts[index].cpu()
            self._evaluated[2 * index] += term.cpu() * count
            self._evaluated[2 * index + 1] += count

    def _non_finite(self, loss: Tensor, *, is_training: bool) -> str:
        dtype = str(self._base.dtype).removeprefix("torch.")
        step = f"step {self.state.global_step + 1}"
        return (
            f"the loss is {loss.item()} "
            f"{'at ' + step if is_training else 'in an evaluation before ' + step} "
            f"(gamma {self.gamma}, mask_strategy {self.mask_strategy}, learning rate "
            f"{self.args.learning_rate}, dtype {dtype}{', bf16 autocast' if self.args.bf16 else ''}"
            "): no step can follow it; lower the learning rate or gamma, or use bf16 or fp32"
        )


def build_trainer(
    trainer_name: str,
    model: PreTrainedModel | nn.Module,
    args: TrainingArguments,
    dataset_dict: Mapping[str, Dataset | Sequence[Mapping[str, Any]]],
    data_collator: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
    forbidden_token_ids: Iterable[int] = (),
    mask_strategy: str = "none",
    context_window: int | None = None,
    *,
    gamma: float = 0.0,
) -> DetoxTrainer:
    """A Hugging Face Trainer that tunes `model` to rewrite, not to copy.

    Args:
        trainer_name: `original` (cross-entropy), `toxic_penalty_v1` (plus gamma x toxic penalty)
            or `toxic_mask_v1` (cross-entropy at the positions that `mask_strategy` picks, plus
            gamma x toxic penalty where gamma > 0).
        model: an encoder-decoder of the T5 family, with or without a PEFT adapter.
        args: of the Trainer; what would change the loss, and several processes, are refused.
        dataset_dict: a `DatasetDict` or a dict with "train" and perhaps "validation". A row holds
            `input_ids` and `labels` (unpadded, with the end token) and, one flag a label token,
            `label_toxic` (in a toxic span of the reference) and `toxic_positions` (from
            `masking.toxic_positions`). Pairs left with no trained position are dropped.
        data_collator: makes the batches of `DetoxCollator`, the default.
        callbacks: of the Trainer.
        forbidden_token_ids: the tokens that the penalty keeps down; read where gamma > 0.
        mask_strategy: one of `masking.MASK_STRATEGIES`.
        context_window: neighbours on either side, in tokens, for `toxic_context` alone.
        gamma: weight of the toxic penalty, at least 0.

    Returns:
        The trainer, ready for `train()`; what the mask did is in `trainer.mask_statistics`.

    Raises:
        UserError: an unknown name, a setting that this trainer would not read, rows that lack
            something, or a split that is left with no pair.
    """
    forbidden = sorted(set(forbidden_token_ids))
    _check_settings(trainer_name, gamma, forbidden, mask_strategy, context_window)
    _check_arguments(args)
    config: Any = model.config
    vocabulary = config.vocab_size
    if forbidden and not (0 <= forbidden[0] <= forbidden[-1] < vocabulary > len(forbidden)):
        raise UserError(
            f"{len(forbidden)} forbidden_token_ids from {forbidden[0]} to {forbidden[-1]} must be "
            f"a part of the model's {vocabulary} tokens: take them from this model's tokenizer"
        )
    if "train" not in dataset_dict:
        found = ", ".join(map(str, dataset_dict)) or "nothing"
        raise UserError(f"dataset_dict holds {found} but needs a split named 'train': rename one")
    splits = {
        name: masked_rows(name, dataset_dict[name], mask_strategy, context_window)
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
        forbidden_token_ids=forbidden,
        mask_strategy=mask_strategy,
        mask_statistics=statistics,
    )


def _check_settings(
    trainer_name: str,
    gamma: float,
    forbidden: Sequence[int],
    mask_strategy: str,
    context_window: int | None,
) -> None:
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


def _check_arguments(args: TrainingArguments) -> None:
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
