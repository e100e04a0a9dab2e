"""Cheaper dropout and activation: the same mathematics as torch's and transformers'."""

import math
from typing import Any

import pytest
import torch
from detox_tune.model.cheap import BitDropout, cheapen
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import MT5Config, MT5ForConditionalGeneration
from transformers.activations import NewGELUActivation

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


# ------------------------------------------------------------------ a whole model


def tiny_model() -> Any:
    config = MT5Config(
        vocab_size=40, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.125
    )
    torch.manual_seed(0)
    lora = LoraConfig(r=2, lora_dropout=0.25, target_modules=["q"], init_lora_weights=False)
    return get_peft_model(MT5ForConditionalGeneration(config), lora)


def test_every_dropout_and_gelu_is_swapped_with_its_rate_and_mode() -> None:
    model = tiny_model().train()
    model.get_base_model().encoder.eval()
    before = {
        name: (module.p, module.training)
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout)
    }
    gelus = {
        name: module.training
        for name, module in model.named_modules()
        if isinstance(module, NewGELUActivation)
    }
    assert len(gelus) == 2
    assert {rate for rate, _ in before.values()} == {0.125, 0.25}
    assert {training for _, training in before.values()} == {True, False}
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    cheapen(model)
    modules = dict(model.named_modules())
    assert all(type(modules[name]) is BitDropout for name in before)
    assert {name: (modules[name].p, modules[name].training) for name in before} == before
    assert all(type(modules[name]) is nn.GELU for name in gelus)
    assert {name: modules[name].training for name in gelus} == gelus
    assert not any(type(module) is nn.Dropout for module in modules.values())
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    again = dict(model.named_modules())
    cheapen(model)
    assert dict(model.named_modules()) == again


def test_logits_are_the_unswapped_model_s() -> None:
    model = tiny_model().eval()
    ids = torch.arange(2, 26).reshape(3, 8)
    with torch.no_grad():
        expected = model(input_ids=ids, labels=ids).logits
        cheapen(model)
        found = model(input_ids=ids, labels=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_dropout_still_acts_in_training() -> None:
    model = tiny_model().train()
    cheapen(model)
    ids = torch.arange(2, 26).reshape(3, 8)
    assert model(input_ids=ids, labels=ids).loss != model(input_ids=ids, labels=ids).loss


def test_the_activation_is_transformers() -> None:
    x = torch.linspace(-12, 12, 20_001)
    holder = nn.ModuleDict({"act": NewGELUActivation()})
    expected = holder["act"](x)
    cheapen(holder)
    assert type(holder["act"]) is nn.GELU
    torch.testing.assert_close(holder["act"](x), expected, rtol=1e-6, atol=1e-6)
