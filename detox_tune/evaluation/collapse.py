"""Identity collapse: is an output a copy of its source, and if not, what else went wrong?

Equality with the input misses most collapse: models answer with a sentinel and a truncated piece
of the source, or copy all but a comma. So texts are compared after folding (`comparable`), and a
copy is defined by what it keeps (`is_copy`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from enum import StrEnum
from functools import lru_cache
from unicodedata import normalize

import regex

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.text import fold, words

COPIED_SHARE = 0.95
"""Share of an output's words that must come from the source in order for rule 2 of `is_copy`."""

_SENTINEL = re.compile(r"<extra_id_\d+>", re.IGNORECASE)
_SPECIAL = re.compile(r"<pad>|</s>|<unk>", re.IGNORECASE)
# Symbols that keyboards and tokenizers treat as punctuation ($ + < = ^) go with it. Emoji are
# content: an insult may be one.
_PUNCTUATION = regex.compile(r"[\p{P}\p{Sm}\p{Sc}\p{Sk}]")
# An accent without a letter: what NFKC makes of some signs that stand alone.
_STRAY_MARK = regex.compile(r"(?<!\S)\p{M}+")
_SPACE = re.compile(r"\s+")
# Han and kana are written without spaces, so one beside them says nothing.
_SPACE_BESIDE_UNSEGMENTED = regex.compile(
    r"(?<=[\p{Han}\p{Hiragana}\p{Katakana}\u30FC]) | (?=[\p{Han}\p{Hiragana}\p{Katakana}\u30FC])"
)
# A loop: up to five characters four times in a row, or more of them three times. The longest
# unit is tried first, so that "aaab aaab aaab aaab" is seen whole.
_LOOPS = (re.compile(r"(.{6,200})\1{2,}"), re.compile(r"(.{1,5})\1{3,}"))


class OutputLabel(StrEnum):
    """What became of a source; every output has exactly one label (see `label_output`)."""

    REWRITTEN = "rewritten"
    COPIED = "copied"
    SENTINEL = "sentinel"
    EMPTY = "empty"
    REPEATED = "repeated"


def without_specials(text: str) -> str:
    """The text without sentinels (`<extra_id_N>`), `<pad>`, `</s>` and `<unk>`, spaces tidied."""
    return _SPACE.sub(" ", _SPECIAL.sub(" ", _SENTINEL.sub(" ", text))).strip()


@lru_cache(maxsize=8192)  # a label asks for it several times, and every evaluation for the sources
def comparable(text: str) -> str:
    """The text as it is compared: what a copy may change without being anything else.

    Sentinels and special tokens out, NFKC, casefold, punctuation out, white space folded. In
    detail: an apostrophe goes without a trace, other punctuation leaves a space ("well-known" is
    two words, "im" equals "I'm"); invisible characters (zero-width spaces, soft hyphens) go; no
    space stays beside Han or kana. May be empty.
    """
    text = _PUNCTUATION.sub(" ", fold(without_specials(text)).replace("'", ""))
    text = _SPACE.sub(" ", _STRAY_MARK.sub("", text)).strip()
    # What went may have stood between a letter and its accent, so compose once more.
    return normalize("NFKC", _SPACE_BESIDE_UNSEGMENTED.sub("", text))


def is_exact_copy(output: str, source: str) -> bool:
    """Rule 1 of `is_copy` alone: not empty, and equal to the source after folding.

    Spaces do not count at all here: they are where tokenizers and punctuation differ. An output
    that equals the source *and* a reference is an exact copy, though `is_copy` says no.
    """
    output_key = _key(output)
    return output_key != "" and output_key == _key(source)


def is_copy(output: str, pair: Pair, lexicon: Lexicon) -> bool:
    """Whether the output copies the source of its pair.

    It does when it is not empty, equals no reference, and

    1. equals the source; or
    2. at least 95% of its words come from the source in order (longest common subsequence) and a
       toxic word of the source is still among them; or
    3. the source has no toxic word, and the output is a verbatim piece of it (a run of words).

    All of it after folding (`comparable`). Toxic words are those in the lexicon's spans of the
    source and in `pair.spans`. A phrase counts as still there when all its words are, or when the
    lexicon knows the part that is: of "stupid piece of shit" an output may keep "of" alone
    without being a copy, but not "shit". In scripts without spaces a word is a character.
    """
    output_key = _key(output)
    if not output_key or any(output_key == _key(reference) for reference in pair.references):
        return False
    if output_key == _key(pair.source):
        return True

    output_words = _folded_words(output, pair.language)
    source_words = _folded_words(pair.source, pair.language)
    # The bag of words bounds the subsequence from above, and settles most rewritten outputs.
    shared = (Counter(output_words) & Counter(source_words)).total()
    if not output_words or shared < COPIED_SHARE * len(output_words):
        return False
    spans = [*lexicon.spans(pair.source, pair.language), *pair.spans]
    if not spans:
        return _is_run(output_words, source_words)
    from_source = common_subsequence_length(output_words, source_words)
    if from_source < COPIED_SHARE * len(output_words):
        return False
    toxic = _phrases(pair.source, spans, pair.language)
    return _keeps_toxic(output, output_words, toxic, pair.language, lexicon)


def label_output(output: str, pair: Pair, lexicon: Lexicon) -> OutputLabel:
    """The one label of an output; the first that applies, in this order.

    1. empty: no letter, digit or emoji in it (punctuation or special tokens at most), no sentinel;
    2. sentinel: the same, with a sentinel;
    3. copied: `is_copy`. Stands before repeated, so the share of copied *is* the copy rate;
    4. repeated: a degenerate loop makes up more than half of it (a unit of up to five characters
       four times in a row or more, a longer one three times), and that stretch stands neither in
       the source nor in a reference;
    5. rewritten: all others.
    """
    key = _key(output)
    if not key:
        return OutputLabel.SENTINEL if _SENTINEL.search(output) else OutputLabel.EMPTY
    if is_copy(output, pair, lexicon):
        return OutputLabel.COPIED
    loop = _longest_loop(key)
    if 2 * len(loop) > len(key) and not any(
        loop in _key(text) for text in (pair.source, *pair.references)
    ):
        return OutputLabel.REPEATED
    return OutputLabel.REWRITTEN


def common_subsequence_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence of two lists of words."""
    lengths = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for column, other in enumerate(right, start=1):
            above = lengths[column]
            lengths[column] = diagonal + 1 if word == other else max(above, lengths[column - 1])
            diagonal = above
    return lengths[-1]


def _key(text: str) -> str:
    """What two equal texts share: `comparable` without its spaces."""
    return comparable(text).replace(" ", "")


def _folded_words(text: str, language: str) -> list[str]:
    return [word.folded for word in words(comparable(text), language)]


def _phrases(text: str, spans: Collection[tuple[int, int]], language: str) -> set[tuple[str, ...]]:
    """The words that each span touches, folded as the compared words are."""
    phrases = set()
    text_words = words(text, language) if spans else []
    for start, end in spans:
        touched = [word for word in text_words if word.start < end and start < word.end]
        if touched:
            piece = text[touched[0].start : touched[-1].end]
            phrases.add(tuple(_folded_words(piece, language)))
    return phrases - {()}


def _keeps_toxic(
    output: str,
    output_words: Sequence[str],
    toxic: Collection[tuple[str, ...]],
    language: str,
    lexicon: Lexicon,
) -> bool:
    """Whether a toxic phrase of the source, or a part that the lexicon knows, is in the output."""
    if any(_is_run(phrase, output_words) for phrase in toxic):
        return True
    text = without_specials(output)
    found = _phrases(text, lexicon.spans(text, language), language)
    return any(_is_run(part, phrase) for part in found for phrase in toxic)


def _is_run(piece: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether `piece` stands in `whole` as consecutive words."""
    size = len(piece)
    wanted = list(piece)
    return any(
        list(whole[start : start + size]) == wanted for start in range(len(whole) - size + 1)
    )


def _longest_loop(key: str) -> str:
    """The longest stretch of `key` in which one unit stands several times in a row, or ""."""
    loops = (match.group() for pattern in _LOOPS for match in pattern.finditer(key))
    return max(loops, key=len, default="")
