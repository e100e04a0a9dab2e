"""python -m detox_tune.rewrite: use an exported adapter."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detox_tune.cli import OneLineParser, run_command
from detox_tune.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: one rewritten sentence a line, in the order of the input."""
    options = _parser().parse_args(arguments)
    texts = options.text or [line.rstrip("\n") for line in sys.stdin]
    if not texts:
        raise UserError("there is no text to rewrite: give sentences as arguments or on stdin")
    # Imported late, so that --help and wrong flags answer at once.
    from detox_tune.evaluation.rewriting import load_adapter

    adapter = load_adapter(options.adapter, base_model=options.base_model, device=options.device)
    for output in adapter.rewrite(texts):
        print(output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m detox_tune.rewrite",
        description="Rewrite toxic sentences with an adapter that a search exported.",
    )
    parser.add_argument("adapter", type=Path, help="the best/ folder of a search")
    parser.add_argument("text", nargs="*", help="sentences; without any, lines from stdin")
    parser.add_argument("--base-model", help="the adapter's base, where it has moved")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    return parser


if __name__ == "__main__":
    run_command(main)
