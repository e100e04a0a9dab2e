"""The head's two tools: losses projected chunk by chunk, and a model that leaves its head out."""

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
)

from detox_tune.training import chunked_loss as chunked_loss_module
from detox_tune.training.chunked_loss import chunked_loss, without_head
from detox_tune.training.losses import masked_cross_entropy, toxic_penalty

POSITIONS, WIDTH, VOCABULARY = 23, 16, 50
FORBIDDEN = torch.tensor([7, 8, 31])
Terms = Callable[[Tensor, slice], Tensor]


def head_and_states(dtype: torch.dtype) -> tuple[nn.Linear, Tensor]:
    """A frozen head, and hidden states of which a gradient is wanted."""
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=dtype).requires_grad_(False)
    head.weight.normal_(generator=generator)
    states = torch.randn(POSITIONS, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    return head, states.requires_grad_()


def two_terms() -> Terms:
    """Cross-entropy and penalty at random positions, each over a count of its own."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(VOCABULARY, (POSITIONS,), generator=generator)
    trained, penalised = torch.rand(2, POSITIONS, generator=generator) < 0.6

    def terms_of(logits_nv: Tensor, part: slice) -> Tensor:
        return torch.stack(
            [
                masked_cross_entropy(logits_nv, labels[part], trained[part], count=11),
                toxic_penalty(logits_nv, penalised[part], FORBIDDEN, count=9),
            ]
        )

    return terms_of


@pytest.mark.parametrize("rows_a_chunk", [1, 5, 22, 23, 1000])
@pytest.mark.parametrize("gamma", [0.0, 0.15, 2.0])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_value_terms_and_gradient_are_those_of_all_logits_at_once(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    close: float,
    gamma: float,
    rows_a_chunk: int,
) -> None:
    monkeypatch.setattr(chunked_loss_module, "_CHUNK", rows_a_chunk)
    head, states = head_and_states(dtype)
    weights = torch.tensor([1.0, gamma], dtype=dtype)
    projected: list[int] = []
    head.register_forward_hook(lambda module, args, logits: projected.append(len(logits)))
    loss, terms = chunked_loss(states, head, two_terms(), weights)
    (3 * loss).backward()  # a trainer scales losses
    assert sum(projected) == POSITIONS
    assert max(projected) == min(rows_a_chunk, POSITIONS)
    assert not terms.requires_grad
    assert head.weight.grad is None

    whole = states.detach().requires_grad_()
    expected_terms = two_terms()(head(whole), slice(None))
    expected = expected_terms[0] + gamma * expected_terms[1]
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=close, atol=0)
    torch.testing.assert_close(terms, expected_terms.detach(), rtol=close, atol=0)
    assert states.grad is not None
    assert whole.grad is not None
    assert states.grad.abs().max() > 0.1
    torch.testing.assert_close(states.grad, whole.grad, rtol=close, atol=close)


def test_no_positions_give_a_loss_of_nothing_that_can_go_backward() -> None:
    head, states = head_and_states(torch.float32)

    def no_terms(logits_nv: Tensor, part: slice) -> Tensor:
        raise AssertionError("there is nothing to project")

    loss, terms = chunked_loss(states[:0], head, no_terms, torch.tensor([1.0, 0.5]))
    loss.backward()
    assert loss.item() == 0
    assert terms.tolist() == [0, 0]
    assert states.grad is not None
    assert not states.grad.any()


def test_bfloat16_states_keep_a_loss_of_float32() -> None:
    head, states = head_and_states(torch.bfloat16)
    loss, terms = chunked_loss(states, head, two_terms(), torch.tensor([1.0, 0.15]))
    loss.backward()
    assert loss.dtype == terms.dtype == torch.float32
    assert states.grad is not None
    assert states.grad.dtype == torch.bfloat16
    expected = two_terms()(head(states), slice(None))
    torch.testing.assert_close(loss, expected @ torch.tensor([1.0, 0.15]), rtol=1e-6, atol=0)


# ------------------------------------------------------------------ without the head

SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 4, "d_ff": 16}
SIZES |= {"num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}


def mt5() -> Any:
    config = MT5Config(**SIZES)
    config.tie_word_embeddings = False
    return MT5ForConditionalGeneration(config).eval()


def tied_t5() -> Any:
    model = T5ForConditionalGeneration(T5Config(**SIZES)).eval()
    assert model.config.scale_decoder_outputs
    return model


def adapted_mt5() -> Any:
    lora = LoraConfig(r=2, target_modules=["q", "v"], init_lora_weights=False)
    return get_peft_model(mt5(), lora).eval()


@pytest.mark.parametrize("make", [mt5, tied_t5, adapted_mt5])
def test_the_head_applied_later_gives_the_same_logits(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = make()
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = base.lm_head
    batch = {"input_ids": torch.arange(2, 9)[None], "decoder_input_ids": torch.arange(5)[None]}
    with torch.no_grad():
        expected = model(**batch).logits
        with without_head(model) as head:
            hidden = model(**batch).logits
    assert hidden.shape == (1, 5, WIDTH)
    assert torch.equal(head(hidden), expected)
    assert head is own is base.lm_head is model.get_output_embeddings()


def test_the_head_comes_back_after_an_error() -> None:
    model = mt5()
    own = model.lm_head
    with pytest.raises(IndexError, match="out of range"), without_head(model):
        model(input_ids=torch.tensor([[VOCABULARY]]), decoder_input_ids=torch.tensor([[0]]))
    assert model.lm_head is own
