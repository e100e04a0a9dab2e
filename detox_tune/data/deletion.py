"""A text without some of its words, with white space and punctuation made good."""

from __future__ import annotations

from collections.abc import Iterable

import regex

from detox_tune.data.text import fold_spaces, language_code, merge_spans, words

# What is left around deleted words is made good in this order. _GAP stands where a span stood.
_GAP = "\uffff"
_OPENING = r"[(\[{<«„“‘\"'「『（]"
_CLOSING = r"[)\]}>»“”’\"'」』）]"
_COMMA = r"[,;:،؛，、；：]"
_STOP = r"[,;:.!?…،؛؟。，、！？；：।]"
_AFTER_GAPS = rf"{_GAP}(?:\s*{_COMMA}?\s*{_GAP})*(?=\s*(?:{_STOP}|[)\]}}»”]|$))"
_MODIFIERS = {
    "de": "das|dem|den|der|des|die|diese[mnrs]?|ein|eine[mnrs]?|mein|meine|dein|deine|sehr|so",
    "en": "an?|the|th[ei]se|this|that|those|my|your|his|her|its|our|their|quite|really|so|such|too"
    "|very",
    "es": "el|las?|los|un|unas?|unos|es[ae]|est[ae]|mis?|sus?|tus?|muy|tan",
}
_STRAY_MODIFIERS = {
    language: regex.compile(rf"(?i)(?:(?<!\w)(?:{those})\s+)+({_AFTER_GAPS})")
    for language, those in _MODIFIERS.items()
}
"""By language: articles and degree words that are left before nothing."""
_GAP_RULES = [
    (regex.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"(?<!\w)[#@]{_GAP}(?!\w)", _GAP),  # `#` with nothing to hold on to
        (rf"(?<=\w)-{_GAP}-(?=\w)", "-"),
        (rf"(?<=\w)-{_GAP}(?!\w)|(?<!\w){_GAP}-(?=\w)", _GAP),  # a hyphen that joins nothing
        (rf"{_OPENING}\s*{_GAP}\s*{_CLOSING}", _GAP),
        (rf"{_GAP}(?:\s*{_COMMA}?\s*{_GAP})+", _GAP),
        (rf"{_COMMA}\s*{_GAP}(?=\s*{_STOP})", _GAP),
        (rf"(?:^|(?<={_OPENING})){_GAP}(?:\s*{_STOP})*\s*", ""),
        (rf"\s+{_GAP}(?={_STOP}|{_CLOSING})", ""),
    )
]


def delete_spans(text: str, language: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text without these spans, which are character offsets (start, end).

    Each span is grown to the words that it touches; see `Lexicon.delete` for what goes with them.
    """
    kept = []
    position = 0
    for start, end in _whole_words(text, language, spans):
        kept.append(text[position:start])
        position = end
    left = _GAP.join([*kept, text[position:]])
    if stray := _STRAY_MODIFIERS.get(language_code(language)):
        left = stray.sub(r"\1", left)
    return _close_gaps(left)


def _close_gaps(text: str) -> str:
    for pattern, replacement in _GAP_RULES:
        text = pattern.sub(replacement, text)
    return fold_spaces(text.replace(_GAP, ""))


def _whole_words(
    text: str, language: str, spans: Iterable[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """The spans, grown to the words that they lie in."""
    edges = [(word.start, word.end) for word in words(text, language)]
    grown = []
    for start, end in spans:
        touched = [edge for edge in edges if edge[0] < end and start < edge[1]]
        grown.append((min([start, *(s for s, _ in touched)]), max([end, *(e for _, e in touched)])))
    return merge_spans(grown)
