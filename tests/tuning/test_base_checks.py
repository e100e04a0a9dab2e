"""Checks of the base, of training steps and of what they cost, on a small but real task."""

import dataclasses
import os
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.model.lora import add_lora
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.checks.cost import estimate_check, longest_rows, machine_memory
from detox_tune.tuning.checks.masks import mask_name, trials_to_check
from detox_tune.tuning.checks.result import Status
from detox_tune.tuning.checks.thorough import base_checks
from detox_tune.tuning.checks.training_steps import (
    StepsTaken,
    StepWatch,
    judge_steps,
    trainer_check,
)
from detox_tune.tuning.checks.untuned_base import answer_check, head_check, is_pocket_like
from detox_tune.tuning.task import Task
from tests.tuning.test_checks import EVERYTHING, NOTHING


@pytest.fixture
def base(config: SearchConfig, task: Task, nothing_loaded: None) -> PreTrainedModel:
    """A base that a test may break."""
    return load_cut_base(config.base_model, "none", "cpu", task.vocabulary)[0]


# ------------------------------------------------------------------ the base


def test_a_head_must_be_the_base_s_own(base: Any) -> None:
    assert is_pocket_like(base)
    assert head_check(base).status is Status.PASS
    base.lm_head.weight = torch.nn.Parameter(base.shared.weight.detach().clone())
    row = head_check(base)
    assert row.status is Status.FAIL
    assert "equals the embedding" in row.seen
    base.lm_head.weight = base.shared.weight
    row = head_check(base)
    assert row.status is Status.FAIL
    assert "shares the embedding's storage" in row.seen
    assert "tie_word_embeddings=False" in row.remedy


@pytest.mark.parametrize(("form", "status"), [("relu", "pass"), ("gated-gelu", "fail")])
def test_only_t5_1_0_may_be_tied(form: str, status: str) -> None:
    sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    tied: Any = T5ForConditionalGeneration(T5Config(**sizes, feed_forward_proj=form))  # type: ignore[arg-type]
    tied.lm_head.weight = tied.shared.weight
    assert head_check(tied).status == status


PAIR = Pair("you are a damn fool", ("you are wrong",), "en")
SENTINEL = "<extra_id_0> <extra_id_1>"
TRUNCATED = "<extra_id_0> you are a damn"


@pytest.mark.parametrize(
    ("outputs", "pocket_like", "status", "text"),
    [
        ([SENTINEL] * 9 + [PAIR.source], True, "fail", "only emits sentinels"),
        ([SENTINEL] * 8 + [PAIR.source] * 2, True, "warn", "tuning has to unlearn this"),
        ([SENTINEL] * 10, False, "warn", "as a raw mT5"),
        ([TRUNCATED] * 10, False, "warn", "copy rate 1.00 on 10"),
        ([PAIR.source] * 8 + ["you are wrong"] * 2, True, "pass", "copy rate 0.80 on 10"),
        ([""] * 3 + ["la la la la la la la"] * 3 + [PAIR.source] * 4, True, "warn", "more pocket_"),
    ],
)
def test_what_the_untouched_base_answers(
    outputs: list[str], pocket_like: bool, status: str, text: str
) -> None:
    lexicon = Lexicon({"en": ["damn", "fool"]})
    row = answer_check(outputs, [PAIR] * 10, lexicon, task_prefix="", pocket_like=pocket_like)
    assert row.status == status
    assert text in f"{row.seen} {row.remedy}"


# ------------------------------------------------------------------ training steps


@pytest.mark.parametrize("trial", trials_to_check(EVERYTHING)[::3], ids=mask_name)
def test_steps_move_the_adapters_alone_and_leave_the_base_as_it_was(
    config: SearchConfig,
    task: Task,
    base: PreTrainedModel,
    trial: TrialConfig,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    result, seconds = trainer_check("trainer", trial, base, config, task, task.rows(trial))
    assert result.status is Status.PASS, result
    assert seconds > 0
    assert "the base did not" in result.seen
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert capsys.readouterr().out == ""


def test_a_base_weight_that_trains_along_and_a_loss_that_is_no_number_fail(
    config: SearchConfig, task: Task, base: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def thawed(base: PreTrainedModel, trial: TrialConfig, *, seed: int) -> PeftModel:
        model = add_lora(base, trial, seed=seed)
        model.get_parameter("base_model.model.decoder.final_layer_norm.weight").requires_grad = True
        return model

    monkeypatch.setattr("detox_tune.model.lora.add_lora", thawed)
    trial = TrialConfig(learning_rate=0.01)
    result, _ = trainer_check("trainer", trial, base, config, task, task.rows(trial))
    assert result.status is Status.FAIL
    assert "the base moved" in result.seen

    with torch.no_grad():
        base.get_parameter("lm_head.weight")[0] = torch.nan
    result, _ = trainer_check("trainer", trial, base, config, task, task.rows(trial))
    assert result.status is Status.FAIL
    assert "the loss is nan at step 1" in result.seen


def test_gradients_that_are_not_finite_are_seen() -> None:
    layer = torch.nn.Linear(2, 1)
    layer.weight.grad = torch.tensor([[1.0, torch.inf]])
    layer.bias.grad = torch.tensor([1.0])
    watch = StepWatch()
    watch.on_pre_optimizer_step(None, None, None, model=layer)  # type: ignore[arg-type]
    assert watch.bad_gradients == ["weight"]


TAKEN = StepsTaken(2.0, 0.004, 0.1, (), adapters=4, adapters_moved=4, base_moved=False)


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({}, "pass", "4 of 4 adapter tensors moved"),
        ({}, "pass", "gamma x penalty is 0.4% of the cross-entropy"),
        ({"bad_gradients": ("a", "a")}, "fail", "not finite in 1 weights"),
        ({"adapters_moved": 0}, "fail", "no gradient reaches the adapters"),
        ({"base_moved": True}, "fail", "the base must be frozen"),
    ],
)
def test_what_steps_must_do(change: dict[str, Any], status: str, text: str) -> None:
    row = judge_steps("trainer", dataclasses.replace(TAKEN, **change))
    assert row.status == status
    assert text in f"{row.seen} {row.remedy}"


# ------------------------------------------------------------------ the cost


def test_a_trial_s_time_is_steps_and_reports_and_memory_must_suffice() -> None:
    config = SearchConfig(
        name="x", steps=100, eval_every=30, grace_steps=100, trials=5, cpus_per_trial=10_000
    )
    row = estimate_check(config, step_seconds=0.5, report_seconds=4, peak_bytes=2**30)
    # 100 x 0.5 s and 3 x 4 s; five times, one at a time
    assert "100 steps and 3 reports takes about 1m 02s and 1.0 GiB" in row.seen
    assert "5 trials, 1 at once, at most 5m 10s" in row.seen
    assert row.status is Status.PASS
    row = estimate_check(config, step_seconds=1, report_seconds=1, peak_bytes=machine_memory())
    assert row.status is Status.WARN
    assert "raise cpus_per_trial" in row.remedy


def test_the_heaviest_batch_has_the_longest_rows() -> None:
    rows = [{"input_ids": [0] * n, "labels": [0] * (n % 3)} for n in range(1, 20)]
    trial = TrialConfig(batch_size=2, gradient_accumulation=2)
    lengths = sorted(len(row["input_ids"]) + len(row["labels"]) for row in rows)
    longest = longest_rows(rows, trial)
    assert [len(row["input_ids"]) + len(row["labels"]) for row in longest] == lengths[-4:]


def test_a_trial_s_gpu_and_cores_need_not_be_here(
    config: SearchConfig, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    said: list[str] = []
    threads: list[int] = []

    def tell(text: str) -> None:
        said.append(text)
        threads.append(torch.get_num_threads())

    big = config.model_copy(update={"gpus_per_trial": 1, "cpus_per_trial": 2})
    before = torch.get_num_threads()
    rows = base_checks(big, NOTHING, task, tell)
    names = ["device", "head", "base", "trainer none", "longest batch", "estimate"]
    assert [row.name for row in rows] == names
    assert rows[0].status is Status.WARN
    assert "--gpus-per-trial 0" in rows[0].remedy
    assert said[0] == "loading the base"
    assert set(threads[1:]) == {1}
    assert torch.get_num_threads() == before
