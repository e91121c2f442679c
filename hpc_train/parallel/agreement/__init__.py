"""What ranks must agree on while they train: their start, their steps, their stop."""
