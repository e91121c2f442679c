"""What a rank is doing, and what becomes of a job in which nothing moves."""
