"""Pairs cut into train, validation and test by source sentence."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from detox_tune.data.pairs import Pair
from detox_tune.data.readers import shown
from detox_tune.data.text import sentence_key
from detox_tune.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Splits:
    """Three disjoint sets of pairs; no source sentence lies in two of them.

    Each is in an order that the seed decides, languages mixed, so that its first n pairs are a
    random sample of it.
    """

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]


def split_pairs(
    pairs: Sequence[Pair],
    *,
    seed: int,
    validation_share: float = 0.05,
    test_share: float = 0.1,
) -> Splits:
    """Cut pairs into three splits, by source sentence and within each language.

    Sources that differ only in case, spacing or punctuation (`sentence_key`) stay together. The
    result depends on the pairs and the seed, not on the order of the rows. A pair whose `split` is
    set goes there, and its spellings with it; the shares hold for the rest.

    Args:
        pairs: pairs in any order.
        seed: another seed gives another cut.
        validation_share: share of each language's sentences for validation, above 0.
        test_share: share for the test split, above 0; together below 1.

    Raises:
        UserError: a language with fewer than three sentences, a split without any, or a sentence
            that the data fixes in two splits.
    """
    assert min(validation_share, test_share) > 0 < 1 - validation_share - test_share
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[sentence_key(pair.source)].append(pair)
    split_of: dict[str, str] = {}
    free: dict[str, list[str]] = defaultdict(list)
    for key, group in groups.items():
        fixed = _fixed_split(group)
        if fixed is None:
            # The same sentence in two languages is one sentence; either language can count it.
            free[min(pair.language for pair in group)].append(key)
        else:
            split_of[key] = fixed
    for language, keys in free.items():
        split_of |= _cut(language, keys, seed, validation_share, test_share)
    members: dict[str, list[Pair]] = {name: [] for name in SPLITS}
    for key in sorted(groups, key=lambda key: _rank(seed, key)):
        members[split_of[key]] += sorted(groups[key], key=_canonical)
    for name, chosen in members.items():
        if not chosen:
            raise UserError(
                f"the {name} split has none of the {len(pairs)} pairs; give more pairs, or some "
                f"whose split is {name}"
            )
    return Splits(**{name: tuple(chosen) for name, chosen in members.items()})


def fingerprint(pairs: Iterable[Pair]) -> str:
    """SHA-256, in hexadecimal digits, of everything that pairs hold, whatever their order."""
    digest = hashlib.sha256()
    for line in sorted(map(_canonical, pairs)):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _canonical(pair: Pair) -> str:
    return json.dumps([pair.language, pair.source, pair.references, pair.spans, pair.split])


def _rank(seed: int, key: str) -> bytes:
    # A hash and not a shuffle: a sentence keeps its place when others are added or taken away.
    return hashlib.sha256(f"{seed}\n{key}".encode()).digest()


def _fixed_split(group: Sequence[Pair]) -> str | None:
    fixed = sorted({pair.split for pair in group if pair.split is not None})
    for name in fixed:
        if name not in SPLITS:
            raise UserError(f"split {name!r} of a pair is not known; use {', '.join(SPLITS)}")
    if len(fixed) > 1:
        raise UserError(
            f"the data put {shown(group[0].source)!r} into {' and '.join(fixed)}; a sentence must "
            "lie in one split only"
        )
    return fixed[0] if fixed else None


def _cut(
    language: str, keys: Sequence[str], seed: int, validation_share: float, test_share: float
) -> dict[str, str]:
    n_validation = max(1, round(len(keys) * validation_share))
    n_test = max(1, round(len(keys) * test_share))
    if n_validation + n_test >= len(keys):
        raise UserError(
            f"language {language!r} has {len(keys)} different sentences, which leaves none for "
            f"training beside {n_validation} for validation and {n_test} for test; give more pairs "
            "or leave the language out"
        )
    ranked = sorted(keys, key=lambda key: _rank(seed, key))
    names = ["validation"] * n_validation + ["test"] * n_test
    names += ["train"] * (len(keys) - len(names))
    return dict(zip(ranked, names, strict=True))
