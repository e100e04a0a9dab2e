"""Leaner modules with the same mathematics, for training a frozen T5 with adapters.

What PyTorch keeps for the backward pass of T5's norms, gated feed-forward and dropouts takes more
memory than a frozen base needs, and time to write. These keep little more than their inputs, in
the base's own type, and compute the rest again; gelu is one operation instead of eight.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.models.mt5.modeling_mt5 import MT5DenseGatedActDense, MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense, T5LayerNorm
from transformers.models.umt5.modeling_umt5 import UMT5DenseGatedActDense, UMT5LayerNorm

from detox_tune.model.attention import use_lean_attention
from detox_tune.model.dropout import BitDropout, kept_elements

_NORMS = (MT5LayerNorm, T5LayerNorm, UMT5LayerNorm)
_GATED = (MT5DenseGatedActDense, T5DenseGatedActDense, UMT5DenseGatedActDense)


def make_lean(model: nn.Module) -> None:
    """Swap such modules of a T5-family model, with or without adapters, in place.

    Weights, their names, rates and modes stay. What is not known is left as it is.
    """
    use_lean_attention(model)
    for module in list(model.modules()):
        if isinstance(module, _NORMS):
            _set_forward(module, _norm_forward)
        elif isinstance(module, _GATED) and isinstance(module.act, NewGELUActivation):
            _set_forward(module, _gated_forward)
        elif isinstance(module, LoraLayer):
            _lean_lora(module)
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, BitDropout(child.p, child.inplace).train(child.training))


class _Norm(torch.autograd.Function):
    """T5's norm (Zhang and Sennrich 2019, without a mean) with a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, inverse)
        normed = wide.mul_(inverse) if wide is not x else wide * inverse
        return weight * normed.to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        normed = x.float() * inverse
        inner = (gradient * weight).float()
        along = (inner * normed).mean(-1, keepdim=True)
        return (inner - normed.mul_(along)).mul_(inverse).to(x.dtype), None, None


class _GatedGelu(torch.autograd.Function):
    """gelu(gate) * linear, with a dropout."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, linear: Tensor, kept: Tensor, factor: float) -> Tensor:
        activated = F.gelu(gate, approximate="tanh")  # kept, too: it is slow on a CPU
        ctx.save_for_backward(gate, activated, linear, kept)
        ctx.factor = factor
        return (activated * linear).mul_(kept).mul_(factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gate, activated, linear, kept = ctx.saved_tensors
        inner = (gradient * kept).mul_(ctx.factor)
        to_linear = activated * inner
        to_gate = torch.ops.aten.gelu_backward(inner.mul_(linear), gate, approximate="tanh")
        return to_gate, to_linear, None, None


class _DropLinear(torch.autograd.Function):
    """A trained linear layer behind a dropout: the first half of a LoRA branch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, kept: Tensor, factor: float, dtype: torch.dtype
    ) -> Tensor:
        # Adapters get their input in fp32; it holds no more than the base's own type did.
        ctx.save_for_backward(x.to(dtype), weight, kept)
        ctx.factor = factor
        return F.linear(x * kept, weight).mul_(factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, weight, kept = ctx.saved_tensors
        scaled = gradient * ctx.factor
        used = x.to(weight.dtype) * kept
        to_weight = scaled.flatten(0, -2).T @ used.flatten(0, -2)
        return (scaled @ weight).mul_(kept), to_weight, None, None, None


def _norm_forward(self: Any, x: Tensor) -> Tensor:
    if not self.training or self.weight.requires_grad:
        out: Tensor = type(self).forward(self, x)
        return out
    out = _apply(_Norm, x, self.weight, self.variance_epsilon)
    return out


def _gated_forward(self: Any, x: Tensor) -> Tensor:
    gate, linear = self.wi_0(x), self.wi_1(x)
    if self.training and 0 < self.dropout.p < 1:
        hidden = _apply(_GatedGelu, gate, linear, *kept_elements(gate, self.dropout.p, gate.dtype))
    else:
        hidden = self.dropout(F.gelu(gate, approximate="tanh") * linear)
    if hidden.dtype != self.wo.weight.dtype and self.wo.weight.dtype.is_floating_point:
        hidden = hidden.to(self.wo.weight.dtype)
    out: Tensor = self.wo(hidden)
    return out


def _lean_lora(layer: Any) -> None:
    """Put each adapter's dropout and first matrix into one step."""
    dtype = getattr(layer.get_base_layer(), "compute_dtype", None) or torch.float32
    for name, dropout in layer.lora_dropout.items():
        if type(dropout) is nn.Dropout and 0 < dropout.p < 1:
            layer.lora_dropout[name] = nn.Identity()
            first = layer.lora_A[name]
            first.dropout_rate, first.input_dtype = dropout.p, dtype
            _set_forward(first, _drop_linear_forward)


def _drop_linear_forward(self: Any, x: Tensor) -> Tensor:
    if not self.training:
        return F.linear(x, self.weight)
    kept, factor = kept_elements(x, self.dropout_rate, self.input_dtype)
    out: Tensor = _apply(_DropLinear, x, self.weight, kept, factor, self.input_dtype)
    return out


def _set_forward(module: nn.Module, forward: Any) -> None:
    module.forward = MethodType(forward, module)


def _apply(function: Any, *arguments: Any) -> Any:
    """An autograd function's `apply`, which torch leaves without types."""
    return function.apply(*arguments)
