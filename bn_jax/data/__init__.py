"""Reads datasets of tensorflow-datasets, without TensorFlow."""
