"""Dropout from sixteen bits an element: the same mathematics as torch's."""

import math

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [1e-9, 0.05, 0.5, 1 - 1e-9])
def test_the_mask_holds_ones_and_zeros_and_some_of_each_may_come(
    p: float, dtype: torch.dtype
) -> None:
    kept, factor = kept_elements(torch.full((3, 7), torch.nan), p, dtype)
    assert (kept.shape, kept.dtype) == ((3, 7), dtype)
    assert set(kept.flatten().tolist()) <= {0.0, 1.0}
    dropped = min(max(round(p * VALUES), 1), VALUES - 1)
    assert factor == VALUES / (VALUES - dropped)


def test_the_mask_of_a_seed_is_the_same_in_every_type() -> None:
    masks = []
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        torch.manual_seed(3)
        masks.append(kept_elements(torch.empty(999), 0.3, dtype)[0].double())
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
