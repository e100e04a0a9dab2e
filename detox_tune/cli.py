"""What all commands share: one-line errors, exit codes, quiet libraries."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from detox_tune.errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that names the remedy."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function and exit with its code, or 2 for what the user can put right.

    An interrupt exits with 130, as shells expect.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
