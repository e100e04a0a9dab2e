"""4-bit weights unpacked once: nf4 numerics at the speed of bfloat16.

A frozen `Linear4bit` unpacks the same weights at every call. Doing it once gives bit-identical
outputs, as long as there is memory for 16 bits a weight instead of about 4.5.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

_MEMORY_SHARE = 0.25  # of what a trial may use: the rest is for activations and the other weights


def dequantise(model: PreTrainedModel, *, memory: int) -> bool:
    """Replace the model's 4-bit layers by plain ones of their compute type, if memory allows.

    Args:
        model: changed in place; one without 4-bit layers stays as it is.
        memory: bytes that this process may use on the model's device, see `device_memory`.

    Returns:
        Whether no 4-bit layer is left.
    """
    import bitsandbytes

    layers: Any = bitsandbytes.nn  # it does not export its classes explicitly
    packed = {n: m for n, m in model.named_modules() if isinstance(m, layers.Linear4bit)}
    if sum(_plain_bytes(layer) for layer in packed.values()) > _MEMORY_SHARE * memory:
        return False
    for name, layer in packed.items():
        model.set_submodule(name, _plain(layer))
    if packed:
        # PEFT and the Trainer ask these what the layers are.
        for name in ("is_loaded_in_4bit", "is_quantized"):
            setattr(model, name, False)
        model.config.quantization_config = None
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


def _plain_bytes(layer: Any) -> int:
    return int(layer.in_features * layer.out_features * layer.compute_dtype.itemsize)


def _plain(layer: Any) -> nn.Linear:
    from bitsandbytes.functional import dequantize_4bit

    weight: Any = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    with torch.device("meta"):
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight = nn.Parameter(weight.to(layer.compute_dtype), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.data.to(layer.compute_dtype), requires_grad=False)
    return plain.train(layer.training)
