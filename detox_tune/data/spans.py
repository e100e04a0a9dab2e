"""Toxic spans that annotators marked: reading them, and finding them in a sentence."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import regex

from detox_tune.data.readers import (
    TABLE_SUFFIXES,
    Table,
    language_files,
    listed,
    read_table,
    row_languages,
    shown,
)
from detox_tune.data.text import (
    LETTER,
    fold,
    fold_spaces,
    fold_word,
    is_unsegmented,
    language_code,
    merge_spans,
    sentence_key,
)
from detox_tune.errors import UserError

Span = tuple[int, int]
SPAN_COLUMNS = ("spans", "toxic_spans", "negative_connotations")
_SENTENCE_COLUMNS = ("sentence", "text", "source", "toxic_sentence", "toxic")
_SEPARATOR = regex.compile(r"[,，،、;；\n]")
_SEPARATOR_UNSEGMENTED = regex.compile(r"[,，،、;；\s]")
_NONE = frozenset({"", "none", "nan"})
# What folding may join (a letter with its marks), and any other character for itself.
_CLUSTER = regex.compile(r"\X")
_LETTER = regex.compile(LETTER)


class Marks(NamedTuple):
    """The toxic spans that one cell names."""

    strings: list[str]
    """Words and phrases, as written."""
    places: list[Span]
    """Character offsets (start, end)."""


class AnnotatedSentence(NamedTuple):
    """A sentence, with its white space folded, and the toxic spans that annotators saw in it."""

    text: str
    marks: Marks


def load_spans(
    path: str | Path, languages: Sequence[str]
) -> dict[tuple[str, str], list[AnnotatedSentence]]:
    """Read annotated toxic spans, such as those of `textdetox/multilingual_toxic_spans`.

    Args:
        path: a tsv, csv, jsonl or parquet file, or a folder with one for each language, with a
            column `Sentence` and a column `Negative Connotations` or `spans` (`sentence_marks`).
        languages: codes that are wanted; a language without annotations is no error.

    Returns:
        The sentences that have a span, by language and `sentence_key`.

    Raises:
        UserError: not readable, no such columns, spans that cannot be read or lie outside their
            sentence, or nothing for any of `languages`.
    """
    path = Path(path)
    languages = [language_code(language) for language in languages]
    paths = [path]
    if path.is_dir():
        files = language_files(path, TABLE_SUFFIXES)
        paths = [file for language in languages for file in files.get(language, [])]
    found: dict[tuple[str, str], list[AnnotatedSentence]] = {}
    for file in paths:
        for language, sentence in _annotations(read_table(file), languages):
            if language in languages:
                found.setdefault((language, sentence_key(sentence.text)), []).append(sentence)
    if not found:
        raise UserError(
            f"{path}: no annotated spans for {listed(languages)}; "
            "give spans of these languages or leave spans out"
        )
    return found


def sentence_marks(value: object, text: str, language: str, row: str) -> Marks:
    """The toxic spans that one cell names.

    It holds words and phrases, as a list or separated by commas (and by white space in languages
    that do not write it), or character offsets: single ones (`[8, 9, 10]`, as in SemEval's
    `toxic_spans`), or pairs of start and end (`[[8, 11]]`). A list may be written as text, in JSON
    or Python. `None` and `nan` name no span.

    Args:
        value: the cell.
        text: its sentence as the file has it; the offsets of the result count in it with its white
            space folded.
        language: a code.
        row: how messages name the row.

    Raises:
        UserError: neither words nor offsets, or offsets outside the sentence.
    """
    if isinstance(value, str):
        value = _as_list(value, language)
    items = [item for item in value if item is not None] if isinstance(value, list | tuple) else []
    if all(isinstance(item, str) for item in items):
        strings = [item.strip() for item in items]
        return Marks([string for string in strings if string.casefold() not in _NONE], [])
    if all(isinstance(item, int) for item in items):
        items = [(place, place + 1) for place in items]
    for item in items:
        if not (
            isinstance(item, list | tuple)
            and len(item) == 2
            and all(isinstance(place, int) for place in item)
            and 0 <= item[0] < item[1] <= len(text)
        ):
            raise UserError(
                f"{row}: the span {shown(repr(item))} must be words of the sentence, or character "
                f"offsets from 0 to {len(text)}, start before end; mend or empty the cell"
            )
    pairs = [(start, end) for start, end in items]
    return Marks([], [_without_spaces(text, span) for span in _joined(pairs)])


def _as_list(text: str, language: str) -> object:
    if text.lstrip()[:1] in ("[", "("):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, tuple) and all(isinstance(place, int) for place in value):
                return [value]  # one pair
            return value
    separator = _SEPARATOR_UNSEGMENTED if is_unsegmented(language) else _SEPARATOR
    return separator.split(text)


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """The spans sorted, with those that touch made one."""
    start = end = -1
    for first, last in sorted(spans):
        if first > end and end > 0:
            yield start, end
        start = first if first > end else start
        end = max(end, last)
    if end > 0:
        yield start, end


def _without_spaces(text: str, span: Span) -> Span:
    """The same span in `fold_spaces(text)`, without spaces at its ends; empty if there is more."""
    start, end = (len(fold_spaces(text[:place] + "x")) - 1 for place in span)
    marked = fold_spaces(text)[start:end]
    return start + len(marked) - len(marked.lstrip()), start + len(marked.rstrip())


def locate(source: str, strings: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Where the annotated strings stand in their sentence, whatever their case and spacing.

    Each is looked for as whole words, where white space does not count (`suck-ass` is found in
    `suck - ass`), and only if it is nowhere a whole word inside words (`idiot` in `#fullidiot`).
    A string that is not found is skipped: annotators correct spelling now and then.

    Returns:
        Character offsets (start, end) into `source`, sorted and disjoint.
    """
    if not strings:
        return ()
    text = _Folded(source)
    found: set[tuple[int, int]] = set()
    for string in strings:
        found.update(list(text.find(string, whole=True)) or text.find(string, whole=False))
    return merge_spans(found)


class _Folded:
    """A text folded cluster by cluster, so that a find leads back to offsets in the original."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.folded = ""
        self.offsets: list[tuple[int, int]] = []
        """Of each folded character: start and end of the original cluster."""
        for match in _CLUSTER.finditer(text):
            part = " " if match.group().isspace() else fold_word(match.group())
            if part == " " and self.folded.endswith(" "):
                continue
            self.folded += part
            self.offsets += [match.span()] * len(part)
        solid = [place for place, char in enumerate(self.folded) if char != " "]
        self.solid = "".join(self.folded[place] for place in solid)
        self.solid_offsets = [self.offsets[place] for place in solid]

    def find(self, string: str, *, whole: bool) -> Iterator[tuple[int, int]]:
        """Every place of `string`, one after another."""
        wanted = " ".join(fold(string).split())
        text, offsets = self.folded, self.offsets
        if whole:
            wanted, text, offsets = wanted.replace(" ", ""), self.solid, self.solid_offsets
        place = text.find(wanted) if wanted else -1
        while place >= 0:
            start, end = offsets[place][0], offsets[place + len(wanted) - 1][1]
            fits = not whole or not (self._inside(start) or self._inside(end))
            if fits:
                yield start, end
            place = text.find(wanted, place + (len(wanted) if fits else 1))

    def _inside(self, offset: int) -> bool:
        """Whether letters or digits stand on both sides of this offset."""
        around = self.text[max(offset - 1, 0) : offset + 1]
        return len(around) == 2 and all(map(_LETTER.match, around))


def _annotations(table: Table, languages: Sequence[str]) -> Iterator[tuple[str, AnnotatedSentence]]:
    """Language and sentence of each row that names a span."""
    sentence_place = table.find_known(_SENTENCE_COLUMNS)
    span_place = table.find_known(SPAN_COLUMNS)
    if sentence_place is None or span_place is None:
        raise UserError(
            f"{table.file}: annotated spans need the columns 'Sentence' and 'Negative "
            f"Connotations' (or 'spans'), but it has {table.columns_shown()}; rename them"
        )
    for row, language in zip(table.rows, row_languages(table, languages), strict=True):
        where = f"{table.file}:{row.line}"
        if row.problem:
            raise UserError(f"{where}: {row.problem}; mend or delete the row")
        text = row.values[sentence_place]
        if isinstance(text, str) and language:
            marks = sentence_marks(row.values[span_place], text, language, where)
            if any(marks):
                yield language, AnnotatedSentence(fold_spaces(text), marks)
