"""LoRA approaches: what is adapted, and that nothing else is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from detox_tune.config import TrialConfig
from detox_tune.model.base import load_base
from detox_tune.model.lora import add_lora


@pytest.mark.parametrize(("approach", "projections"), [("first", "qv"), ("second", "qkvo")])
def test_the_study_s_approaches_adapt_exactly_their_projections(
    tiny_base: Path, approach: str, projections: str
) -> None:
    base, _ = load_base(str(tiny_base), quantization="none")
    attention_layers = 2 + 2 * 2  # encoder, decoder and cross-attention of two layers each
    adapted = add_lora(base, TrialConfig.model_validate({"lora": approach}), seed=0)
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * len(projections) * attention_layers
    assert all("Attention" in name and "lora_" in name for name in trained)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained} == set(projections)
    settings: Any = adapted.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (8, 16, 0.05)
    assert settings.bias == "none"


def test_all_adapts_every_linear_layer_of_the_blocks(tiny_base: Path) -> None:
    base, _ = load_base(str(tiny_base), quantization="none")
    layers = {
        name
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and ".block." in name
    }
    adapted = add_lora(base, TrialConfig(lora="all", lora_r=4, lora_dropout=0.1), seed=0)
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained} == layers
    settings: Any = adapted.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (4, 8, 0.1)


def test_the_seed_alone_decides_the_weights_and_they_change_nothing_yet(tiny_base: Path) -> None:
    ids = torch.arange(8, 24)[None]

    def adapted(seed: int) -> torch.nn.Module:
        base, _ = load_base(str(tiny_base), quantization="none")
        torch.rand(seed + 5)  # what was drawn before must not matter
        return add_lora(base, TrialConfig(), seed=seed).eval()

    base, _ = load_base(str(tiny_base), quantization="none")
    one, again, other = adapted(1), adapted(1), adapted(2)
    weights = [dict(model.named_parameters()) for model in (one, again, other)]
    a_matrices = [name for name in weights[0] if "lora_A" in name]
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in a_matrices)
    assert not any(torch.equal(weights[0][n], weights[2][n]) for n in a_matrices)
    assert weights[0][a_matrices[0]].dtype == torch.float32
    expected = base.eval()(input_ids=ids, labels=ids).logits
    assert torch.equal(one(input_ids=ids, labels=ids).logits, expected)


def perturbed(base_folder: Path, trial: TrialConfig) -> tuple[Any, torch.Tensor]:
    """Adapters that change the base, and logits with them."""
    base, _ = load_base(str(base_folder), quantization="none")
    model = add_lora(base, trial, seed=0).eval()
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.uniform_(weight, 0.1, 0.9)
    return model, logits(model)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(8, 24)[None]
    found: torch.Tensor = model(input_ids=ids, labels=ids).logits
    return found


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("approach", ["first", "all"])
def test_every_variant_is_saved_and_read_by_peft_alone(
    tiny_base: Path, tmp_path: Path, variant: str, approach: str
) -> None:
    trial = TrialConfig.model_validate({"lora": approach, "lora_variant": variant})
    model, made = perturbed(tiny_base, trial)
    model.save_pretrained(str(tmp_path))
    base, _ = load_base(str(tiny_base), quantization="none")
    untouched = logits(base.eval())
    read = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    assert not torch.allclose(made, untouched, atol=1e-3)
    assert torch.allclose(logits(read), made, atol=1e-5)
    assert torch.allclose(logits(read.unload()), untouched, atol=1e-5)


def layer(base_folder: Path, variant: str) -> Any:
    trial = TrialConfig.model_validate({"lora": "second", "lora_variant": variant})
    model, _ = perturbed(base_folder, trial)
    return model.base_model.model.encoder.block[0].layer[0].SelfAttention.q


def test_variants_against_their_papers(tiny_base: Path) -> None:
    """W + scale BA with alpha / r or, rsLoRA, alpha / sqrt(r); DoRA: that, its rows scaled to m."""
    r, alpha = 8, 16
    for variant, scale in (("lora", alpha / r), ("rslora", alpha / r**0.5), ("dora", alpha / r)):
        adapted = layer(tiny_base, variant)
        a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
        whole = adapted.base_layer.weight + scale * b @ a
        if variant == "dora":
            magnitude = adapted.lora_magnitude_vector["default"].weight
            whole = magnitude[:, None] * whole / whole.norm(dim=1, keepdim=True)
        hidden = torch.randn(3, whole.shape[1])
        assert torch.allclose(adapted(hidden), hidden @ whole.T, atol=1e-4)
