"""Which of Keras's own tests pass plain and not wrapped, and why: they ask for a class, or a private method."""

REASONS: dict[str, str] = {}
