"""What a cell of a table holds: a sentence, or the reason why it holds none."""

from __future__ import annotations

import math

import regex

from detox_tune.data.file_formats import not_text
from detox_tune.data.text import fold_spaces

_CONTROL = regex.compile(r"[\p{Cc}--[\t\n\r]]", regex.V1)
_VISIBLE = regex.compile(r"[^\p{Z}\p{C}\p{DI}]")


class BadCell(Exception):
    """A cell that cannot be used: the reason, and what exactly where the reason leaves it open."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def is_missing(value: object) -> bool:
    """Whether a cell is empty: None, or the not-a-number that stands for it in some tables."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def sentence(value: object, name: str, max_characters: float = math.inf) -> str:
    """The sentence of a cell, with its white space folded.

    Args:
        value: what the table holds there.
        name: what messages call it, such as `source`.
        max_characters: more characters than these are too many.

    Raises:
        BadCell: `missing <name>`, `not text`, `empty <name>` or `over-long`.
    """
    if is_missing(value):
        raise BadCell(f"missing {name}")
    if not isinstance(value, str):
        raise BadCell("not text", f"the {name} is of type {type(value).__name__}")
    if not value.isprintable():  # so there is something that may not be text
        if control := _CONTROL.search(value):
            code = f"U+{ord(control.group()):04X}"
            raise BadCell("not text", f"the {name} has the control character {code}")
        if not_text(value):
            raise BadCell("not text", f"the {name} is not UTF-8 text")
    if not _VISIBLE.search(value):
        raise BadCell(f"empty {name}")
    folded = fold_spaces(value)
    if len(folded) > max_characters:
        length = f"the {name} has {len(folded)} characters, at most {max_characters}"
        raise BadCell("over-long", length)
    return folded
