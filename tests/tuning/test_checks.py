"""Checks on a tiny but real setup, sound at first and then broken in one place at a time."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from detox_tune.tuning.checks.cheap import cheap_checks
from detox_tune.tuning.checks.estimate import estimate_check, longest_rows, machine_memory
from detox_tune.tuning.checks.full import corpus_check, model_checks
from detox_tune.tuning.checks.model import answer_check, head_check, is_pocket_like
from detox_tune.tuning.checks.steps import StepsTaken, StepWatch, judge_steps, trainer_check
from peft import PeftModel
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from detox_tune.config import SearchConfig, TrialConfig
from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.model.base import load_base
from detox_tune.model.lora import add_lora
from detox_tune.training.masking import MASK_STRATEGIES
from detox_tune.tuning.checks.masks import mask_check, mask_name, trials_to_check
from detox_tune.tuning.checks.result import CheckResult, Status, refuse_doomed
from detox_tune.tuning.space import SearchSpace, first_samples
from detox_tune.tuning.task import Task, build_task, load_corpus

EVERYTHING: dict[str, Any] = {
    "mask_strategy": {"choice": list(MASK_STRATEGIES)},
    "mask_anchor": {"choice": ["edits", "labels"], "when": {"mask_strategy": "toxic_only"}},
    "context_window": {"range": [1, 4], "when": {"mask_strategy": "toxic_context"}},
    "gamma": {"zero_or": [0.1, 1.0]},
    "learning_rate": {"range": [1e-4, 1e-2], "log": True},
    "lora": {"choice": ["first", "second"]},
    "task_prefix": {"choice": ["", "detoxify: "]},
    "batch_size": 4,
}
NOTHING: dict[str, Any] = {"mask_strategy": "none", "gamma": 0.0}
# The embedded references hold no toxic word, so some are added for mask_anchor: labels.
PAIRS = [pair for pair in embedded_pairs() if pair.language == "en"][:80] + [
    Pair(f"you damn idiot , go away {n} times.", (f"you idiot , go away {n} times.",), "en")
    for n in range(10)
]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a check gets."""

    config: SearchConfig
    space: SearchSpace
    task: Task

    def rows(self) -> dict[str, CheckResult]:
        """The cheap checks by name."""
        return {row.name: row for row in cheap_checks(self.config, self.space, self.task)}


Make = Callable[..., Setup]


@pytest.fixture
def make(tmp_path: Path, tiny_base: Path) -> Make:
    """Builds a setup of given pairs, lexicon and space."""

    def make(
        space: Mapping[str, Any] = EVERYTHING,
        lexicon: Lexicon | None = None,
        pairs: list[Pair] = PAIRS,
        spans: bool = False,
        **settings: Any,
    ) -> Setup:
        lines = [
            json.dumps({"toxic": p.source, "neutral": p.references[0], "lang": p.language})
            for p in pairs
        ]
        (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
        given = {
            "name": "check",
            "data": str(tmp_path / "pairs.jsonl"),
            "base_model": str(tiny_base),
            "quantization": "none",
            "vocabulary": "full",
            "max_tokens": 64,
            "validation_share": 0.2,
            "validation_pairs": 8,
        }
        config = SearchConfig.model_validate(given | settings)
        corpus = load_corpus(config)
        if spans:
            annotated = tuple(
                dataclasses.replace(p, spans=tuple(embedded_lexicon().spans(p.source, p.language)))
                for p in corpus.splits.train
            )
            splits = dataclasses.replace(corpus.splits, train=annotated)
            corpus = dataclasses.replace(corpus, splits=splits)
        corpus = dataclasses.replace(
            corpus, lexicon=embedded_lexicon() if lexicon is None else lexicon
        )
        search_space = SearchSpace(space)
        prefixes = search_space.task_prefixes()
        task = build_task(config, corpus, str(tiny_base), task_prefixes=prefixes)
        return Setup(config, search_space, task)

    return make


def empty_lexicon() -> Lexicon:
    return Lexicon({"en": ()})


def spanish_as_english() -> Lexicon:
    return Lexicon({"en": embedded_lexicon().entries("es")})


def tied(model: Any) -> Any:
    """The model as transformers leaves it when a head is tied by mistake."""
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.shared.weight
    return model


def only_sentinels(model: Any, tokenizer: Any) -> Any:
    """The model with a head that makes a sentinel the arg-max whatever the hidden state is."""
    first, second = (tokenizer.get_vocab()[f"<extra_id_{i}>"] for i in (0, 1))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[first] = 1.0
        model.lm_head.weight[second] = -1.0
    return model


def load(setup: Setup) -> PreTrainedModel:
    return load_base(setup.task.base, quantization="none")[0]


# ------------------------------------------------------------------ the space's masks


@pytest.mark.parametrize(
    "space",
    [
        EVERYTHING,
        NOTHING,
        {"mask_strategy": "toxic_context", "context_window": 3},
        {
            "mask_strategy": {"choice": ["toxic_only", "toxic_context"]},
            "mask_anchor": {"choice": ["labels", "edits"]},
        },
    ],
)
def test_the_trials_to_check_are_the_masks_that_the_space_draws(space: dict[str, Any]) -> None:
    config = SearchConfig(name="x", sampler="random")
    drawn = [TrialConfig(**s) for s in first_samples(SearchSpace(space), config, 80)]
    checked = trials_to_check(SearchSpace(space))
    masks = [(trial.mask_strategy, trial.mask_anchor) for trial in checked]
    assert len(masks) == len(set(masks))
    assert set(masks) == {(trial.mask_strategy, trial.mask_anchor) for trial in drawn}
    windows = [t.context_window for t in drawn if t.context_window is not None]
    assert {t.context_window for t in checked} - {None} == set(sorted(windows)[:1])


def test_the_trials_to_check_are_the_heaviest() -> None:
    for trial in trials_to_check(SearchSpace(EVERYTHING)):
        assert (trial.gamma, trial.learning_rate, trial.lora) == (1.0, 1e-2, "second")
        assert trial.task_prefix == "detoxify: "


# ------------------------------------------------------------------ data, lexicon, masks


def test_a_sound_setup_fails_nowhere_and_every_mask_has_a_row(make: Make) -> None:
    rows = make().rows()
    assert [row for row in rows.values() if row.status is Status.FAIL] == []
    assert {name.split()[1] for name in rows if name.startswith("mask ")} == set(MASK_STRATEGIES)
    for row in rows.values():
        assert bool(row.remedy) == (row.status is not Status.PASS)


def test_a_space_without_masks_shows_the_others_all_the_same(make: Make) -> None:
    rows = make(NOTHING).rows()
    assert "100.0% of" in rows["mask none"].seen
    for strategy in MASK_STRATEGIES[1:]:
        row = next(row for name, row in rows.items() if name.startswith(f"mask {strategy}"))
        assert row.seen.endswith("(not in this space)")
        assert row.status is Status.PASS
    assert "penalty" not in rows


def test_sentences_and_coverage_are_counted(make: Make) -> None:
    setup = make(lexicon=Lexicon({"en": ["damn", "idiot", "stupid"]}))
    rows, train = setup.rows(), setup.task.train
    toxic = {"damn", "idiot", "stupid"}
    held = sum(not toxic.isdisjoint(re.findall(r"\w+", pair.source.lower())) for pair in train)
    words = sum(len(re.findall(r"[\w']+", pair.source)) for pair in train) / len(train)
    assert f"toxic words in {held / len(train):.0%} of {len(train)} sources" in (
        rows["lexicon en"].seen
    )
    assert f"{len(train)} pairs; sources {words:.1f} words" in rows["sentences en"].seen
    tokens = sum(len(example.source_ids) for example in setup.task.examples) / len(train)
    assert f"words, {tokens:.1f} tokens; references" in rows["sentences en"].seen


@pytest.mark.parametrize("space", [{"gamma": 0.2}, {"mask_strategy": "toxic_only"}])
@pytest.mark.parametrize(
    ("lexicon", "why"),
    [(empty_lexicon, "is empty"), (spanish_as_english, "looks like one of another language")],
)
def test_a_lexicon_that_finds_nothing_fails(
    make: Make, space: dict[str, Any], lexicon: Callable[[], Lexicon], why: str
) -> None:
    setup = make(space, lexicon())
    row = setup.rows()["lexicon en"]
    assert row.status is Status.FAIL
    assert f"the lexicon {why}, and {'gamma' if 'gamma' in space else 'toxic_only'}" in row.seen
    assert row.remedy.startswith("give a --lexicon with toxic words of en")
    with pytest.raises(UserError, match=f"lexicon {why}.* give a --lexicon"):
        refuse_doomed(cheap_checks(setup.config, setup.space, setup.task))


def test_a_space_that_reads_no_lexicon_is_only_warned(make: Make) -> None:
    setup = make(NOTHING, empty_lexicon())
    row = setup.rows()["lexicon en"]
    assert row.status is Status.WARN
    assert "copies are recognised less surely" in row.remedy
    refuse_doomed(cheap_checks(setup.config, setup.space, setup.task))


def test_annotated_spans_serve_as_well_as_a_lexicon(make: Make) -> None:
    row = make(lexicon=empty_lexicon(), spans=True).rows()["lexicon en"]
    assert row.status is Status.PASS
    assert row.seen.startswith("0 entries; toxic words in 100%")


def test_a_lexicon_of_ordinary_words_is_noticed(make: Make) -> None:
    row = make(lexicon=Lexicon({"en": ["the", "a", "is", "in", "on", "of"]})).rows()["lexicon en"]
    assert row.status is Status.WARN
    assert "neutral sentences nearly as often as toxic ones" in row.seen
    assert "take ordinary words out" in row.remedy


def test_only_the_language_without_words_fails(make: Make) -> None:
    pairs = PAIRS + [pair for pair in embedded_pairs() if pair.language == "es"][:80]
    lexicon = Lexicon({"en": embedded_lexicon().entries("en"), "es": ()})
    rows = make(pairs=pairs, lexicon=lexicon).rows()
    assert rows["lexicon en"].status is Status.PASS
    assert rows["lexicon es"].status is Status.FAIL
    assert "nothing trained in" in rows["mask toxic_only labels"].seen


def test_labels_that_are_all_masked_fail(make: Make) -> None:
    space = {"mask_strategy": "toxic_only", "mask_anchor": "labels"}
    clean = [p for p in PAIRS if not embedded_lexicon().spans(p.references[0], "en")]
    setup = make(space, pairs=clean)
    row = setup.rows()["mask toxic_only labels"]
    assert row.status is Status.FAIL
    assert row.seen.startswith("0.0% of")
    assert row.seen.endswith("all labels are masked")
    assert "use mask_anchor: edits" in row.remedy
    with pytest.raises(UserError, match="all labels are masked: give a --lexicon"):
        refuse_doomed(cheap_checks(setup.config, setup.space, setup.task))

    base = load(setup)
    trial = trials_to_check(setup.space)[0]
    trial_rows = setup.task.rows(task_prefix="detoxify: ", anchor="labels")
    result, seconds = trainer_check("trainer", trial, base, setup.config, setup.task, trial_rows)
    assert (result.status, seconds) == (Status.FAIL, 0.0)
    assert "leaves none of the" in result.seen


def test_a_mask_that_drops_most_pairs_is_a_warning(make: Make) -> None:
    setup = make()
    toxic = [[False] * len(e.label_ids) for e in setup.task.examples]
    toxic[0][0] = True
    task = dataclasses.replace(setup.task, positions=setup.task.positions | {"edits": toxic})
    row = mask_check(task, TrialConfig(mask_strategy="toxic_only"))
    assert row.status is Status.WARN
    assert f"{len(toxic) - 1} of {len(toxic)} pairs dropped" in row.seen


def test_inverse_toxic_that_masks_nothing_is_a_warning(make: Make) -> None:
    clean = [p for p in PAIRS if not embedded_lexicon().spans(p.references[0], "en")]
    row = make(pairs=clean).rows()["mask inverse_toxic"]
    assert row.status is Status.WARN
    assert "repeats mask_strategy: none" in row.remedy


def test_labels_without_a_token_fail(make: Make) -> None:
    setup = make()
    bare = [dataclasses.replace(e, label_ids=[1], label_toxic=[False]) for e in setup.task.examples]
    for count, status in ((len(bare), Status.FAIL), (1, Status.WARN), (0, Status.PASS)):
        examples = (*bare[:count], *setup.task.examples[count:])
        marks = {
            anchor: [*([[False]] * count), *flags[count:]]
            for anchor, flags in setup.task.positions.items()
        }
        task = dataclasses.replace(setup.task, examples=examples, positions=marks)
        row = dataclasses.replace(setup, task=task).rows()["labels"]
        assert row.status is status
        assert f"{count} hold no token" in row.seen


def test_a_penalty_without_tokens_fails(make: Make) -> None:
    setup = make({"gamma": 0.5})
    task = dataclasses.replace(setup.task, forbidden_token_ids=[])
    row = dataclasses.replace(setup, task=task).rows()["penalty"]
    assert row.status is Status.FAIL
    assert "fix gamma: 0" in row.remedy


def test_over_long_pairs_are_a_warning_and_a_language_without_short_ones_fails(make: Make) -> None:
    long = [
        Pair(" ".join(["idiota"] * (30 + i)), (" ".join(["hombre"] * (30 + i)),), "es")
        for i in range(20)
    ]
    rows = make(pairs=PAIRS + long, max_tokens=30).rows()
    assert rows["sentences en"].status is Status.WARN
    assert "raise max_tokens" in rows["sentences en"].remedy
    assert rows["sentences es"].status is Status.FAIL
    assert "exceed max_tokens=30" in rows["sentences es"].seen


def test_a_script_that_the_base_does_not_know_is_a_warning(make: Make) -> None:
    pairs = [Pair(f"ты дурак {i} раз", (f"ты человек {i} раз",), "ru") for i in range(40)]
    row = make(pairs=pairs, lexicon=Lexicon({"ru": ["дурак"]})).rows()["sentences ru"]
    assert row.status is Status.WARN
    assert "a base whose vocabulary knows ru" in row.remedy


# ------------------------------------------------------------------ the lexicon's file


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("words.txt", "", "the file is empty"),
        ("en.txt", "\n \n", "the file is empty"),
        ("de.txt", "Trottel\n", "has lexicons for de only"),
    ],
)
def test_a_lexicon_file_that_cannot_serve_is_a_row(
    make: Make, tmp_path: Path, name: str, text: str, seen: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    config = make().config.model_copy(update={"lexicon": str(tmp_path / name)})
    corpus, results = corpus_check(config)
    assert [result.status for result in results] == [Status.FAIL]
    assert seen in results[0].seen
    assert results[0].remedy == "give a --lexicon with toxic words of en"
    assert len(corpus.lexicon) == 0


def test_a_lexicon_that_is_not_there_is_bad_input(make: Make, tmp_path: Path) -> None:
    config = make().config.model_copy(update={"lexicon": str(tmp_path / "none.txt")})
    with pytest.raises(UserError, match=r"none\.txt"):
        corpus_check(config)


# ------------------------------------------------------------------ the base


def test_a_tied_head_fails_and_the_base_s_own_passes(make: Make) -> None:
    base = load(make())
    assert head_check(base).status is Status.PASS
    row = head_check(tied(base))
    assert row.status is Status.FAIL
    assert "shares the embedding's storage" in row.seen
    assert "tie_word_embeddings=False" in row.remedy


def test_a_head_that_was_tied_and_then_copied_fails_too(make: Make) -> None:
    base: Any = load(make())
    base.lm_head.weight = torch.nn.Parameter(base.shared.weight.detach().clone())
    row = head_check(base)
    assert row.status is Status.FAIL
    assert "equals the embedding" in row.seen


@pytest.mark.parametrize(("form", "status"), [("relu", "pass"), ("gated-gelu", "fail")])
def test_only_t5_1_0_may_be_tied(form: str, status: str) -> None:
    sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    base = T5ForConditionalGeneration(T5Config(**sizes, feed_forward_proj=form))  # type: ignore[arg-type]
    assert head_check(tied(base)).status == status


PAIR = Pair("you are a damn fool", ("you are wrong",), "en")
SENTINEL = "<extra_id_0> <extra_id_1>"
TRUNCATED = "<extra_id_0> you are a damn"


@pytest.mark.parametrize(
    ("outputs", "pocket_like", "status", "text"),
    [
        ([SENTINEL] * 10, True, "fail", "--base-model pocket, with more pocket_steps"),
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
    row = answer_check(outputs, [PAIR] * 10, lexicon, pocket_like=pocket_like)
    assert row.status == status
    assert text in f"{row.seen} {row.remedy}"


def test_a_pocket_base_is_pocket_like(make: Make) -> None:
    assert is_pocket_like(load(make()))


# ------------------------------------------------------------------ training steps


@pytest.mark.parametrize("trial", trials_to_check(SearchSpace(EVERYTHING)), ids=mask_name)
def test_steps_move_the_adapters_alone_and_leave_the_base_as_it_was(
    make: Make, trial: TrialConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = make()
    base = load(setup)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    anchor = trial.mask_anchor or "edits"
    rows = setup.task.rows(task_prefix=trial.task_prefix, anchor=anchor)
    result, seconds = trainer_check("trainer", trial, base, setup.config, setup.task, rows)
    assert result.status is Status.PASS, result
    assert seconds > 0
    assert "the base did not" in result.seen
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert capsys.readouterr().out == ""


def test_a_base_weight_that_trains_along_fails(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def thawed(base: PreTrainedModel, lora: Any, *, seed: int) -> PeftModel:
        model = add_lora(base, lora, seed=seed)
        model.get_parameter("base_model.model.decoder.final_layer_norm.weight").requires_grad = True
        return model

    monkeypatch.setattr("detox_tune.model.lora.add_lora", thawed)
    setup = make(NOTHING)
    base = load(setup)
    rows = setup.task.rows(task_prefix="detoxify: ", anchor="edits")
    trial = TrialConfig(learning_rate=0.01)
    result, _ = trainer_check("trainer", trial, base, setup.config, setup.task, rows)
    assert result.status is Status.FAIL
    assert "the base moved" in result.seen
    assert "must be frozen" in result.remedy


def test_a_loss_that_is_no_number_fails(make: Make) -> None:
    setup = make(NOTHING)
    base = load(setup)
    with torch.no_grad():
        base.get_parameter("lm_head.weight")[0] = torch.nan
    rows = setup.task.rows(task_prefix="detoxify: ", anchor="edits")
    result, _ = trainer_check("trainer", TrialConfig(), base, setup.config, setup.task, rows)
    assert result.status is Status.FAIL
    assert "the loss is nan at step 1" in result.seen


def test_gradients_that_are_not_finite_are_seen() -> None:
    layer = torch.nn.Linear(2, 1)
    layer.weight.grad = torch.tensor([[1.0, torch.inf]])
    layer.bias.grad = torch.tensor([1.0])
    watch = StepWatch()
    watch.on_pre_optimizer_step(None, None, None, model=layer)  # type: ignore[arg-type]
    assert watch.bad_gradients == ["weight"]


TAKEN = StepsTaken(2.0, 0.1, (), adapters=4, adapters_moved=4, base_moved=False)


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({}, "pass", "4 of 4 adapter tensors moved"),
        ({"bad_gradients": ("a", "a")}, "fail", "not finite in 1 weights"),
        ({"adapters_moved": 0}, "fail", "no gradient reaches the adapters"),
        ({"base_moved": True}, "fail", "the base must be frozen"),
    ],
)
def test_what_steps_must_do(change: dict[str, Any], status: str, text: str) -> None:
    row = judge_steps("trainer", dataclasses.replace(TAKEN, **change))
    assert row.status == status
    assert text in f"{row.seen} {row.remedy}"


# ------------------------------------------------------------------ the estimate


def test_a_trial_s_time_is_steps_and_reports() -> None:
    config = SearchConfig(
        name="x", steps=100, eval_every=30, grace_steps=100, trials=5, cpus_per_trial=10_000
    )
    row = estimate_check(config, step_seconds=0.5, report_seconds=4, peak_bytes=2**30)
    # 100 x 0.5 s and 3 x 4 s; five times, one at a time
    assert "100 steps and 3 reports takes about 1m 02s and 1.0 GiB" in row.seen
    assert "5 trials, 1 at once, at most 5m 10s" in row.seen
    assert row.status is Status.PASS


def test_trials_that_do_not_fit_into_memory_are_a_warning() -> None:
    config = SearchConfig(name="x", cpus_per_trial=10_000)
    row = estimate_check(config, step_seconds=1, report_seconds=1, peak_bytes=machine_memory())
    assert row.status is Status.WARN
    assert "raise cpus_per_trial" in row.remedy


def test_the_heaviest_batch_has_the_longest_rows() -> None:
    rows = [{"input_ids": [0] * n, "labels": [0] * (n % 3)} for n in range(1, 20)]
    trial = TrialConfig(batch_size=2, gradient_accumulation=2)
    lengths = sorted(len(row["input_ids"]) + len(row["labels"]) for row in rows)
    longest = longest_rows(rows, trial)
    assert [len(row["input_ids"]) + len(row["labels"]) for row in longest] == lengths[-4:]


def test_a_gpu_that_is_not_here_is_a_warning(make: Make) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    setup = make(NOTHING, gpus_per_trial=1)
    said: list[str] = []
    rows = model_checks(setup.config, setup.space, setup.task, said.append)
    assert [row.name for row in rows] == [
        "device",
        "head",
        "base",
        "trainer none",
        "longest batch",
        "estimate",
    ]
    assert rows[0].status is Status.WARN
    assert "--gpus-per-trial 0" in rows[0].remedy
    assert said[0] == "loading the base"
