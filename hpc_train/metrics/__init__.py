"""Scores of label maps and of classes from one confusion matrix over all ranks."""
