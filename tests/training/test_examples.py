"""Ids and toxic marks of pairs, and which tokens are forbidden."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.model.base import load_tokenizer, sentinel_ids
from detox_tune.model.vocabulary import Vocabulary
from detox_tune.training.examples import Example, encode_sources, make_examples, toxic_token_ids

LEXICON = Lexicon({"en": ["stupid", "shut up"]})


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(tiny_base))


def examples_of(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, lexicon: Lexicon
) -> list[Example]:
    prefixes = ("", "detoxify: ")
    return make_examples(pairs, tokenizer, lexicon, task_prefixes=prefixes, max_tokens=96)[0]


def marked_text(tokenizer: PreTrainedTokenizerBase, ids: list[int], marks: list[bool]) -> str:
    tokens = tokenizer.convert_ids_to_tokens(
        [i for i, mark in zip(ids, marks, strict=True) if mark]
    )
    return "".join(tokens).replace("▁", " ").strip()


def test_source_and_reference_carry_their_toxic_spans(tokenizer: PreTrainedTokenizerBase) -> None:
    pair = Pair("the stupid bus, shut up.", ("the bus.", "the stupid bus."), "en")
    examples = examples_of([pair], tokenizer, LEXICON)
    assert [example.pair for example in examples] == [0, 0]
    for example in examples:
        text = marked_text(tokenizer, example.source_ids, example.source_toxic)
        assert text == "stupid shut up"
        assert (example.source_ids[-1], example.label_ids[-1]) == (1, 1)
        assert not example.source_toxic[-1]
    assert marked_text(tokenizer, examples[0].label_ids, examples[0].label_toxic) == ""
    assert marked_text(tokenizer, examples[1].label_ids, examples[1].label_toxic) == "stupid"


@pytest.mark.parametrize(
    "control", ["</s>", "<pad>", "<unk>", "<extra_id_0>", "<extra_id_0><extra_id_1>", "＜pad＞"]
)
def test_control_tokens_in_a_text_are_plain_characters(
    control: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    pair = Pair(f"{control} the stupid{control}bus {control}", (f"the {control}", "bus."), "en")
    examples = examples_of([pair], tokenizer, LEXICON)
    special = {0, 1, *sentinel_ids(tokenizer)}
    for example in examples:
        for ids in example.ids():
            assert special.isdisjoint(ids[:-1])
            assert ids[-1] == 1
        # the offsets stay right
        text = marked_text(tokenizer, example.source_ids, example.source_toxic)
        assert text == "stupid"


def test_texts_without_control_tokens_are_cut_as_transformers_does(
    tokenizer: PreTrainedTokenizerBase, tiny_base: Path
) -> None:
    plain = AutoTokenizer.from_pretrained(tiny_base)
    for text in (*(pair.source for pair in embedded_pairs()[:50]), "a < b <3 <b> </a> < pad>", ""):
        assert tokenizer(text).input_ids == plain(text).input_ids
    output = [*sentinel_ids(tokenizer), 20, 21, 1]
    assert tokenizer.decode(output) == plain.decode(output)


def test_an_example_holds_every_prefix_and_anchor_and_can_be_cut(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    pair = Pair("the stupid bus, shut up.", ("the stupid bus.",), "en")
    (example,) = examples_of([pair], tokenizer, LEXICON)
    for prefix, ids in example.input_ids.items():
        assert ids == encode_sources([pair.source], tokenizer, prefix)[0]
    assert example.toxic["labels"] == example.label_toxic
    assert sum(example.toxic["edits"]) > sum(example.toxic["labels"])
    vocabulary = Vocabulary(tuple(sorted({i for ids in example.ids() for i in ids})))
    cut = example.cut(vocabulary)
    assert [vocabulary.full(ids) for ids in cut.ids()] == example.ids()
    assert cut.toxic == example.toxic


def test_annotated_spans_count_beside_the_lexicon(tokenizer: PreTrainedTokenizerBase) -> None:
    source = "the stupid bus is late."
    pair = Pair(source, ("the bus is late.",), "en", spans=((18, 22),))
    assert source[18:22] == "late"
    (example,) = examples_of([pair], tokenizer, LEXICON)
    assert marked_text(tokenizer, example.source_ids, example.source_toxic) == "stupid late"


def test_too_long_examples_are_left_out_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    pairs = [Pair("a bus.", ("a bus.", "word " * 40), "en"), Pair("word " * 40, ("a bus.",), "en")]
    examples, over_long = make_examples(
        pairs, tokenizer, LEXICON, task_prefixes=[""], max_tokens=20
    )
    assert (len(examples), over_long) == (1, 2)


def test_the_prefix_is_encoded_with_the_source(tokenizer: PreTrainedTokenizerBase) -> None:
    (ids,) = encode_sources(["the bus."], tokenizer, "detoxify: ")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "detoxify: the bus."


def test_forbidden_tokens_are_those_that_hardly_occur_elsewhere() -> None:
    def example(pair: int, source: dict[int, bool], label: dict[int, bool]) -> Example:
        toxic = list(label.values())
        return Example(pair, {}, list(source), list(source.values()), list(label), toxic, {})

    # 7 ten times, each with 6 after it; 5 ten times by itself, and once in a reference; 4 twice
    sources = [{7: True, 6: True, 9: False, 5: True, 1: False}] * 8
    sources += [{7: True, 6: True, 4: True, 1: False}, {9: False, 7: True, 4: True, 1: False}]
    sources += [{5: True, 1: False}] * 2
    references = [{9: False, 1: False}] * (len(sources) - 1) + [{5: False, 1: False}]
    examples = [
        example(pair, source, reference)
        for pair, (source, reference) in enumerate(zip(sources, references, strict=True))
    ]
    assert toxic_token_ids(examples, min_purity=0.95) == [7]  # 10.5 of 11
    assert toxic_token_ids([*examples, *examples], min_purity=0.95) == [7]  # a source counts once
    assert toxic_token_ids(examples, min_purity=0.87) == [5, 7]  # 10.5 of 12
    # 7 and 4, which only follows it, 1.5 of 2; 5 has 2.5 of 4
    assert toxic_token_ids(examples[-3:], min_purity=0.7) == [7]


def test_purity_agrees_with_a_count_over_the_corpus(tokenizer: PreTrainedTokenizerBase) -> None:
    pairs = embedded_pairs()[:300]
    examples = examples_of(pairs, tokenizer, embedded_lexicon())
    inside: dict[int, list[bool]] = {}
    for number, example in enumerate(examples):
        first = number == 0 or examples[number - 1].pair != example.pair
        sides = [(example.label_ids, example.label_toxic)]
        sides += [(example.source_ids, example.source_toxic)] if first else []
        for ids, marks in sides:
            for i, mark in zip(ids, marks, strict=True):
                inside.setdefault(i, []).append(mark)
    expected = sorted(i for i, marks in inside.items() if sum(marks) / len(marks) >= 0.95)
    assert toxic_token_ids(examples, min_purity=0.95) == expected
    assert expected
