"""What users are shown: commands that work as they stand, text that steers no terminal."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

# Controls but tab and newline, marks that turn the direction of writing, halves of surrogates.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SCRIPT = "detox-tune"
"""The command that an installation brings."""


def program(command: str) -> str:
    """What starts a command, in the form that was typed: `detox-tune x` or `python -m ….x`."""
    if Path(sys.argv[0]).name == SCRIPT:
        return f"{SCRIPT} {command}"
    return f"python -m detox_tune.{command}"


def next_command(command: str, *arguments: object) -> str:
    """A command for the user to type next, in this folder and this shell."""
    start, *rest = program(command).split()
    here = os.path.abspath(sys.argv[0] if start == SCRIPT else sys.executable)
    if shutil.which(start) != here:  # the shell would find another one, or none
        start = os.path.relpath(here) if Path(here).is_relative_to(Path.cwd()) else here
    return shlex.join([start, *rest, *map(str, arguments)])


def printable(text: str) -> str:
    """Text that terminals and pages only show: what could steer them or readers is escaped."""
    return _STEERING.sub(lambda found: ascii(found.group())[1:-1], text)
