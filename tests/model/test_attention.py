"""Attention with dropout that keeps little: PyTorch's numbers, and nobody sees what is masked."""

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
    """Query, key and value, of which gradients are wanted."""
    axes = ("bhtd", f"bh{keys}d", f"bh{keys}d")
    q, k, v = (random(a, dtype, seed).requires_grad_() for seed, a in enumerate(axes))
    return q, k, v


def position_bias(dtype: torch.dtype = torch.float32, keys: str = "s") -> Tensor:
    return random(f"ht{keys}", dtype, 3)[None]


def apply(*arguments: Any) -> Tensor:
    function: Any = attention._Attention.apply
    result: Tensor = function(*arguments)
    return result


def some_kept(dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    kept = (torch.rand(2, 3, 4, 5, generator=generator) < 0.7).to(dtype)
    assert 0 < kept.sum() < kept.numel()
    return kept


@pytest.fixture
def all_kept(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Dropout that drops nothing; gives the shapes it was asked for."""
    asked: list[tuple[int, ...]] = []

    def ones(x: Tensor, p: float, dtype: torch.dtype) -> tuple[Tensor, float]:
        assert p == HARDLY
        asked.append(tuple(x.shape))
        return torch.ones(x.shape, dtype=dtype), 1.0

    monkeypatch.setattr(attention, "kept_elements", ones)
    return asked


# ------------------------------------------------------------------ the function alone


def test_gradients_are_those_of_finite_differences() -> None:
    arguments = (position_bias(torch.float64), some_kept(torch.float64), 1 / 0.7, 0.6)
    assert torch.autograd.gradcheck(
        lambda q, k, v: apply(q, k, v, *arguments), inputs(torch.float64)
    )


def test_the_output_is_that_of_the_formula() -> None:
    query, key, value = inputs(torch.float64)
    bias, kept = position_bias(torch.float64), some_kept(torch.float64)
    before = [x.clone() for x in (query, key, value, bias, kept)]
    found = apply(query, key, value, bias, kept, 1.5, 0.6)
    scores = torch.einsum("bhtd,bhsd->bhts", query, key) * 0.6 + bias
    expected = torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1) * kept * 1.5, value)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.sum().backward()
    after = (query, key, value, bias, kept)
    assert all(torch.equal(x, y) for x, y in zip(after, before, strict=True))


def test_bfloat16_is_computed_in_float32_and_comes_back() -> None:
    found = inputs(torch.bfloat16)
    exact = [x.detach().float().requires_grad_() for x in found]
    bias, kept = position_bias(torch.bfloat16), some_kept(torch.bfloat16)
    upstream = random("bhtd", torch.bfloat16, 5)
    out = apply(*found, bias, kept, 1.5, 0.6)
    out.backward(upstream)
    expected = apply(*exact, bias.float(), kept.float(), 1.5, 0.6)
    expected.backward(upstream.float())
    # one rounding at the end: the same bits as the exact result rounded
    torch.testing.assert_close(out, expected.bfloat16(), rtol=0, atol=0)
    for x, y in zip(found, exact, strict=True):
        assert x.grad is not None
        assert y.grad is not None
        torch.testing.assert_close(x.grad, y.grad.bfloat16(), rtol=2**-7, atol=1e-6)


# ------------------------------------------------------------------ as transformers calls it


def boolean_mask() -> Tensor:
    mask = torch.ones(2, 1, 4, 5, dtype=torch.bool)
    mask[0, :, :, 3:] = False
    mask[1, :, 0, 1:] = False
    return mask


def float_mask() -> Tensor:
    return torch.zeros(2, 1, 4, 5).masked_fill(~boolean_mask(), -torch.inf)


@pytest.mark.parametrize("scaling", [1.0, None, 0.3])
@pytest.mark.parametrize("kind", ["none", "causal", "boolean", "float"])
def test_where_nothing_is_dropped_it_is_scaled_dot_product_attention(
    all_kept: list[tuple[int, ...]], kind: str, scaling: float | None
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
    settings: Any = {"dropout": HARDLY, "scaling": scaling, "position_bias": bias}
    out, weights = lean_attention(Module(kind == "causal"), *found, mask, **settings)
    assert weights is None
    assert out.is_contiguous()
    assert all_kept == [(2, 3, 4, 4 if kind == "causal" else 5)]
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


@pytest.mark.parametrize("mask", [boolean_mask(), float_mask()], ids=["boolean", "float"])
def test_masked_positions_get_no_weight(mask: Tensor) -> None:
    query, key, value = inputs()
    settings: Any = {"dropout": 0.25, "scaling": 1.0, "position_bias": position_bias()}

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


@pytest.mark.parametrize("case", ["no dropout", "no gradients", "a trained bias", "no bias"])
def test_otherwise_it_is_pytorch_s_own(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    calls: list[Any] = []

    def counted(*arguments: Any, **settings: Any) -> Any:
        calls.append(settings)
        return sdpa_attention_forward(*arguments, **settings)

    monkeypatch.setattr(attention, "sdpa_attention_forward", counted)
    dropout = 0.0 if case == "no dropout" else 0.25
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


# ------------------------------------------------------------------ in a model


def tiny_model(implementation: str = "sdpa") -> Any:
    config = MT5Config(
        vocab_size=40, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2, dropout_rate=0.25
    )
    torch.manual_seed(0)
    model: Any = MT5ForConditionalGeneration(config).requires_grad_(False)
    model.set_attn_implementation(implementation)
    return model


@pytest.mark.parametrize("padded", [True, False])
def test_a_decoder_does_not_see_the_future(monkeypatch: pytest.MonkeyPatch, padded: bool) -> None:
    asked: list[tuple[int, ...]] = []

    def counted(x: Tensor, p: float, dtype: torch.dtype) -> tuple[Tensor, float]:
        asked.append(tuple(x.shape))
        return kept_elements(x, p, dtype)

    monkeypatch.setattr(attention, "kept_elements", counted)
    model = tiny_model().train()
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
    assert sorted(asked) == sorted([(2, 2, 7, 7), (2, 2, 5, 5), (2, 2, 5, 7)] * 2)
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
    assert torch.equal(model.eval()(**batch).logits, plain(**batch).logits)
