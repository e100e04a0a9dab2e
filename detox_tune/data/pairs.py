"""Pairs of a toxic sentence and its neutral references, read, checked and merged."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from detox_tune.config import Quoting
from detox_tune.data.bad_rows import MAX_BAD_SHARE, BadRow, bad_rows_report, counts_of_reasons
from detox_tune.data.cells import BadCell, sentence
from detox_tune.data.columns import Columns, find_columns
from detox_tune.data.file_formats import Row
from detox_tune.data.readers import (
    TABLE_SUFFIXES,
    Table,
    files_in,
    is_hub_name,
    language_files,
    read_hub,
    read_table,
    row_languages,
    shown,
    stem_language,
)
from detox_tune.data.spans import Marks, Span, load_spans, locate, sentence_marks
from detox_tune.data.text import language_code, merge_spans, sentence_key
from detox_tune.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Pair:
    """A toxic sentence and the neutral ones that may stand for it."""

    source: str
    references: tuple[str, ...]
    """At least one, none of them twice, none equal to the source."""
    language: str
    spans: tuple[Span, ...] = ()
    """Annotated toxic spans of the source: character offsets (start, end), sorted, disjoint."""
    split: str | None = None
    """`train`, `validation` or `test` where the data fixes it."""


@dataclass(frozen=True, slots=True)
class LoadedPairs:
    """The pairs of a data set and what was wrong with it."""

    pairs: tuple[Pair, ...]
    """In the order of the data."""
    bad_rows: tuple[BadRow, ...]
    n_rows: int
    """Rows read in the chosen languages, bad ones included."""
    n_spans: int = 0
    """Annotated spans of the pairs' sources."""
    n_located: int = 0
    """Those that stand in their source."""

    def report(self) -> str:
        """How much was read, dropped and located; some of the bad rows, and counts by reason."""
        report = bad_rows_report(f"{self.n_rows} rows, {len(self.pairs)} pairs", self.bad_rows)
        if self.n_spans:
            marked = sum(bool(pair.spans) for pair in self.pairs)
            report += (
                f"\nspans: {self.n_located} of {self.n_spans} located, in {marked} of "
                f"{len(self.pairs)} sources"
            )
        return report


def load_pairs(
    data: str,
    *,
    languages: Sequence[str] = (),
    source_column: str | None = None,
    reference_columns: Sequence[str] = (),
    language_column: str | None = None,
    spans: str | None = None,
    quoting: Quoting = "auto",
    max_characters: int = 1000,
    allow_bad_rows: bool = False,
) -> LoadedPairs:
    """Read pairs, drop the bad rows, and make one pair of the rows with one source.

    Args:
        data: a tsv, csv, jsonl or parquet file, a folder of such files, or a hub data set such as
            `textdetox/multilingual_paradetox`. All splits of a hub data set are used; a split
            named after a language gives the language of its rows.
        languages: codes to keep, variants such as `zh-CN` as their language; all if empty.
        source_column: column of toxic sentences; by default the first of a known name.
        reference_columns: columns of neutral sentences, or one column of lists of them; by default
            those of a known name, such as `neutral1` to `neutral3`.
        language_column: column of language codes; see `row_languages` for what comes in its place.
        spans: file or folder of annotated toxic spans, joined by sentence (`load_spans`); a column
            `spans` of the data itself counts as well.
        quoting: how `"` is read in a tsv or csv of pairs; see `read_table`.
        max_characters: a source or reference with more characters makes its row a bad one.
        allow_bad_rows: go on even if more than `MAX_BAD_SHARE` of the rows are bad.

    White space in sentences is folded. A row without a reference that differs from the source
    (after NFKC) is bad; single empty, missing or equal references beside good ones are left out.

    Raises:
        UserError: data that cannot be read, columns or languages that cannot be found, too many bad
            rows, a language without pairs, or spans that cannot be read or stand in no source.
    """
    languages = tuple(dict.fromkeys(map(language_code, languages)))
    collector = _Collector(max_characters)
    seen: set[str] = set()
    for table in _tables(data, languages, quoting):
        columns = find_columns(table, source_column, reference_columns)
        of_rows = row_languages(table, languages, language_column)
        seen.update(filter(None, of_rows))
        for row, language in zip(table.rows, of_rows, strict=True):
            # A row that could not be cut may be of any language: it counts.
            if row.problem or not language or not languages or language in languages:
                collector.add(table.file, row, language, columns)
    bad_rows = tuple(collector.bad_rows)
    if not allow_bad_rows:
        _refuse_many_bad_rows(data, bad_rows, collector.n_rows)
    there = {language for language, _ in collector.drafts}
    _require_pairs(data, languages, there, seen)
    if spans is not None:
        _join_spans(collector.drafts, spans, sorted(there))
    pairs = []
    n_spans = n_located = 0
    for (language, source), draft in collector.drafts.items():
        found = [locate(source, [string]) for string in draft.strings]
        found += [(place,) if place[0] < place[1] else () for place in draft.places]
        n_spans += len(found)
        n_located += sum(map(bool, found))
        located = merge_spans(span for spans_ in found for span in spans_)
        pairs.append(Pair(source, tuple(draft.references), language, located))
    if n_spans and not n_located:
        raise UserError(
            f"{spans or data}: none of the {n_spans} annotated spans stands in its sentence; give "
            "the words as the sentence has them, or their character offsets"
        )
    return LoadedPairs(tuple(pairs), bad_rows, collector.n_rows, n_spans, n_located)


@dataclass(slots=True)
class _Draft:
    # Dicts because they keep the order and hold nothing twice.
    references: dict[str, None] = field(default_factory=dict)
    strings: dict[str, None] = field(default_factory=dict)
    places: dict[Span, None] = field(default_factory=dict)

    def mark(self, marks: Marks) -> None:
        self.strings.update(dict.fromkeys(marks.strings))
        self.places.update(dict.fromkeys(marks.places))


class _Collector:
    """Takes rows one by one; holds the pairs in the making and the bad rows."""

    def __init__(self, max_characters: int) -> None:
        self.max_characters = max_characters
        self.drafts: dict[tuple[str, str], _Draft] = {}
        self.bad_rows: list[BadRow] = []
        self.n_rows = 0

    def add(self, file: str, row: Row, language: str | None, columns: Columns) -> None:
        self.n_rows += 1
        try:
            if row.problem:
                raise BadCell("not text", row.problem)
            if not language:
                raise BadCell("missing language")
            source = sentence(row.values[columns.source], "source", self.max_characters)
            references = self._references(row, columns, source)
        except BadCell as bad:
            text = " | ".join(str(value) for value in row.values if value is not None)
            self.bad_rows.append(BadRow(file, row.line, bad.reason, bad.detail, shown(text)))
            return
        draft = self.drafts.setdefault((language, source), _Draft())
        draft.references.update(dict.fromkeys(references))
        if columns.spans is not None:
            text = str(row.values[columns.source])
            where = f"{file}:{row.line}"
            draft.mark(sentence_marks(row.values[columns.spans], text, language, where))

    def _references(self, row: Row, columns: Columns, source: str) -> list[str]:
        references: list[str] = []
        fault = "missing reference"
        for value in _flat(row.values[place] for place in columns.references):
            try:
                reference = sentence(value, "reference", self.max_characters)
            except BadCell as bad:
                if bad.reason in ("not text", "over-long"):
                    raise
                if fault == "missing reference":
                    fault = bad.reason
                continue
            if unicodedata.normalize("NFKC", reference) == unicodedata.normalize("NFKC", source):
                fault = "source equals reference"
            else:
                references.append(reference)
        if not references:
            raise BadCell(fault)
        return references


def _flat(values: Iterator[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from value
        else:
            yield value


def _tables(data: str, languages: Sequence[str], quoting: Quoting) -> Iterator[Table]:
    path = Path(data)
    if path.is_dir():
        for file in files_in(path, TABLE_SUFFIXES):
            language = stem_language(file.stem)
            # A file of another language need not be read.
            if language is None or not languages or language in languages:
                yield read_table(file, quoting=quoting)
    elif path.exists() or not is_hub_name(data):
        yield read_table(path, quoting=quoting)
    else:
        yield from read_hub(data)


def _refuse_many_bad_rows(data: str, bad_rows: Sequence[BadRow], n_rows: int) -> None:
    if len(bad_rows) > MAX_BAD_SHARE * n_rows:
        raise UserError(
            f"{data}: {len(bad_rows)} of {n_rows} rows are bad ({counts_of_reasons(bad_rows)}; "
            f"the first is {bad_rows[0]}), at most {MAX_BAD_SHARE:.0%} may be; mend them or allow "
            "them (allow_bad_rows)"
        )


def _require_pairs(data: str, languages: Sequence[str], there: Set[str], in_rows: Set[str]) -> None:
    """Each of `languages` has pairs; `in_rows` are those that rows have, bad rows included."""
    for language in languages:
        if language not in there:
            others = in_rows - {language}
            if Path(data).is_dir():
                others |= language_files(Path(data), TABLE_SUFFIXES).keys()
            raise UserError(
                f"language {language!r}: {data} has no pairs for it; {nearest(language, others)}"
            )
    if not there:
        raise UserError(f"{data}: no pairs; give data with toxic sentences and neutral ones")


def _join_spans(drafts: dict[tuple[str, str], _Draft], path: str, languages: Sequence[str]) -> None:
    annotated = load_spans(path, languages)
    joined = 0
    for (language, source), draft in drafts.items():
        for text, marks in annotated.get((language, sentence_key(source)), []):
            if text != source:  # another spelling: the words that the offsets cut out are sought
                words = [text[start:end] for start, end in marks.places]
                marks = Marks([*marks.strings, *filter(None, words)], [])
            draft.mark(marks)
            joined += 1
    if not joined:
        raise UserError(
            f"{path}: annotates none of the {len(drafts)} sources; give spans of the same "
            "sentences or leave spans out"
        )
