"""What trials share: rows in the ids of the cut base, and the tokens that they need."""

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from detox_tune.config import MASK_ANCHORS, SearchConfig, TrialConfig
from detox_tune.errors import UserError
from detox_tune.model.base import load_tokenizer
from detox_tune.training.examples import make_examples
from detox_tune.tuning.corpus import Corpus
from detox_tune.tuning.task import Task, build_task, used_tokens

PREFIXES = ("", "detoxify: ")


def test_rows_are_those_of_the_full_vocabulary_in_the_ids_of_the_cut_base(
    config: SearchConfig, corpus: Corpus, task: Task, tiny_base: Path
) -> None:
    whole = config.model_copy(update={"vocabulary": "full"})
    full = build_task(whole, corpus, str(tiny_base), task_prefixes=PREFIXES)
    assert full.vocabulary.kept == tuple(range(400))
    vocabulary = task.vocabulary
    assert len(vocabulary.kept) < 0.8 * 400
    for prefix, anchor in product(PREFIXES, MASK_ANCHORS):
        trial = TrialConfig(task_prefix=prefix, mask_strategy="toxic_only", mask_anchor=anchor)
        found, expected = task.rows(trial), full.rows(trial)
        assert len(found) == len(task.examples) == len(expected)
        for cut_row, full_row in zip(found, expected, strict=True):
            assert vocabulary.full(cut_row["input_ids"]) == full_row["input_ids"]
            assert vocabulary.full(cut_row["labels"]) == full_row["labels"]
            assert cut_row["label_toxic"] == full_row["label_toxic"]
            assert cut_row["toxic_positions"] == full_row["toxic_positions"]
    assert task.forbidden_token_ids
    assert vocabulary.full(task.forbidden_token_ids) == full.forbidden_token_ids


def test_a_row_follows_the_trial_s_prefix_and_anchor(task: Task) -> None:
    tokenizer: Any = load_tokenizer(task.base)
    clean = next(i for i, e in enumerate(task.examples) if not any(e.label_toxic))
    source = task.train[task.examples[clean].pair].source
    edits = task.rows(TrialConfig(task_prefix="", mask_strategy="toxic_only"))[clean]
    labels = task.rows(TrialConfig(mask_strategy="toxic_only", mask_anchor="labels"))[clean]
    assert task.vocabulary.full(edits["input_ids"]) == tokenizer(source).input_ids
    prefixed = tokenizer("detoxify: " + source).input_ids
    assert task.vocabulary.full(labels["input_ids"]) == prefixed
    assert not any(labels["toxic_positions"])
    assert any(edits["toxic_positions"])
    assert task.rows(TrialConfig())[clean]["toxic_positions"] == edits["toxic_positions"]


def test_tokens_are_those_of_a_slow_look_and_no_test_reference_is_read(
    config: SearchConfig, corpus: Corpus, task: Task
) -> None:
    splits, tokenizer = corpus.splits, load_tokenizer(task.base)
    examples, _ = make_examples(
        splits.train,
        tokenizer,
        corpus.lexicon,
        task_prefixes=PREFIXES,
        max_tokens=config.max_tokens,
    )
    texts = list(corpus.lexicon.entries("en"))
    for pair in (*splits.train, *splits.validation):
        texts += pair.references
    for pair in (*splits.train, *splits.validation, *splits.test):
        texts += [prefix + pair.source for prefix in PREFIXES]
    expected = {token for text in texts for token in tokenizer(text).input_ids}
    assert used_tokens(examples, corpus, tokenizer, PREFIXES) == expected
    assert expected <= set(task.vocabulary.kept)

    unread = [piece for piece, i in tokenizer.get_vocab().items() if i not in expected]
    text = "".join(unread[:20])
    assert not set(tokenizer(text).input_ids) <= expected
    test = tuple(dataclasses.replace(pair, references=(text,)) for pair in splits.test)
    changed = dataclasses.replace(corpus, splits=dataclasses.replace(splits, test=test))
    assert used_tokens(examples, changed, tokenizer, PREFIXES) == expected


def test_a_task_without_a_short_pair_is_refused(
    config: SearchConfig, corpus: Corpus, tiny_base: Path
) -> None:
    short = config.model_copy(update={"max_tokens": 8})
    with pytest.raises(UserError, match=r"training pairs are longer than max_tokens=8: raise"):
        build_task(short, corpus, str(tiny_base), task_prefixes=[""])
