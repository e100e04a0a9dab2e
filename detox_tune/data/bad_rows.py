"""Rows that were dropped, and what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MAX_BAD_SHARE = 0.05
"""More bad rows than this share of all rows stop the loading unless they are allowed."""

_SHOWN_BAD_ROWS = 5


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was dropped."""

    file: str
    line: int
    """Line of its file, from 1; in parquet files and hub data sets its index, from 0."""
    reason: str
    """`missing source`, `missing reference`, `missing language`, `empty source`, `empty reference`,
    `not text`, `over-long` or `source equals reference`."""
    detail: str
    """What exactly, where the reason leaves it open."""
    text: str
    """The beginning of the row."""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.file}:{self.line}: {self.reason}{detail}: {self.text}"


def bad_rows_report(kept: str, bad_rows: Sequence[BadRow]) -> str:
    """What was read and kept, the first five bad rows, then the count per reason."""
    lines = [f"{kept}, {len(bad_rows)} rows dropped"]
    lines += [f"  {row}" for row in bad_rows[:_SHOWN_BAD_ROWS]]
    if len(bad_rows) > _SHOWN_BAD_ROWS:
        lines.append(f"  and {len(bad_rows) - _SHOWN_BAD_ROWS} more")
    if bad_rows:
        lines.append(f"  dropped: {counts_of_reasons(bad_rows)}")
    return "\n".join(lines)


def counts_of_reasons(bad_rows: Sequence[BadRow]) -> str:
    """How many rows each reason has, the most frequent first: `empty text 3, not text 1`."""
    counts = Counter(row.reason for row in bad_rows)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
