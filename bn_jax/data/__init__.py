"""Datasets, read through tensorflow-datasets without TensorFlow."""
