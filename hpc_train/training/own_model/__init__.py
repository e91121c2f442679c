"""Models that users bring: their scripts, losses and metrics by name, their optimizers, and what does not fit."""
