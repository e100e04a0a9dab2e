"""Checks on a small but real task, sound at first and then broken in one place at a time."""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from detox_tune.config import MASK_STRATEGIES, SearchConfig, TrialConfig
from detox_tune.data.embedded import embedded_lexicon
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.split import split_pairs
from detox_tune.errors import UserError
from detox_tune.model.lora import add_lora
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.checks.cost import estimate_check, longest_rows, machine_memory
from detox_tune.tuning.checks.masks import mask_check, mask_name, trials_to_check
from detox_tune.tuning.checks.quick import quick_checks
from detox_tune.tuning.checks.result import CheckResult, Status, raise_first_failure
from detox_tune.tuning.checks.thorough import base_checks, corpus_check
from detox_tune.tuning.checks.training_steps import (
    StepsTaken,
    StepWatch,
    judge_steps,
    trainer_check,
)
from detox_tune.tuning.checks.untuned_base import answer_check, head_check, is_pocket_like
from detox_tune.tuning.corpus import Corpus
from detox_tune.tuning.space import SearchSpace, first_samples
from detox_tune.tuning.task import Task, build_task

EVERYTHING = SearchSpace(
    {
        "mask_strategy": {"choice": list(MASK_STRATEGIES)},
        "mask_anchor": {"choice": ["answers", "labels"], "when": {"mask_strategy": "toxic_only"}},
        "context_window": {"range": [1, 4], "when": {"mask_strategy": "toxic_context"}},
        "gamma": {"zero_or": [0.1, 1.0]},
        "learning_rate": {"range": [1e-4, 1e-2], "log": True},
        "lora": {"choice": ["first", "second"]},
        "task_prefix": {"choice": ["", "detoxify: "]},
        "batch_size": 4,
    }
)
NOTHING = SearchSpace({"mask_strategy": "none", "gamma": 0.0})
NO_WORDS = Lexicon({"en": ()})
OTHER_WORDS = Lexicon({"en": embedded_lexicon().entries("es")})

Make = Callable[..., Task]


@pytest.fixture
def make(config: SearchConfig, corpus: Corpus) -> Make:
    """Builds the task of another lexicon, other pairs or other settings."""

    def make(
        lexicon: Lexicon = corpus.lexicon, pairs: Sequence[Pair] = (), **settings: Any
    ) -> Task:
        splits = split_pairs(pairs, seed=0, validation_share=0.2) if pairs else corpus.splits
        return build_task(
            config.model_copy(update=settings),
            Corpus(splits, lexicon, (), None),
            config.base_model,
            task_prefixes=("", "detoxify: "),
        )

    return make


def quick(
    task: Task, space: SearchSpace = EVERYTHING, max_tokens: int = 64
) -> dict[str, CheckResult]:
    """The quick checks by name."""
    rows = quick_checks(SearchConfig(name="x", max_tokens=max_tokens), space, task)
    return {row.name: row for row in rows}


@pytest.fixture
def base(config: SearchConfig, task: Task, nothing_loaded: None) -> PreTrainedModel:
    """A base that a test may break."""
    return load_cut_base(config.base_model, "none", "cpu", task.vocabulary)[0]


# ------------------------------------------------------------------ the space's masks


@pytest.mark.parametrize(
    "space",
    [
        EVERYTHING,
        SearchSpace({"mask_strategy": "toxic_context", "context_window": 3}),
        SearchSpace(
            {
                "mask_strategy": {"choice": ["toxic_only", "toxic_context"]},
                "mask_anchor": {"choice": ["labels", "answers"]},
            }
        ),
    ],
)
def test_the_trials_to_check_are_the_masks_that_the_space_draws(space: SearchSpace) -> None:
    samples = first_samples(space, SearchConfig(name="x", sampler="random"), 80)
    drawn = [TrialConfig(**sample) for sample in samples]
    checked = trials_to_check(space)
    masks = [(trial.mask_strategy, trial.mask_anchor) for trial in checked]
    assert len(masks) == len(set(masks))
    assert set(masks) == {(trial.mask_strategy, trial.mask_anchor) for trial in drawn}
    windows = [t.context_window for t in drawn if t.context_window is not None]
    assert {t.context_window for t in checked} - {None} == {min(windows)}
    for name in ("gamma", "learning_rate", "batch_size", "lora", "task_prefix"):  # the heaviest
        heaviest = max(getattr(trial, name) for trial in drawn)
        assert all(getattr(trial, name) >= heaviest for trial in checked)


# ------------------------------------------------------------------ data, lexicon, masks


def test_a_sound_task_fails_nowhere_and_every_mask_has_a_row(task: Task) -> None:
    rows = quick(task)
    raise_first_failure(rows.values())
    assert {name.split()[1] for name in rows if name.startswith("mask ")} == set(MASK_STRATEGIES)
    for row in rows.values():
        assert bool(row.remedy) == (row.status is not Status.PASS)

    rows = quick(task, NOTHING)
    assert "100.0% of" in rows["mask none"].seen
    for strategy in MASK_STRATEGIES[1:]:  # shown all the same
        row = next(row for name, row in rows.items() if name.startswith(f"mask {strategy}"))
        assert row.seen.endswith("(not in this space)")
        assert row.status is Status.PASS
    assert "penalty" not in rows


def test_sentences_and_coverage_are_counted(make: Make) -> None:
    toxic = {"damn", "idiot", "stupid"}
    task = make(Lexicon({"en": sorted(toxic)}))
    rows, train = quick(task), task.train
    held = sum(not toxic.isdisjoint(re.findall(r"\w+", pair.source.lower())) for pair in train)
    words = sum(len(re.findall(r"[\w']+", pair.source)) for pair in train) / len(train)
    tokens = sum(len(example.source_ids) for example in task.examples) / len(train)
    covered = f"toxic words in {held / len(train):.0%} of {len(train)} sources"
    assert covered in rows["lexicon en"].seen
    sentences = f"{len(train)} pairs; sources {words:.1f} words, {tokens:.1f} tokens; references"
    assert rows["sentences en"].seen.startswith(sentences)


@pytest.mark.parametrize(
    ("settings", "lexicon", "why"),
    [
        ({"gamma": 0.2}, NO_WORDS, "is empty, and gamma"),
        ({"mask_strategy": "toxic_only"}, OTHER_WORDS, "looks like one of another language, and t"),
    ],
)
def test_a_lexicon_that_finds_nothing_fails_where_it_is_read(
    make: Make, settings: dict[str, Any], lexicon: Lexicon, why: str
) -> None:
    task = make(lexicon)
    rows = quick(task, SearchSpace(settings))
    assert rows["lexicon en"].status is Status.FAIL
    with pytest.raises(UserError, match=f"the lexicon {why}.* give a --lexicon with toxic words"):
        raise_first_failure(rows.values())
    rows = quick(task, NOTHING)
    assert rows["lexicon en"].status is Status.WARN
    assert "copies are recognised less surely" in rows["lexicon en"].remedy
    raise_first_failure(rows.values())


def test_annotated_spans_serve_as_well_as_a_lexicon(make: Make, corpus: Corpus) -> None:
    annotated = [
        dataclasses.replace(pair, spans=tuple(corpus.lexicon.spans(pair.source, "en")))
        for pair in (*corpus.splits.train, *corpus.splits.validation)
    ]
    row = quick(make(NO_WORDS, annotated))["lexicon en"]
    assert row.status is Status.PASS
    assert row.seen.startswith("0 entries; toxic words in 100%")


def test_a_lexicon_of_ordinary_words_is_noticed(make: Make) -> None:
    row = quick(make(Lexicon({"en": ["the", "a", "is", "in", "on", "of"]})))["lexicon en"]
    assert row.status is Status.WARN
    assert "it marks many neutral sentences" in row.seen
    assert "take ordinary words out" in row.remedy


def test_only_the_language_at_fault_is_blamed(make: Make, corpus: Corpus) -> None:
    """Spanish has no words in the lexicon, and its pairs are all too long; Russian is unknown."""
    others = [
        Pair(" ".join(["idiota"] * (9 + i)), (" ".join(["hombre"] * (9 + i)),), "es")
        for i in range(14)
    ]
    others += [Pair(f"ты дурак {i}", (f"ты не {i}",), "ru") for i in range(14)]
    lexicon = Lexicon({"en": embedded_lexicon().entries("en"), "es": (), "ru": ["дурак"]})
    rows = quick(make(lexicon, [*corpus.splits.train, *others], max_tokens=26), max_tokens=26)
    assert rows["sentences en"].status is Status.WARN
    assert rows["sentences en"].remedy.startswith("raise max_tokens, or these pairs are not")
    assert rows["lexicon en"].status is Status.PASS
    assert rows["sentences es"].status is Status.FAIL
    assert "exceed max_tokens=26" in rows["sentences es"].seen
    assert rows["lexicon es"].status is Status.FAIL
    assert rows["lexicon ru"].status is Status.PASS
    assert rows["sentences ru"].status is Status.WARN
    assert "a base whose vocabulary knows ru" in rows["sentences ru"].remedy
    assert "nothing trained in es" in rows["mask toxic_only labels"].seen


def test_references_without_toxic_words_starve_one_mask_and_empty_another(
    make: Make, config: SearchConfig, english_pairs: list[Pair]
) -> None:
    task = make(pairs=english_pairs)
    rows = quick(task)
    row = rows["mask toxic_only labels"]
    assert row.status is Status.FAIL
    assert row.seen.startswith("0.0% of")
    with pytest.raises(UserError, match="all labels are masked: give a --lexicon"):
        raise_first_failure([row])
    alike = rows["masks none, inverse_toxic"]
    assert alike.status is Status.WARN
    assert alike.seen == "they differ at 0.0% of the label positions"

    base, _ = load_cut_base(task.base, "none", "cpu", task.vocabulary)
    trial = TrialConfig(mask_strategy="toxic_only", mask_anchor="labels")
    result, seconds = trainer_check("trainer", trial, base, config, task, task.rows(trial))
    assert (result.status, seconds) == (Status.FAIL, 0.0)
    assert "leaves none of the" in result.seen


def test_a_mask_that_drops_most_pairs_is_a_warning(task: Task) -> None:
    first, *others = task.examples
    bare = [dataclasses.replace(e, toxic={"answers": [False] * len(e.label_ids)}) for e in others]
    marked = dataclasses.replace(first, toxic={"answers": [True] * len(first.label_ids)})
    few = dataclasses.replace(task, examples=(marked, *bare))
    row = mask_check(few, TrialConfig(mask_strategy="toxic_only"))
    assert row.status is Status.WARN
    assert f"{len(bare)} of {len(few.examples)} pairs dropped" in row.seen


@pytest.mark.parametrize(("share", "status"), [(0.5, "warn"), (1, "fail")])
def test_labels_and_a_penalty_without_a_token(task: Task, share: float, status: str) -> None:
    count = int(share * len(task.examples))
    nothing: Any = {"label_toxic": [False], "toxic": {"answers": [False], "labels": [False]}}
    bare = [
        dataclasses.replace(example, label_ids=task.vocabulary.cut([1]), **nothing)
        for example in task.examples[:count]
    ]
    changed = dataclasses.replace(
        task, examples=(*bare, *task.examples[count:]), forbidden_token_ids=[]
    )
    rows = quick(changed)
    assert rows["labels"].status == status
    assert f"{count} hold no token" in rows["labels"].seen
    assert rows["penalty"].status is Status.FAIL
    assert "fix gamma: 0" in rows["penalty"].remedy


# ------------------------------------------------------------------ the lexicon's file


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("en.txt", "\n \n", "the file is empty"),
        ("de.txt", "Trottel\n", "has no lexicon for it; valid: de"),
    ],
)
def test_a_lexicon_file_that_cannot_serve_is_a_row(
    pairs_file: Path, tmp_path: Path, name: str, text: str, seen: str
) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    config = SearchConfig(name="x", data=str(pairs_file), lexicon=str(file))
    corpus, [result] = corpus_check(config)
    assert result.status is Status.FAIL
    assert seen in result.seen
    assert result.remedy == "give a --lexicon with toxic words of en"
    assert len(corpus.lexicon) == 0
    file.unlink()
    with pytest.raises(UserError, match=name):  # bad input, as for the search
        corpus_check(config)


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
