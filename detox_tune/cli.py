"""What all commands share: one-line errors, exit codes, quiet libraries."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
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
    quiet_environment()
    try:
        code = main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def quiet_environment() -> None:
    """Keep the libraries' own notices off the screen; must run before they are imported."""
    warnings.filterwarnings("ignore")
    # bitsandbytes warns at import, on some processors, that it lacks a kernel that we do not use
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # failed trials are in our table
    quiet = {
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables
        "HF_HUB_VERBOSITY": "error",  # an unreachable hub is reported in one line of ours
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray authenticates with a token by default, and says so on the screen unless asked to
        "RAY_AUTH_MODE": "token",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
