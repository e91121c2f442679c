"""The exception whose message is for the user."""


class UserError(Exception):
    """A mistake that the user can fix: one line that says what is wrong, where, and what to do.

    Entry points print it without a traceback and exit non-zero on every rank.
    """

    every_rank = False

    def agreed(self) -> "UserError":
        """Mark that every rank raises this same error, so that only one of them prints it."""
        self.every_rank = True
        return self
