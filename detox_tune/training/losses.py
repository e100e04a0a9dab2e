"""The two losses of a trial: cross-entropy at trained positions and the toxic penalty.

Shapes: b sentences of the batch, t label positions, v tokens of the vocabulary, n positions that
were picked out of the b x t.

Both losses return a sum over positions divided by `count`, which is the number of such positions
in the whole accumulated batch, so that the parts of a batch add up to the batch's mean.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_cross_entropy(
    logits_btv: Tensor, labels_bt: Tensor, weight_bt: Tensor, *, count: float | Tensor
) -> Tensor:
    """Weighted cross-entropy summed over the positions, over `count`; scalar, fp32, in nats.

    Args:
        logits_btv: any floating type; the loss is computed in fp32 (fp64 stays fp64).
        labels_bt: token ids; -100 at padding, whose weight must be 0.
        weight_bt: weight of each position, at least 0; positions of weight 0 do not count.
        count: the weights of the whole accumulated batch added up.
    """
    labels_bt = labels_bt.masked_fill(weight_bt == 0, -100)
    # Left out by their label: picking rows out of the logits would copy them.
    logits_nv = _at_least_fp32(logits_btv).flatten(0, -2)
    losses_n = F.cross_entropy(logits_nv, labels_bt.flatten(), reduction="none")
    return (losses_n * weight_bt.flatten()).sum() / count


def toxic_penalty(
    logits_btv: Tensor, scored_bt: Tensor, forbidden_ids: Tensor, *, count: int | Tensor
) -> Tensor:
    """How much probability goes to forbidden tokens, over `count`; scalar, fp32, in nats.

    With T the forbidden tokens and p_T their probability at a position it adds up
    `softplus(lse(z_T) - lse(z_notT))`, which equals `-log(1 - p_T)`. The gradient with respect to
    the log-odds of T is p_T, so it does not vanish where the model is sure of a toxic token.

    Args:
        logits_btv: any floating type; computed in fp32 (fp64 stays fp64).
        scored_bt: bool, the positions that count, from `penalised_positions`.
        forbidden_ids: the distinct ids of T, int64, not the whole vocabulary. Without any the
            penalty is exactly 0.
        count: scored positions of the whole accumulated batch, at least 1.
    """
    vocabulary = logits_btv.shape[-1]
    if len(forbidden_ids) == 0:
        return _at_least_fp32(logits_btv[:0]).sum()  # 0, and still part of the graph
    assert len(forbidden_ids) < vocabulary, "a token must be left to prefer"
    logits_nv = _at_least_fp32(logits_btv[scored_bt])
    is_forbidden_v = torch.zeros(vocabulary, dtype=torch.bool, device=logits_nv.device)
    is_forbidden_v[forbidden_ids] = True
    forbidden_n = logits_nv[:, forbidden_ids].logsumexp(-1)
    allowed_n = logits_nv.masked_fill(is_forbidden_v, -torch.inf).logsumexp(-1)
    return F.softplus(forbidden_n - allowed_n).sum() / count


def penalised_positions(labels_bt: Tensor, label_toxic_bt: Tensor, forbidden_ids: Tensor) -> Tensor:
    """Label positions whose own label is not toxic: where the toxic penalty applies.

    Padding (-100), toxic spans of the reference and labels that are forbidden tokens are left
    out: there the penalty would fight the cross-entropy.

    Returns:
        Bool, [b, t]; nowhere without forbidden tokens, since the penalty is 0 then.
    """
    if len(forbidden_ids) == 0:
        return torch.zeros_like(label_toxic_bt)
    return (labels_bt != -100) & ~label_toxic_bt & ~torch.isin(labels_bt, forbidden_ids)


def _at_least_fp32(logits: Tensor) -> Tensor:
    """bf16 keeps 8 bits of a sum over a quarter million tokens: too few for a loss."""
    return logits if logits.dtype == torch.float64 else logits.float()
