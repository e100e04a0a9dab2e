"""Long work says how far it is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0
"""How long nothing may be heard of long work where there is no terminal."""


@contextmanager
def progress_of(
    what: str, unit: str, total: int, console: Console
) -> Iterator[Callable[[int], None]]:
    """Show how far work is; yields a function that is called with how much of `total` is done.

    Args:
        what: names the work.
        unit: what is counted, in the plural.
        total: how many there are.
        console: a bar is drawn on a terminal, and removed in the end; elsewhere a line with an
            estimate of the time left is printed every half minute.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            # Not visible before the first step: work that a cache spares draws nothing.
            task = bar.add_task(what, total=total, visible=False)
            yield lambda done: bar.update(task, completed=done, visible=True)
    else:
        yield _Lines(what, unit, total, console)


class _Lines:
    def __init__(self, what: str, unit: str, total: int, console: Console) -> None:
        self.what, self.unit, self.total, self.console = what, unit, total, console
        self.said = time.monotonic()
        self.first: tuple[float, int] | None = None

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        # The speed is that from the first call on: what came before it was preparation.
        started, before = self.first = self.first or (now, done)
        if now - self.said < SECONDS_BETWEEN_LINES:
            return
        self.said = now
        line = f"{self.what}: {done} of {self.total} {self.unit}"
        if done > before:
            left = (now - started) * (self.total - done) / (done - before)
            line += f", about {clock(left)} left"
        self.console.print(
            line,
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def clock(seconds: float) -> str:
    """Seconds as `45s`, `3m 05s` or `2h 07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
