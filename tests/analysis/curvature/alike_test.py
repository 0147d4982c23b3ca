"""What holds of every measure of a matrix: compilations, chunks, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import analysis
from tests.analysis.curvature import operators_test
from tests.fixtures import (
  curved,
  strict,  # noqa: F401
)

# name -> keywords of a small look; of each the quantity that is compared.
LOOKS = {
  'top_eigenvalues': (dict(k=2), 'eigenvalues'),
  'spectral_density': (dict(order=4, samples=2), 'nodes'),
  'trace': (dict(samples=4, squared=True), 'trace'),
}


def setUpModule():
  # What is compared does not hang on optimization; compiling takes the time.
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def error(batch, params):
  return jnp.sum((batch @ params) ** 4)


class CompilationsTest(parameterized.TestCase):
  @parameterized.parameters(*LOOKS)
  def test_all_batches_of_a_partial_share_them(self, name):
    compiled, traced = [], []

    def listen(event, _, **unused):
      if event == '/jax/core/compile/backend_compile_duration':
        compiled.append(event)

    def loss(batch, params):
      traced.append(name)
      return error(batch, params)

    def look(seed):
      batch = jax.random.normal(jax.random.key(seed), (6, 5))
      partial = jax.tree_util.Partial(loss, batch)
      return getattr(analysis, name)(partial, jnp.ones(5), **LOOKS[name][0])

    jax.monitoring.register_event_duration_secs_listener(listen)
    self.addCleanup(jax.monitoring.unregister_event_duration_listener, listen)
    first = look(0)
    before = len(compiled), len(traced)
    self.assertGreater(min(before), 0)
    other = look(1)
    self.assertEqual((len(compiled), len(traced)), before)
    quantity = LOOKS[name][1]
    self.assertGreater(np.abs(first[quantity] - other[quantity]).max(), 1e-3)


class ProblemTest(parameterized.TestCase):
  def test_chunks_equal_the_whole(self):
    """Eigenvalues; that products are equal is tested with the operators."""
    exact = curved.exact('running')
    with jax.enable_x64(True):
      whole, chunked = (
        analysis.make(
          'top_eigenvalues', statistics='running', tolerance=1e-9,
          chunk_size=size,
        )(exact.problem, exact.state, [exact.batch])
        for size in (None, 3)
      )  # fmt: skip
    for name, value in whole.items():
      if 'residual' not in name:
        np.testing.assert_allclose(chunked[name], value, 1e-8, err_msg=name)

  @parameterized.parameters('spectral_density', 'trace')
  @pytest.mark.slow  # compiles two networks; the products are tested fast
  def test_of_eight_devices_as_of_one(self, name):
    keywords, _ = LOOKS[name]
    look = analysis.make(name, **keywords)
    with jax.enable_x64(True):
      one, eight = (
        look(problem, state, [batch])
        for problem, state, batch in map(operators_test.laid, (1, 8))
      )
    for name, value in one.items():
      np.testing.assert_allclose(eight[name], value, 1e-8, err_msg=name)


if __name__ == '__main__':
  absltest.main()
