"""Optimizers, rules that change gradients or updates, and learning-rate schedules."""
