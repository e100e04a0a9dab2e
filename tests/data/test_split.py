"""Splits by source sentence, and fingerprints."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detox_tune.data.pairs import Pair
from detox_tune.data.split import Splits, fingerprint, split_pairs
from detox_tune.errors import UserError


def make(n: int, language: str = "en") -> list[Pair]:
    return [Pair(f"you {language} idiot {i}", (f"you {i}",), language) for i in range(n)]


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


def test_sizes_follow_the_shares_and_nothing_is_lost() -> None:
    pairs = make(200)
    splits = split_pairs(pairs, seed=0)
    assert sizes(splits) == (170, 10, 20)
    assert Counter([*splits.train, *splits.validation, *splits.test]) == Counter(pairs)
    assert sizes(split_pairs(pairs, seed=0, validation_share=0.2, test_share=0.3)) == (100, 40, 60)


def test_each_language_is_cut_by_itself_and_they_are_mixed() -> None:
    splits = split_pairs([*make(100, "en"), *make(40, "de"), *make(3, "es")], seed=1)
    count = [Counter(pair.language for pair in part) for part in (splits.validation, splits.test)]
    assert count == [{"en": 5, "de": 2, "es": 1}, {"en": 10, "de": 4, "es": 1}]
    languages = [pair.language for pair in splits.train]
    assert languages != sorted(languages)
    assert languages != sorted(languages, reverse=True)


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    pairs = make(60)
    shuffled = random.Random(0).sample(pairs, len(pairs))
    assert split_pairs(pairs, seed=3) == split_pairs(shuffled, seed=3)
    assert split_pairs(pairs, seed=3) != split_pairs(pairs, seed=4)
    assert set(split_pairs(pairs, seed=3).test) != set(split_pairs(pairs, seed=4).test)
    train = list(split_pairs(pairs, seed=0).train)
    assert train != [pair for pair in pairs if pair in set(train)]


@given(st.integers(0, 1000))
def test_spellings_of_one_sentence_stay_together(seed: int) -> None:
    pairs = []
    for i in range(12):
        for spelling in (f"you 're dumb {i} .", f"You're DUMB {i}!", f"you're  dumb {i}"):
            pairs.append(Pair(spelling, ("no",), "en"))
    splits = split_pairs(pairs, seed=seed, validation_share=0.2, test_share=0.2)
    for part in (splits.train, splits.validation, splits.test):
        numbers = Counter(
            next(word for word in pair.source.split() if word.strip("!").isdigit()).strip("!")
            for pair in part
        )
        assert set(numbers.values()) == {3}


def test_one_sentence_in_two_languages_lies_in_one_split() -> None:
    pairs = [*make(20, "en"), *(replace(pair, language="hin") for pair in make(20, "en"))]
    for seed in range(5):
        splits = split_pairs(pairs, seed=seed)
        parts = [
            {pair.source for pair in part}
            for part in (splits.train, splits.validation, splits.test)
        ]
        assert sum(map(len, parts)) == 20


def test_free_pairs_are_cut_beside_fixed_ones() -> None:
    fixed = [
        Pair("You en idiot 0!", ("x",), "en", split="test"),
        Pair("z", ("x",), "en", split="train"),
    ]
    splits = split_pairs([*make(21), *fixed], seed=0)
    assert sizes(splits) == (18, 1, 4)
    assert {"You en idiot 0!", "you en idiot 0"} <= {pair.source for pair in splits.test}


def fixed(*names: str) -> list[Pair]:
    return [replace(pair, split=name) for pair, name in zip(make(len(names)), names, strict=True)]


def test_fixed_splits_are_kept_and_shares_ignored() -> None:
    splits = split_pairs(
        fixed(*["train"] * 5, *["validation"] * 4, *["test"] * 3), seed=0, test_share=0.5
    )
    assert sizes(splits) == (5, 4, 3)
    assert {pair.split for pair in splits.validation} == {"validation"}
    assert sizes(split_pairs(make(3), seed=0)) == (1, 1, 1)  # one of each where nothing is fixed


IDIOTS = [Pair(f"Idiot{'!' * i}", ("x",), "en") for i in range(9)]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "the train split has none of the 0 pairs; give more pairs"),
        (fixed(*["train"] * 9), "the validation split has none of the 9 pairs"),
        ([*make(50), *make(2, "de")], "language 'de' has 2 different sentences, which leaves none"),
        (IDIOTS, "language 'en' has 1 different sentences"),
        (fixed("dev"), "split 'dev' of a pair is not known; use train, validation, test"),
        (
            [replace(IDIOTS[1], split="train"), replace(IDIOTS[0], split="test")],
            "the data put 'Idiot!' into test and train; a sentence must lie in one split only",
        ),
    ],
)
def test_pairs_that_cannot_be_split(pairs: list[Pair], message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_pairs(pairs, seed=0)


def test_the_fingerprint_depends_on_all_that_pairs_hold_but_not_on_their_order() -> None:
    pairs = make(5)
    one = fingerprint(pairs)
    assert len(one) == 64
    assert int(one, 16) > 0
    assert fingerprint(reversed(pairs)) == one
    first = pairs[0]
    others = [
        replace(first, source="x"),
        replace(first, references=("x",)),
        replace(first, references=(*first.references, "x")),
        replace(first, language="de"),
        replace(first, spans=((0, 1),)),
        replace(first, split="train"),
    ]
    prints = {fingerprint([other, *pairs[1:]]) for other in others} | {one, fingerprint(pairs[1:])}
    assert len(prints) == len(others) + 2
