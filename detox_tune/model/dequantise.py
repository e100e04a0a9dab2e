"""4-bit weights unpacked once: nf4 numerics at the speed of bfloat16.

A frozen `Linear4bit` unpacks the same weights at every call. Doing it once gives bit-identical
outputs, as long as there is memory for 16 bits a weight instead of about 4.5.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

_MEMORY_SHARE = 0.25  # of what a trial may use: the rest is for activations and the other weights


def dequantise(model: PreTrainedModel, *, memory: int) -> bool:
    """Let the model's 4-bit layers compute with weights that are unpacked now, if memory allows.

    They stay 4-bit layers in name, so that PEFT adapts them as such and rounds as it would.

    Args:
        model: changed in place; one without 4-bit layers stays as it is.
        memory: bytes that this process may use on the model's device, see `device_memory`.

    Returns:
        Whether no layer unpacks its weights at every call any more.
    """
    import bitsandbytes

    layers: Any = bitsandbytes.nn  # it does not export its classes explicitly
    packed = [m for m in model.modules() if isinstance(m, layers.Linear4bit)]
    if sum(map(_unpacked_bytes, packed)) > _MEMORY_SHARE * memory:
        return False
    for layer in packed:
        _unpack(layer)
    return True


def device_memory(device: str, share: float) -> int:
    """Bytes that one of several processes may use on a device.

    Args:
        device: `cpu`, or a CUDA device.
        share: of the device that the process was given: CPU cores over all cores, or the fraction
            of a GPU. What others use at the moment plays no part, so a search repeats itself.
    """
    if device.startswith("cuda"):
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(total * min(share, 1.0))


def _unpacked_bytes(layer: Any) -> int:
    return int(layer.in_features * layer.out_features * layer.compute_dtype.itemsize)


def _unpack(layer: Any) -> None:
    from bitsandbytes.functional import dequantize_4bit

    dtype = layer.compute_dtype
    unpacked: Any = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    weight = unpacked.to(dtype)
    bias = None if layer.bias is None else layer.bias.data.to(dtype)

    def forward(x: Tensor) -> Tensor:
        return F.linear(x.to(dtype), weight, bias).to(x.dtype)

    layer.forward = forward
