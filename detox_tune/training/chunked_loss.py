"""The losses without logits that no loss reads: gathered positions, projected chunk by chunk.

mT5's head is two thirds of a training step: a quarter million logits a position, each of which the
losses read, normalise and send a gradient back through. The head is frozen, so a chunk's gradient
with respect to its hidden states can be taken as soon as its losses are there, and its logits
dropped before the next chunk is projected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_CHUNK = 128  # positions: with far fewer, reading a large head takes longer than multiplying


@contextmanager
def without_head(model: Any) -> Iterator[nn.Linear]:
    """Inside, the model returns as `logits` what its head would have projected.

    Args:
        model: a T5-family model, or a PEFT model around one.

    Yields:
        The head.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.lm_head
    base.lm_head = nn.Identity()
    try:
        yield head
    finally:
        base.lm_head = head


def head_is_trained(model: Any) -> bool:
    """Whether the head of a model is trained itself, and not frozen."""
    return any(weight.requires_grad for weight in model.get_output_embeddings().parameters())


def chunked_loss(
    hidden_nd: Tensor,
    head: nn.Linear,
    terms_of: Callable[[Tensor, slice], Tensor],
    weights_k: Tensor,
) -> tuple[Tensor, Tensor]:
    """A weighted sum of losses over positions, each of them a sum over the logits of positions.

    Args:
        hidden_nd: hidden states of n positions.
        head: frozen; it projects them.
        terms_of: gives the k terms [k] of a slice of the positions from their logits.
        weights_k: weight of each term in the loss.

    Returns:
        The loss, differentiable with respect to `hidden_nd`, and the k terms, which are not.
    """
    # torch leaves `apply` without types
    apply: Any = _ChunkedLoss.apply
    loss, terms_k = apply(hidden_nd, head, terms_of, weights_k)
    return loss, terms_k


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        head: nn.Linear,
        terms_of: Callable[[Tensor, slice], Tensor],
        weights_k: Tensor,
    ) -> tuple[Tensor, Tensor]:
        gradient_nd = torch.empty_like(hidden_nd)
        terms_k = torch.zeros_like(weights_k)
        for start in range(0, len(hidden_nd), _CHUNK):
            part = slice(start, start + _CHUNK)
            with torch.enable_grad():
                hidden = hidden_nd[part].detach().requires_grad_()
                part_k = terms_of(head(hidden), part)
                (gradient_nd[part],) = torch.autograd.grad(part_k @ weights_k, hidden)
            terms_k += part_k.detach()
        ctx.save_for_backward(gradient_nd)
        ctx.mark_non_differentiable(terms_k)
        return terms_k @ weights_k, terms_k

    @staticmethod
    def backward(ctx: Any, loss_gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient_nd,) = ctx.saved_tensors
        return gradient_nd * loss_gradient, None, None, None
