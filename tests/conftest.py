"""Lets absltest's temporary directories work under pytest."""

from absl import flags

flags.FLAGS.mark_as_parsed()
