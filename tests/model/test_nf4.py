"""4-bit layers unpacked once: the same bits out, the same gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM

from detox_tune.config import TrialConfig
from detox_tune.model.base import fuse_gelu, load_base
from detox_tune.model.lora import add_lora
from detox_tune.model.nf4 import nf4_settings, unpack_4bit_layers

bitsandbytes: Any = pytest.importorskip("bitsandbytes")
Linear4bit = bitsandbytes.nn.Linear4bit
AdaptedLinear4bit = pytest.importorskip("peft.tuners.lora.bnb").Linear4bit


def packed(tiny_base: Path) -> Any:
    """As transformers loads it, with our GELU and attention; repacking would break gradients."""
    model = AutoModelForSeq2SeqLM.from_pretrained(
        tiny_base,
        dtype=torch.bfloat16,
        quantization_config=nf4_settings(),
        device_map={"": "cpu"},
        attn_implementation="eager",
    ).requires_grad_(False)
    fuse_gelu(model)
    for layer in four_bit(model).values():
        layer.support_avx512bf16_for_cpu = False
    return model


def four_bit(model: nn.Module) -> dict[str, Any]:
    return {name: m for name, m in model.named_modules() if isinstance(m, Linear4bit)}


def unpacked(model: nn.Module) -> set[str]:
    """Names of the 4-bit layers that no longer unpack their weights at every call."""
    return {name for name, layer in four_bit(model).items() if "forward" in vars(layer)}


def test_every_layer_gives_the_packed_one_s_bits(tiny_base: Path) -> None:
    reference, model = packed(tiny_base), packed(tiny_base)
    layers = four_bit(reference)
    assert len(layers) > 20
    model.encoder.train()
    modes = {name: module.training for name, module in model.named_modules()}
    assert unpacked(model) == set()
    unpack_4bit_layers(model)
    assert unpacked(model) == four_bit(model).keys() == layers.keys()
    assert {name: module.training for name, module in model.named_modules()} == modes
    generator = torch.Generator().manual_seed(0)
    for name, layer in layers.items():
        plain = model.get_submodule(name)
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(3, 5, layer.in_features, generator=generator).to(dtype)
            with torch.no_grad():
                found, expected = plain(x), layer(x)
            assert found.dtype == dtype
            assert torch.equal(found, expected), name


def test_a_layer_with_a_bias_keeps_it() -> None:
    torch.manual_seed(0)
    layer = Linear4bit(64, 32, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.load_state_dict(nn.Linear(64, 32).state_dict())
    layer.to("cpu")  # packs it
    reference = Linear4bit(64, 32, compute_dtype=torch.bfloat16, quant_type="nf4")
    reference.weight, reference.bias = layer.weight, layer.bias
    for one in (layer, reference):
        one.support_avx512bf16_for_cpu = False
    x = torch.randn(7, 64).bfloat16()
    expected = reference(x)
    holder: Any = nn.Module()
    holder.layer, holder.config = layer, nn.Module()
    unpack_4bit_layers(holder)
    assert unpacked(holder) == {"layer"}
    assert torch.equal(holder.layer(x), expected)


def test_whole_model_logits_are_the_same_bits(tiny_base: Path) -> None:
    model = load_base(str(tiny_base), quantization="nf4")[0].eval()
    assert unpacked(model) == four_bit(model).keys() != set()
    ids = torch.arange(8, 40).reshape(2, 16)
    with torch.no_grad():
        expected = packed(tiny_base).eval()(input_ids=ids, labels=ids).logits
        found = model(input_ids=ids, labels=ids).logits
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_transformers_and_peft_still_see_4_bit_layers(tiny_base: Path) -> None:
    model = packed(tiny_base)
    settings = model.config.quantization_config
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    unpack_4bit_layers(model)
    assert model.is_quantized
    assert model.is_loaded_in_4bit
    assert model.config.quantization_config is settings
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(model.state_dict()[name], w) for name, w in weights.items())
    adapters = [
        m
        for m in add_lora(model, TrialConfig(lora="second"), seed=0).modules()
        if isinstance(m, LoraLayer)
    ]
    assert adapters
    assert {type(m) for m in adapters} == {AdaptedLinear4bit}


def gradients(base: Any, approach: str, *, fresh: bool, training: bool) -> dict[str, Tensor]:
    """Of all adapters' weights on a fixed batch; fresh ones, or as after some steps."""
    model = add_lora(base, TrialConfig.model_validate({"lora": approach}), seed=1).train(training)
    for name, weight in model.named_parameters():
        if "lora_B" in name and not fresh:
            nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(2))
    ids = torch.arange(8, 40).reshape(2, 16)
    torch.manual_seed(3)
    model(input_ids=ids, labels=ids).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("approach", "training", "fresh"),
    [("first", True, True), ("all", True, False), ("second", False, False)],
)
def test_adapters_get_the_packed_model_s_gradients_bit_by_bit(
    tiny_base: Path, approach: str, training: bool, fresh: bool
) -> None:
    base, _ = load_base(str(tiny_base), quantization="nf4")
    found = gradients(base, approach, fresh=fresh, training=training)
    expected = gradients(packed(tiny_base), approach, fresh=fresh, training=training)
    assert found.keys() == expected.keys()
    assert all("lora_" in name for name in found)
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
        assert bool(gradient.any()) == ("lora_B" in name or not fresh), name


def test_a_model_without_4_bit_layers_stays_as_it_is(tiny_base: Path) -> None:
    model, _ = load_base(str(tiny_base), quantization="none")
    modules, weights = dict(model.named_modules()), dict(model.named_parameters())
    settings = model.config.to_dict()
    unpack_4bit_layers(model)
    assert dict(model.named_modules()) == modules
    assert all(weight is weights[name] for name, weight in model.named_parameters())
    assert model.config.to_dict() == settings
