"""Words that an output disguises: `f**k`, `s h i t`, `shiiit`, `shti`.

Masking a letter must not pass for a rewriting. What a disguise stands for is not guessed: only a
word of the sentence that the output answers is ever put back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import takewhile

import regex

from detox_tune.data.text import LETTER, fold, words

_MASK = r"[*#@$%&_!|.\-•·]"
# A word with masking characters in it, or with stars at one end.
_MASKED = regex.compile(rf"\*+{LETTER}(?:{LETTER}|{_MASK})*|{LETTER}+{_MASK}(?:{LETTER}|{_MASK})*")
_PART = regex.compile(r"[^._!|\-•·&]+")
_MASKS = regex.compile(rf"(?:\*|#)+|{_MASK}")
_LOOKS_LIKE = {"@": "[a@]?", "$": "[s$]?", "!": "[i!]?"}
_CLUSTER = rf"(?:{LETTER}\p{{M}}*)"
_GAP = r"[\s._*\-]+"
_SPACED = regex.compile(rf"(?<!{LETTER}){_CLUSTER}(?:{_GAP}{_CLUSTER})+(?!{LETTER})")
_PLAIN = regex.compile(rf"{LETTER}+")
_STRETCHED = regex.compile(r"(.)\1+")
_LEAST_SPACED = 3  # letters of a word that is looked for among single letters
_LEAST_MISSPELT = 4  # letters; one letter makes another word of a shorter one


def undisguised(text: str, language: str, *, known: str, innocent: Iterable[str] = ()) -> str:
    """The text with the words of `known` that it disguises written out.

    Disguises are letters masked (`f**k`, `sh!t`, `b***`), spaced out (`s h i t`) or doubled
    (`shiiit`); a typo counts as one (`shti`). A word that stands in `known` or `innocent` is none.

    Args:
        text: what a model made of `known`.
        language: its code.
        known: the sentence whose words may be disguised.
        innocent: texts whose words are left alone, such as the references.
    """
    shown = Counter(_words_of(text, language))
    hidden = [
        word
        for word in _words_of(known, language)
        if _PLAIN.fullmatch(word) and not _taken(word, shown)
    ]
    if not hidden:
        return text
    plain = {word for other in (known, *innocent) for word in _words_of(other, language)}

    def written_out(piece: str) -> str:
        found = None if fold(piece) in plain else _masked_word(piece, hidden)
        if found is None:
            return piece
        hidden.remove(found)  # the next mask is one of the words that are left
        return found

    def each_part(match: regex.Match[str]) -> str:
        piece = match.group()
        whole = written_out(piece)
        # `you-f**k` is two words, of which one is masked
        return whole if whole != piece else _PART.sub(lambda part: written_out(part[0]), piece)

    text = _MASKED.sub(each_part, text)
    text = _SPACED.sub(lambda match: _without_gaps(match.group(), hidden), text)
    for word in reversed(words(text, language)):
        if word.folded not in plain and (found := _misspelt_word(word.folded, hidden)):
            text = text[: word.start] + found + text[word.end :]
    return text


def _taken(word: str, shown: Counter[str]) -> bool:
    """Whether the word is among those shown; each of them answers once."""
    shown[word] -= 1
    return shown[word] >= 0


@lru_cache(maxsize=8192)  # the same sentences come back with every system and report
def _words_of(text: str, language: str) -> tuple[str, ...]:
    return tuple(word.folded for word in words(text, language))


def _masked_word(piece: str, hidden: Collection[str]) -> str | None:
    """The word that a masked one may stand for, the closest in length, or None."""
    folded = fold(piece)
    if not _MASKS.search(folded):
        return None
    pattern, position = "", 0
    for mask in _MASKS.finditer(folded):
        pattern += regex.escape(folded[position : mask.start()])
        pattern += ".+" if mask.group()[0] in "*#" else _LOOKS_LIKE.get(mask.group(), ".?")
        position = mask.end()
    pattern += regex.escape(folded[position:])
    fits = [word for word in hidden if regex.fullmatch(pattern, word)]
    return min(fits, key=lambda word: abs(len(word) - len(folded)), default=None)


def _without_gaps(piece: str, hidden: Collection[str]) -> str:
    """Single letters with the known words among them written together."""
    clusters = regex.findall(_CLUSTER, piece)
    joined = fold("".join(clusters))
    if joined in hidden:
        return joined
    parts, position = [], 0
    while position < len(clusters):
        ends = range(len(clusters), position + _LEAST_SPACED - 1, -1)
        tries = (("".join(clusters[position:end]), end) for end in ends)
        word, end = next(
            ((word, end) for word, end in tries if fold(word) in hidden),
            (clusters[position], position + 1),
        )
        parts.append(word)
        position = end
    return piece if len(parts) == len(clusters) else " ".join(parts)


def _misspelt_word(folded: str, hidden: Collection[str]) -> str | None:
    """The word that is the same but for doubled letters or, from four letters on, a typo."""
    squeezed = _STRETCHED.sub(r"\1", folded)
    for word in hidden:
        if _STRETCHED.sub(r"\1", word) == squeezed:
            return word
        if min(len(word), len(folded)) >= _LEAST_MISSPELT and _one_typo(folded, word):
            return word
    return None


def _one_typo(left: str, right: str) -> bool:
    """Whether two words differ by a letter changed, added or lost, or by two that swapped."""
    if abs(len(left) - len(right)) > 1:
        return False
    start = _shared(left, right)
    left, right = left[start:][::-1], right[start:][::-1]
    end = _shared(left, right)
    left, right = left[end:], right[end:]
    return max(len(left), len(right)) <= 1 or (len(left) == 2 and left == right[::-1])


def _shared(left: str, right: str) -> int:
    """How many letters two words begin with alike."""
    return sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(left, right, strict=False)))
