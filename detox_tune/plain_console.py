"""A console for text from data, which steers no terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from detox_tune.command_line import printable


class PlainConsole(Console):
    """Rich's console for any text: nothing in it is markup, and controls stand as escapes.

    Rich itself hands most controls through to the terminal, the one that begins colours and moves
    of the cursor among them.

    Args:
        options: those of Rich's console.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as Rich's text; escapes are in it before a table measures it."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What is to be written, of any text; Rich's own controls are marked as such, and stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
