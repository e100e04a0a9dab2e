"""Draft decoding gives greedy decoding's ids, in far fewer passes where the draft is right."""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from detox_tune.evaluation.decoding import greedy_decode
from detox_tune.evaluation.drafting import draft_decode

PAD, END, VOCABULARY = 0, 1, 64
OTHER_ENDS = [END, 5, 6]
NEW_TOKENS = 12
COUNT = 26  # sources
FEW_LOGITS = 3 * 16 * VOCABULARY  # of about three sources: several batches, and a short one
SIZES = {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 64}
Ids = list[int]


def random_model(kind: str, seed: int = 1) -> Any:
    """An untrained model whose outputs differ in length; dropout shows if training mode is on."""
    torch.manual_seed(seed)
    sizes: Any = {"vocab_size": VOCABULARY, "dropout_rate": 0.5, **SIZES}
    if kind == "tied T5":
        t5 = T5Config(**sizes)
        t5.decoder_start_token_id = PAD
        model: Any = T5ForConditionalGeneration(t5)
        assert model.lm_head.weight is model.shared.weight
        with torch.no_grad():  # else every output is its own last token again, from the start on
            model.shared.weight *= 0.1
            model.shared.weight[END] *= 2.0
            model.shared.weight[PAD] *= 0.0
        return model
    config = MT5Config(**sizes)
    config.tie_word_embeddings = False
    model = MT5ForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight[END] *= 3.0  # an end token that wins now and then
    if kind == "several ends":
        model.config.eos_token_id = OTHER_ENDS
    if kind == "adapted mT5":
        lora = LoraConfig(r=4, target_modules=["q", "v"], init_lora_weights=False)
        return get_peft_model(model, lora)
    return model


KINDS = ["mT5", "tied T5", "several ends", "adapted mT5"]


def random_sources(count: int, seed: int = 0) -> list[Ids]:
    """Uneven ones; among them an empty one, an end token alone, and one with pad ids inside."""
    draw = random.Random(seed)
    rows = [
        [*(draw.randrange(2, VOCABULARY) for _ in range(draw.randint(1, 15))), END]
        for _ in range(count)
    ]
    return [[], [END], [7], [5, PAD, 9, PAD, 11, END], *rows][:count]


def slow_decode(model: Any, source: Ids, max_new_tokens: int) -> Ids:
    """One sentence, one full forward pass a token, no cache, no padding; in evaluation mode."""
    ends = model.config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    decoder_ids = [PAD]
    with torch.no_grad():
        for _ in range(max_new_tokens):
            logits = model(
                input_ids=torch.tensor([source or ends[:1]]),
                decoder_input_ids=torch.tensor([decoder_ids]),
                use_cache=False,
            ).logits
            token = int(logits[0, -1].argmax())
            if token in ends:
                break
            decoder_ids.append(token)
    return [token for token in decoder_ids if token != PAD]


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Inside, a list that grows by the rows of every pass of the decoder."""
    rows: list[int] = []
    handle = model.get_decoder().register_forward_hook(
        lambda module, args, output: rows.append(len(output.last_hidden_state))
    )
    try:
        yield rows
    finally:
        handle.remove()


# ------------------------------------------------------------------ the same ids


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(request.param)


@pytest.fixture(scope="module")
def expected(model: Any) -> list[Ids]:
    still = copy.deepcopy(model).eval()
    return [slow_decode(still, source, NEW_TOKENS) for source in random_sources(COUNT)]


@pytest.mark.parametrize("logits", [1, FEW_LOGITS, 2**27])
def test_equals_greedy_decoding_and_the_slow_arg_max(
    model: Any, expected: list[Ids], logits: int
) -> None:
    sources = random_sources(COUNT)
    outputs = draft_decode(model, sources, max_new_tokens=NEW_TOKENS, logits_at_once=logits)
    assert outputs == expected
    assert outputs == greedy_decode(model, sources, max_new_tokens=NEW_TOKENS)
    assert len(set(map(tuple, expected))) > COUNT / 2  # else there is little to compare
    assert {0, NEW_TOKENS} <= {len(output) for output in expected}


@pytest.mark.parametrize("max_new_tokens", [0, 1, 2, 5, 30])
def test_however_many_tokens_may_come(model: Any, max_new_tokens: int) -> None:
    sources = random_sources(24, seed=1)
    outputs = draft_decode(model, sources, max_new_tokens=max_new_tokens, logits_at_once=FEW_LOGITS)
    assert outputs == greedy_decode(model, sources, max_new_tokens=max_new_tokens)
    assert max(map(len, outputs)) == max_new_tokens


@pytest.mark.parametrize("kind", ["random", "empty", "one token", "true", "true, then wrong"])
def test_drafts_do_not_change_the_outputs(model: Any, expected: list[Ids], kind: str) -> None:
    draw = random.Random(2)
    drafts: dict[str, list[Ids]] = {
        "random": [
            [draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 30))] for _ in expected
        ],
        "empty": [[] for _ in expected],
        "one token": [[draw.randrange(VOCABULARY)] * 20 for _ in expected],
        "true": [[*output, END] for output in expected],
        "true, then wrong": [[*output[:4], 9, *output[3:], END] for output in expected],
    }
    for logits in (FEW_LOGITS, 2**27):
        outputs = draft_decode(
            model,
            random_sources(COUNT),
            max_new_tokens=NEW_TOKENS,
            drafts=drafts[kind],
            logits_at_once=logits,
        )
        assert outputs == expected


@pytest.mark.parametrize("seed", range(3))
def test_other_models_and_sources(seed: int) -> None:
    model, sources = random_model("mT5", seed), random_sources(60, seed)
    outputs = draft_decode(model, sources, max_new_tokens=NEW_TOKENS, logits_at_once=FEW_LOGITS)
    assert outputs == greedy_decode(model, sources, max_new_tokens=NEW_TOKENS)


def test_rows_that_wait_for_those_of_other_batches(model: Any) -> None:
    sources = random_sources(150, seed=3)  # the first two batches of 64 may leave some rows
    outputs = draft_decode(model, sources, max_new_tokens=30)
    assert outputs == greedy_decode(model, sources, max_new_tokens=30)


def test_the_adapter_is_on() -> None:
    sources = random_sources(20)
    with_adapter = draft_decode(random_model("adapted mT5"), sources, max_new_tokens=NEW_TOKENS)
    assert with_adapter != draft_decode(random_model("mT5"), sources, max_new_tokens=NEW_TOKENS)


def test_no_sources() -> None:
    assert draft_decode(random_model("mT5"), [], max_new_tokens=5) == []


def test_modes_gradients_and_random_state_are_left_alone() -> None:
    model = random_model("mT5").train()
    model.encoder.eval()  # a caller may keep a part frozen: its mode is its own
    before = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    outputs = draft_decode(model, random_sources(8), max_new_tokens=4)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert outputs == draft_decode(model, random_sources(8), max_new_tokens=4)


def test_the_mode_comes_back_when_decoding_fails() -> None:
    model = random_model("mT5").train()
    with pytest.raises(IndexError, match="out of range"):
        draft_decode(model, [[1000, END]], max_new_tokens=4)
    assert all(module.training for module in model.modules())


# ------------------------------------------------------------------ a model that copies


PAIRS = 24


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Ids, Ids]]:
    """Sources and what they become: a third copied, a third with a token replaced or deleted."""
    draw = random.Random(0)
    made = []
    for number in range(PAIRS):
        source = draw.sample(range(2, VOCABULARY), 28 if number < 3 else draw.randint(4, 28))
        target = list(source)
        place = draw.randrange(len(target))
        if number % 3 == 1:
            target[place] = draw.choice([i for i in range(2, VOCABULARY) if i not in source])
        elif number % 3 == 2:
            del target[place]
        made.append(([*source, END], [*target, END]))
    return made


@pytest.fixture(scope="module")
def copier(pairs: Sequence[tuple[Ids, Ids]]) -> Any:
    """A tiny mT5 that knows these pairs by heart."""
    config = MT5Config(
        vocab_size=VOCABULARY, d_model=64, num_layers=1, num_heads=4, d_kv=16, d_ff=64,
        dropout_rate=0.0,
    )  # fmt: skip
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(config)
    sources, targets = ([torch.tensor(pair[side]) for pair in pairs] for side in (0, 1))
    batch = {
        "input_ids": pad_sequence(sources, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(s) for s in sources], batch_first=True),
        "labels": pad_sequence(targets, batch_first=True, padding_value=-100),
    }
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        loss = model(**batch).loss
        if loss < 0.01:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    outputs = greedy_decode(model, [source for source, _ in pairs], max_new_tokens=40)
    assert outputs == [target[:-1] for _, target in pairs]
    return model


@pytest.mark.parametrize("logits", [1, FEW_LOGITS, 2**27])
def test_a_copying_model_decodes_the_same(
    copier: Any, pairs: Sequence[tuple[Ids, Ids]], logits: int
) -> None:
    # the sources are the drafts: right to their end, or to an edit and again behind it
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    with counted(copier) as passes:
        outputs = draft_decode(copier, sources, max_new_tokens=40, logits_at_once=logits)
    assert outputs == [target[:-1] for target in targets]
    assert sum(passes) < 0.25 * sum(map(len, targets))
    mixed = sources + random_sources(12)  # some rows are done at once, some never find the source
    outputs = draft_decode(copier, mixed, max_new_tokens=20, logits_at_once=logits)
    assert outputs == greedy_decode(copier, mixed, max_new_tokens=20, batch_size=8)


def test_few_rows_do_not_hold_up_their_batch(copier: Any, pairs: Sequence[tuple[Ids, Ids]]) -> None:
    sources = [source for source, _ in pairs] * 6 + random_sources(12)
    with counted(copier) as passes:
        outputs = draft_decode(copier, sources, max_new_tokens=40)
    assert outputs == greedy_decode(copier, sources, max_new_tokens=40)
    assert max(passes) == 64
    assert len(passes) < 2 * 40  # three batches, of which only the last runs to its end


@pytest.mark.parametrize("limit", [1, 3, 27, 28])
def test_a_right_draft_stops_at_the_limit(
    copier: Any, pairs: Sequence[tuple[Ids, Ids]], limit: int
) -> None:
    with counted(copier) as passes:
        outputs = draft_decode(copier, [source for source, _ in pairs[:3]], max_new_tokens=limit)
    assert outputs == [target[:-1][:limit] for _, target in pairs[:3]]
    assert len(passes) == 1 or limit > 1


def edited(target: Ids, edit: str, place: int) -> Ids:
    """The draft with a token at `place` removed, replaced or inserted."""
    unknown = next(i for i in range(2, VOCABULARY) if i not in target)
    kept = {"removed": [], "replaced": [unknown], "inserted": [unknown, target[place]]}[edit]
    return [*target[:place], *kept, *target[place + 1 :]]


def test_a_right_draft_takes_one_pass(copier: Any, pairs: Sequence[tuple[Ids, Ids]]) -> None:
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    with counted(copier) as passes:
        outputs = draft_decode(copier, sources, max_new_tokens=40, drafts=targets)
    assert outputs == [target[:-1] for target in targets]
    assert passes == [PAIRS]  # one pass, all rows


@pytest.mark.parametrize("place", [0, 1, 13, 26])
@pytest.mark.parametrize("edit", ["removed", "replaced", "inserted"])
def test_a_draft_with_one_edit_takes_few_passes(
    copier: Any, pairs: Sequence[tuple[Ids, Ids]], edit: str, place: int
) -> None:
    for source, target in pairs[:3]:
        draft = edited(target, edit, place)
        assert draft != target
        with counted(copier) as passes:
            [output] = draft_decode(copier, [source], max_new_tokens=40, drafts=[draft])
        assert output == target[:-1]
        # to the edit; the token where the draft lost it; then 4, 7, 13 and 25 tokens a pass
        assert 2 <= len(passes) <= 6 < len(target) / 4
