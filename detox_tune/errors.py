"""What a user can put right."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in rows, files, settings or flags that the user can correct.

    The message is one line: the value, the rule and the remedy. Commands print it without a
    traceback and exit with code 2.
    """


def closest(name: str, options: Iterable[str]) -> str | None:
    """The option most like a wrong name, if any is like it."""
    return next(iter(difflib.get_close_matches(name, sorted(options), n=1, cutoff=0.6)), None)


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint for a message about a wrong name: the option most like it, or all options."""
    valid = sorted(options)
    close = closest(name, valid)
    return f"did you mean {close!r}?" if close else f"valid: {', '.join(valid) or 'none'}"
