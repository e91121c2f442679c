"""From the readers' arrays to `tf.data`: images are decoded, fields varied. TensorFlow is imported here."""
