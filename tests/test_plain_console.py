"""What text from data does to a terminal: nothing."""

import io
import re

import pytest
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from detox_tune.command_line import printable
from detox_tune.plain_console import PlainConsole

HOSTILE = "[red]a\x1b[2J\x1b]0;title\x9b1m\u202eb\u2066\ud800\x7f\x00[/]"
SHOWN = "[red]a\\x1b[2J\\x1b]0;title\\x9b1m\\u202eb\\u2066\\ud800\\x7f\\x00[/]"
OWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What Rich steers a terminal by."""


def cell(text: str) -> Table:
    table = Table(text)
    table.add_row(text)
    return table


def terminal() -> Console:
    return PlainConsole(
        file=io.StringIO(), force_terminal=True, width=200, _environ={"TERM": "xterm"}
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_text_that_steers_is_escaped() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("tab\t, line\n, é, 中, עברית, \u200f") == "tab\t, line\n, é, 中, עברית, \u200f"


@pytest.mark.parametrize(
    "shown", [HOSTILE, Text(HOSTILE), Text(HOSTILE, style="red"), cell(HOSTILE)]
)
def test_a_console_prints_it_harmlessly(shown: RenderableType) -> None:
    console = terminal()
    console.print(shown)
    assert SHOWN in written(console)
    assert not re.search("[\x00\x1b\x9b\u202e\u2066\ud800]", OWN.sub("", written(console)))


def test_what_is_drawn_again_stays_steered_by_rich() -> None:
    console = terminal()
    with Live(Text("first\nlines"), console=console, auto_refresh=False) as live:
        live.update(Text(HOSTILE), refresh=True)
    assert "\x1b[1A" in written(console)  # one line up, to draw over what stands there
    assert SHOWN in OWN.sub("", written(console))
