"""The one exception that a user is meant to see."""


class UserError(Exception):
    """A mistake that the user can mend: one line that says what is wrong, where, and what to do.

    Entry points print it without a traceback and exit non-zero on every rank.
    """

    every_rank = False

    def agreed(self) -> "UserError":
        """Mark that every rank raises this same error, so that one of them speaks for all."""
        self.every_rank = True
        return self
