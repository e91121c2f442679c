"""Predictions of runs whose targets are numbers: values in files, scores and pictures."""
