"""Files of outputs, as PAN 2024 and PAN 2025 take them: reading, matching with references, writing.

PAN 2024 takes JSON lines with `id` and `text` (github.com/pan-webis-de/pan-code, clef24), PAN 2025
a tsv with `toxic_sentence`, `neutral_sentence` and `lang`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from detox_tune.config import Quoting
from detox_tune.data.columns import REFERENCE_NAMES, SOURCE_NAMES, known_columns
from detox_tune.data.file_formats import Row, not_text
from detox_tune.data.readers import (
    LANGUAGE_COLUMNS,
    LEXICON_SUFFIXES,
    Table,
    read_table,
    shown,
)
from detox_tune.data.text import fold_spaces, language_code
from detox_tune.errors import UserError
from detox_tune.evaluation.references import Key, References, row_id
from detox_tune.files import write_table, write_text

SUBMISSION_SUFFIXES = (".tsv", ".jsonl")
_OUTPUT_COLUMNS = ("neutral_sentence", "output", "text", "neutral")


def load_outputs(
    path: Path, references: References, *, quoting: Quoting = "auto"
) -> dict[Key, str]:
    """Read the outputs of a system and match them with the references' rows.

    By source sentence (and language, where the file has it) if the file has a column that pairs
    have it in, such as `toxic_sentence`; else by `id` if both have one; else by order, where there
    must be one for each row, or one for each distinct source; ids that number the rows give the
    order. Outputs stand in `neutral_sentence`, `output`, `text`, in the only column that pairs have
    references in, or in the only column; a `.txt` has an output a line. An empty output counts as
    one. `quoting` is that of `read_table`.

    Returns:
        The output of each reference row's language and source; of every pair at least.

    Raises:
        UserError: not readable, a source or id without its counterpart, two different outputs for
            one sentence, or another number of outputs than references.
    """
    table = _read_outputs(path, quoting)
    outputs = _texts(table)
    sources = known_columns(table, SOURCE_NAMES)
    id_place = table.find_known(["id"])
    if sources:
        found = _by_source(table, outputs, sources[0], references)
    elif id_place is not None and any(row.id is not None for row in references.rows):
        found = _by_id(table, outputs, id_place, references)
    else:
        found = _by_order(table, outputs, references)
    missing = [p for p in references.pairs if (p.language, p.source) not in found]
    if missing:
        first = f"{shown(missing[0].source)!r} ({missing[0].language})"
        raise UserError(
            f"{path}: no output for {len(missing)} of {len(references.pairs)} reference sentences, "
            f"the first is {first}; add them, or choose the references of one --language"
        )
    return found


def write_submission(path: Path, outputs: Mapping[Key, str], references: References) -> None:
    """Write outputs for every row of the references that tells its sentence, atomically.

    `.tsv` is the form of PAN 2025 (fields with a `"` are quoted, as pandas reads and writes them),
    `.jsonl` that of PAN 2024, with the references' ids or else the row's number from 0. White
    space is folded, nothing else is changed: sentinels stay, so that the file scores as the model.

    Raises:
        UserError: another ending.
    """
    check_submission_path(path)
    rows = [row for row in references.rows if row.key in outputs]
    texts = [fold_spaces(outputs[row.key]) for row in rows]
    if path.suffix.lower() == ".jsonl":
        records = [
            {"id": str(number) if row.id is None else row.id, "text": text}
            for number, (row, text) in enumerate(zip(rows, texts, strict=True))
        ]
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        write_text(path, "".join(lines))
        return
    columns = ("toxic_sentence", "neutral_sentence", "lang")
    fields = [(row.key[1], text, row.key[0]) for row, text in zip(rows, texts, strict=True)]
    records_2025 = [dict(zip(columns, field, strict=True)) for field in fields]
    write_table(path, records_2025, columns, delimiter="\t")


def check_submission_path(path: Path) -> None:
    """Refuse a file name that tells neither form; cheap, to be asked before outputs are made."""
    if path.suffix.lower() not in SUBMISSION_SUFFIXES:
        raise UserError(
            f"{path}: outputs are written as {' (PAN 2025) or '.join(SUBMISSION_SUFFIXES)} "
            "(PAN 2024); choose one of these endings"
        )


def _read_outputs(path: Path, quoting: Quoting) -> Table:
    table = read_table(path, LEXICON_SUFFIXES, quoting)
    if path.suffix.lower() == ".txt":
        # The readers skip blank lines, but here a blank line is an empty output.
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
        lines = lines[:-1] if lines[-1] == "" else lines
        rows = [Row(number, (line.rstrip("\r"),)) for number, line in enumerate(lines, start=1)]
        table = Table(table.file, table.stem, table.columns, rows)
    for row in table.rows:
        if row.problem:
            raise UserError(f"{path}:{row.line}: {row.problem}; mend the row")
    return table


def _texts(table: Table) -> list[str]:
    """The output of each row."""
    place = table.find_known(_OUTPUT_COLUMNS)
    if place is None:
        others = known_columns(table, REFERENCE_NAMES)
        if not others:
            sources = known_columns(table, SOURCE_NAMES)
            names = enumerate(table.known_names())
            others = [
                i for i, name in names if i not in sources and name not in (*LANGUAGE_COLUMNS, "id")
            ]
        if len(others) != 1:
            raise UserError(
                f"{table.file}: which column holds the outputs? It has {table.columns_shown()}; "
                f"call it {_OUTPUT_COLUMNS[0]!r} or 'text'"
            )
        place = others[0]
    texts = []
    for row in table.rows:
        value = row.values[place]
        if not isinstance(value, str | None):
            raise UserError(
                f"{table.file}:{row.line}: the output is of type {type(value).__name__}; "
                "it must be text"
            )
        if not_text(value or ""):
            raise UserError(f"{table.file}:{row.line}: no UTF-8 text; mend the row")
        texts.append(value or "")
    return texts


def _by_source(
    table: Table, outputs: Sequence[str], place: int, references: References
) -> dict[Key, str]:
    known: dict[Key, list[Key]] = {}
    for key in dict.fromkeys(row.key for row in references.rows):
        # A file without languages answers its sentence in each language that has it.
        for asked in {key, (None, key[1])}:
            known.setdefault(asked, []).append(key)
    wanted = {row.key[0] for row in references.rows}
    language_place = table.find_known(LANGUAGE_COLUMNS)
    found: dict[Key, str] = {}
    for row, output in zip(table.rows, outputs, strict=True):
        source = fold_spaces(str(row.values[place] or ""))
        language = None if language_place is None else row.values[language_place]
        key = (language_code(language) if isinstance(language, str) else None, source)
        if key[0] is not None and key[0] not in wanted:
            continue  # a whole submission may be scored on one language
        if key not in known:
            raise UserError(
                f"{table.file}:{row.line}: the source {shown(source)!r} is not among the "
                f"references{'' if key[0] is None else f' in {key[0]!r}'}; give the references of "
                "the same data, or delete the row"
            )
        for match in known[key]:
            _put(found, match, output, table, row)
    return found


def _by_id(
    table: Table, outputs: Sequence[str], place: int, references: References
) -> dict[Key, str]:
    known = {row.id: row.key for row in references.rows}
    if len(known) != len(references.rows):
        raise UserError(
            "the references have missing or repeated ids, but a submission is matched by id; "
            "make them unique, or leave the column `id` out to match by order"
        )
    found: dict[Key, str] = {}
    for row, output in zip(table.rows, outputs, strict=True):
        name = row_id(row, place)
        if name not in known:
            raise UserError(
                f"{table.file}:{row.line}: the id {name!r} is not among the references; give the "
                "references of the same data"
            )
        _put(found, known[name], output, table, row)
    return found


def _by_order(table: Table, outputs: Sequence[str], references: References) -> dict[Key, str]:
    keys = [row.key for row in references.rows]
    distinct: list[Key] = [(pair.language, pair.source) for pair in references.pairs]
    if len(outputs) not in (len(keys), len(distinct)):
        raise UserError(
            f"{table.file}: {len(outputs)} outputs for {len(keys)} references: without source "
            "sentences they are matched by order, so there must be one for each; give the file for "
            "these references, or one with a column toxic_sentence"
        )
    found: dict[Key, str] = {}
    targets = keys if len(outputs) == len(keys) else distinct
    for row, place, output in zip(table.rows, _places(table), outputs, strict=True):
        _put(found, targets[place], output, table, row)
    return found


def _places(table: Table) -> Sequence[int]:
    """The place of each row: its `id` if those number the rows from 0 or 1, else its own."""
    count = len(table.rows)
    id_place = table.find_known(["id"])
    ids = [row_id(row, id_place) or "" for row in table.rows]
    if all(name.isdecimal() for name in ids):
        numbers = [int(name) for name in ids]
        first = min(numbers)
        if first in (0, 1) and sorted(numbers) == list(range(first, first + count)):
            return [number - first for number in numbers]
    return range(count)


def _put(found: dict[Key, str], key: Key, output: str, table: Table, row: Row) -> None:
    if found.setdefault(key, output) != output:
        raise UserError(
            f"{table.file}:{row.line}: a second, different output for {shown(key[1])!r}; keep one"
        )
