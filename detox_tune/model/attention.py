"""Attention with dropout that keeps little for its backward pass, on a CPU.

PyTorch's own, where there is dropout and no GPU, widens queries, keys and values to float32 and
keeps these and all probabilities. This keeps its inputs and the dropout, and computes the
probabilities again.
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

    Without dropout, without gradients, and on a GPU it is PyTorch's own.
    """
    trained_bias = position_bias is None or position_bias.requires_grad
    if not 0 < dropout < 1 or not torch.is_grad_enabled() or query.is_cuda or trained_bias:
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
    assert position_bias is not None
    causal = attention_mask is None and query.shape[2] > 1 and getattr(module, "is_causal", True)
    bias = create_position_bias_mask(position_bias, attention_mask, causal, query, key)
    shape = (*query.shape[:3], key.shape[2])
    kept, factor = kept_elements(query.new_empty(shape), dropout, query.dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    apply: Any = _Attention.apply  # torch leaves it without types
    attended: Tensor = apply(query, key, value, bias, kept, factor, scale)
    return attended.transpose(1, 2).contiguous(), None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        kept: Tensor,
        factor: float,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, bias, kept)
        ctx.factor, ctx.scale = factor, scale
        dropped = _probabilities(query, key, bias, scale).mul_(kept).mul_(factor)
        return (dropped @ _wide(value)).to(query.dtype)

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        query, key, value, bias, kept = ctx.saved_tensors
        probabilities = _probabilities(query, key, bias, ctx.scale)
        wide = _wide(gradient)
        to_value = (probabilities * kept).mul_(ctx.factor).mT @ wide
        inner = (wide @ _wide(value).mT).mul_(kept).mul_(ctx.factor)
        along = (inner * probabilities).sum(-1, keepdim=True)
        to_scores = inner.sub_(along).mul_(probabilities).mul_(ctx.scale)
        return (
            (to_scores @ _wide(key)).to(query.dtype),
            (to_scores.mT @ _wide(query)).to(key.dtype),
            to_value.to(value.dtype),
            None,
            None,
            None,
            None,
        )


def _probabilities(query: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    scores = (_wide(query) @ _wide(key).mT).mul_(scale)
    return scores.add_(bias).softmax(-1)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x
