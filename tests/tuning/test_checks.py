"""Checks of data and masks: a small but real task, then broken in one place at a time."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from detox_tune.config import MASK_STRATEGIES, SearchConfig, TrialConfig
from detox_tune.data.embedded import embedded_lexicon
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.split import split_pairs
from detox_tune.errors import UserError
from detox_tune.tuning.base import load_cut_base
from detox_tune.tuning.checks.masks import mask_check, trials_to_check
from detox_tune.tuning.checks.quick import quick_checks
from detox_tune.tuning.checks.result import CheckResult, Status, raise_first_failure
from detox_tune.tuning.checks.thorough import corpus_check
from detox_tune.tuning.checks.training_steps import (
    trainer_check,
)
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
