"""What an output changed, word by word: did it drop what the reference dropped, what is left?

Texts are folded as copies are (`comparable`). Words count as often as they stand there; in
scripts without spaces a word is a character (`UNSEGMENTED`).
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.text import words
from detox_tune.evaluation.collapse import comparable


def edit_recall(output: str, pair: Pair) -> float:
    """Share, in [0, 1], of the words the reference dropped that the output dropped too.

    The best of several references counts; one that dropped no word has no say, and without any
    other the result is nan. A copy has 0. An output that drops everything has 1, so read it
    beside SIM.
    """
    source = _counts(pair.source, pair.language)
    dropped = source - _counts(output, pair.language)
    best = math.nan
    for reference in pair.references:
        wanted = source - _counts(reference, pair.language)
        if wanted:
            recall = (wanted & dropped).total() / wanted.total()
            best = recall if math.isnan(best) else max(best, recall)
    return best


def toxic_retention(output: str, pair: Pair, lexicon: Lexicon) -> float:
    """Share, in [0, 1], of the source's toxic words that are still in the output.

    Toxic words are those that the lexicon's spans of the source or `pair.spans` touch; nan if
    there is none. A word that also stands outside the spans, such as the "of" of a phrase, is
    looked for there first: "of" alone does not mean that "piece of shit" was kept.
    """
    spans = [*lexicon.spans(pair.source, pair.language), *pair.spans]
    toxic: Counter[str] = Counter()
    for word in words(pair.source, pair.language) if spans else []:
        if any(word.start < end and start < word.end for start, end in spans):
            toxic += _counts(pair.source[word.start : word.end], pair.language)
    if not toxic:
        return math.nan
    other = _counts(pair.source, pair.language) - toxic
    left = _counts(output, pair.language) - other
    return (toxic & left).total() / toxic.total()


@lru_cache(maxsize=8192)  # both measures ask for it, and never change what they get
def _counts(text: str, language: str) -> Counter[str]:
    return Counter(word.folded for word in words(comparable(text), language))
