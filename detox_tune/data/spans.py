"""Toxic spans that annotators marked: reading them, and finding them in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
)
from detox_tune.data.text import LETTER, UNSEGMENTED, fold, fold_word, merge_spans, sentence_key
from detox_tune.errors import UserError

SPAN_COLUMNS = ("spans", "toxic_spans", "negative_connotations")
_SENTENCE_COLUMNS = ("sentence", "text", "source", "toxic_sentence", "toxic")
_SEPARATOR = regex.compile(r"[,，،、;；\n]")
_SEPARATOR_UNSEGMENTED = regex.compile(r"[,，،、;；\s]")
_NONE = frozenset({"", "none", "nan"})
# What folding may join (a letter with its marks), and any other character for itself.
_CLUSTER = regex.compile(r"\X")
_LETTER = regex.compile(LETTER)


class AnnotatedSentence(NamedTuple):
    """A sentence and the toxic spans that annotators saw in it, as they wrote them."""

    language: str
    text: str
    spans: list[str]


def load_spans(path: str | Path, languages: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Read annotated toxic spans, such as those of `textdetox/multilingual_toxic_spans`.

    Args:
        path: a tsv, csv, jsonl or parquet file, or a folder with one for each language, with a
            column `Sentence` and a column `Negative Connotations` or `spans`: the toxic words and
            phrases, separated by commas, or a list of them.
        languages: codes that are wanted; a language without annotations is no error.

    Returns:
        The spans as written, by language and `sentence_key` of their sentence.

    Raises:
        UserError: not readable, no such columns, or nothing for any of `languages`.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for sentence in annotated_sentences(path, languages):
        spans = found.setdefault((sentence.language, sentence_key(sentence.text)), [])
        spans += [string for string in sentence.spans if string not in spans]
    return found


def annotated_sentences(path: str | Path, languages: Sequence[str]) -> list[AnnotatedSentence]:
    """The sentences of such a file or folder that have a span, in the order of the data.

    Raises:
        UserError: as `load_spans`.
    """
    path = Path(path)
    if path.is_dir():
        files = language_files(path, TABLE_SUFFIXES)
        paths = [file for language in languages for file in files.get(language, [])]
    else:
        paths = [path]
    found = [
        sentence
        for file in paths
        for sentence in _annotations(read_table(file), languages)
        if sentence.language in languages
    ]
    if not found:
        raise UserError(
            f"{path}: no annotated spans for {listed(languages)}; "
            "give spans of these languages or leave spans out"
        )
    return found


def span_strings(value: object, language: str) -> list[str]:
    """The spans that one cell names: a list of strings, or a text that separates them by commas.

    White space separates too in languages that do not write it. `None` and `nan` name no span.
    """
    if isinstance(value, str):
        separator = _SEPARATOR_UNSEGMENTED if language in UNSEGMENTED else _SEPARATOR
        parts: list[object] = list(separator.split(value))
    else:
        parts = list(value) if isinstance(value, list | tuple) else []
    strings = [part.strip() for part in parts if isinstance(part, str)]
    return [string for string in strings if string.casefold() not in _NONE]


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


def _annotations(table: Table, languages: Sequence[str]) -> Iterator[AnnotatedSentence]:
    """Each row that names a span."""
    sentence_place = table.find_known(_SENTENCE_COLUMNS)
    span_place = table.find_known(SPAN_COLUMNS)
    if sentence_place is None or span_place is None:
        raise UserError(
            f"{table.file}: annotated spans need the columns 'Sentence' and 'Negative "
            f"Connotations' (or 'spans'), but it has {table.columns_shown()}; rename them"
        )
    for row, language in zip(table.rows, row_languages(table, languages), strict=True):
        if row.problem:
            raise UserError(f"{table.file}:{row.line}: {row.problem}; mend or delete the row")
        sentence = row.values[sentence_place]
        if isinstance(sentence, str) and language:
            strings = span_strings(row.values[span_place], language)
            if strings:
                yield AnnotatedSentence(language, sentence, strings)
