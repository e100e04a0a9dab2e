"""python -m detox_tune.rewrite: use an adapter."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from detox_tune.cli import OneLineParser, path, run_command
from detox_tune.command_line import printable, program
from detox_tune.errors import UserError

if TYPE_CHECKING:
    from detox_tune.evaluation.rewriting import Rewritten

_LINES_AT_ONCE = 256  # printed together, so that a long file shows its first lines soon


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: one rewritten text per line, in the order of the input."""
    options = parser().parse_intermixed_args(arguments)
    texts = list(_from_arguments(options.text) if options.text else _from_stdin())
    if not texts:
        raise UserError("there is no text to rewrite: give sentences as arguments or on stdin")
    # Imported late, so that --help and wrong flags answer at once.
    from rich.console import Console

    from detox_tune.evaluation.adapters import METRICS, load_adapter
    from detox_tune.long_work import progress_of

    adapter = load_adapter(
        options.adapter,
        base_model=options.base_model,
        task_prefix=options.task_prefix,
        device=options.device,
    )
    if not (options.adapter / METRICS).exists():
        _say(
            f"{options.adapter} has no {METRICS}: task prefix {adapter.task_prefix!r} "
            f"(--task-prefix), at most {adapter.max_tokens} tokens for a sentence"
        )
    # On a terminal the lines themselves show how far it is.
    console = Console(stderr=True, markup=False, highlight=False, quiet=sys.stdout.isatty())
    with progress_of("rewriting", "lines", len(texts), console) as progress:
        for start in range(0, len(texts), _LINES_AT_ONCE):
            made = adapter.rewrite(texts[start : start + _LINES_AT_ONCE])
            for number, rewritten in enumerate(made, start=start + 1):
                print(printable(rewritten.text) if sys.stdout.isatty() else rewritten.text)
                _say_what_is_lost(number, rewritten, adapter.max_tokens)
            progress(start + len(made))
    return 0


def _from_arguments(texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts, start=1):
        # What Python could not decode in the locale it keeps, and gives back here.
        yield _decoded(os.fsencode(text), f"text {number}")


def _from_stdin() -> Iterator[str]:
    """The lines of stdin, which is UTF-8 whatever the locale, without their ends."""
    if sys.stdin is None:
        return
    if sys.stdin.isatty():
        _say("reading sentences from the terminal, one per line; end with Ctrl-D")
    content = sys.stdin.buffer.read().removeprefix(b"\xef\xbb\xbf")
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    for number, line in enumerate(lines, start=1):
        yield _decoded(line.removesuffix(b"\r"), f"stdin:{number}")


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: byte {error.start + 1} ({content[error.start]:#04x}) is not UTF-8: convert "
            "the text to UTF-8, for example with iconv"
        ) from None


def _say_what_is_lost(line: int, rewritten: Rewritten, max_tokens: int) -> None:
    if rewritten.cut:
        _say(
            f"line {line}: {rewritten.cut} answers were cut off at {max_tokens} tokens, the "
            "adapter's max_tokens: write that sentence as shorter ones, or check its answer"
        )
    if rewritten.empty:
        _say(f"line {line}: {rewritten.empty} answers are empty: rewrite that sentence by hand")


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("rewrite"),
        description="Rewrite toxic sentences with an adapter, one text per line. Longer texts are "
        "rewritten sentence by sentence; lines without a letter stay as they are.",
    )
    parser.add_argument(
        "adapter", type=path, help="the best/ folder of a search, or that of a PEFT adapter"
    )
    parser.add_argument("text", nargs="*", help="texts; without any, lines from stdin")
    parser.add_argument("--base-model", help="the adapter's base, where it has moved")
    parser.add_argument(
        "--task-prefix", help="of an adapter that no search exported (default: none)"
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    return parser


if __name__ == "__main__":
    run_command(main)
