"""What a user can mend: every error of this package is one of these."""


class ResultsError(ValueError):
    """Results that cannot be read, with the reason and, where there is one, the command that mends it."""
