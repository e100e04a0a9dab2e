"""Loading the base model: 4-bit nf4 weights with bfloat16 compute, and a head that stays untied."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, cast

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from detox_tune.errors import UserError
from detox_tune.model.nf4 import nf4_settings, unpack_4bit_layers

T5_FAMILY = frozenset({"t5", "mt5", "umt5"})
Quantization = Literal["nf4", "none"]
_SENTINEL = re.compile(r"<extra_id_\d+>")


def load_base(
    name: str, *, quantization: Quantization, device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a T5-family checkpoint, frozen weights first, for LoRA training.

    Args:
        name: hub name (`google/mt5-base`) or folder of a checkpoint.
        quantization: `nf4` keeps the linear layers inside the blocks in 4 bits and computes in
            bfloat16 (QLoRA, Dettmers et al., 2023); embeddings, head and `wo` stay bfloat16.
            `none` loads float32.
        device: a torch device such as `cpu` or `cuda`. On a CPU, 4-bit layers are unpacked once.

    Raises:
        UserError: if there is no such device or checkpoint, or the checkpoint is not of the T5
            family, or damaged.
    """
    check_device(device)
    tokenizer = load_tokenizer(name)
    return load_model(name, quantization=quantization, device=device), tokenizer


def check_device(device: str) -> None:
    """Refuse a torch device that this machine does not have.

    Raises:
        UserError: with the devices that it has.
    """
    known = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    known += ["cuda"] if torch.cuda.is_available() else []
    known += ["mps"] if torch.backends.mps.is_available() else []
    if device not in known:
        raise UserError(
            f"device {device!r}: this machine has {', '.join(known)}; choose one of these"
        )


def load_model(name: str, *, quantization: Quantization, device: str = "cpu") -> PreTrainedModel:
    """`load_base` without the tokenizer."""
    quiet_libraries()
    model: PreTrainedModel
    options: dict[str, object] = {"dtype": torch.float32}
    if quantization == "nf4":
        options = {"dtype": torch.bfloat16, "quantization_config": nf4_settings()}
    elif device == "cpu":
        # PyTorch's own attention is slow in its backward pass at a few dozen tokens on a CPU.
        options |= {"attn_implementation": "eager"}
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(name, device_map={"": device}, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(_cannot_load(name, error)) from error
    keep_head_untied(model)
    if quantization == "nf4" and device == "cpu":
        unpack_4bit_layers(model)
    model.requires_grad_(False)
    return model


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a T5-family checkpoint.

    Raises:
        UserError: if there is no such checkpoint or it is not of the T5 family.
    """
    if Path(name).is_absolute() and not (Path(name) / "config.json").is_file():
        raise UserError(
            f"base_model={name!r} is no checkpoint: the folder must hold config.json, weights and "
            "a tokenizer; give such a folder, a hub name, or `pocket`"
        )
    quiet_libraries()
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type not in T5_FAMILY:
            raise UserError(
                f"base_model={name!r} is a {config.model_type} model, but must be of the T5 family "
                f"({', '.join(sorted(T5_FAMILY))}); try google/mt5-base"
            )
        return AutoTokenizer.from_pretrained(name)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(_cannot_load(name, error)) from error


def keep_head_untied(model: PreTrainedModel) -> None:
    """Say in the config what the weights are: an mT5 head differs from its embedding.

    transformers' default for mT5 is a tied head; with two matrices loaded, a later
    `resize_token_embeddings` or `tie_weights` would silently overwrite the head.
    """
    head = cast(torch.nn.Linear, model.get_output_embeddings())
    embedding = cast(torch.nn.Embedding, model.get_input_embeddings())
    if head.weight.data_ptr() != embedding.weight.data_ptr():
        model.config.tie_word_embeddings = False


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of T5's sentinels, `<extra_id_N>`, wherever the vocabulary keeps them."""
    vocabulary = tokenizer.get_vocab()
    return sorted(i for token, i in vocabulary.items() if _SENTINEL.fullmatch(token))


def quiet_libraries() -> None:
    """Keep notices about optional kernels and tied weights off the user's screen."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _cannot_load(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return (
        f"base_model={name!r} cannot be loaded: it must be a T5-family checkpoint on the hub or a "
        f"folder of one; check the name, the network, or use `pocket` ({reason})"
    )
