"""What a user can put right."""


class UserError(ValueError):
    """A mistake in rows, files, settings or flags that the user can correct.

    The message is one line: the value, the rule and the remedy. Commands print it without a
    traceback and exit with code 2.
    """
