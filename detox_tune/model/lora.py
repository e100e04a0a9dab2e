"""LoRA approaches: which linear layers of a T5-family model get an adapter (Hu et al., 2022)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from detox_tune.config import TrialConfig

_ATTENTION = ("q", "k", "v", "o")
_FEED_FORWARD = ("wi", "wi_0", "wi_1", "wo")  # T5 1.0 has wi, later ones a gate: wi_0 and wi_1
TARGETS: dict[str, tuple[str, ...]] = {
    "first": ("q", "v"),
    "second": _ATTENTION,
    "all": (*_ATTENTION, *_FEED_FORWARD),
}
"""Approach -> linear layers that are adapted, in the blocks of encoder and decoder."""
# of the study's two approaches
_R, _ALPHA, _DROPOUT = 8, 16, 0.05


def add_lora(model: PreTrainedModel, trial: TrialConfig, *, seed: int) -> PeftModel:
    """Wrap a frozen base with fresh adapters of a trial's LoRA approach, without bias.

    They are LoRA, rsLoRA (Kalajdzievski, 2023) or DoRA (Liu et al., 2024).

    `first` and `second` have r 8, alpha 16 and dropout 0.05. The adapters' weights are float32 and
    depend on `seed` alone; at the start they change nothing, because B is zero.
    """
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=trial.lora_r or _R,
        lora_alpha=trial.lora_alpha or _ALPHA,
        lora_dropout=_DROPOUT if trial.lora_dropout is None else trial.lora_dropout,
        bias="none",
        use_rslora=trial.lora_variant == "rslora",
        use_dora=trial.lora_variant == "dora",
        target_modules=list(TARGETS[trial.lora]),
    )
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    # PEFT would add embedding and head to what it saves if it found the vocabulary cut.
    save: Any = functools.partial(adapted.save_pretrained, save_embedding_layers=False)
    adapted.save_pretrained = save  # type: ignore[method-assign]
    return adapted


@contextmanager
def adapted(model: PreTrainedModel, trial: TrialConfig, *, seed: int) -> Iterator[PeftModel]:
    """A base with fresh adapters inside; afterwards the base is as it was."""
    with_adapters = add_lora(model, trial, seed=seed)
    try:
        yield with_adapters
    finally:
        with_adapters.unload()
