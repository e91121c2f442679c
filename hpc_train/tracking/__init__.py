"""What other programs show of a run: TensorBoard's files, and with `--track` MLflow, W&B and MLPerf's log."""
