"""Words of 15 languages: one folding, one idea of a word, one key for a sentence.

Python's own `re` cuts Hindi, Amharic and Hebrew words at their combining marks, so everything here
uses the `regex` library and Unicode properties.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import regex

UNSEGMENTED = frozenset({"zh", "ja", "th", "lo", "km", "my"})
"""Languages written without spaces: a word is a character there."""

# Characters that no one sees (joiners, soft hyphens, variation selectors) may stand inside a word.
# U+02BC is a letter to Unicode, but Ukrainian text uses it as an apostrophe.
LETTER = r"(?:(?!\u02bc)[\p{L}\p{M}\p{N}])"
RUN = rf"{LETTER}(?:{LETTER}|\p{{DI}})*"
# Half-width voicing marks are letters to Unicode, but NFKC joins them to the kana before them.
_MARKS = r"[\p{M}\p{DI}\uff9e\uff9f]*"
CHARACTER = (
    r"(?:[\p{Han}\p{Hiragana}\p{Katakana}\u30fc]"
    rf"|(?=[\p{{L}}\p{{N}}])[\p{{Thai}}\p{{Lao}}\p{{Khmer}}\p{{Myanmar}}]){_MARKS}"
)
"""One character of a script without spaces, with its marks."""

_APOSTROPHES = "\u2019\u2018\u02bc`\u00b4"
_AS_APOSTROPHE = str.maketrans(dict.fromkeys(_APOSTROPHES, "'"))
_INVISIBLE = regex.compile(r"\p{DI}+")
_NOT_LETTERS = regex.compile(r"[^\p{L}\p{M}\p{N}]+")

MASKED = r"(?<=[\p{L}\p{M}])[*$@%]+(?=\p{L})"
"""What stands for letters inside a masked word: `f*ck`, `a$$hole`, `sh%t`."""
_JOINED = (
    rf"(?:['{_APOSTROPHES}](?=\p{{L}})"  # don't, l'idiota, п'ять
    r"""|(?<=\p{Hebrew})["\u05f4](?=\p{Hebrew})"""  # Hebrew acronyms
    rf"|{MASKED})"
)
_SPELLED = rf"{RUN}(?:{_JOINED}{RUN})*"
_MASKED_END = r"(?:(?<=[\p{L}\p{M}])\*{2,})?"  # b***, but not the end of **bold**
_WORD = regex.compile(rf"(?<!\*){_SPELLED}{_MASKED_END}|{_SPELLED}")
_OTHER_RUN = rf"(?:(?!{CHARACTER}){LETTER}(?:\p{{DI}})*)+"
_WORD_UNSEGMENTED = regex.compile(rf"{CHARACTER}|{_OTHER_RUN}(?:{_JOINED}{_OTHER_RUN})*")


class Word(NamedTuple):
    """A word and where it stands."""

    start: int
    """Offset of its first character in the original text."""
    end: int
    """Offset after its last character in the original text."""
    folded: str
    """The word as `fold` gives it, to be compared."""


@lru_cache(maxsize=1 << 10)
def language_code(code: str) -> str:
    """The language of a code, without region or script: `zh` of `zh-CN`, `pt` of `pt_BR`."""
    return code.strip().casefold().replace("_", "-").partition("-")[0]


def is_unsegmented(language: str) -> bool:
    """Whether a language, or a variant such as `zh-TW`, is one of `UNSEGMENTED`."""
    return language_code(language) in UNSEGMENTED


def fold(text: str) -> str:
    """Text as it is compared: NFKC, full case folding, invisible characters out.

    That is Unicode's `NFKC_Casefold`; in addition typographic apostrophes become `'`. The length
    may change (`ß` becomes `ss`), so offsets into the result say nothing about the original.
    """
    if text.isascii():
        return text.lower().replace("`", "'")
    # The acute accent is translated first, as NFKC would turn it into a space and a mark.
    text = unicodedata.normalize("NFKC", text.translate(_AS_APOSTROPHE)).casefold()
    text = unicodedata.normalize("NFKC", text).translate(_AS_APOSTROPHE)
    return str(_INVISIBLE.sub("", text))


@lru_cache(maxsize=1 << 16)
def fold_word(word: str) -> str:
    """`fold` for single words: remembered, because a few words make up most of every text."""
    return fold(word)


def words(text: str, language: str) -> list[Word]:
    """The words of a text in order, with offsets into that text.

    A word is a run of letters, digits and combining marks. Inside it may stand

    - an apostrophe before a letter: `don't`, `l'idiota`, `п’ять`; in Hebrew also the double quote;
    - `*`, `$`, `@`, `%` between letters, as in masked words: `f*ck`, `a$$hole`; two or more `*` may
      end it: `b***`. A `!` does not join: in these data it is nearly always the end of a sentence
      whose space was forgotten.

    Hyphens, dots and underscores separate: `suck-ass` and `suck - ass` are the same two words. In
    languages of `UNSEGMENTED` each character of such a script is a word; Latin letters and digits
    among them form words as everywhere.
    """
    pattern = _WORD_UNSEGMENTED if is_unsegmented(language) else _WORD
    return [
        Word(match.start(), match.end(), fold_word(match.group()))
        for match in pattern.finditer(text)
    ]


def fold_spaces(text: str) -> str:
    """Text with every run of white space, line ends included, as one space and none at its ends."""
    return " ".join(text.split())


def sentence_key(text: str) -> str:
    """What two spellings of one sentence have in common: its folded letters and digits.

    White space, punctuation and symbols are left out, so that `You 're dumb .` and `you're dumb`
    have one key. A text of nothing but symbols is its own key.
    """
    folded = fold(text)
    return _NOT_LETTERS.sub("", folded) or "".join(folded.split())


def merge_spans(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans (start, end) sorted, with those that overlap made one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            earlier = merged.pop()
            start, end = earlier[0], max(end, earlier[1])
        merged.append((start, end))
    return tuple(merged)
