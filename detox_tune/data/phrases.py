"""Entries of a lexicon, cut into pieces and found in texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import regex

from detox_tune.data.text import (
    CHARACTER,
    LETTER,
    MASKED,
    RUN,
    fold,
    fold_word,
    is_unsegmented,
)

_PIECE = regex.compile(rf"{RUN}|\S\p{{DI}}*")
_PIECE_UNSEGMENTED = regex.compile(
    rf"{CHARACTER}|(?:(?!{CHARACTER}){LETTER}\p{{DI}}*)+|\S\p{{DI}}*"
)
_HYPHENS = frozenset("-\u2010")
_MASKED = regex.compile(MASKED)


class _Piece(NamedTuple):
    start: int
    end: int
    folded: str


class _Phrase(NamedTuple):
    folded: tuple[str, ...]
    touching: tuple[int, ...]
    """Places i where piece i and piece i + 1 must have no white space between them."""


# The first piece of each entry leads to the entries that it begins, so that a lookup does not
# depend on how many there are. A plain word that begins nothing longer, the usual case, has None.
Index = dict[str, list[_Phrase] | None]


def find_phrases(text: str, language: str, index: Index) -> list[tuple[int, int]]:
    """Every place that holds an entry of the index, overlapping ones too."""
    masks = [match.span() for match in _MASKED.finditer(text)]
    return [
        (start, end)
        for start, end in _finds(_pieces(text, language), index)
        # A masked word is one word, and no entry begins or ends inside of it.
        if not any(first <= start <= last or first <= end <= last for first, last in masks)
    ]


def phrase_index(entries: Iterable[tuple[str, str]], language: str) -> Index:
    """Index of entries, each as it is written and folded."""
    index: Index = {}
    phrases = []
    for original, folded in entries:
        if not is_unsegmented(language) and original.isalnum() and folded.isalnum():
            index[folded] = None
        elif pieces := _pieces(original, language):
            phrases.append(_phrase(pieces))
    for phrase in phrases:
        first = phrase.folded[0]
        if first not in index:
            index[first] = None if len(phrase.folded) == 1 else [phrase]
            continue
        others = index[first]
        if others is None:
            others = index[first] = [_Phrase((first,), ())]
        others.append(phrase)
    return index


def _finds(pieces: list[_Piece], index: Index) -> Iterator[tuple[int, int]]:
    """Every place that holds an entry, overlapping ones too."""
    for position, piece in enumerate(pieces):
        if piece.folded not in index:
            continue
        phrases = index[piece.folded]
        if phrases is None:
            yield piece.start, piece.end
            continue
        for phrase in phrases:
            end = _end(pieces, position, phrase)
            if end is not None:
                yield piece.start, end


def _end(pieces: list[_Piece], position: int, phrase: _Phrase) -> int | None:
    """Where the phrase ends if it begins at this piece; hyphens may join its words."""
    last: _Piece | None = None
    for number, folded in enumerate(phrase.folded):
        here = pieces[position : position + 2]
        if last and len(here) == 2 and here[0].folded in _HYPHENS and here[0].folded != folded:
            joined = last.end == here[0].start and here[0].end == here[1].start
            if joined and last.folded[-1].isalnum() and folded[0].isalnum():
                position += 1
                here = here[1:]
        if not here or here[0].folded != folded:
            return None
        if last and number - 1 in phrase.touching and last.end < here[0].start:
            return None
        last = here[0]
        position += 1
    return last.end if last else None


def _phrase(pieces: list[_Piece]) -> _Phrase:
    in_words = [place for place, piece in enumerate(pieces) if piece.folded[0].isalnum()]
    first, last = (in_words[0], in_words[-1]) if in_words else (0, len(pieces))
    return _Phrase(
        tuple(piece.folded for piece in pieces),
        tuple(
            place
            for place in range(len(pieces) - 1)
            if not first <= place < last and pieces[place].end >= pieces[place + 1].start
        ),
    )


def _pieces(text: str, language: str) -> list[_Piece]:
    pattern = _PIECE_UNSEGMENTED if is_unsegmented(language) else _PIECE
    if text.isascii():
        folded = fold(text)
        return [
            _Piece(match.start(), match.end(), folded[match.start() : match.end()])
            for match in pattern.finditer(text)
        ]
    pieces = []
    for match in pattern.finditer(text):
        start, end = match.span()
        folded = fold_word(match.group())
        if end - start == 1 == len(folded) or pattern.fullmatch(folded):
            pieces.append(_Piece(start, end, folded))
        else:  # folding split it: `…` became three dots, `½` a fraction
            pieces += [_Piece(start, end, part) for part in pattern.findall(folded)]
    return pieces
