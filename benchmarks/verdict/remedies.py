"""Losses beyond the package's, which the verdict compares with its own.

probability: the toxic penalty as p_T itself, the mass of the forbidden tokens, and not as
    -log(1 - p_T) from the logits
unlikelihood: cross-entropy plus -log(1 - p) of the token that copying on would write, where the
    reference begins to differ from its source (Welleck et al., 2020)
orpo: cross-entropy plus the odds ratio of reference and copy (Hong et al., 2024), the loss of
    the system that won PAN 2024
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainingArguments

from detox_tune.training.detox_trainer import DetoxTrainer

REMEDIES = ("probability", "unlikelihood", "orpo")


def probability_penalty(
    logits_btv: Tensor, scored_bt: Tensor, forbidden_ids: Tensor, *, count: int | Tensor
) -> Tensor:
    """As `losses.toxic_penalty`, but the sum of p_T."""
    if len(forbidden_ids) == 0:
        return logits_btv[:0].sum()
    probabilities_nv = logits_btv[scored_bt].float().softmax(-1)
    return probabilities_nv[:, forbidden_ids].sum() / count


def copied_on(source_ids: Sequence[int], label_ids: Sequence[int]) -> list[int]:
    """For each label position the token that copying on would write there, where it is wrong.

    That is the first token of an edited part of the source, at the first label position of what
    replaces it (after a deletion: at the next kept token). -100 at all other positions.
    """
    negative = [-100] * len(label_ids)
    matcher = SequenceMatcher(None, source_ids, label_ids, autojunk=False)
    for tag, i1, _, j1, _ in matcher.get_opcodes():
        if tag in ("replace", "delete") and j1 < len(label_ids) and source_ids[i1] != label_ids[j1]:
            negative[j1] = source_ids[i1]
    return negative


class _PlainTrainer(Trainer):
    """Rows of `input_ids`, `source_ids` (without a prefix) and `labels`, all of them trained."""

    def __init__(self, *, pad: int, **kwargs: Any) -> None:
        super().__init__(**kwargs, data_collator=self._collate)
        self._pad = pad

    def _collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        inputs = [torch.tensor(row["input_ids"]) for row in rows]
        named = {"labels": [row["labels"] for row in rows], **self._more(rows)}
        return {
            "input_ids": pad_sequence(inputs, True, self._pad),
            "attention_mask": pad_sequence([torch.ones_like(ids) for ids in inputs], True),
            **{
                name: pad_sequence(list(map(torch.tensor, lists)), True, -100)
                for name, lists in named.items()
            },
        }

    def _more(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[list[int]]]:
        raise NotImplementedError


class UnlikelihoodTrainer(_PlainTrainer):
    """Cross-entropy + unlikelihood of copying on, each a mean over its positions."""

    def _more(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[list[int]]]:
        return {"negative": [copied_on(row["source_ids"], row["labels"]) for row in rows]}

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        """A scalar in nats."""
        negative = inputs.pop("negative")
        outputs = model(**inputs)
        at = negative != -100
        log_p = outputs.logits[at].float().log_softmax(-1)
        log_p_n = log_p.gather(1, negative[at][:, None])[:, 0].clamp(max=-1e-6)
        return outputs.loss - torch.log1p(-log_p_n.exp()).sum() / max(1, at.sum())


class OrpoTrainer(_PlainTrainer):
    """Cross-entropy - log sigmoid of the log odds ratio of reference and copy."""

    def _more(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[list[int]]]:
        return {"rejected": [row["source_ids"] for row in rows]}

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        """A scalar in nats; a pair whose reference is its source has no odds to compare."""
        rejected = inputs.pop("rejected")
        chosen = model(**inputs)
        refused = model(**{**inputs, "labels": rejected})
        ratio = _log_odds(chosen.logits, inputs["labels"]) - _log_odds(refused.logits, rejected)
        return chosen.loss - F.logsigmoid(ratio).mean()


def _log_odds(logits_btv: Tensor, labels_bt: Tensor) -> Tensor:
    """log(p / (1 - p)) of labels, p being the geometric mean over their tokens; [b]."""
    losses_bt = F.cross_entropy(
        logits_btv.float().transpose(1, 2), labels_bt, reduction="none", ignore_index=-100
    )
    log_p_b = (-losses_bt.sum(1) / (labels_bt != -100).sum(1)).clamp(max=-1e-6)
    return log_p_b - torch.log1p(-log_p_b.exp())


def plain_trainer(
    remedy: str, model: nn.Module, arguments: TrainingArguments, rows: Sequence[Mapping[str, Any]]
) -> Trainer:
    """The trainer of `unlikelihood` or `orpo`."""
    arguments.remove_unused_columns = False
    arguments.train_sampling_strategy = "random"
    config: Any = model.config
    trainers = {"unlikelihood": UnlikelihoodTrainer, "orpo": OrpoTrainer}
    return trainers[remedy](
        model=model,
        args=arguments,
        train_dataset=list(rows),
        pad=config.pad_token_id,
    )


def losses_of(trainer: Trainer) -> str:
    """The name under which a trainer logs the cross-entropy of its training batches."""
    return "cross_entropy" if isinstance(trainer, DetoxTrainer) else "loss"
