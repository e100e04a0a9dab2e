"""Batches of rows of like length."""

import itertools
import random

import pytest

from detox_tune.training.batches import LikeLengthSampler


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
