"""The Hugging Face Trainer with the losses of a trial; `trainer.build_trainer` makes one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from detox_tune.errors import UserError
from detox_tune.training.batches import LikeLengthSampler, parts_of_batch
from detox_tune.training.chunked_loss import chunked_loss, head_is_trained, without_head
from detox_tune.training.losses import masked_cross_entropy, penalised_positions, toxic_penalty
from detox_tune.training.masking import MaskStatistics

_BATCH_COLUMNS = ("label_toxic", "trained")  # what a batch holds beyond the model's own arguments


class NonFiniteLossError(UserError):
    """A loss became infinite or not a number; the message names the step and the settings."""


class _Positions(NamedTuple):
    """Label positions, [b, t] or [n], and the counts [2] that their two losses are divided by."""

    labels: Tensor
    weight: Tensor
    """Of the position in the cross-entropy."""
    penalised: Tensor
    counts: Tensor

    def read(self) -> Tensor:
        """Where a loss reads the logits."""
        return (self.weight > 0) | self.penalised

    def at(self, index: Tensor | slice) -> _Positions:
        """A part of the positions, with the same counts."""
        return _Positions(
            self.labels[index], self.weight[index], self.penalised[index], self.counts
        )


class DetoxTrainer(Trainer):
    """A Trainer whose loss is masked cross-entropy + gamma x toxic penalty.

    The cross-entropy is a weighted mean: trained positions weigh 1, others `masked_weight`. Each
    mean runs over its positions of the whole accumulated batch, so accumulating k batches of b
    pairs gives the step of one batch of k x b. In evaluation they run over the whole data set. Both
    terms are logged beside `loss`, as `cross_entropy` and `toxic_penalty` (without gamma), with the
    evaluation's prefix there. `build_trainer` checks the settings and makes the data.
    """

    loss_is_scaled_for_ga = True  # the losses divide by counts over the whole accumulated batch

    def __init__(
        self,
        *args: Any,
        gamma: float,
        forbidden_token_ids: Iterable[int],
        mask_strategy: str,
        masked_weight: float,
        mask_statistics: MaskStatistics,
        fast: bool,
        token_budget: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._base: Any = self.model  # typed as any module; ours are encoder-decoders
        self.gamma = gamma
        self.mask_strategy = mask_strategy
        self.masked_weight = masked_weight
        self.mask_statistics = mask_statistics
        self.fast = fast
        self.token_budget = token_budget
        self._forbidden_ids = torch.tensor(
            list(forbidden_token_ids), dtype=torch.long, device=self.args.device
        )
        # Sums since the last log: terms of the steps, and the global step at which they started.
        self._step_terms: tuple[Tensor, int] | None = None
        # Sums over an evaluation: cross-entropy, its weights, penalty, its positions.
        self._evaluated = torch.zeros(4, dtype=torch.float64)

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of one optimizer step, and what its two means are divided by, [2]."""
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
        weight_bt, penalised_bt = self._positions(inputs)
        own_counts = self._counts(weight_bt, penalised_bt)
        of_step = model.training and isinstance(num_items_in_batch, Tensor)
        counts = cast(Tensor, num_items_in_batch) if of_step else own_counts
        # one that is 0 divides a sum that is 0
        counts = counts.masked_fill(counts == 0, 1.0)
        positions = _Positions(inputs["labels"], weight_bt, penalised_bt, counts)
        if self.fast and model.training and not return_outputs and not head_is_trained(self._base):
            outputs = None
            loss, terms_k = self._gathered_loss(model, inputs, positions)
        else:
            outputs = model(**self._model_inputs(inputs))
            terms_k = self._terms(outputs.logits, positions)
            loss = terms_k @ self._term_weights(terms_k)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._non_finite(loss, is_training=model.training))
        self._remember(terms_k.detach(), own_counts, is_training=model.training)
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """As the Trainer's; a batch over the token budget goes through in parts."""
        take = super().training_step
        losses = [
            take(model, part, num_items_in_batch)
            for part in parts_of_batch(inputs, self.token_budget)
        ]
        return torch.stack(losses).sum()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: nobody reads it, and it takes 3% of a step of the pocket base."""
        return 0

    def _model_inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Without `labels` the model computes no loss of its own; what the decoder reads comes from
        # all labels, whatever the mask.
        return {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "decoder_input_ids": self._base.prepare_decoder_input_ids_from_labels(inputs["labels"]),
        }

    def _gathered_loss(
        self, model: nn.Module, inputs: dict[str, Any], positions: _Positions
    ) -> tuple[Tensor, Tensor]:
        """Loss and terms from the positions that one of them reads, and no other."""
        with without_head(self._base) as head:
            # nobody reads the keys and values that a cache would copy
            hidden_btd = model(**self._model_inputs(inputs), use_cache=False).logits
        read = positions.read()
        picked = positions.at(read)

        def terms_of(logits_nv: Tensor, part: slice) -> Tensor:
            return self._terms(logits_nv, picked.at(part))

        return chunked_loss(hidden_btd[read], head, terms_of, self._term_weights(hidden_btd))

    def _terms(self, logits: Tensor, positions: _Positions) -> Tensor:
        """Cross-entropy and toxic penalty; shape [2]."""
        labels, weight, penalised, (weights, count_penalised) = positions
        return torch.stack(
            [
                masked_cross_entropy(logits, labels, weight, count=weights),
                toxic_penalty(logits, penalised, self._forbidden_ids, count=count_penalised),
            ]
        )

    def _term_weights(self, like: Tensor) -> Tensor:
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return torch.tensor([1.0, self.gamma], dtype=dtype, device=like.device)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As the Trainer's; the loss is the mean over all positions, not the mean of batches."""
        self._evaluated = torch.zeros(4, dtype=torch.float64)
        output: EvalLoopOutput = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        cross_entropy, weights, penalty, penalised = self._evaluated.tolist()
        metrics = {
            "cross_entropy": cross_entropy / (weights or 1),
            "toxic_penalty": penalty / (penalised or 1),
        }
        metrics["loss"] = metrics["cross_entropy"] + self.gamma * metrics["toxic_penalty"]
        losses = {f"{prefix}_{name}": value for name, value in metrics.items()}
        return output._replace(metrics=(output.metrics or {}) | losses)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with the terms of the loss beside it."""
        if self._step_terms is not None and ("loss" in logs or "train_loss" in logs):
            sums, first_step = self._step_terms
            self._step_terms = None
            if "loss" in logs:
                means = (sums / max(self.state.global_step - first_step, 1)).tolist()
                logs |= dict(zip(("cross_entropy", "toxic_penalty"), means, strict=True))
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
        """Weights of the cross-entropy, float32, and penalised positions, bool; [b, t] each."""
        labels_bt = inputs["labels"]
        weight_bt = torch.where(inputs["trained"], 1.0, self.masked_weight) * (labels_bt != -100)
        forbidden_ids = self._forbidden_ids.to(labels_bt.device)
        return weight_bt, penalised_positions(labels_bt, inputs["label_toxic"], forbidden_ids)

    @staticmethod
    def _counts(weight_bt: Tensor, penalised_bt: Tensor) -> Tensor:
        return torch.stack([weight_bt.sum(), penalised_bt.sum().to(weight_bt.dtype)])

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
