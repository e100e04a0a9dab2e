"""Identity collapse: is an output a copy of its source, and if not, what else went wrong?

Equality with the input misses most collapse: models answer with a sentinel and a truncated piece
of the source, or copy all but a comma. So texts are compared after folding (`comparable`), and a
copy is defined by what it keeps (`is_copy`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from unicodedata import normalize

import regex

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair
from detox_tune.data.text import CHARACTER, LETTER, fold, words
from detox_tune.evaluation.disguise import undisguised

COPIED_SHARE = 0.8
"""Share of an output's words that must come from the source in order for rule 2 of `is_copy`."""
UNEDITED_SHARE = 0.9
"""Share of the edited words that must still be there for rule 2b."""
LOST_SHARE = 0.5
"""Share of the words kept by every reference that a fragment (rule 3) has lost."""
_WHOLE_SOURCE = 3  # words from which on a source inside an output is no accident

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


def is_whole_copy(output: str, source: str, language: str, *, task_prefix: str = "") -> bool:
    """Rule 1 of `is_copy` alone, for a source without references.

    Not empty, and equal to the source or around all of it. A toxic word that stays in an output
    that is otherwise new is for a lexicon to find. A source that needed no change has a copy for
    its right answer.
    """
    text = _without_echo(output, source, task_prefix)
    if not _key(text):
        return False
    text = undisguised(text, language, known=source)
    return _holds_all(text, undisguised(source, language, known=text), language)


def is_copy(output: str, pair: Pair, lexicon: Lexicon, *, task_prefix: str = "") -> bool:
    """Whether the output copies the source of its pair.

    The *edited words* are those of the source that no reference keeps (longest common
    subsequence), the *toxic edited words* those of them that are toxic. An output that is not
    empty and equals no reference is a copy when

    1. it equals the source, or contains all of it (three words or more) as a run; or
    2. at least 80% of its words come from the source in order, and
       a. a toxic edited word is still among them; or
       b. the pair has none, and at least 90% of the edited words are still there; or
       c. it has a sentinel in it; or
    3. it is a fragment: a run of the source that loses at least half of the words which every
       reference keeps.

    All of it after folding (`comparable`), without an echo of the task prefix at the start, and
    with disguised words written out (`undisguised`). Toxic words are those in the lexicon's spans
    of the source and in `pair.spans`; of a phrase, those that the lexicon knows by themselves, or
    all of them together. In scripts without spaces a word is a character.
    """
    text = _without_echo(output, pair.source, task_prefix)
    if not _key(text) or any(_key(text) == _key(reference) for reference in pair.references):
        return False
    text = undisguised(text, pair.language, known=pair.source, innocent=pair.references)
    # the source may be the one that masks a word: f**k, answered by fuck
    source = undisguised(pair.source, pair.language, known=text)
    if _holds_all(text, source, pair.language):
        return True
    output_words = _folded_words(text, pair.language)
    if not output_words:
        return False
    edits = _edits(source, pair.references, pair.language)
    kept = {place for _, place in common_subsequence(output_words, edits.words)}
    if len(kept) >= COPIED_SHARE * len(output_words):
        toxic = _toxic_groups(pair, source, edits, lexicon)
        if _SENTINEL.search(output) or any(group <= kept for group in toxic):
            return True
        edited_kept = len(edits.edited & kept)
        if edits.edited and not toxic and edited_kept >= UNEDITED_SHARE * len(edits.edited):
            return True
    return _is_fragment(output_words, edits)


def label_output(
    output: str, pair: Pair, lexicon: Lexicon, *, task_prefix: str = ""
) -> OutputLabel:
    """The one label of an output; the first that applies, in this order.

    1. empty: no letter, digit or emoji in it (punctuation, special tokens or an echo of the task
       prefix at most), no sentinel;
    2. sentinel: the same, with a sentinel;
    3. copied: `is_copy`. Stands before repeated, so the share of copied *is* the copy rate;
    4. repeated: a degenerate loop makes up more than half of it (a unit of up to five characters
       four times in a row or more, a longer one three times), and that stretch stands neither in
       the source nor in a reference;
    5. rewritten: all others.
    """
    key = _key(_without_echo(output, pair.source, task_prefix))
    if not key:
        return OutputLabel.SENTINEL if _SENTINEL.search(output) else OutputLabel.EMPTY
    if is_copy(output, pair, lexicon, task_prefix=task_prefix):
        return OutputLabel.COPIED
    loop = _longest_loop(key)
    if 2 * len(loop) > len(key) and not any(
        loop in _key(text) for text in (pair.source, *pair.references)
    ):
        return OutputLabel.REPEATED
    return OutputLabel.REWRITTEN


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Places (left, right) of a longest common subsequence of two lists of words, in order."""
    lengths = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        row, below = lengths[i], lengths[i + 1]
        for j in range(len(right) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if left[i] == right[j] else max(below[j], row[j + 1])
    places, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            places.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return places


def _key(text: str) -> str:
    """What two equal texts share: `comparable` without its spaces."""
    return comparable(text).replace(" ", "")


def _without_echo(output: str, source: str, task_prefix: str) -> str:
    """The output without specials, and without what it echoes of the task prefix at its start."""
    text, echo = without_specials(output), comparable(task_prefix)
    if not echo or comparable(source).startswith(echo):
        return text
    return str(_echo_pattern(echo).sub("", fold(text)))


@lru_cache(maxsize=64)
def _echo_pattern(echo: str) -> regex.Pattern[str]:
    """What matches a folded prefix at the start of a folded text, once or several times."""
    words_of_it = r"[\s\p{P}]+".join(map(regex.escape, echo.split()))
    return regex.compile(
        rf"^(?:[\s\p{{P}}]*{words_of_it}(?!(?!{CHARACTER}){LETTER})[\s:.,;!?\-]*)+"
    )


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


def _holds_all(text: str, source: str, language: str) -> bool:
    """Whether a text equals the source, or has all of it (three words or more) as a run."""
    if _key(text) == _key(source):
        return True
    source_words = _folded_words(source, language)
    return len(source_words) >= _WHOLE_SOURCE and bool(
        _runs(source_words, _folded_words(text, language))
    )


class _Edits(NamedTuple):
    """What the references of a pair do with the words of its source."""

    words: list[str]
    edited: frozenset[int]
    """Places of words that no reference keeps."""
    kept: frozenset[int]
    """Places of words that every reference keeps."""


@lru_cache(maxsize=8192)  # the same pairs come back with every system and report
def _edits(source: str, references: tuple[str, ...], language: str) -> _Edits:
    source_words = _folded_words(source, language)
    kept = [
        {place for _, place in common_subsequence(_folded_words(text, language), source_words)}
        for text in references
    ]
    by_none = set(range(len(source_words))).difference(*kept)
    return _Edits(source_words, frozenset(by_none), frozenset(set.intersection(*kept)))


def _toxic_groups(pair: Pair, source: str, edits: _Edits, lexicon: Lexicon) -> list[frozenset[int]]:
    """Places of toxic edited words; an output copies when it keeps all places of a group."""
    spans = [*lexicon.spans(pair.source, pair.language), *pair.spans]
    groups = []
    for phrase in _phrases(pair.source, spans, pair.language):
        alone = [word for word in phrase if lexicon.spans(word, pair.language)]
        for start in _runs(phrase, edits.words):
            places = frozenset(range(start, start + len(phrase))) & edits.edited
            known = [frozenset({place}) for place in places if edits.words[place] in alone]
            groups += known or [places]
    return [group for group in groups if group]


def _is_fragment(output_words: Sequence[str], edits: _Edits) -> bool:
    """Whether the output is a run of the source without much of what every reference keeps."""
    starts = _runs(output_words, edits.words)
    left = [len(edits.kept.intersection(range(s, s + len(output_words)))) for s in starts]
    return bool(left and edits.kept) and max(left) <= (1 - LOST_SHARE) * len(edits.kept)


def _runs(piece: Sequence[str], whole: Sequence[str]) -> list[int]:
    """Where `piece` stands in `whole` as consecutive words."""
    size = len(piece)
    wanted = list(piece)
    return [s for s in range(len(whole) - size + 1) if list(whole[s : s + size]) == wanted]


def _longest_loop(key: str) -> str:
    """The longest stretch of `key` in which one unit stands several times in a row, or ""."""
    loops = (match.group() for pattern in _LOOPS for match in pattern.finditer(key))
    return max(loops, key=len, default="")
