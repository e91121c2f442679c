"""Bytes to arrays, in threads; no TensorFlow."""
