"""Batches of rows of like length."""

import itertools
import random

import pytest
import torch
from torch import Tensor

from detox_tune.training.batches import LikeLengthSampler, parts_of_batch
from detox_tune.training.collator import DetoxCollator


def batches(sampler: LikeLengthSampler, size: int, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    order = list(sampler)
    return [order[start : start + size] for start in range(0, len(order), size)]


def some_lengths(count: int) -> list[int]:
    draw = random.Random(count)
    return [draw.randint(3, 60) for _ in range(count)]


@pytest.mark.parametrize(("count", "size"), [(1, 4), (4, 4), (7, 4), (1000, 8), (1001, 32)])
def test_every_row_comes_once_and_only_the_last_batch_is_short(count: int, size: int) -> None:
    sampler = LikeLengthSampler(some_lengths(count), size, seed=0)
    found = batches(sampler, size)
    assert sorted(index for batch in found for index in batch) == list(range(count))
    assert len(sampler) == count
    assert all(len(batch) == size for batch in found[:-1])


def test_a_batch_has_little_padding() -> None:
    lengths = some_lengths(2000)
    padded = sum(
        max(lengths[i] for i in batch) * len(batch)
        for batch in batches(LikeLengthSampler(lengths, 16, seed=0), 16)
    )
    assert padded < 1.12 * sum(lengths)


def test_batches_do_not_run_from_long_to_short() -> None:
    lengths = some_lengths(2000)
    longest = [max(lengths[i] for i in b) for b in batches(LikeLengthSampler(lengths, 16, 0), 16)]
    rising = sum(a < b for a, b in itertools.pairwise(longest))
    assert 0.35 * len(longest) < rising < 0.65 * len(longest)


def test_seed_and_epoch_decide_the_order() -> None:
    lengths = some_lengths(200)
    first = batches(LikeLengthSampler(lengths, 8, seed=3), 8)
    assert batches(LikeLengthSampler(lengths, 8, seed=3), 8) == first
    assert batches(LikeLengthSampler(lengths, 8, seed=4), 8) != first
    assert batches(LikeLengthSampler(lengths, 8, seed=3), 8, epoch=1) != first


# ------------------------------------------------------------------ parts of a batch


def ragged_batch(count: int) -> dict[str, Tensor]:
    """A batch whose rows differ in length; the pad id occurs inside sources too."""
    draw = random.Random(count)
    rows = []
    for _ in range(count):
        source = [draw.randrange(20) for _ in range(draw.randint(1, 12))]
        size = draw.randint(1, 9)
        flags = [[draw.random() < 0.5 for _ in range(size)] for _ in range(2)]
        labels = [draw.randrange(20) for _ in range(size)]
        rows.append(
            {
                "input_ids": source,
                "labels": labels,
                "label_toxic": flags[0],
                "trained": flags[1],
            }
        )
    return DetoxCollator(0)(rows)


def content(batch: dict[str, Tensor]) -> list[dict[str, list[int]]]:
    """Each row without its padding, from masks and labels alone."""
    rows = []
    for i in range(len(batch["labels"])):
        source, label = batch["attention_mask"][i] == 1, batch["labels"][i] != -100
        rows.append(
            {
                name: values[i][source if name in ("input_ids", "attention_mask") else label]
                for name, values in batch.items()
            }
        )
    return [{name: values.tolist() for name, values in row.items()} for row in rows]


@pytest.mark.parametrize("budget", [1, 20, 21, 22, 45, 63, 100, 10_000])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_parts_hold_every_row_in_order_within_the_budget(count: int, budget: int) -> None:
    batch = ragged_batch(count)
    parts = list(parts_of_batch(batch, budget))
    assert [row for part in parts for row in content(part)] == content(batch)
    for part in parts:
        widths = {name: values.shape[1] for name, values in part.items()}
        assert widths["input_ids"] == widths["attention_mask"]
        assert widths["labels"] == widths["label_toxic"] == widths["trained"]
        tokens = len(part["labels"]) * (widths["input_ids"] + widths["labels"])
        assert tokens <= budget or len(part["labels"]) == 1
        if len(parts) > 1:  # no column that only other parts need
            assert part["attention_mask"][:, -1].any()
            assert (part["labels"][:, -1] != -100).any()
        assert {name: values.dtype for name, values in part.items()} == {
            name: values.dtype for name, values in batch.items()
        }


def test_a_batch_within_the_budget_stays_whole() -> None:
    batch = ragged_batch(7)
    tokens = 7 * (batch["input_ids"].shape[1] + batch["labels"].shape[1])
    for budget in (None, tokens, tokens + 1):
        [part] = parts_of_batch(batch, budget)
        assert part.keys() == batch.keys()
        assert all(torch.equal(part[name], batch[name]) for name in batch)
    assert len(list(parts_of_batch(batch, tokens - 1))) == 2
