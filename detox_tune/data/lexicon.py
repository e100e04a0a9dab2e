"""Lists of toxic words and phrases, and where a text holds one of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import regex

from detox_tune.data.deletion import delete_spans
from detox_tune.data.file_formats import not_text
from detox_tune.data.phrases import Index, find_phrases, phrase_index
from detox_tune.data.readers import (
    LANGUAGE_COLUMNS,
    LEXICON_SUFFIXES,
    Table,
    is_hub_name,
    language_files,
    listed,
    read_hub,
    read_table,
    row_languages,
    stem_language,
)
from detox_tune.data.text import fold, fold_spaces, is_unsegmented, language_code
from detox_tune.errors import UserError, nearest

_JOINING_HYPHEN = regex.compile(r"(?<=\w)[-\u2010](?=\w)")
_ONE_CHARACTER = regex.compile(r".\p{M}*")


class Lexicon:
    """Toxic words and phrases by language, found in texts as whole words.

    A text and an entry are compared piece by piece: a piece is a run of letters, digits and
    combining marks, or one other character; in `UNSEGMENTED` languages also each character
    of such a script, so that an entry is found anywhere in them. Pieces are folded (`fold`);
    white space between them does not count, so `suck - ass` holds the entry `suck-ass`. Hyphens may
    join the words of an entry: `son-of-a-bitch` holds `son of a bitch`. A masked word is one word:
    `a$$hole` does not hold `a$$`. Only the
    punctuation that begins or ends an entry must touch its word in the text as it does in the
    entry: `-ёбший` is not found in `- ёбший`. Entries are literal: a `*` is a `*`. In `UNSEGMENTED`
    languages an entry of one character is left out: it stands in most sentences (PAN's Chinese list
    marks 99% of the sources by such entries, and 71% of the references).

    Lexicons of 15 languages: `textdetox/multilingual_toxic_lexicon` (PAN 2024, Dementieva et al.).
    """

    def __init__(self, entries: Mapping[str, Iterable[str]]) -> None:
        """Entries by language code; blank ones are left out, spelling variants become one."""
        self._entries: dict[str, frozenset[str]] = {}
        self._index: dict[str, Index] = {}
        of_language: dict[str, list[str]] = {}
        for language, texts in entries.items():
            of_language.setdefault(language_code(language), []).extend(texts)
        for language, texts in of_language.items():
            originals = list(filter(None, map(fold_spaces, texts)))
            # In one piece: folding 140,000 Russian entries one by one takes seconds.
            together = fold("\n".join(originals)).split("\n")
            folded = list(map(str.strip, together)) if originals else []
            kept = [(o, f) for o, f in zip(originals, folded, strict=True) if f]
            if is_unsegmented(language):
                kept = [(o, f) for o, f in kept if not _ONE_CHARACTER.fullmatch(f)]
            self._entries[language] = frozenset(entry for _, entry in kept)
            self._index[language] = phrase_index(kept, language)

    @classmethod
    def load(
        cls, path: str | Path, languages: Sequence[str], *, all_needed: bool = True
    ) -> Lexicon:
        """Read the lexicon of each of `languages`.

        Args:
            path: a folder with a file for each language (`en.parquet`, `uk.txt`, ...), one file, or
                a hub data set whose splits are languages.
                A `.txt` holds one entry per line; tsv, csv, jsonl and parquet hold them in the
                column `text` or in their only column. One file serves the languages of its
                `language` column, else the language that its name gives, else the only one asked
                for.
            languages: codes.
            all_needed: whether each language must be found; else one is enough, and the others
                get no entries.

        Raises:
            UserError: no such file, not readable, no entries, or a language without a lexicon.
        """
        languages = [language_code(language) for language in languages]
        there, tables = _tables(path, languages)
        entries: dict[str, list[str]] = {}
        for table in tables:
            for language, entry in _entries(table, languages):
                entries.setdefault(language, []).append(entry)
        there = there or entries
        for language in languages:
            if language not in entries and (all_needed or not entries):
                raise UserError(
                    f"language {language!r}: {path} has no lexicon for it; "
                    f"{nearest(language, there)}; or give a folder with {language}.txt, one entry "
                    "per line"
                )
        return cls({language: entries.get(language, ()) for language in languages})

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes it has entries for, sorted."""
        return tuple(sorted(self._entries))

    def __len__(self) -> int:
        """Number of entries in all languages together."""
        return sum(map(len, self._entries.values()))

    def entries(self, language: str) -> frozenset[str]:
        """The folded entries of a language."""
        return self._entries[self._known(language)]

    def spans(self, text: str, language: str) -> list[tuple[int, int]]:
        """Where `text` holds entries: character offsets (start, end), sorted and disjoint.

        Of overlapping finds the longest stays, of equally long ones the first.
        """
        language = self._known(language)
        found = find_phrases(text, language, self._index[language])
        found.sort(key=lambda span: (span[0] - span[1], span[0]))
        kept: list[tuple[int, int]] = []
        for start, end in found:
            if all(end <= other_start or other_end <= start for other_start, other_end in kept):
                kept.append((start, end))
        return sorted(kept)

    def without(self, entries: Mapping[str, Collection[str]]) -> Lexicon:
        """The same without some entries of each language, given as `entry_key` does."""
        out = {language_code(language): keys for language, keys in entries.items()}
        return Lexicon(
            {
                language: [e for e in own if entry_key(e) not in out.get(language, ())]
                for language, own in self._entries.items()
            }
        )

    def delete(self, text: str, language: str) -> str:
        """The text without its spans, with white space and punctuation made good.

        A word that an apostrophe or a mask holds together goes whole (`l'idiota`, `bitch's`). So do
        brackets and quotes that are left empty, a hyphen or `#` that is left alone, one of two
        commas that meet, punctuation that would begin the text, and, in English, German and
        Spanish, articles and degree words that stand before nothing (`he is an.`).
        """
        return delete_spans(text, language, self.spans(text, language))

    def _known(self, language: str) -> str:
        code = language_code(language)
        if code not in self._entries:
            raise UserError(
                f"language {language!r}: this lexicon has entries for "
                f"{listed(self.languages)} only; add a list for it"
            )
        return code


def entry_key(text: str) -> str:
    """What an entry and its finds have in common: folded, no white space, no joining hyphens."""
    return str(_JOINING_HYPHEN.sub("", "".join(fold(text).split())))


def _tables(path: str | Path, languages: Sequence[str]) -> tuple[Collection[str], list[Table]]:
    """The languages that a folder or hub data set has, and the tables of those asked for."""
    if not Path(path).exists() and is_hub_name(str(path)):
        splits = {stem_language(table.stem) or table.stem: table for table in read_hub(str(path))}
        return splits, [table for language, table in splits.items() if language in languages]
    if not Path(path).is_dir():
        return (), [read_table(Path(path), LEXICON_SUFFIXES)]
    files = language_files(Path(path), LEXICON_SUFFIXES)
    paths = [file for language in languages for file in files.get(language, [])]
    return files, [read_table(file, LEXICON_SUFFIXES) for file in paths]


def _entries(table: Table, languages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Language and text of each entry of a file; at least one."""
    place = table.find_known(["text"])
    if place is None:
        others = [
            place for place, name in enumerate(table.known_names()) if name not in LANGUAGE_COLUMNS
        ]
        if len(others) != 1:
            raise UserError(
                f"{table.file}: which column holds the entries? It has {table.columns_shown()}; "
                "call it `text`"
            )
        place = others[0]
    found = False
    for row, language in zip(table.rows, row_languages(table, languages), strict=True):
        entry = None if row.problem else row.values[place]
        if row.problem or not isinstance(entry, str | None) or not_text(entry or ""):
            raise UserError(
                f"{table.file}:{row.line}: not an entry ({row.problem or 'no UTF-8 text'}); "
                "mend or delete the row"
            )
        if language and entry and entry.strip():
            found = True
            yield language, entry
    if not found:
        raise UserError(f"{table.file}: no entries; give a file with toxic words")
