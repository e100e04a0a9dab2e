"""Loading the base model: 4-bit nf4 weights with bfloat16 compute, and a head that stays untied."""

from __future__ import annotations

import json
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal, cast

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import AddedToken, Regex
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.pre_tokenizers import Split
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.activations import NewGELUActivation

from detox_tune.errors import UserError
from detox_tune.model.nf4 import nf4_settings, unpack_4bit_layers

T5_FAMILY = frozenset({"t5", "mt5", "umt5"})
Quantization = Literal["nf4", "none"]
_CONTROL_TOKEN_START = r"<(?=(?:/?s|pad|unk|extra_id_\d+|0x[0-9A-F]{2})>)"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model")
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
    if device == "cpu":
        # PyTorch's own attention is slow in its backward pass at a few dozen tokens on a CPU.
        options |= {"attn_implementation": "eager"}
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(name, device_map={"": device}, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(_cannot_load(name, error)) from error
    except (UnpicklingError, EOFError) as error:
        raise UserError(_no_tensors(name)) from error
    except RuntimeError as error:
        if "PytorchStreamReader" in str(error):
            raise UserError(_no_tensors(name)) from error
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise UserError(
            f"base_model={name!r}: its weights have other shapes than its config.json says; take "
            "both from one checkpoint"
        ) from error
    keep_head_untied(model)
    fuse_gelu(model)
    if quantization == "nf4" and device == "cpu":
        unpack_4bit_layers(model)
    model.requires_grad_(False)
    return model


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a T5-family checkpoint, for which texts are plain (`read_text_plainly`).

    Raises:
        UserError: if there is no such checkpoint or it is not of the T5 family.
    """
    if _is_path(name):
        _check_folder(name)
    quiet_libraries()
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type not in T5_FAMILY:
            raise UserError(
                f"base_model={name!r} is a {config.model_type} model, but must be of the T5 family "
                f"({', '.join(sorted(T5_FAMILY))}); try google/mt5-base"
            )
        if _is_path(name) and not any((Path(name) / file).is_file() for file in _TOKENIZER_FILES):
            raise UserError(_no_checkpoint(name))  # transformers would make one without tokens
        tokenizer = AutoTokenizer.from_pretrained(name)
    except UserError:
        raise
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UserError(_cannot_load(name, error)) from error
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        read_text_plainly(tokenizer)
    return tokenizer


def read_text_plainly(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let control tokens that stand in a text, such as `</s>`, be the characters that they are.

    Ids and decoding stay. Offsets stay those of the text. It takes three steps: sentinels count as
    special tokens, special tokens are not looked for in texts, and texts are cut after the `<` of
    one, since T5's unigram model has control tokens among its pieces.
    """
    backend = tokenizer.backend_tokenizer
    sentinels = tokenizer.convert_ids_to_tokens(sentinel_ids(tokenizer))
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in sentinels]
    )
    tokenizer.split_special_tokens = True
    cut = Split(Regex(_CONTROL_TOKEN_START), "isolated")
    backend.pre_tokenizer = PreTokenizers([backend.pre_tokenizer, cut])


def keep_head_untied(model: PreTrainedModel) -> None:
    """Say in the config what the weights are: an mT5 head differs from its embedding.

    transformers' default for mT5 is a tied head; with two matrices loaded, a later
    `resize_token_embeddings` or `tie_weights` would silently overwrite the head.
    """
    head = cast(torch.nn.Linear, model.get_output_embeddings())
    embedding = cast(torch.nn.Embedding, model.get_input_embeddings())
    if head.weight.data_ptr() != embedding.weight.data_ptr():
        model.config.tie_word_embeddings = False


def fuse_gelu(model: PreTrainedModel) -> None:
    """Compute the GELU of gated T5 blocks in one kernel.

    transformers' `gelu_new` is the same function in seven operations, whose results training keeps
    until the backward pass: a fifth of a step's memory at mt5-base's shape.
    """
    for module in model.modules():
        if isinstance(getattr(module, "act", None), NewGELUActivation):
            module.act = torch.nn.GELU(approximate="tanh")


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of T5's sentinels, `<extra_id_N>`, wherever the vocabulary keeps them."""
    vocabulary = tokenizer.get_vocab()
    return sorted(i for token, i in vocabulary.items() if _SENTINEL.fullmatch(token))


def quiet_libraries() -> None:
    """Keep notices about optional kernels and tied weights off the user's screen."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _no_tensors(name: str) -> str:
    return (
        f"base_model={name!r}: its pickled weights (pytorch_model.bin) are damaged, or hold more "
        "than tensors, which is not read: copy them again, or take a checkpoint in safetensors"
    )


def _cannot_load(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    if _is_path(name):
        remedy = "it must be the whole folder of a T5-family checkpoint; copy it again"
    else:
        remedy = (
            "it is no folder here, so it must be a T5-family checkpoint on the hub; check the name "
            "and the connection, or give the folder of a checkpoint"
        )
    return f"base_model={name!r} cannot be loaded: {remedy} ({reason})"


def _is_path(name: str) -> bool:
    return Path(name).exists() or not name or name[0] in "./~"


def _no_checkpoint(name: str) -> str:
    return (
        f"base_model={name!r} is no checkpoint: the folder must hold config.json, weights and a "
        "tokenizer; give such a folder, or a name on the hub"
    )


def _check_folder(name: str) -> None:
    """Refuse what transformers answers with a traceback."""
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise UserError(_no_checkpoint(name))
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise UserError(f"{path} is damaged: it must be one JSON object; copy it again")
