"""The one exception for a user's mistake. `cli.main` prints it as one line and exits with code 2."""


class InputError(Exception):
    """Bad input from outside: says what is wrong, why, and what to do. Never a bug of ours."""


class Lost(InputError):
    """A digital transmission that did not arrive, or that no scheme could carry."""
