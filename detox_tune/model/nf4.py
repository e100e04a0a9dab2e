"""4-bit nf4 weights (QLoRA, Dettmers et al., 2023), unpacked once on a CPU.

A frozen `Linear4bit` unpacks the same weights at every call. Doing it once gives bit-identical
outputs for 16 bits a weight instead of about 4.5. On a CPU it also keeps bitsandbytes from
repacking a layer at the first forward without gradients, after which its backward pass is wrong
or missing (processors with AVX512-BF16). On a GPU layers stay packed: there nobody has measured it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BitsAndBytesConfig, PreTrainedModel


def nf4_settings() -> BitsAndBytesConfig:
    """4-bit NormalFloat weights, bfloat16 compute."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def unpack_4bit_layers(model: PreTrainedModel) -> None:
    """Let the model's 4-bit layers compute with weights that are unpacked now.

    They stay 4-bit layers in name, so that PEFT adapts them as such and rounds as it would. A
    model without such layers stays as it is.
    """
    import bitsandbytes

    layers: Any = bitsandbytes.nn  # it does not export its classes explicitly
    for module in model.modules():
        if isinstance(module, layers.Linear4bit):
            _unpack(module)


def _unpack(layer: Any) -> None:
    from bitsandbytes.functional import dequantize_4bit

    dtype = layer.compute_dtype
    unpacked: Any = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    weight = unpacked.to(dtype)
    bias = None if layer.bias is None else layer.bias.data.to(dtype)

    def forward(x: Tensor) -> Tensor:
        return F.linear(x.to(dtype), weight, bias).to(x.dtype)

    layer.forward = forward
