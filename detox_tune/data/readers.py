"""Tables of text from files and from the hub, each row with the line that it came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import regex

from detox_tune.config import Quoting
from detox_tune.data.file_formats import Row, read_content
from detox_tune.data.text import fold, language_code
from detox_tune.errors import UserError, closest, nearest

LANGUAGES = (
    "am", "ar", "de", "en", "es", "fr", "he", "hi", "hin", "it", "ja", "ru", "tt", "uk", "zh",
)  # fmt: skip
"""The codes of the `textdetox` data sets; `hin` is Hindi in Latin letters."""
TABLE_SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet")
LEXICON_SUFFIXES = (*TABLE_SUFFIXES, ".txt")
LANGUAGE_COLUMNS = ("language", "lang")

_TWO_LETTER_CODE = regex.compile(r"[A-Za-z]{2}(?:[-_][A-Za-z]{2})?")
_HUB_NAME = regex.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file, or of one split of a hub data set."""

    file: str
    """How messages name it."""
    stem: str
    """Name of the file without folder and ending, or of the split; it may give the language."""
    columns: tuple[str, ...]
    rows: list[Row]

    def find(self, name: str, option: str) -> int:
        """Index of the column that the user calls for by name."""
        if name not in self.columns:
            raise UserError(
                f"{self.file}: no column {name!r} for {option}; {nearest(name, self.columns)}"
            )
        return self.columns.index(name)

    def columns_shown(self) -> str:
        """The names of its columns for a message."""
        first = ", ".join(repr(shown(name, 30)) for name in self.columns[:12])
        return first + (", …" if len(self.columns) > 12 else "")

    def known_names(self) -> list[str]:
        """The names of its columns as known ones are compared: no case, `_` for white space."""
        return ["_".join(fold(column).split()) for column in self.columns]

    def find_known(self, names: Iterable[str]) -> int | None:
        """Index of the first of `names` that is a column (`known_names`), or None."""
        there = self.known_names()
        return next((there.index(name) for name in names if name in there), None)


def read_table(
    path: Path, suffixes: Sequence[str] = TABLE_SUFFIXES, quoting: Quoting = "auto"
) -> Table:
    """Read a file by its ending.

    csv is quoted as usual. tsv is read with quotes if that reads every row, or if a field could
    only be written with quotes; else a `"` is a character. `quoting` overrides it. jsonl has one
    object per line, txt no header and one column, `text`. All are UTF-8, with or without a byte
    order mark; blank lines are skipped, and an empty field of tsv or csv is None.

    Raises:
        UserError: no such file, another ending than `suffixes`, not UTF-8, damaged, a quote that
            never closes, or no rows.
    """
    content = file_content(path, suffixes)
    columns, rows = read_content(path, content, quoting)
    if not rows:
        raise UserError(f"{path}: the file has a header but no rows; give one with rows")
    return Table(str(path), path.stem, columns, rows)


def file_content(path: Path, suffixes: Sequence[str]) -> bytes:
    """The bytes of a file with one of the endings.

    Raises:
        UserError: a folder, no such file, another ending, or not readable.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise UserError(f"{path} is a folder; give one of its files")
    if not path.is_file():
        raise UserError(
            f"{path}: no such file or folder; {_nearest_file(path) or 'give a path that exists'}"
        )
    if suffix not in suffixes:
        raise UserError(
            f"{path}: the ending {suffix!r} is not known; save the file as {', '.join(suffixes)}"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its rights") from error


def read_hub(name: str) -> list[Table]:
    """Read every split of a data set of the Hugging Face hub, from its cache where it has it."""
    import datasets  # takes seconds, and only this function needs it

    try:
        splits = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{name}: neither a file or folder here nor a data set that the hub gives ({reason}); "
            "check the name and the connection, or give a path"
        ) from error
    return [
        Table(
            f"{name}[{split}]",
            str(split),
            tuple(rows.column_names),
            [Row(*row) for row in enumerate(zip(*rows.with_format(None)[:].values(), strict=True))],
        )
        for split, rows in splits.items()
    ]


def is_hub_name(data: str) -> bool:
    """Whether `data` reads as owner/name of a hub data set; a path that exists comes first."""
    known = data.lower().endswith(LEXICON_SUFFIXES)
    return bool(_HUB_NAME.fullmatch(data)) and not known and not data.startswith(".")


def stem_language(stem: str) -> str | None:
    """The language code that a name is, ends with or begins with: `en`, `paradetox_en`, `en-2`.

    A code may have a region (`pt-BR`, `zh_tw`, `paradetox_zh-CN`). A name that is nothing but a
    code of two letters may be that of any language.
    """
    parts: list[str] = [part.casefold() for part in regex.split(r"[\W_]+", stem) if part]
    likely = [*parts[-1:], *parts[:1]]
    if len(parts) > 1 and regex.search(r"-[A-Za-z]{2}$", stem):
        likely.insert(0, parts[-2])  # what ends the name may be a region
    found = next((part for part in likely if part in LANGUAGES), None)
    if _TWO_LETTER_CODE.fullmatch(stem) and parts[0] in (*LANGUAGES, found or parts[0]):
        return parts[0]
    return found


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The readable files of a folder, in order of name; at least one."""
    files = sorted(
        path
        for path in folder.iterdir()
        # Hidden files are the system's, such as macOS's `._en.tsv`; `~$` is an open Office file.
        if path.suffix.lower() in suffixes and path.is_file() and path.name[:2] != "~$"
        if not path.name.startswith(".")
    )
    if not files:
        raise UserError(f"{folder}: the folder has no {', '.join(suffixes)} file; put one there")
    return files


def language_files(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    """The files of a folder by the language that their names give; others are left out."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_in(folder, suffixes):
        if language := stem_language(path.stem):
            found[language].append(path)
    return dict(found)


def row_languages(
    table: Table, languages: Sequence[str], column: str | None = None
) -> list[str | None]:
    """The language code of each row, None where its cell is empty; a variant as its language.

    It comes from `column`, else from a column `language` or `lang`, else from the name of the file
    or split, else it is the only one of `languages`.

    Raises:
        UserError: none of these tells, or `column` is not there.
    """
    if column is None:
        place = table.find_known(LANGUAGE_COLUMNS)
    else:
        place = table.find(column, "language_column")
    if place is not None:
        cells = [None if row.problem else row.values[place] for row in table.rows]
        return [language_code(cell) if isinstance(cell, str) else None for cell in cells]
    language = stem_language(table.stem) or (languages[0] if len(languages) == 1 else None)
    if language is None:
        raise UserError(
            f"{table.file}: its language is not known; name it by its code, such as en.tsv, "
            "call its column of codes `language`, or choose one language"
        )
    return [language] * len(table.rows)


def listed(languages: Iterable[str]) -> str:
    """Language codes for a message."""
    return ", ".join(sorted(languages)) or "none"


def shown(text: str, width: int = 60) -> str:
    """Text as a message shows it: one line, at most `width` characters, nothing invisible."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: width + 1])
    return text if len(text) <= width else text[: width - 1] + "…"


def _nearest_file(path: Path) -> str:
    folder = path.parent
    close = closest(path.name, (p.name for p in folder.iterdir())) if folder.is_dir() else None
    return f"did you mean {close!r}?" if close else ""
