import copy
import logging
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MT5Config, MT5ForConditionalGeneration

from detox_tune.evaluation.decoding import beam_decode, greedy_decode

PAD, END = 0, 1
NEW_TOKENS = 8


def tiny_model(seed: int = 0) -> MT5ForConditionalGeneration:
    config = MT5Config(
        vocab_size=64, d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=64, dropout_rate=0.5
    )
    config.tie_word_embeddings = False
    torch.manual_seed(seed)
    model = MT5ForConditionalGeneration(config)
    with torch.no_grad():  # an end token that wins now and then, so that lengths differ
        model.lm_head.weight[END] *= 3.0
    return model


def sources(count: int = 14, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 15, (count,), generator=generator).tolist()
    return [
        [*torch.randint(2, 64, (length,), generator=generator).tolist(), END] for length in lengths
    ]


def slow_decode(model: torch.nn.Module, source: list[int], max_new_tokens: int) -> list[int]:
    """One sentence, one full forward pass a token, no cache, no padding."""
    model = copy.deepcopy(model).eval()
    decoder_ids = [PAD]
    with torch.no_grad():
        for _ in range(max_new_tokens):
            logits = model(
                input_ids=torch.tensor([source]),
                decoder_input_ids=torch.tensor([decoder_ids]),
                use_cache=False,
            ).logits
            token = int(logits[0, -1].argmax())
            if token == END:
                break
            decoder_ids.append(token)
    return [token for token in decoder_ids if token != PAD]


@pytest.fixture(scope="module")
def model() -> MT5ForConditionalGeneration:
    return tiny_model()


@pytest.fixture(scope="module")
def expected(model: MT5ForConditionalGeneration) -> list[list[int]]:
    return [slow_decode(model, source, NEW_TOKENS) for source in sources()]


def test_the_expected_outputs_are_worth_comparing(expected: list[list[int]]) -> None:
    lengths = {len(output) for output in expected}
    assert len(lengths) > 3
    assert any(len(output) == NEW_TOKENS for output in expected)
    assert any(0 < len(output) < NEW_TOKENS for output in expected)


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_equals_the_slow_arg_max_whatever_the_batch(
    model: MT5ForConditionalGeneration, expected: list[list[int]], batch_size: int
) -> None:
    outputs = greedy_decode(model, sources(), max_new_tokens=NEW_TOKENS, batch_size=batch_size)
    assert outputs == expected


def test_order_and_neighbours_do_not_matter(
    model: MT5ForConditionalGeneration, expected: list[list[int]]
) -> None:
    backwards = greedy_decode(model, sources()[::-1], max_new_tokens=NEW_TOKENS, batch_size=5)
    assert backwards[::-1] == expected


def test_the_padding_id_inside_a_source_is_attended_to(model: MT5ForConditionalGeneration) -> None:
    holding_pad = [[5, PAD, 9, PAD, 11, END], [7, 8, 9, 10, 11, 12, 13, END]]
    outputs = greedy_decode(model, holding_pad, max_new_tokens=NEW_TOKENS)
    assert outputs == [slow_decode(model, source, NEW_TOKENS) for source in holding_pad]


def test_peft_model_decodes_with_its_adapter(expected: list[list[int]]) -> None:
    adapted = get_peft_model(
        tiny_model(),
        LoraConfig(r=4, target_modules=["q", "v"], init_lora_weights=False),
    )
    outputs = greedy_decode(adapted, sources(), max_new_tokens=NEW_TOKENS, batch_size=6)
    assert outputs == [slow_decode(adapted, source, NEW_TOKENS) for source in sources()]
    assert outputs != expected  # else the adapter was not there


def test_no_sources_no_tokens_and_an_empty_source(model: MT5ForConditionalGeneration) -> None:
    assert greedy_decode(model, [], max_new_tokens=5) == []
    assert greedy_decode(model, [[3, END], [4, END]], max_new_tokens=0) == [[], []]
    outputs = greedy_decode(model, [[], [3, 4, END]], max_new_tokens=5)
    assert outputs[0] == slow_decode(model, [END], 5)


def test_every_modules_mode_and_the_gradients_are_left_alone() -> None:
    model = tiny_model().train()
    model.encoder.eval()  # a caller may keep a part frozen: its mode is its own
    before = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    outputs = greedy_decode(model, sources(4), max_new_tokens=4)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
    # dropout of .5 would make the second run differ if training mode had stayed on
    assert outputs == greedy_decode(model, sources(4), max_new_tokens=4)


def test_the_mode_comes_back_when_decoding_fails(model: MT5ForConditionalGeneration) -> None:
    broken = tiny_model().train()
    own = broken.generation_config
    with pytest.raises(IndexError):
        greedy_decode(broken, [[1000, END]], max_new_tokens=4)
    assert broken.training
    assert broken.generation_config is own


def test_the_checkpoints_own_generation_settings_are_not_applied(
    expected: list[list[int]],
) -> None:
    model = tiny_model()
    own = model.generation_config
    own.repetition_penalty = 5.0
    own.no_repeat_ngram_size = 1
    own.min_length = 10
    own.temperature = 0.3
    own.num_beams = 4
    assert greedy_decode(model, sources(), max_new_tokens=NEW_TOKENS) == expected
    assert model.generation_config is own


def test_nothing_on_the_screen(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model().train()
    model.config.use_cache = False
    model.generation_config.temperature = 0.3
    model.generation_config.max_length = 20
    logger = logging.getLogger("transformers")  # does not propagate to where caplog listens
    logger.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            greedy_decode(model, sources(4), max_new_tokens=30)
    finally:
        logger.removeHandler(caplog.handler)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_bfloat16(model: MT5ForConditionalGeneration) -> None:
    half = copy.deepcopy(model).bfloat16()
    outputs = greedy_decode(half, sources(6), max_new_tokens=4, batch_size=1)
    assert outputs == [slow_decode(half, source, 4) for source in sources(6)]


def test_one_beam_is_greedy(model: MT5ForConditionalGeneration, expected: list[list[int]]) -> None:
    beams = beam_decode(model, sources(), candidates=1, max_new_tokens=NEW_TOKENS, rows_at_once=5)
    assert beams == [[output] for output in expected]


def test_candidates_of_one_token_are_the_likeliest_tokens(
    model: MT5ForConditionalGeneration,
) -> None:
    beams = beam_decode(model, sources(6), candidates=5, max_new_tokens=1, rows_at_once=15)
    for source, candidates in zip(sources(6), beams, strict=True):
        with torch.no_grad():
            logits = (
                copy.deepcopy(model)
                .eval()(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[PAD]]))
                .logits[0, -1]
            )
        tokens = logits.topk(5).indices.tolist()
        assert candidates == [[] if token in (PAD, END) else [token] for token in tokens]


def test_candidates_do_not_depend_on_their_batch(model: MT5ForConditionalGeneration) -> None:
    settings: dict[str, Any] = {"candidates": 3, "max_new_tokens": NEW_TOKENS}
    alone = beam_decode(model, sources(), rows_at_once=1, **settings)
    together = beam_decode(model, sources(), rows_at_once=300, **settings)
    assert together == alone
    assert all(len({tuple(ids) for ids in candidates}) > 1 for candidates in alone)
    assert beam_decode(model, [], **settings) == []
