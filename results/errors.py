"""Base class of the errors of this package that a user can fix."""


class ResultsError(ValueError):
    """Results cannot be read; the message gives the reason and, if there is one, the command that fixes it."""
