"""What long work says: a line now and then where there is no terminal."""

import io
import itertools
import re

import pytest
from rich.console import Console

from detox_tune.long_work import clock, progress_of


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(100.0, 20.0)  # the clock moves on whenever it is read
    monkeypatch.setattr("detox_tune.long_work.time.monotonic", lambda: next(seconds))
    console = Console(file=io.StringIO(), width=20)
    with progress_of("[b] decoding", "pairs", 10, console) as progress:
        for done in (1, 2, 4, 5, 6):
            progress(done)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "[b] decoding: 2 of 10 pairs, about 2m 40s left",
        "[b] decoding: 5 of 10 pairs, about 1m 15s left",
    ]


def test_a_bar_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})
    with progress_of("[b] decoding", "pairs", 10, console) as progress:
        progress(5)
    assert isinstance(console.file, io.StringIO)
    assert "[b] decoding" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def test_clock() -> None:
    shown = {0.4: "0s", 59.4: "59s", 59.6: "1m 00s", 185: "3m 05s", 3600: "1h 00m", 7675: "2h 07m"}
    assert {seconds: clock(seconds) for seconds in shown} == shown
