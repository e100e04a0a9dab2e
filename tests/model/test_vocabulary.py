"""The cut vocabulary: the same logits for the tokens kept, and adapters that fit the full base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from detox_tune.config import TrialConfig
from detox_tune.data.embedded import embedded_sentences
from detox_tune.evaluation.decoding import greedy_decode
from detox_tune.model.base import load_base, load_tokenizer, sentinel_ids
from detox_tune.model.lora import adapted
from detox_tune.model.vocabulary import CutTokenizer, Vocabulary, cut_vocabulary, needed_tokens

VOCABULARY = 60
PAD, END, START = 4, 11, 30  # not where they usually are
KEPT = Vocabulary((2, PAD, 7, 8, END, 13, 21, START, 31, 40, 41, 55, 59))
KINDS = ["mT5", "tied T5", "mT5 with three embeddings"]


def base(kind: str) -> Any:
    """As transformers builds them: encoder and decoder have embedding modules of their own."""
    sizes: Any = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_heads": 2}
    sizes |= {"num_layers": 1, "dropout_rate": 0.0}
    sizes |= {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": START}
    torch.manual_seed(0)
    if kind == "tied T5":
        return T5ForConditionalGeneration(T5Config(**sizes)).eval()
    config = MT5Config(**sizes)
    config.tie_word_embeddings = False  # the class sets True whatever it is given
    model = MT5ForConditionalGeneration(config).eval()
    if kind == "mT5":
        for stack in (model.encoder, model.decoder):
            stack.embed_tokens.weight = model.shared.weight
    return model


def logits(model: Any, sources: Tensor, outputs: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=sources, decoder_input_ids=outputs).logits
    return found


def kept_ids(shape: tuple[int, int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(len(KEPT.kept), shape, generator=generator)


def full_ids(cut_ids: Tensor) -> Tensor:
    return torch.tensor(KEPT.kept)[cut_ids]


# ------------------------------------------------------------------ ids


def test_ids_go_to_and_fro() -> None:
    assert KEPT.cut(KEPT.kept) == list(range(len(KEPT.kept)))
    assert KEPT.full(range(len(KEPT.kept))) == list(KEPT.kept)
    assert KEPT.full(KEPT.cut([59, 2, 2, 40])) == [59, 2, 2, 40]
    assert KEPT.cut([]) == KEPT.full([]) == []


@pytest.mark.parametrize("dropped", [0, 3, 58, VOCABULARY, -1])
def test_a_dropped_id_is_a_key_error(dropped: int) -> None:
    with pytest.raises(KeyError, match=str(dropped)):
        KEPT.cut([2, dropped])


def test_needed_tokens_are_those_used_and_what_t5_needs_always(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_base))
    pieces = tokenizer.get_vocab()
    special = {pieces[piece] for piece in ("<pad>", "</s>", "<unk>")}
    assert len(sentinel_ids(tokenizer)) == 4
    always = special | set(sentinel_ids(tokenizer))
    assert needed_tokens(tokenizer, []).kept == tuple(sorted(always))
    used = [300, 41, 300, 77]
    assert needed_tokens(tokenizer, used).kept == tuple(sorted(always.union(used)))


def test_byte_pieces_are_always_needed() -> None:
    class WithBytes:
        """mT5's tokenizer spells with byte pieces; a pocket base's has none."""

        all_special_ids = (0, 1, 2)

        def get_vocab(self) -> dict[str, int]:
            pieces = ["<pad>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
            pieces += ["▁a", "<0x00", "0x41", "<extra_id_1>", "▁b", "<extra_id_0>"]
            return {piece: i for i, piece in enumerate(pieces)}

    tokenizer: Any = WithBytes()
    assert needed_tokens(tokenizer, [259 + 4]).kept == (*range(259), 262, 263, 264)


# ------------------------------------------------------------------ the base


@pytest.mark.parametrize("kind", KINDS)
def test_kept_logits_are_the_full_base_s_bit_by_bit(kind: str) -> None:
    full, cut = base(kind), base(kind)
    cut_vocabulary(cut, KEPT)
    sources, outputs = kept_ids((5, 9), seed=1), kept_ids((5, 7), seed=2)
    expected = logits(full, full_ids(sources), full_ids(outputs))[..., list(KEPT.kept)]
    found = logits(cut, sources, outputs)
    assert found.shape == (5, 7, len(KEPT.kept))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_shared_a_weight_still_does_and_nothing_trains(kind: str) -> None:
    model = base(kind)
    tables = ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")

    def ties() -> list[list[bool]]:
        weights = [model.get_submodule(name).weight for name in tables]
        return [[one is other for one in weights] for other in weights]

    before, others = ties(), {n: w.clone() for n, w in model.named_parameters()}
    cut_vocabulary(model, KEPT)
    assert ties() == before
    for name in tables:
        module = model.get_submodule(name)
        assert module.weight.shape == (len(KEPT.kept), 32)
        assert not module.weight.requires_grad
    assert model.shared.num_embeddings == model.lm_head.out_features == len(KEPT.kept)
    for name, weight in model.named_parameters():
        if name.removesuffix(".weight") not in tables:
            assert torch.equal(weight, others[name])
    model.tie_weights()  # what transformers calls on the way through resizing
    assert ties() == before


@pytest.mark.parametrize("ends", [END, [END, 40]])
def test_the_config_speaks_the_cut_base_s_ids(ends: int | list[int]) -> None:
    model = base("mT5")
    model.config.eos_token_id = model.generation_config.eos_token_id = ends
    cut_vocabulary(model, KEPT)
    places = KEPT.cut([PAD, END, START, 40])
    assert model.config.vocab_size == len(KEPT.kept)
    for settings in (model.config, model.generation_config):
        assert settings.pad_token_id == places[0]
        assert settings.eos_token_id == (places[1] if ends == END else [places[1], places[3]])
        assert settings.decoder_start_token_id == places[2]
    labels = torch.tensor([[3, 5, -100]])
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    assert shifted.tolist() == [[places[2], 3, 5]]


def test_a_vocabulary_without_the_end_token_is_refused() -> None:
    with pytest.raises(KeyError, match=str(END)):
        cut_vocabulary(base("mT5"), Vocabulary((PAD, START, 40)))


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_is_the_full_base_s_among_the_kept(kind: str) -> None:
    full, cut = base(kind), base(kind)
    cut_vocabulary(cut, KEPT)
    dropped = torch.tensor(sorted(set(range(VOCABULARY)) - set(KEPT.kept)))
    full.lm_head.register_forward_hook(
        lambda module, args, found: found.index_fill(-1, dropped, -torch.inf)
    )
    sources = [row[: 2 + i] for i, row in enumerate(kept_ids((8, 9), seed=3).tolist())]
    outputs = greedy_decode(cut, sources, max_new_tokens=6)
    expected = greedy_decode(full, [KEPT.full(row) for row in sources], max_new_tokens=6)
    assert [KEPT.full(row) for row in outputs] == expected
    assert any(outputs)


# ------------------------------------------------------------------ tokenizer and adapter


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return list(embedded_sentences()[:30])


def data_vocabulary(tiny_base: Path, sentences: list[str]) -> Vocabulary:
    tokenizer = load_tokenizer(str(tiny_base))
    return needed_tokens(tokenizer, [i for s in sentences for i in tokenizer(s).input_ids])


def test_the_cut_tokenizer_encodes_and_decodes_as_the_full_one(
    tiny_base: Path, sentences: list[str]
) -> None:
    tokenizer = load_tokenizer(str(tiny_base))
    vocabulary = data_vocabulary(tiny_base, sentences)
    assert len(vocabulary.kept) < len(tokenizer)
    cut = CutTokenizer(tokenizer, vocabulary)
    for sentence in (*sentences, ""):
        ids = cut(sentence).input_ids
        assert vocabulary.full(ids) == tokenizer(sentence).input_ids
        assert cut.decode(ids) == tokenizer.decode(tokenizer(sentence).input_ids)
        assert max(ids) < len(vocabulary.kept)
    assert cut.decode(vocabulary.cut(sentinel_ids(tokenizer)[-1:])) == "<extra_id_0>"
    unseen = next(
        piece.strip("▁") for piece, i in tokenizer.get_vocab().items() if i not in vocabulary.kept
    )
    with pytest.raises(KeyError, match=r"\d"):
        cut(f"{unseen} {unseen}{unseen}")


@pytest.mark.parametrize(
    ("quantization", "approach"), [("none", "second"), ("nf4", "all"), ("none", "all")]
)
def test_an_adapter_of_a_cut_base_fits_the_full_one(
    tiny_base: Path, sentences: list[str], tmp_path: Path, quantization: Any, approach: str
) -> None:
    cut, tokenizer = load_base(str(tiny_base), quantization=quantization)
    vocabulary = data_vocabulary(tiny_base, sentences)
    cut_vocabulary(cut, vocabulary)
    rows = [CutTokenizer(tokenizer, vocabulary)(s).input_ids for s in sentences[:4]]
    batch = torch.tensor([row[:6] for row in rows])
    with adapted(cut, TrialConfig.model_validate({"lora": approach}), seed=0) as model:
        optimiser = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-2)
        untuned = logits(model, batch, batch)
        for _ in range(3):
            optimiser.zero_grad()
            model(input_ids=batch, labels=batch).loss.backward()
            optimiser.step()
        model.eval()
        expected = logits(model, batch, batch)
        model.save_pretrained(str(tmp_path))
    assert not torch.equal(expected, untuned)

    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names
    assert all(".lora_A." in name or ".lora_B." in name for name in names)

    full, _ = load_base(str(tiny_base), quantization=quantization)
    loaded = PeftModel.from_pretrained(full, str(tmp_path)).eval()
    full_batch = torch.tensor([vocabulary.full(row) for row in batch.tolist()])
    found = logits(loaded, full_batch, full_batch)[..., list(vocabulary.kept)]
    assert torch.equal(found, expected)
