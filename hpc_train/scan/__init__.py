"""Scans over hyperparameters: many small trainings at once, which survive the queue; the search is Optuna's."""
