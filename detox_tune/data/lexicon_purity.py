"""Entries of a lexicon that are ordinary words in these data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scipy.stats import binom

from detox_tune.data.lexicon import Lexicon, entry_key
from detox_tune.data.pairs import Pair

_CHANCE = 0.05  # that a pure entry is set aside by an accident of these pairs


def ordinary_words(
    lexicon: Lexicon, pairs: Sequence[Pair], *, purity: float
) -> dict[str, set[str]]:
    """The entries that references mostly keep, by language, as `entry_key` gives them.

    Published lexicons hold ordinary words ("god", "sexual", "propaganda"). An entry is one here
    where references drop it in a smaller share of its finds than `purity`, and chance would not do
    that (binomial test, 5%): at a purity of 0.5 it takes five finds that are all kept.

    Args:
        lexicon: has the languages of all pairs.
        pairs: of the training split.
        purity: in [0, 1]; at 0 no entry is an ordinary word.
    """
    finds: Counter[tuple[str, str]] = Counter()
    dropped: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        in_source = _found(lexicon, pair.source, pair.language)
        for reference in pair.references if in_source else ():
            in_reference = _found(lexicon, reference, pair.language)
            for key in in_source:
                finds[pair.language, key] += 1
                dropped[pair.language, key] += key not in in_reference
    ordinary: dict[str, set[str]] = {}
    for (language, key), count in finds.items():
        times = dropped[language, key]
        if times < purity * count and binom.cdf(times, count, purity) <= _CHANCE:
            ordinary.setdefault(language, set()).add(key)
    return ordinary


def _found(lexicon: Lexicon, text: str, language: str) -> set[str]:
    return {entry_key(text[start:end]) for start, end in lexicon.spans(text, language)}
