"""Tiny random T5-family models and pairs of random tokens, for tests of training."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 40
FORBIDDEN = (7, 8, 9)
Row = dict[str, Any]


def tiny_base(kind: str = "mT5", dropout: float = 0.0) -> Any:
    """An mT5 with an untied head, or a `tied T5`, with 40 tokens."""
    sizes: Any = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 32}
    sizes |= {"num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    if kind == "tied T5":
        return T5ForConditionalGeneration(T5Config(**sizes, dropout_rate=dropout))
    config = MT5Config(**sizes, dropout_rate=dropout)
    config.tie_word_embeddings = False  # the class sets True whatever it is given
    model = MT5ForConditionalGeneration(config)
    for stack in (model.encoder, model.decoder):
        stack.embed_tokens.weight = model.shared.weight
    with torch.no_grad():  # as large as one that was trained, or the softmax knows one token only
        model.lm_head.weight *= 0.3
    return model


def with_lora(base: Any, dropout: float = 0.0) -> Any:
    """Adapters on a base; B as after some steps, since zeros would keep A still."""
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_dropout=dropout, target_modules=["q", "v"])
    model: Any = get_peft_model(base, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return model


def tiny_lora(dropout: float = 0.0) -> Any:
    """A tiny mT5 with adapters."""
    return with_lora(tiny_base(dropout=dropout), dropout)


def random_rows(count: int, tokens: Sequence[int] = range(2, VOCABULARY)) -> list[Row]:
    """Pairs of uneven lengths; each has a toxic position, some have a toxic word kept."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        size = draw.randint(2, 9)
        label_toxic = [draw.random() < 0.15 for _ in range(size)] + [False]
        toxic = [flag or draw.random() < 0.2 for flag in label_toxic]
        toxic[draw.randrange(size)] = True
        rows.append(
            {
                "input_ids": [*draw.choices(tokens, k=draw.randint(2, 9)), 1],
                "labels": [*draw.choices(tokens, k=size), 1],
                "label_toxic": label_toxic,
                "toxic_positions": toxic,
            }
        )
    return rows
