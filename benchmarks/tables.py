"""What the scripts in benchmarks/ share: which code was measured, and tables to publish."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

from detox_tune.cli import path
from detox_tune.errors import UserError
from detox_tune.files import check_can_write


def commit() -> str:
    """The short hash of this code, with `-dirty` where files have changed since; or `unknown`."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def output_file(text: str) -> Path:
    """The file of an `--out`.

    Raises:
        ArgumentTypeError: if it cannot be written, before work is done for it.
    """
    file = path(text)
    try:
        check_can_write(file, "--out")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return file


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """A Markdown table, one line per row; all columns but the first `texts` are right-aligned."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))
