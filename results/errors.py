"""Base class of the errors of this package that a user can fix, and a hint in their messages."""

from collections.abc import Iterable
from difflib import get_close_matches


class ResultsError(ValueError):
    """Results cannot be read; the message gives the reason and, if there is one, the command that fixes it."""


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """Asks for the most similar of `names`, with a blank at the end; "" where none is close."""
    near = get_close_matches(wanted, list(names), n=1)
    return f"did you mean {near[0]!r}? " if near else ""
