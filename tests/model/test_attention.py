"""Attention that keeps little: PyTorch's numbers, and nobody sees what is masked."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import MT5Config, MT5ForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from detox_tune.model import attention
from detox_tune.model.attention import lean_attention, use_lean_attention
from detox_tune.model.dropout import kept_elements

HARDLY = 1 / 65_536
SHAPE = {"b": 2, "h": 3, "t": 4, "s": 5, "d": 6}


class Module(nn.Module):
    """What an attention function reads of its module."""

    def __init__(self, is_causal: bool = False) -> None:
        super().__init__()
        self.is_causal = is_causal


def random(axes: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    shape = [SHAPE[axis] for axis in axes]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def inputs(dtype: torch.dtype = torch.float32, keys: str = "s") -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, of which gradients are wanted, laid out as a model's are."""
    axes = ("bthd", f"b{keys}hd", f"b{keys}hd")
    drawn = (random(a, dtype, seed) for seed, a in enumerate(axes))
    q, k, v = (x.transpose(1, 2).requires_grad_() for x in drawn)
    return q, k, v


def position_bias(dtype: torch.dtype = torch.float32, keys: str = "s") -> Tensor:
    return random(f"ht{keys}", dtype, 3)[None]


def apply(*arguments: Any) -> Tensor:
    function: Any = attention._Attention.apply
    result: Tensor = function(*arguments)
    return result


def some_kept() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    kept = (torch.rand(2, 3, 4, 5, generator=generator) < 0.7).to(torch.uint8)
    assert 0 < kept.sum() < kept.numel()
    return kept


def by_formula(*arguments: Any) -> Tensor:
    """What `apply` gives, in float64."""
    query, key, value, bias, kept, factor, scale = arguments
    scores = torch.einsum("bhtd,bhsd->bhts", query.double(), key.double()) * scale + bias.double()
    probabilities = scores.exp() / scores.exp().sum(-1, keepdim=True)
    if kept is not None:
        probabilities = probabilities * kept.double() * factor
    return torch.einsum("bhts,bhsd->bthd", probabilities, value.double())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that dropout was asked for; at the rate HARDLY it drops nothing."""
    shapes: list[tuple[int, ...]] = []

    def noted(x: Tensor, p: float) -> tuple[Tensor, float]:
        shapes.append(tuple(x.shape))
        if p == HARDLY:
            return torch.ones(x.shape, dtype=torch.uint8), 1.0
        return kept_elements(x, p)

    monkeypatch.setattr(attention, "kept_elements", noted)
    return shapes


# ------------------------------------------------------------------ the function alone


DROPPED = pytest.mark.parametrize("kept", [None, some_kept()], ids=["all kept", "some dropped"])


@DROPPED
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_gradients_are_those_of_finite_differences(kept: Tensor | None, scale: float) -> None:
    arguments = (position_bias(torch.float64), kept, 1 / 0.7, scale)
    assert torch.autograd.gradcheck(
        lambda q, k, v: apply(q, k, v, *arguments), inputs(torch.float64)
    )


@DROPPED
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_the_output_is_that_of_the_formula(kept: Tensor | None, scale: float) -> None:
    given = (*inputs(torch.float64), position_bias(torch.float64))
    upstream = random("bthd", torch.float64, 5)
    written = (*given, upstream) if kept is None else (*given, upstream, kept)
    before = [x.clone() for x in written]
    found = apply(*given, kept, 1.5, scale)
    torch.testing.assert_close(found, by_formula(*given, kept, 1.5, scale), rtol=1e-12, atol=1e-12)
    found.backward(upstream)
    assert all(torch.equal(x, y) for x, y in zip(written, before, strict=True))


@DROPPED
def test_bfloat16_is_computed_in_float32_and_rounded_once(kept: Tensor | None) -> None:
    given, bias = inputs(torch.bfloat16), position_bias(torch.bfloat16)
    upstream = random("bthd", torch.bfloat16, 5)
    out = apply(*given, bias, kept, 1.5, 0.6)
    exact = [x.detach().double().requires_grad_() for x in given]
    expected = by_formula(*exact, bias, kept, 1.5, 0.6)
    found = (out, *torch.autograd.grad(out, given, upstream))
    wanted = (expected, *torch.autograd.grad(expected, exact, upstream.double()))
    for x, y in zip(found, wanted, strict=True):
        assert x.dtype == torch.bfloat16
        torch.testing.assert_close(x.double(), y, rtol=2**-8, atol=1e-6)  # half a last place


def test_in_bfloat16_nobody_needs_to_copy_what_comes_out() -> None:
    given = inputs(torch.bfloat16)
    out = apply(*given, position_bias(torch.bfloat16), some_kept(), 1.5, 1.0)
    gradients = torch.autograd.grad(out, given, torch.ones_like(out))
    assert out.is_contiguous()  # and so are the gradients, as the projections that they go to see
    assert all(gradient.transpose(1, 2).is_contiguous() for gradient in gradients)


@DROPPED
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_its_inputs_are_kept_for_the_backward_pass(
    dtype: torch.dtype, kept: Tensor | None
) -> None:
    given = (*inputs(dtype), position_bias(dtype))
    held: list[int] = []

    def pack(x: Tensor) -> Tensor:
        held.append(x.data_ptr())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        apply(*given, kept, 1.5, 0.6)
    expected = given if kept is None else (*given, kept)
    assert sorted(held) == sorted(x.data_ptr() for x in expected)


# ------------------------------------------------------------------ as transformers calls it


def boolean_mask() -> Tensor:
    mask = torch.ones(2, 1, 4, 5, dtype=torch.bool)
    mask[0, :, :, 3:] = False
    mask[1, :, 0, 1:] = False
    return mask


def float_mask() -> Tensor:
    return torch.zeros(2, 1, 4, 5).masked_fill(~boolean_mask(), -torch.inf)


@pytest.mark.parametrize("dropout", [0.0, HARDLY])
@pytest.mark.parametrize("scaling", [1.0, None, 0.3])
@pytest.mark.parametrize("kind", ["none", "causal", "boolean", "float"])
def test_where_nothing_is_dropped_it_is_scaled_dot_product_attention(
    asked: list[tuple[int, ...]], kind: str, scaling: float | None, dropout: float
) -> None:
    keys = "t" if kind == "causal" else "s"
    bias = position_bias(keys=keys)
    mask = {"boolean": boolean_mask(), "float": float_mask()}.get(kind)
    added = bias
    if mask is not None:
        added = bias + float_mask()
    if kind == "causal":
        added = bias.masked_fill(~torch.ones(4, 4).tril().bool(), -torch.inf)
    found, expected = inputs(keys=keys), inputs(keys=keys)
    settings: Any = {"dropout": dropout, "scaling": scaling, "position_bias": bias}
    out, weights = lean_attention(Module(kind == "causal"), *found, mask, **settings)
    assert weights is None
    assert type(out.grad_fn).__name__ == "_AttentionBackward"
    assert asked == ([(2, 3, 4, 4 if kind == "causal" else 5)] if dropout else [])
    wanted = scaled_dot_product_attention(*expected, attn_mask=added, scale=scaling).transpose(1, 2)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6)
    upstream = random("bthd", seed=5)
    out.backward(upstream)
    wanted.backward(upstream)
    for x, y in zip(found, expected, strict=True):
        assert x.grad is not None
        assert y.grad is not None
        assert y.grad.abs().max() > 0.1
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("mask", [boolean_mask(), float_mask()], ids=["boolean", "float"])
def test_masked_positions_get_no_weight(mask: Tensor, dropout: float) -> None:
    query, key, value = inputs()
    settings: Any = {"dropout": dropout, "scaling": 1.0, "position_bias": position_bias()}

    def attended() -> Tensor:
        torch.manual_seed(0)
        return lean_attention(Module(), query, key, value, mask, **settings)[0]

    before = attended()
    before.sum().backward()
    for x in (key, value):
        assert x.grad is not None
        assert not x.grad[0, :, 3:].any()
        assert x.grad[0, :, :3].any()
    with torch.no_grad():
        key[0, :, 3:] += 1.0
        value[0, :, 3:] += 100.0
        value[1, :, 1:] += 100.0
    after = attended()
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1, 0], before[1, 0])
    assert not torch.equal(after[1, 1:], before[1, 1:])


OTHERWISE = ("no gradients", "a trained bias", "no bias")


@pytest.mark.parametrize(
    ("case", "dropout"), [*product(OTHERWISE, (0.0, 0.25)), ("all is dropped", 1.0)]
)
def test_otherwise_it_is_pytorch_s_own(
    monkeypatch: pytest.MonkeyPatch, case: str, dropout: float
) -> None:
    calls: list[Any] = []

    def counted(*arguments: Any, **settings: Any) -> Any:
        calls.append(settings)
        return sdpa_attention_forward(*arguments, **settings)

    monkeypatch.setattr(attention, "sdpa_attention_forward", counted)
    bias = None if case == "no bias" else position_bias()
    if case == "a trained bias":
        assert bias is not None
        bias.requires_grad_()
    arguments = (Module(), *inputs(), boolean_mask())
    settings: Any = {"dropout": dropout, "scaling": 0.6, "position_bias": bias}
    with torch.set_grad_enabled(case != "no gradients"):
        torch.manual_seed(0)
        found, _ = lean_attention(*arguments, **settings)
        torch.manual_seed(0)
        expected, _ = sdpa_attention_forward(*arguments, **settings)
    assert [call["dropout"] for call in calls] == [dropout]
    assert torch.equal(found, expected)
    if case == "a trained bias":
        assert bias is not None
        found.sum().backward()
        assert bias.grad is not None


def test_on_another_device_it_is_pytorch_s_own() -> None:
    query, key, value = (x.detach().to("meta").requires_grad_() for x in inputs())
    settings: Any = {"dropout": 0.25, "position_bias": position_bias().to("meta")}
    out, _ = lean_attention(Module(), query, key, value, None, **settings)
    assert (out.shape, out.device) == ((2, 4, 3, 6), query.device)
    assert out.grad_fn is not None
    assert type(out.grad_fn).__name__ != "_AttentionBackward"


# ------------------------------------------------------------------ in a model


def tiny_model(implementation: str = "sdpa", rate: float = 0.25) -> Any:
    config = MT5Config(
        vocab_size=40, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2, dropout_rate=rate
    )
    torch.manual_seed(0)
    model: Any = MT5ForConditionalGeneration(config).requires_grad_(False)
    model.set_attn_implementation(implementation)
    return model


@pytest.mark.parametrize("rate", [0.0, 0.25])
@pytest.mark.parametrize("padded", [True, False])
def test_a_decoder_does_not_see_the_future(
    asked: list[tuple[int, ...]], padded: bool, rate: float
) -> None:
    model = tiny_model(rate=rate).train()
    use_lean_attention(model)
    ids = torch.arange(2, 16).reshape(2, 7)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 5:] = 0

    def logits(read: Tensor) -> Tensor:
        torch.manual_seed(0)
        batch = {"input_ids": ids, "decoder_input_ids": read}
        result: Tensor = model(**batch, attention_mask=mask if padded else None).logits
        return result

    read = torch.arange(20, 30).reshape(2, 5)
    before = logits(read)
    layers = 2 if rate else 0
    assert sorted(asked) == sorted([(2, 2, 7, 7), (2, 2, 5, 5), (2, 2, 5, 7)] * layers)
    for position in range(1, 5):
        changed = read.clone()
        changed[:, position] = 3
        after = logits(changed)
        assert torch.equal(after[:, :position], before[:, :position])
        assert (after[:, position] != before[:, position]).any(-1).all()
    if padded:
        ids[1, 5:] = 39
        assert torch.equal(logits(read), before)


def test_only_a_model_that_attends_by_sdpa_is_changed() -> None:
    model, eager = tiny_model(), tiny_model("eager")
    use_lean_attention(model)
    use_lean_attention(eager)
    stacks = (model, model.encoder, model.decoder)
    assert {stack.config._attn_implementation for stack in stacks} == {"detox_lean"}
    assert eager.config._attn_implementation == "eager"
    assert "detox_lean" not in model.config.to_json_string(use_diff=False)  # what a save writes
    plain = tiny_model().eval()
    ids = torch.arange(2, 16).reshape(2, 7)
    batch = {"input_ids": ids, "labels": ids}
    with torch.no_grad():
        assert torch.equal(model.eval()(**batch).logits, plain(**batch).logits)
