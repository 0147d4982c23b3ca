"""What a process may have of its machine."""

import resource

from absl.testing import absltest

from bn_jax.host import environment


class EnvironmentTest(absltest.TestCase):
  def test_open_files_for_many_seeds(self):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    environment.allow_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    self.assertEqual(hard, limits[1])
    self.assertEqual(soft, min(10_000, hard if hard >= 0 else 10_000))


if __name__ == '__main__':
  absltest.main()
