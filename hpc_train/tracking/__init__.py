"""What other programs show of a run: TensorBoard's files."""
