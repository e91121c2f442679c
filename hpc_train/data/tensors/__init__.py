"""From the readers' arrays to `tf.data`, images decoded and fields varied: TensorFlow is imported here."""
