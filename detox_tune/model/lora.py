"""LoRA approaches: which linear layers of a T5-family model get an adapter (Hu et al., 2022)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

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
    # PEFT would add embedding and head to what it saves if it found the vocabulary cut.
    save: Any = functools.partial(adapted.save_pretrained, save_embedding_layers=False)
    adapted.save_pretrained = save  # type: ignore[method-assign]
    return adapted


@contextmanager
def adapted(
    model: PreTrainedModel, approach: Literal["first", "second"], *, seed: int
) -> Iterator[PeftModel]:
    """A base with fresh adapters inside; afterwards the base is as it was."""
    with_adapters = add_lora(model, approach, seed=seed)
    try:
        yield with_adapters
    finally:
        with_adapters.unload()
