"""The stock recipe, as public runs use it: what the fast path is measured against.

Hugging Face's trainer on a 4-bit base with PEFT adapters, gradient checkpointing, the logits of
all label positions over the whole vocabulary, `generate` for evaluation. Nothing of detox_tune but
the collator's masks takes part, so that improvements of ours cannot leak into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


def computes_bfloat16(device: str) -> bool:
    """Whether nf4 layers make sense there: x86 processors without AVX512-BF16 emulate bfloat16.

    One such core multiplied matrices at 0.8 GFLOP/s in bfloat16, at 37 in float32.
    """
    return device != "cpu" or bool(torch.cpu.get_capabilities().get("avx512_bf16", True))


def stock_model(
    folder: str, targets: Sequence[str], *, quantized: bool, device: str, prepared: bool = False
) -> Any:
    """A base with fresh adapters, loaded as PEFT's QLoRA guide says.

    Unless `prepared`, without that guide's `prepare_model_for_kbit_training`: it turns embedding
    and head into float32 and makes the recipe slower still.
    """
    options: dict[str, Any] = {"dtype": torch.float32}
    if quantized:
        nf4 = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        options = {"dtype": torch.bfloat16, "quantization_config": nf4}
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, device_map={"": device}, **options)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # or training breaks after an evaluation
            module.support_avx512bf16_for_cpu = False
    model.requires_grad_(False)
    if prepared:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model.enable_input_require_grads()  # checkpointing needs an input that wants a gradient
    lora = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=8,
        lora_alpha=16,
        lora_dropout=0.05,
        target_modules=list(targets),
    )
    torch.manual_seed(0)
    return get_peft_model(model, lora)


def stock_batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Padded rows; labels that are not trained are -100, and the decoder reads all of them."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    labels = [torch.tensor(row["labels"]) for row in rows]
    trained = [torch.tensor(row["trained"]) for row in rows]
    masked = [torch.where(t, y, -100) for y, t in zip(labels, trained, strict=True)]
    shifted = [torch.cat([y.new_zeros(1), y[:-1]]) for y in labels]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
        "labels": pad_sequence(masked, batch_first=True, padding_value=-100),
        "decoder_input_ids": pad_sequence(shifted, batch_first=True),
    }


def stock_trainer(
    model: Any,
    arguments: TrainingArguments,
    rows: Sequence[Mapping[str, Any]],
    callback: TrainerCallback,
) -> Trainer:
    """Hugging Face's trainer, with gradient checkpointing."""
    arguments.gradient_checkpointing = True
    arguments.gradient_checkpointing_kwargs = {"use_reentrant": False}
    arguments.remove_unused_columns = False
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,  # type: ignore[arg-type]  # a list will do
        data_collator=stock_batch,
        callbacks=[callback],
    )
