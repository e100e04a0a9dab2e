"""LoRA approaches: which linear layers of a T5-family model get an adapter (Hu et al., 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

TARGETS: dict[str, tuple[str, ...]] = {"first": ("q", "v"), "second": ("q", "k", "v", "o")}
"""Approach -> attention projections that are adapted, in encoder, decoder and cross-attention."""


def add_lora(
    model: PreTrainedModel, approach: Literal["first", "second"], *, seed: int
) -> PeftModel:
    """Wrap a frozen base with fresh adapters: r 8, alpha 16, dropout 0.05, no bias.

    The adapters' weights are float32 and depend on `seed` alone; at the start they change nothing,
    because B is zero.
    """
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=8,
        lora_alpha=16,
        lora_dropout=0.05,
        bias="none",
        target_modules=list(TARGETS[approach]),
    )
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted
