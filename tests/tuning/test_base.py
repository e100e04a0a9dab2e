"""The lent base: loaded once, and every trial trains on it as if it were alone."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detox_tune.data.tokenise import encode_sources, tokenise
from detox_tune.tuning.worker import forget_bases, trial_base
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.evaluation.drafting import draft_decode
from detox_tune.model.base import load_base, load_tokenizer
from detox_tune.model.lora import adapted
from detox_tune.model.vocabulary import CutTokenizer, Vocabulary
from detox_tune.tuning import worker
from detox_tune.tuning.task import Corpus, Task, build_task, load_corpus, tokens_of
from detox_tune.tuning.trial import training_arguments, trial_trainer

PREFIXES = ("", "detoxify: ", "Rewrite politely, please: ")
TRIALS = [
    TrialConfig(lora="second", mask_strategy="toxic_context", gamma=0.5, batch_size=3),
    TrialConfig(lora="first", task_prefix="", gamma=0.2, batch_size=1, gradient_accumulation=2),
    TrialConfig(lora="second", mask_strategy="inverse_toxic", batch_size=2),
]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a worker gets, and what it was made from."""

    config: SearchConfig
    corpus: Corpus
    task: Task

    def changed(self, **changes: Any) -> SearchConfig:
        return self.config.model_copy(update=changes)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Setup:
    pairs = [pair for pair in embedded_pairs() if pair.language == "en"][:40]
    lines = [
        json.dumps({"toxic": p.source, "neutral": p.references[0], "lang": p.language})
        for p in pairs
    ]
    data = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    config = SearchConfig(
        name="worker",
        data=str(data),
        base_model=str(tiny_base),
        quantization="none",
        max_tokens=64,
        validation_share=0.2,
        validation_pairs=4,
        steps=3,
        eval_every=3,
        grace_steps=1,
        cpus_per_trial=10_000,
    )
    corpus = dataclasses.replace(load_corpus(config), lexicon=embedded_lexicon())
    task = build_task(config, corpus, str(tiny_base), task_prefixes=PREFIXES)
    return Setup(config, corpus, task)


@pytest.fixture(autouse=True)
def nothing_loaded() -> Iterator[None]:
    """A process that has loaded no base yet."""
    forget_bases()
    yield
    forget_bases()


# ------------------------------------------------------------------ one base a process


def test_the_base_is_loaded_once(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def counted(name: str, **options: Any) -> Any:
        loads.append(name)
        return load_base(name, **options)

    monkeypatch.setattr(worker, "load_base", counted)
    base, tokenizer = trial_base(setup.config, setup.task, "cpu")
    again = trial_base(setup.config, setup.task, "cpu")
    assert again[0] is base
    assert again[1] is tokenizer
    assert len(loads) == 1
    # a task that came through Ray's object store equals the first, but is another object
    assert setup.task.vocabulary is not None
    copy = dataclasses.replace(setup.task, vocabulary=Vocabulary(setup.task.vocabulary.kept))
    assert trial_base(setup.config, copy, "cpu")[0] is base
    assert len(loads) == 1
    forget_bases()
    assert trial_base(setup.config, setup.task, "cpu")[0] is not base
    assert len(loads) == 2


def test_another_base_is_loaded_anew(setup: Setup) -> None:
    base, tokenizer = trial_base(setup.config, setup.task, "cpu")
    assert setup.task.vocabulary is not None
    assert base.config.vocab_size == len(setup.task.vocabulary.kept)
    assert isinstance(tokenizer, CutTokenizer)

    whole = dataclasses.replace(setup.task, vocabulary=None)
    full, full_tokenizer = trial_base(setup.config, whole, "cpu")
    assert full is not base
    assert full.config.vocab_size == 400
    assert not isinstance(full_tokenizer, CutTokenizer)

    packed, _ = trial_base(setup.changed(quantization="nf4"), setup.task, "cpu")
    assert packed.dtype == torch.bfloat16
    assert worker._load_once.cache_info().currsize == 1  # there is memory for one


def test_the_plain_path_loads_every_time(setup: Setup) -> None:
    task = dataclasses.replace(setup.task, vocabulary=None)
    plain = setup.changed(fast=False)
    bases = [trial_base(plain, task, "cpu")[0] for _ in range(2)]
    assert bases[0] is not bases[1]
    assert worker._load_once.cache_info().currsize == 0


@pytest.mark.parametrize("enough", [True, False])
def test_a_trial_s_share_of_memory_decides_about_4_bit_layers(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    bitsandbytes: Any = pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(worker, "trial_memory", lambda search, device: 2**40 if enough else 2**10)
    base, _ = trial_base(setup.changed(quantization="nf4"), setup.task, "cpu")
    layers = [m for m in base.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert layers
    assert all(("forward" in vars(layer)) is enough for layer in layers)  # unpacked once


def test_memory_is_shared_by_cores_or_by_gpu(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "device_memory", lambda device, share: round(100 * share))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    config = setup.changed(cpus_per_trial=2.0, gpus_per_trial=0.5)
    assert worker.trial_memory(config, "cpu") == 25
    assert worker.trial_memory(config, "cuda") == 50


# ------------------------------------------------------------------ trials on the lent base


def train(
    setup: Setup,
    base: PreTrainedModel,
    trial: TrialConfig,
    folder: Path,
    callback: TrainerCallback | None = None,
    break_row: bool = False,
) -> tuple[dict[str, Tensor], list[list[int]]]:
    """The adapters after a short training, and what the tuned model answers."""
    rows = setup.task.rows(task_prefix=trial.task_prefix, anchor=trial.mask_anchor or "edits")
    if break_row:
        rows = [row | {"labels": [10**6, *row["labels"][1:]]} for row in rows]
    with adapted(base, trial.lora, seed=setup.config.seed) as model:
        arguments = training_arguments(trial, setup.config, folder, "cpu")
        arguments.warmup_steps = 0
        arguments.save_strategy = SaveStrategy.NO
        trainer = trial_trainer(trial, model, arguments, setup.config, setup.task, rows)
        if callback is not None:
            trainer.add_callback(callback)
        trainer.train()
        sources = [row["input_ids"] for row in rows[:3]]
        answers = draft_decode(model, sources, max_new_tokens=4)
        adapters = {n: w.detach().clone() for n, w in model.named_parameters() if w.requires_grad}
    return adapters, answers


def assert_same(
    found: tuple[dict[str, Tensor], list[list[int]]],
    expected: tuple[dict[str, Tensor], list[list[int]]],
) -> None:
    """Bit by bit."""
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(found[0][name], weight) for name, weight in expected[0].items())
    assert found[1] == expected[1]


def looks(base: PreTrainedModel) -> tuple[dict[str, type], dict[str, Tensor]]:
    """Types of all modules, and a copy of all weights; nothing may train or be hooked."""
    modules = dict(base.named_modules())
    assert not any(weight.requires_grad for weight in base.parameters())
    assert not any(weight.grad is not None for weight in base.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules.values())
    weights = {name: weight.clone() for name, weight in base.state_dict().items()}
    return {name: type(module) for name, module in modules.items()}, weights


def assert_looks_like(base: PreTrainedModel, before: tuple[dict[str, type], Any]) -> None:
    modules, weights = looks(base)
    assert modules == before[0]
    assert weights.keys() == before[1].keys()
    assert all(torch.equal(weights[name], weight) for name, weight in before[1].items())


class Stop(TrainerCallback):
    """Ends a trial as Ray or a bug would, in its middle."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise RuntimeError("stopped at step 2")


@pytest.mark.parametrize("quantization", ["none", "nf4 unpacked", "nf4 packed"])
def test_trials_one_after_the_other_train_as_each_alone(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    memory = 0 if quantization == "nf4 packed" else 2**40
    monkeypatch.setattr(worker, "trial_memory", lambda search, device: memory)
    search = setup.changed(quantization=quantization.split()[0])
    alone = []
    for trial in TRIALS[:2]:
        forget_bases()
        alone.append(train(setup, trial_base(search, setup.task, "cpu")[0], trial, tmp_path))

    forget_bases()
    lent, _ = trial_base(search, setup.task, "cpu")
    before = looks(lent)
    for trial, expected in zip([*TRIALS[:2], TRIALS[0]], [*alone, alone[0]], strict=True):
        torch.rand(7)  # what was drawn before must not matter
        assert_same(train(setup, lent, trial, tmp_path), expected)
        assert_looks_like(lent, before)
    assert trial_base(search, setup.task, "cpu")[0] is lent
    b_matrices = [weight for name, weight in alone[0][0].items() if "lora_B" in name]
    assert any(weight.any() for weight in b_matrices)  # else nothing was trained


def test_a_trial_that_raises_leaves_the_base_as_it_was(setup: Setup, tmp_path: Path) -> None:
    alone = train(setup, trial_base(setup.config, setup.task, "cpu")[0], TRIALS[0], tmp_path)
    forget_bases()
    lent, _ = trial_base(setup.config, setup.task, "cpu")
    before = looks(lent)
    with pytest.raises(RuntimeError, match="stopped at step 2"):
        train(setup, lent, TRIALS[1], tmp_path, Stop())
    assert_looks_like(lent, before)
    with pytest.raises(IndexError, match="out of range"):  # while the head is off
        train(setup, lent, TRIALS[2], tmp_path, break_row=True)
    assert_looks_like(lent, before)
    assert_same(train(setup, lent, TRIALS[0], tmp_path), alone)


# ------------------------------------------------------------------ the tokens that trials need


def test_the_cut_base_speaks_every_row_that_a_trial_may_read(setup: Setup) -> None:
    vocabulary = setup.task.vocabulary
    assert vocabulary is not None
    full_tokenizer: Any = load_tokenizer(setup.task.base)
    assert len(vocabulary.kept) < 0.8 * len(full_tokenizer)
    cut: Any = CutTokenizer(full_tokenizer, vocabulary)
    full_config = setup.changed(vocabulary="full")
    full_task = build_task(full_config, setup.corpus, setup.task.base, task_prefixes=PREFIXES)
    assert setup.task.source_ids.keys() == set(PREFIXES)
    for prefix in PREFIXES:
        found = setup.task.rows(task_prefix=prefix, anchor="edits")
        expected = full_task.rows(task_prefix=prefix, anchor="edits")
        assert len(found) == len(setup.task.examples) == len(expected)
        for cut_row, full_row in zip(found, expected, strict=True):
            assert vocabulary.full(cut_row["input_ids"]) == full_row["input_ids"]
            assert vocabulary.full(cut_row["labels"]) == full_row["labels"]
            assert cut_row["toxic_positions"] == full_row["toxic_positions"]
        splits = setup.corpus.splits
        encode_sources([p.source for p in (*splits.validation, *splits.test)], cut, prefix)
    forbidden = setup.task.forbidden_token_ids
    assert forbidden
    assert vocabulary.full(setup.task.trained_ids(forbidden)) == forbidden
    assert full_task.trained_ids(forbidden) == forbidden


def test_tokens_are_those_of_a_slow_look_and_no_test_reference_is_read(setup: Setup) -> None:
    splits, lexicon = setup.corpus.splits, setup.corpus.lexicon
    tokenizer: Any = load_tokenizer(setup.task.base)
    examples = tokenise(splits.train, tokenizer, lexicon, max_tokens=64).examples
    texts = [entry for entry in lexicon.entries("en")]
    texts += [text for pair in splits.validation for text in pair.references]
    texts += [text for pair in splits.train for text in pair.references]
    for pair in (*splits.train, *splits.validation, *splits.test):
        texts += [prefix + pair.source for prefix in PREFIXES]
    expected = {token for text in texts for token in tokenizer(text).input_ids}
    trained = [ids for example in examples for ids in example.ids()]
    for prefix in PREFIXES:
        trained += encode_sources([pair.source for pair in splits.train], tokenizer, prefix)
    assert tokens_of(trained, setup.corpus, tokenizer, PREFIXES) == expected

    words = [piece for piece, i in tokenizer.get_vocab().items() if i not in expected][:20]
    unread = tuple(dataclasses.replace(p, references=("".join(words),)) for p in splits.test)
    assert splits.test
    changed = dataclasses.replace(setup.corpus, splits=dataclasses.replace(splits, test=unread))
    assert not set(tokenizer("".join(words)).input_ids) <= expected
    assert tokens_of(trained, changed, tokenizer, PREFIXES) == expected


@pytest.mark.parametrize(("fast", "vocabulary"), [(False, "cut"), (True, "full")])
def test_the_full_vocabulary_is_kept_where_nothing_is_cut(
    setup: Setup, fast: bool, vocabulary: str
) -> None:
    config = setup.changed(fast=fast, vocabulary=vocabulary)
    task = build_task(config, setup.corpus, setup.task.base, task_prefixes=PREFIXES)
    assert task.vocabulary is None
    assert task.trained_ids([5, 399, 5]) == [5, 399, 5]
