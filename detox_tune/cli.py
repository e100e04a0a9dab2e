"""What all commands share: one-line errors, exit codes, quiet libraries."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import select
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from detox_tune.command_line import printable
from detox_tune.errors import UserError
from detox_tune.files import disk_is_full

VERBOSE = "--verbose"
"""The flag that leaves libraries their own notices, which are kept back before flags are parsed."""
_NO_SUCH_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES)


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def path(text: str) -> Path:
    """A path of the command line; `~` is the home folder, also where the shell left it."""
    return Path(os.path.expanduser(text))


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that names the remedy."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        self.exit(2, f"error: {_one_line(message)}; see {self.prog} --help\n")


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function and exit with its code, or 2 for what the user can put right.

    An interrupt exits with 130, and a reader that closed its pipe with 141, as shells expect.
    """
    quiet_environment(verbose=VERBOSE in sys.argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it was closed
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        code = main()
        if sys.stdout:
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        code = 141
    except Exception as error:
        if disk_is_full(error):
            reason = _one_line(str(error)).rpartition(": ")[2]
            line = f"a disk is full ({reason}): free some space, then try again"
        elif isinstance(error, OSError) and error.errno in _NO_SUCH_PATH:
            line = f"{_one_line(str(error.filename))}: {error.strerror}: give another path"
        else:
            raise
        print(f"error: {line}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _reader_is_gone() -> bool:
    """Whether nobody reads stdout any more; then nothing is written to it from here on."""
    state = select.poll()
    state.register(sys.stdout, 0)
    if not any(event & select.POLLERR for _, event in state.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def quiet_environment(*, verbose: bool = False) -> None:
    """Keep the libraries' own notices off the screen, and their threads from spinning.

    Must run before they are imported. With `verbose` the notices stay.
    """
    # OpenMP's threads wait by spinning, which on a busy machine made a step take up to 40 times as
    # long. After so many rounds they sleep; a step on an idle one takes 2% longer.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if verbose:
        return
    warnings.filterwarnings("ignore")
    # bitsandbytes warns at import, on some processors, that it lacks a kernel that we do not use
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # failed trials are in our table
    # Ray tells of its tokens, which are its default
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    quiet = {
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables
        "HF_HUB_VERBOSITY": "error",  # an unreachable hub is reported in one line of ours
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        # what our own lines say; the second comes with the last sixty lines of a log
        "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|Raylet is terminated|marked dead",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
