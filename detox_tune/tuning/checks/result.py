"""One row of the table of checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from detox_tune.errors import UserError


class Status(StrEnum):
    """How a check ended."""

    PASS = "pass"
    WARN = "warn"
    """The search can run, but something is likely to go wrong or to be wasted."""
    FAIL = "fail"
    """The search, or some of its trials, cannot work."""


@dataclass(frozen=True)
class CheckResult:
    """What one check saw."""

    name: str
    status: Status
    seen: str
    """One line: the values that were judged."""
    remedy: str = ""
    """What to do about it; empty where the status is `pass`, and only there."""


def raise_first_failure(results: Iterable[CheckResult]) -> None:
    """Raise for the first check that failed; warnings pass.

    Raises:
        UserError: what was seen and its remedy.
    """
    for result in results:
        if result.status is Status.FAIL:
            raise UserError(f"{result.name}: {result.seen}: {result.remedy}")
