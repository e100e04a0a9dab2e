"""Leaner modules: transformers' and PEFT's numbers, forward and backward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm

from detox_tune.model import attention, dropout, lean
from detox_tune.model.dropout import BitDropout
from detox_tune.model.lean import make_lean

KINDS = ("mT5", "T5 v1.1", "T5", "umT5")
SIZES: dict[str, Any] = {"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 24}
SIZES |= {"num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}


def tiny_base(kind: str, rate: float, **changes: Any) -> Any:
    sizes = SIZES | {"dropout_rate": rate} | changes
    torch.manual_seed(0)
    if kind == "mT5":
        return MT5ForConditionalGeneration(MT5Config(**sizes))
    if kind == "umT5":
        return UMT5ForConditionalGeneration(UMT5Config(**sizes))
    gated = {"feed_forward_proj": "gated-gelu"} if kind == "T5 v1.1" else {}
    config = T5Config(**(gated | sizes))
    config.tie_word_embeddings = kind == "T5"  # the class sets True whatever it is given
    model = T5ForConditionalGeneration(config)
    assert (model.lm_head.weight is model.shared.weight) == (kind == "T5")
    return model


def tiny_model(kind: str = "mT5", rate: float = 0.0, **changes: Any) -> Any:
    """With adapters of the same rate; B as after some steps, since zeros would keep A still."""
    targets = ["q", "k", "v", "o"]
    lora = LoraConfig(r=2, lora_alpha=4, lora_dropout=rate, target_modules=targets)
    base = tiny_base(kind, rate, **changes)
    torch.manual_seed(1)
    model: Any = get_peft_model(base, lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.2)
        elif "layer_norm" in name:
            nn.init.uniform_(weight, 0.5, 1.5)
    return model


def batch() -> dict[str, Tensor]:
    ids = torch.arange(2, 26).reshape(3, 8)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.flip(0)[:, :6] + 10}


def loss_and_gradients(model: Any, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model(**batch()).loss
    loss.backward()
    trained = {n: w for n, w in model.named_parameters() if w.requires_grad}
    return loss.detach(), {name: weight.grad.clone() for name, weight in trained.items()}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


def some_kept(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    kept = (torch.rand(*shape, generator=generator) < 0.7).to(torch.uint8)
    assert 0 < kept.sum() < kept.numel()
    return kept


def nothing_dropped(x: Tensor, p: float) -> tuple[Tensor, float]:
    return torch.ones(x.shape, dtype=torch.uint8), 1.0


# ------------------------------------------------------------------ whole models


@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_the_untouched_model_s_where_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch, kind: str, rate: float
) -> None:
    for module in (attention, dropout, lean):  # a rate above 0 takes other ways
        monkeypatch.setattr(module, "kept_elements", nothing_dropped)
    expected_loss, expected = loss_and_gradients(tiny_model(kind).train())
    model = tiny_model(kind, rate).train()
    make_lean(model)
    loss, found = loss_and_gradients(model)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    assert found.keys() == expected.keys()
    assert len(found) == 2 * 4 * 3 * 2  # A and B of four matrices, three attentions, two layers
    for name, gradient in expected.items():
        largest = gradient.abs().max().item()
        assert largest > 0, name
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_in_evaluation_are_the_untouched_model_s(kind: str) -> None:
    model = tiny_model(kind, 0.25).eval()
    with torch.no_grad():
        expected = model(**batch()).logits
        make_lean(model)
        found = model(**batch()).logits
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_pass_has_the_forward_pass_s_masks(kind: str) -> None:
    model = tiny_model(kind, 0.25).train()
    make_lean(model)
    model.double()  # norms compute in float32
    loss, gradients = loss_and_gradients(model)
    again, same = loss_and_gradients(model)
    assert torch.equal(loss, again)
    assert all(torch.equal(same[name], gradient) for name, gradient in gradients.items())
    other, _ = loss_and_gradients(model, seed=1)
    assert (other - loss).abs() > 1e-3

    # along each kind of matrix the loss changes as its gradient says, under the same masks
    weights = {n: w for n, w in model.named_parameters() if w.requires_grad}
    for part in ("lora_A", "lora_B"):
        names = [name for name in weights if part in name]
        length = torch.stack([gradients[name].norm() for name in names]).norm()
        losses = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                for name in names:
                    weights[name] += step * gradients[name] / length
                torch.manual_seed(0)
                losses.append(_loss_with_lean_attention(model))
                for name in names:
                    weights[name] -= step * gradients[name] / length
        assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(length.item(), rel=2e-3)


def _loss_with_lean_attention(model: Any) -> float:
    with torch.enable_grad():  # without gradients attention is PyTorch's, with other masks
        return float(model(**batch()).loss.detach())


# ------------------------------------------------------------------ what changes, what stays


@pytest.mark.parametrize("kind", KINDS)
def test_weights_names_and_modes_stay(kind: str) -> None:
    model = tiny_model(kind, 0.125).train()
    model.get_base_model().encoder.eval()
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    trained = {name: weight.requires_grad for name, weight in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    assert set(modes.values()) == {True, False}
    dropouts = {n: m.p for n, m in model.named_modules() if type(m) is nn.Dropout}
    make_lean(model)
    after = model.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == trained
    modules = dict(model.named_modules())
    assert {name: module.training for name, module in modules.items()} == modes
    assert not any(type(module) is nn.Dropout for module in modules.values())
    assert {n: m.p for n, m in modules.items() if type(m) is BitDropout} == dropouts != {}


def own_forwards(model: nn.Module) -> dict[str, Any]:
    """By module: the function that stands in for its class's `forward`."""
    changed = {name: vars(m) for name, m in model.named_modules() if "forward" in vars(m)}
    return {name: own["forward"].__func__ for name, own in changed.items()}


@pytest.mark.parametrize(
    ("kind", "projection"), [("T5", "relu"), ("T5 v1.1", "gated-silu"), ("mT5", "gated-gelu")]
)
def test_only_a_feed_forward_gated_by_gelu_is_swapped(kind: str, projection: str) -> None:
    model = tiny_base(kind, 0.25, feed_forward_proj=projection)
    make_lean(model)
    forwards = own_forwards(model)
    norms = [name for name, f in forwards.items() if f is lean._norm_forward]
    gated = [name for name, f in forwards.items() if f is lean._gated_forward]
    assert len(norms) == 2 * 2 + 2 * 3 + 2  # each layer's, and the stacks' last
    assert len(gated) == (4 if projection == "gated-gelu" else 0)
    assert len(forwards) == len(norms) + len(gated)


def test_a_second_time_changes_nothing_more() -> None:
    model = tiny_model("mT5", 0.25).train()
    make_lean(model)
    modules, forwards = dict(model.named_modules()), own_forwards(model)
    loss, gradients = loss_and_gradients(model)
    make_lean(model)
    assert dict(model.named_modules()) == modules
    assert own_forwards(model) == forwards
    assert model.get_base_model().config._attn_implementation == "detox_lean"
    again, same = loss_and_gradients(model)
    assert torch.equal(again, loss)
    assert all(torch.equal(same[name], gradient) for name, gradient in gradients.items())


def test_unloaded_adapters_leave_the_base_as_it_was() -> None:
    base = tiny_base("mT5", 0.25).requires_grad_(False).train()
    make_lean(base)
    modules, forwards = dict(base.named_modules()), own_forwards(base)
    weights = {name: weight.clone() for name, weight in base.state_dict().items()}

    def logits() -> Tensor:
        torch.manual_seed(0)
        result: Tensor = base(**batch()).logits
        return result

    expected = logits()
    lora = LoraConfig(r=2, lora_dropout=0.25, target_modules=["q", "o"], init_lora_weights=False)
    adapted: Any = get_peft_model(base, lora).train()
    make_lean(adapted)
    assert not torch.equal(logits(), expected)
    assert adapted.unload() is base
    assert dict(base.named_modules()) == modules
    assert own_forwards(base) == forwards
    assert list(base.state_dict()) == list(weights)
    assert all(torch.equal(base.state_dict()[name], weight) for name, weight in weights.items())
    assert torch.equal(logits(), expected)


# ------------------------------------------------------------------ the three functions


def norm_and_gradient(
    norm: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    out = norm(x)
    out.backward(upstream.to(out.dtype))
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize(
    ("x_dtype", "dtype", "close"),
    [
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.bfloat16, 2e-2),
        (torch.float32, torch.bfloat16, 2e-2),
        (torch.bfloat16, torch.float32, 2e-2),
    ],
)
def test_the_norm_is_transformers_and_has_its_gradient(
    x_dtype: torch.dtype, dtype: torch.dtype, close: float, scale: float
) -> None:
    norm = MT5LayerNorm(32)
    nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(2))
    norm = norm.to(dtype).requires_grad_(False).train()
    x = (normal(3, 4, 32) * scale).to(x_dtype)
    before, upstream = x.detach().clone(), normal(3, 4, 32, seed=1).detach()
    expected, expected_gradient = norm_and_gradient(norm, x, upstream)
    make_lean(norm)
    found, gradient = norm_and_gradient(norm, x, upstream)
    assert (found.dtype, gradient.dtype) == (expected.dtype, x_dtype)
    assert torch.equal(x, before)
    for one, other in ((found, expected), (gradient, expected_gradient)):
        largest = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=close, atol=close * largest)


def test_a_trained_norm_stays_transformers_and_gets_its_gradient() -> None:
    norm = MT5LayerNorm(32).train()
    make_lean(norm)
    norm(normal(3, 32, dtype=torch.float32)).sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.any()


def gated_gelu(gate: Tensor, linear: Tensor, kept: Tensor, factor: float) -> Tensor:
    return nn.functional.gelu(gate, approximate="tanh") * linear * kept * factor


def lora_branch(
    given: Tensor, x: Tensor, a: Tensor, b: Tensor, kept: Tensor | None, factor: float
) -> Tensor:
    return given + factor * ((x if kept is None else x * kept) @ a.T @ b.T)


LORA = (lean._LoraBranch, lora_branch)


@pytest.mark.parametrize(
    ("function", "formula", "shapes", "mask"),
    [
        (lean._GatedGelu, gated_gelu, [(3, 4, 5), (3, 4, 5)], (3, 4, 5)),
        (*LORA, [(3, 4, 6), (3, 4, 5), (2, 5), (6, 2)], (3, 4, 5)),
        (*LORA, [(3, 4, 6), (3, 4, 5), (2, 5), (6, 2)], None),
        (*LORA, [(7, 6), (7, 5), (2, 5), (6, 2)], (7, 5)),
        (*LORA, [(7, 6), (7, 5), (2, 5), (6, 2)], None),
    ],
)
def test_a_function_is_its_formula_and_has_its_gradients(
    function: Any, formula: Any, shapes: list[tuple[int, ...]], mask: tuple[int, ...] | None
) -> None:
    tensors = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    before = [tensor.detach().clone() for tensor in tensors]
    kept = None if mask is None else some_kept(*mask)

    def apply(*tensors: Tensor) -> Tensor:
        result: Tensor = lean._apply(function, *tensors, kept, 1.5)
        return result

    torch.testing.assert_close(apply(*tensors), formula(*tensors, kept, 1.5))
    assert torch.autograd.gradcheck(apply, tensors)
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))


# ------------------------------------------------------------------ a LoRA layer


def lora_layer(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """PEFT's layer alone, in training, B as after some steps; its factor 4 rounds nothing."""
    settings: Any = {"r": 2, "lora_alpha": 8, "init_lora_weights": False, "target_modules": ["0"]}
    torch.manual_seed(0)
    base: Any = nn.Sequential(nn.Linear(5, 6)).to(dtype)
    adapted: Any = get_peft_model(base, LoraConfig(**(settings | changes)))
    return adapted.base_model.model[0].train()


def outcome(layer: Any, x: Tensor, **arguments: Any) -> list[Tensor]:
    """Output, and gradients of all adapters and, where it wants one, of the input."""
    torch.manual_seed(1)
    out = layer(x, **arguments)
    sources = [y for y in (*layer.parameters(), x) if y.requires_grad]
    return [out, *torch.autograd.grad(out.sin().sum(), sources, materialize_grads=True)]


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What LoRA layers ask a dropout for, that drops nothing."""
    asked: list[float] = []

    def noted(x: Tensor, p: float) -> tuple[Tensor, float]:
        asked.append(p)
        return nothing_dropped(x, p)

    monkeypatch.setattr(lean, "kept_elements", noted)
    return asked


@pytest.mark.parametrize("wants_gradient", [True, False], ids=["inner layer", "first layer"])
@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lora_layer_is_peft_s_where_nothing_is_dropped(
    rates: list[float], dtype: torch.dtype, rate: float, wants_gradient: bool
) -> None:
    """Rounded once to the base's type; adapters stay float32, and so do their gradients."""
    x = normal(3, 4, 5).detach().to(dtype).requires_grad_(wants_gradient)
    untouched, layer = lora_layer(dtype), lora_layer(dtype, lora_dropout=rate)
    make_lean(layer)
    found, expected = outcome(layer, x), outcome(untouched, x)
    assert rates == [rate] * (rate > 0)
    types = [dtype, torch.float32, torch.float32] + [dtype] * wants_gradient
    assert [y.dtype for y in found] == types
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found[1:], expected[1:], strict=True):
        close = 1e-5 if one.dtype == torch.float32 else 2**-7
        torch.testing.assert_close(one, other, rtol=close, atol=close)


OTHERWISE: dict[str, Callable[[Any], Any]] = {
    "evaluation": lambda layer: layer.eval(),
    "disabled": lambda layer: layer.enable_adapters(False),
    "merged": lambda layer: layer.merge(),
    "two adapters": lambda layer: layer.set_adapter(["default", "other"]),
    "autocast": lambda layer: None,
    "a name for each sentence": lambda layer: None,
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_otherwise_a_lora_layer_is_peft_s_own(rates: list[float], case: str) -> None:
    layer, x = lora_layer(lora_dropout=0.25), normal(3, 4, 5, dtype=torch.float32)
    layer.update_layer("other", 3, 6, LoraConfig(init_lora_weights=False, lora_dropout=0.25))
    make_lean(layer)
    OTHERWISE[case](layer)
    names = {"adapter_names": ["default", "__base__", "other"]} if "name" in case else {}
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        found = outcome(layer, x, **names)
        del layer.forward  # the class's own is left
        expected = outcome(layer, x, **names)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert rates == []


def test_a_lora_layer_drops_from_its_adapter_s_input_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kept = normal(3, 4, 5), some_kept(3, 4, 5)
    layer = lora_layer(torch.float64, lora_dropout=0.25)
    make_lean(layer)
    monkeypatch.setattr(lean, "kept_elements", lambda x, p: (kept, 1.5))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = lora_branch(layer.base_layer(x), x, a, b, kept, 4 * 1.5)
    torch.testing.assert_close(layer(x), expected)


PLAIN: list[dict[str, Any]] = [{}, {"lora_dropout": 0.25}, {"use_rslora": True}]
NOT_PLAIN: list[dict[str, Any]] = [{"lora_dropout": 1.0}, {"use_dora": True}, {"lora_bias": True}]


@pytest.mark.parametrize("changes", PLAIN + NOT_PLAIN, ids=str)
def test_only_a_plain_lora_layer_s_forward_is_swapped(changes: dict[str, Any]) -> None:
    layer = lora_layer(**changes)
    make_lean(layer)
    assert own_forwards(layer) == ({"": lean._lora_forward} if changes in PLAIN else {})
