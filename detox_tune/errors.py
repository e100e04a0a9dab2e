"""What a user can put right."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in rows, files, settings or flags that the user can correct.

    The message is one line: the value, the rule and the remedy. Commands print it without a
    traceback and exit with code 2.
    """


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint for a message about a wrong name: the option most like it, or all options."""
    valid = sorted(options)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(valid)}"
