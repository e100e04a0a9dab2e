"""Dropout from sixteen bits an element: the same mathematics as torch's."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detox_tune.model.dropout import BitDropout, kept_elements

MANY = 1_000_003  # no multiple of the four elements that one random number decides on
VALUES = 65_536


def dropped_out(p: float, x: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    result: Tensor = BitDropout(p).train()(x)
    return result


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9, 1.5 / VALUES])
def test_as_many_are_dropped_as_by_torch_and_the_mean_stays(p: float) -> None:
    kept = (dropped_out(p, torch.ones(MANY)) != 0).sum().item()
    deviation = math.sqrt(MANY * p * (1 - p))
    rounding = MANY / VALUES / 2  # the rate has sixteen bits
    assert abs(kept - MANY * (1 - p)) < 4 * deviation + rounding
    torch.manual_seed(0)
    torchs = (nn.Dropout(p).train()(torch.ones(MANY)) != 0).sum().item()
    assert abs(kept - torchs) < 4 * math.sqrt(2) * deviation + rounding
    mean = dropped_out(p, torch.ones(MANY)).double().mean().item()
    assert abs(mean - 1) < 4 * deviation / MANY / (1 - p) + 1e-6


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_what_stays_is_scaled_by_the_rounded_rate(p: float) -> None:
    x = torch.randn(1001, generator=torch.Generator().manual_seed(1)) + 10
    found = dropped_out(p, x)
    stays = found != 0
    assert 0 < stays.sum() < len(x)
    scale = VALUES / (VALUES - round(p * VALUES))
    assert torch.equal(found[stays], x[stays] * scale)


def test_the_gradient_has_the_forward_pass_s_mask_and_scale() -> None:
    x = torch.randn(37, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = dropped_out(0.25, x)
    found.backward(torch.full_like(found, 3.0))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(found == 0, 0.0, 3.0 * VALUES / (VALUES - VALUES // 4)))
    assert 0 < (found == 0).sum() < found.numel()


@pytest.mark.parametrize(("p", "training"), [(0.3, False), (0.0, True), (1.0, True), (1.0, False)])
def test_without_a_choice_it_is_torchs(p: float, training: bool) -> None:
    x = torch.randn(6, 7)
    state = torch.get_rng_state()
    found = BitDropout(p).train(training)(x)
    assert torch.equal(found, nn.Dropout(p).train(training)(x))
    assert training or torch.equal(torch.get_rng_state(), state)


def test_the_seed_decides_the_mask() -> None:
    x = torch.ones(999)
    assert torch.equal(dropped_out(0.5, x, seed=1), dropped_out(0.5, x, seed=1))
    assert not torch.equal(dropped_out(0.5, x, seed=1), dropped_out(0.5, x, seed=2))
    torch.manual_seed(1)
    layer = BitDropout(0.5)
    assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5,), (0,), (2, 3, 7), (4, 0, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_shape_and_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = dropped_out(0.5, torch.ones(shape, dtype=dtype))
    assert (found.shape, found.dtype) == (shape, dtype)
    assert set(found.flatten().tolist()) <= {0.0, 2.0}


def test_a_strided_input() -> None:
    x = torch.arange(1.0, 41.0).reshape(5, 8)
    found = dropped_out(0.5, x.T)
    assert torch.equal(found[found != 0], 2 * x.T[found != 0])
    assert 0 < (found == 0).sum() < 40


@pytest.mark.parametrize("distance", range(1, 9))
def test_neighbours_are_dropped_independently(distance: int) -> None:
    for p in (0.1, 0.5):
        stays = (dropped_out(p, torch.ones(MANY)) != 0).double()
        a, b = stays[:-distance] - stays.mean(), stays[distance:] - stays.mean()
        correlation = ((a * b).mean() / stays.var()).item()
        assert abs(correlation) < 4 / math.sqrt(MANY)


# ------------------------------------------------------------------ the mask alone


def mask(p: float, x: Tensor, seed: int | None = None) -> Tensor:
    if seed is not None:
        torch.manual_seed(seed)
    return kept_elements(x, p)[0]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 7), (4, 0, 2)])
@pytest.mark.parametrize("p", [1e-9, 0.05, 0.5, 1 - 1e-9])
def test_the_mask_is_bytes_of_ones_and_zeros(p: float, shape: tuple[int, ...]) -> None:
    kept, factor = kept_elements(torch.full(shape, torch.nan), p)
    assert (kept.shape, kept.dtype, kept.device.type) == (shape, torch.uint8, "cpu")
    assert set(kept.flatten().tolist()) <= {0, 1}
    dropped = min(max(round(p * VALUES), 1), VALUES - 1)
    assert factor == VALUES / (VALUES - dropped)


@pytest.mark.parametrize(("p", "rarely"), [(1e-9, 0), (1 - 1e-9, 1)])
def test_at_the_least_and_the_greatest_rate_some_of_each_come(p: float, rarely: int) -> None:
    found = (mask(p, torch.empty(MANY), seed=0) == rarely).sum().item()
    expected = MANY / VALUES
    assert abs(found - expected) < 3 * math.sqrt(expected)  # not none


def test_another_device_draws_its_mask_itself() -> None:
    x, state = torch.empty(3, 7, device="meta"), torch.get_rng_state()
    kept, factor = kept_elements(x, 0.25)
    assert (kept.shape, kept.dtype, kept.device) == (x.shape, torch.uint8, x.device)
    assert factor == 4 / 3  # nothing is rounded there
    assert BitDropout(0.25)(x).device == x.device
    assert torch.equal(torch.get_rng_state(), state)


def test_the_mask_of_a_seed_is_the_same_whatever_the_input_s_type_and_layout() -> None:
    inputs = [torch.empty(9, 111, dtype=dtype) for dtype in (torch.bfloat16, torch.float64)]
    inputs += [torch.empty(111, 9).T, torch.empty(1).expand(9, 111)]
    expected = mask(0.3, torch.empty(9, 111), seed=3)
    assert 0 < expected.sum() < expected.numel()
    assert all(torch.equal(mask(0.3, x, seed=3), expected) for x in inputs)
    assert not torch.equal(mask(0.3, inputs[0], seed=4), expected)


def test_torch_s_generator_alone_decides_and_moves_on() -> None:
    """What a checkpoint restores for PyTorch is enough to get the same masks again."""
    x, torchs = torch.empty(999), torch.get_rng_state()
    np.random.seed(1)
    first, second = mask(0.5, x), mask(0.5, x)
    torch.set_rng_state(torchs)
    np.random.seed(2)
    assert torch.equal(mask(0.5, x), first)
    assert torch.equal(mask(0.5, x), second)
    assert not torch.equal(first, second)
    assert np.random.random() == np.random.RandomState(2).random()  # nor does it draw from numpy's


def test_one_mask_says_nothing_about_the_next() -> None:
    """Each has a numpy generator of its own, whose first numbers must be as random as the rest."""
    torch.manual_seed(0)
    calls, elements = 5_000, 8
    kept = torch.stack([mask(0.25, torch.empty(elements)) for _ in range(calls)]).double()
    deviation = math.sqrt(0.25 * 0.75 / calls)
    assert ((kept.mean(0) - 0.75).abs() < 4 * deviation).all()
    one, other = kept[:-1] - kept.mean(0), kept[1:] - kept.mean(0)
    correlation = (one * other).mean(0) / kept.var(0)
    assert (correlation.abs() < 4 / math.sqrt(calls)).all()
