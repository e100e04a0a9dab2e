"""The base of a search: found or built once, and every trial trains on it as if it were alone."""

import copy
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.evaluation.rewriting import rewrite
from detox_tune.model.base import Quantization
from detox_tune.model.lora import adapted
from detox_tune.model.vocabulary import Vocabulary
from detox_tune.tuning.base import find_base, load_cut_base
from detox_tune.tuning.corpus import Corpus
from detox_tune.tuning.task import Task
from detox_tune.tuning.trial import training_arguments, trial_trainer

pytestmark = pytest.mark.usefixtures("nothing_loaded")

MASKED = TrialConfig(mask_strategy="toxic_context", gamma=0.5, batch_size=3)
PENALISED = TrialConfig(
    lora="first", task_prefix="", gamma=0.2, batch_size=1, gradient_accumulation=2
)


def test_a_pocket_base_is_built_once_and_others_are_found(
    config: SearchConfig, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETOX_TUNE_CACHE", str(tmp_path))
    log = Console(file=io.StringIO())
    pairs = tuple(dataclasses.replace(pair, language="xx") for pair in corpus.splits.train)
    own = dataclasses.replace(corpus, splits=dataclasses.replace(corpus.splits, train=pairs))
    pocket = SearchConfig(
        name="x", data="own", base_model="pocket", pocket_steps=1, pocket_vocabulary=300
    )
    folder = find_base(pocket, own, log)
    assert Path(folder).parent == tmp_path
    built = {file: file.stat().st_mtime_ns for file in Path(folder).iterdir()}
    assert find_base(pocket, own, log) == folder
    assert {file: file.stat().st_mtime_ns for file in Path(folder).iterdir()} == built

    monkeypatch.chdir(tmp_path)
    name = Path(folder).name
    assert find_base(config.model_copy(update={"base_model": name}), own, log) == folder
    on_hub = config.model_copy(update={"base_model": "google/mt5-base"})
    assert find_base(on_hub, own, log) == "google/mt5-base"


def test_a_process_loads_a_base_once_and_keeps_one(task: Task) -> None:
    base, tokenizer = load_cut_base(task.base, "none", "cpu", task.vocabulary)
    assert base.config.vocab_size == len(task.vocabulary.kept)
    # a task that came through Ray's object store equals the first, but is another object
    equal = Vocabulary(tuple(task.vocabulary.kept))
    again = load_cut_base(task.base, "none", "cpu", equal)
    assert again[0] is base
    assert again[1] is tokenizer
    packed, _ = load_cut_base(task.base, "nf4", "cpu", task.vocabulary)
    assert packed.dtype == torch.bfloat16
    assert load_cut_base(task.base, "none", "cpu", equal)[0] is not base  # memory for one


Trained = tuple[dict[str, Tensor], list[str]]


def train(
    config: SearchConfig,
    task: Task,
    quantization: Quantization,
    trial: TrialConfig,
    folder: Path,
    *callbacks: TrainerCallback,
    wrong_label: bool = False,
) -> Trained:
    """The adapters after a short training on the process's base, and what the model answers."""
    base, tokenizer = load_cut_base(task.base, quantization, "cpu", task.vocabulary)
    rows = task.rows(trial)
    if wrong_label:
        rows = [row | {"labels": [10**6, *row["labels"][1:]]} for row in rows]
    with adapted(base, trial, seed=config.seed) as model:
        arguments = training_arguments(trial, config, folder, "cpu")
        arguments.warmup_steps = 0
        arguments.save_strategy = SaveStrategy.NO
        trainer = trial_trainer(trial, model, arguments, config, task, rows)
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train()
        sources = [pair.source for pair in task.validation[:3]]
        answers = rewrite(model, tokenizer, sources, task_prefix=trial.task_prefix, max_tokens=4)
        adapters = {n: w.detach().clone() for n, w in model.named_parameters() if w.requires_grad}
    return adapters, answers


def assert_same(found: Trained, expected: Trained) -> None:
    """Bit by bit."""
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(found[0][name], weight) for name, weight in expected[0].items())
    assert found[1] == expected[1]


class Stop(TrainerCallback):
    """Ends a trial as Ray or a bug would, in its middle."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise RuntimeError("stopped at step 2")


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_trial_trains_as_if_alone_whatever_ran_before_it(
    config: SearchConfig, task: Task, tmp_path: Path, quantization: Quantization
) -> None:
    alone = train(config, task, quantization, MASKED, tmp_path)
    assert any(weight.any() for name, weight in alone[0].items() if "lora_B" in name)

    load_cut_base.cache_clear()
    base, _ = load_cut_base(task.base, quantization, "cpu", task.vocabulary)
    modules, weights = repr(base), copy.deepcopy(base.state_dict())
    torch.rand(7)  # what was drawn before must not matter
    train(config, task, quantization, PENALISED, tmp_path)
    with pytest.raises(RuntimeError, match="stopped at step 2"):
        train(config, task, quantization, PENALISED, tmp_path, Stop())
    with pytest.raises(IndexError, match="out of range"):  # while the loss stands in for the head
        train(config, task, quantization, MASKED, tmp_path, wrong_label=True)
    assert_same(train(config, task, quantization, MASKED, tmp_path), alone)
    assert load_cut_base(task.base, quantization, "cpu", task.vocabulary)[0] is base
    assert not any(w.requires_grad or w.grad is not None for w in base.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())
    assert repr(base) == modules
    after = base.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
