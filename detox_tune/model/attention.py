"""Attention that keeps little for its backward pass and is quick at short sentences, on a CPU.

PyTorch's own widens queries, keys and values to float32 where there is dropout, and keeps these and
all probabilities; without dropout its backward pass is slow at so few tokens. This keeps its inputs
and the dropout, and computes the probabilities again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import (
    create_position_bias_mask,
    sdpa_attention_forward,
)
from transformers.masking_utils import sdpa_mask

from detox_tune.model.dropout import kept_elements

_NAME = "detox_lean"


def use_lean_attention(model: nn.Module) -> None:
    """Let a model that attends by `sdpa` attend by `lean_attention`."""
    AttentionInterface.register(_NAME, lean_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    for config in configs.values():
        if config._attn_implementation == "sdpa":
            config._attn_implementation = _NAME


def lean_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: [b, h, t, d] and [b, h, s, d] to [b, t, h, d].

    Without gradients, with a trained bias, under autocast, and on a GPU it is PyTorch's own.
    """
    device = query.device.type
    if (
        not 0 <= dropout < 1
        or not torch.is_grad_enabled()
        or position_bias is None
        or position_bias.requires_grad
        or device != "cpu"
        or torch.is_autocast_enabled(device)  # it would narrow the scores
    ):
        out, _ = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            position_bias=position_bias,
            **kwargs,
        )
        return out, None
    causal = attention_mask is None and query.shape[2] > 1 and getattr(module, "is_causal", True)
    bias = create_position_bias_mask(position_bias, attention_mask, causal, query, key)
    kept, factor = None, 1.0
    if dropout > 0:
        shape = (*query.shape[:3], key.shape[2])
        kept, factor = kept_elements(query.new_empty(1).expand(shape), dropout)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    apply: Any = _Attention.apply  # torch leaves it without types
    attended: Tensor = apply(query, key, value, bias, kept, factor, scale)
    return attended, None


class _Attention(torch.autograd.Function):
    """[b, h, t, d] and twice [b, h, s, d] to [b, t, h, d]."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        kept: Tensor | None,
        factor: float,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, bias, kept)
        ctx.factor, ctx.scale = factor, scale
        probabilities = _probabilities(_wide(query), _wide(key), bias, scale)
        attended = _drop(probabilities, kept, factor) @ _wide(value)
        return _laid_out(attended.transpose(1, 2), query.dtype)

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        query, key, value, bias, kept = ctx.saved_tensors
        dtype = query.dtype
        query, key, upstream = _wide(query), _wide(key), _wide(gradient.transpose(1, 2))
        probabilities = _probabilities(query, key, bias, ctx.scale)
        inner = _drop(upstream @ _wide(value).mT, kept, ctx.factor)
        to_scores = torch.ops.aten._softmax_backward_data(
            inner, probabilities, -1, probabilities.dtype
        )
        if ctx.scale != 1:
            to_scores.mul_(ctx.scale)
        to_value = _drop(probabilities, kept, ctx.factor).mT @ upstream
        gradients = (to_scores @ key, to_scores.mT @ query, to_value)
        # laid out as the projections' outputs are, so that nobody needs to copy them
        to_query, to_key, to_value = (
            _laid_out(g.transpose(1, 2), dtype).transpose(1, 2) for g in gradients
        )
        return to_query, to_key, to_value, None, None, None, None


def _probabilities(query: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    scores = query @ key.mT
    if scale != 1:
        scores.mul_(scale)
    return scores.add_(bias).softmax(-1)


def _drop(x: Tensor, kept: Tensor | None, factor: float) -> Tensor:
    """Dropout, in place."""
    return x if kept is None else x.mul_(kept).mul_(factor)


def _wide(x: Tensor) -> Tensor:
    """In the type that is computed in, one head after the other: a single copy."""
    return _laid_out(x, torch.promote_types(x.dtype, torch.float32))


def _laid_out(x: Tensor, dtype: torch.dtype) -> Tensor:
    # the second step does nothing where the first one had to copy
    return x.to(dtype, memory_format=torch.contiguous_format).contiguous()
