"""Losses against slow loops in double precision, at extremes, and their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detox_tune.training.losses import masked_cross_entropy, penalised_positions, toxic_penalty


def slow_cross_entropy(logits_btv: Tensor, labels_bt: Tensor, weight_bt: Tensor) -> float:
    total = 0.0
    for b, t in torch.nonzero(weight_bt).tolist():
        z = logits_btv[b, t].double().tolist()
        top = max(z)
        loss = top + math.log(sum(math.exp(x - top) for x in z)) - z[int(labels_bt[b, t])]
        total += weight_bt[b, t].item() * loss
    return total


def slow_penalty(logits_btv: Tensor, scored_bt: Tensor, forbidden: list[int]) -> float:
    total = 0.0
    for b, t in torch.nonzero(scored_bt).tolist():
        z = logits_btv[b, t].double().tolist()
        top = max(z)
        weights = [math.exp(x - top) for x in z]
        allowed = sum(w for token, w in enumerate(weights) if token not in forbidden)
        total -= math.log(allowed / sum(weights))  # -log(1 - p_T)
    return total


def batch(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 5, 11, generator=generator)
    labels = torch.randint(0, 11, (3, 5), generator=generator)
    picked = torch.rand(3, 5, generator=generator) < 0.5
    labels[0, 3:] = -100
    picked[0, 3:] = False
    return logits.to(dtype), labels, picked


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_cross_entropy_equals_the_loop(seed: int, dtype: torch.dtype) -> None:
    logits, labels, picked = batch(seed, dtype)
    weight = torch.where(picked, 1.0, 0.25) * (labels != -100)
    found = masked_cross_entropy(logits, labels, weight, count=7)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(slow_cross_entropy(logits, labels, weight) / 7, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sets(st.integers(0, 10), min_size=1, max_size=10).map(sorted),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_penalty_equals_the_loop(seed: int, forbidden: list[int], dtype: torch.dtype) -> None:
    logits, _, scored = batch(seed, dtype)
    found = toxic_penalty(logits, scored, torch.tensor(forbidden), count=torch.tensor(7))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(slow_penalty(logits, scored, forbidden) / 7, rel=1e-5)
    assert found.item() >= 0


def test_masked_positions_get_no_gradient() -> None:
    logits, labels, picked = batch(3)
    logits.requires_grad_()
    loss = masked_cross_entropy(logits, labels, picked.float(), count=4) + toxic_penalty(
        logits, picked, torch.tensor([2, 5]), count=4
    )
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(-1) > 0, picked)


def test_gradients_in_double_precision() -> None:
    logits, labels, picked = batch(4, torch.float64)
    logits = (logits / 3).requires_grad_()
    forbidden = torch.tensor([0, 3, 4])
    assert torch.autograd.gradcheck(
        lambda z: masked_cross_entropy(z, labels, picked, count=3), (logits,)
    )
    assert torch.autograd.gradcheck(
        lambda z: toxic_penalty(z, picked, forbidden, count=3), (logits,)
    )


@given(st.floats(-15, 15))
def test_the_slope_in_the_log_odds_is_the_probability(log_odds: float) -> None:
    # Two forbidden and two allowed tokens; raising the forbidden logits alike raises the log-odds.
    shift = torch.tensor(log_odds, dtype=torch.float64, requires_grad=True)
    z = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)
    is_forbidden = torch.tensor([True, True, False, False])
    logits = (z + shift * is_forbidden).reshape(1, 1, 4)
    scored = torch.ones(1, 1, dtype=torch.bool)
    toxic_penalty(logits, scored, torch.tensor([0, 1]), count=1).backward()
    p_forbidden = logits.detach().softmax(-1)[0, 0, :2].sum()
    assert shift.grad is not None
    assert shift.grad.item() == pytest.approx(p_forbidden.item(), rel=1e-9)


@pytest.mark.parametrize(("forbidden_logit", "expected"), [(1e4, 2e4), (-1e4, 0.0)])
def test_huge_logits_stay_finite(forbidden_logit: float, expected: float) -> None:
    logits = torch.full((1, 1, 6), -forbidden_logit)
    logits[..., 2] = forbidden_logit
    logits.requires_grad_()
    scored = torch.ones(1, 1, dtype=torch.bool)
    penalty = toxic_penalty(logits, scored, torch.tensor([2]), count=1)
    penalty.backward()
    assert penalty.item() == pytest.approx(expected, abs=2)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    slope = 1.0 if forbidden_logit > 0 else 0.0  # full strength where the model is sure of it
    assert logits.grad[0, 0, 2].item() == slope


def test_nothing_forbidden_is_exactly_zero_and_in_the_graph() -> None:
    logits = torch.full((2, 3, 4), torch.inf, requires_grad=True)
    scored = torch.ones(2, 3, dtype=torch.bool)
    penalty = toxic_penalty(logits, scored, torch.tensor([], dtype=torch.long), count=6)
    penalty.backward()
    assert penalty.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(2, 3, 4))


def test_no_position_is_zero_and_in_the_graph() -> None:
    logits, labels, picked = batch(5)
    logits.requires_grad_()
    nowhere = torch.zeros_like(picked)
    loss = masked_cross_entropy(logits, labels, nowhere, count=1) + toxic_penalty(
        logits, nowhere, torch.tensor([1]), count=1
    )
    loss.backward()
    assert loss.item() == 0


def test_penalised_positions_leave_out_toxic_labels() -> None:
    labels = torch.tensor([[4, 5, 6, 7, 1], [5, 1, -100, -100, -100]])
    in_toxic_span = torch.zeros(2, 5, dtype=torch.bool)
    in_toxic_span[0, 3] = True
    found = penalised_positions(labels, in_toxic_span, torch.tensor([5]))
    assert found.tolist() == [[True, False, True, False, True], [False, True, False, False, False]]
