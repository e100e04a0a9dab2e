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
        elif isinstance(module, LoraLayer) and _is_plain_lora(module):
            _set_forward(module, _lora_forward)
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
        ctx.save_for_backward(gate, linear, kept)
        ctx.factor = factor
        return F.gelu(gate, approximate="tanh").mul_(linear).mul_(kept).mul_(factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gate, linear, kept = ctx.saved_tensors
        inner = (gradient * kept).mul_(ctx.factor)
        to_linear = F.gelu(gate, approximate="tanh").mul_(inner)
        to_gate = torch.ops.aten.gelu_backward(inner.mul_(linear), gate, approximate="tanh")
        return to_gate, to_linear, None, None


class _LoraBranch(torch.autograd.Function):
    """What the base gave, plus factor * B A (x without what is dropped), in the base's type."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, x: Tensor, a: Tensor, b: Tensor, kept: Tensor | None, factor: float
    ) -> Tensor:
        hidden = F.linear(_used(x, kept, a.dtype), a).mul_(factor)
        ctx.save_for_backward(x, a, b, kept, hidden)
        ctx.factor = factor
        return F.linear(hidden, b).add_(given).to(given.dtype)

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None, None]:
        x, a, b, kept, hidden = ctx.saved_tensors
        wide = gradient.to(b.dtype)
        to_b = (hidden.flatten(0, -2).T @ wide.flatten(0, -2)).T
        to_hidden = (wide @ b).mul_(ctx.factor)
        to_a = to_hidden.flatten(0, -2).T @ _used(x, kept, a.dtype).flatten(0, -2)
        to_x = None
        if ctx.needs_input_grad[1]:
            to_x = to_hidden @ a
            to_x = (to_x if kept is None else to_x.mul_(kept)).to(x.dtype)
        return gradient, to_x, to_a, to_b, None, None


def _used(x: Tensor, kept: Tensor | None, dtype: torch.dtype) -> Tensor:
    return (x if kept is None else x * kept).to(dtype)


def _norm_forward(self: Any, x: Tensor) -> Tensor:
    if not self.training or self.weight.requires_grad:
        out: Tensor = type(self).forward(self, x)
        return out
    out = _apply(_Norm, x, self.weight, self.variance_epsilon)
    return out


def _gated_forward(self: Any, x: Tensor) -> Tensor:
    gate, linear = self.wi_0(x), self.wi_1(x)
    if self.training and 0 < self.dropout.p < 1:
        hidden = _apply(_GatedGelu, gate, linear, *kept_elements(gate, self.dropout.p))
    else:
        hidden = self.dropout(F.gelu(gate, approximate="tanh") * linear)
    if hidden.dtype != self.wo.weight.dtype and self.wo.weight.dtype.is_floating_point:
        hidden = hidden.to(self.wo.weight.dtype)
    out: Tensor = self.wo(hidden)
    return out


def _lora_forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """As PEFT's, in training; without its copies to the adapters' type and back."""
    names = self.active_adapters
    plain = self.training and not (self.disable_adapters or self.merged or args or kwargs)
    alone = len(names) == 1 and names[0] in self.lora_A
    if not plain or not alone or torch.is_autocast_enabled(x.device.type):
        out: Tensor = type(self).forward(self, x, *args, **kwargs)
        return out
    (name,) = names
    rate = getattr(self.lora_dropout[name], "p", 0.0)  # PEFT has an Identity for none
    factor = self.scaling[name]
    kept = None
    if rate > 0:
        kept, kept_factor = kept_elements(x, rate)
        factor *= kept_factor
    a, b = self.lora_A[name].weight, self.lora_B[name].weight
    out = _apply(_LoraBranch, self.base_layer(x), x, a, b, kept, factor)
    return out


def _is_plain_lora(layer: Any) -> bool:
    """Whether all adapters of a layer are the LoRA of the paper, nothing more."""
    dropouts = layer.lora_dropout.values()
    return (
        isinstance(layer.get_base_layer(), nn.Linear)
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and all(isinstance(d, nn.Identity) or 0 <= d.p < 1 for d in dropouts)
    )


def _set_forward(module: nn.Module, forward: Any) -> None:
    module.forward = MethodType(forward, module)


def _apply(function: Any, *arguments: Any) -> Any:
    """An autograd function's `apply`, which torch leaves without types."""
    return function.apply(*arguments)
