"""Statistics of test batches, mixed with those that were kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import models, norms
from bn_jax.norms import mixture
from tests.fixtures import (
  models_small,
  strict,  # noqa: F401
)

X = np.random.default_rng(0).normal(2, 3, size=(6, 2, 2, 8)).astype(np.float32)


class Net(nn.Module):
  """Two dense layers with norms: the second one's input has adapted."""

  norm: norms.Norm

  @nn.compact
  def __call__(self, x, *, statistics, mask=None, first=0):
    for number in (1, 2):
      x = nn.Dense(8, use_bias=False, name=f'dense{number}')(x)
      layer = self.norm.layer(f'norm{number}')
      x = nn.tanh(layer(x, statistics=statistics, mask=mask, first=first))
    return x


class Foreign(nn.Module):
  """The same with flax's BatchNorm."""

  @nn.compact
  def __call__(self, x, train):
    for number in (1, 2):
      x = nn.Dense(8, use_bias=False, name=f'dense{number}')(x)
      norm = nn.BatchNorm(not train, use_fast_variance=False,
                          name=f'norm{number}')  # fmt: skip
      x = nn.tanh(norm(x))
    return x


class Unknown(nn.Module):
  """A norm of somebody who hands nothing out."""

  @nn.compact
  def __call__(self, x, *, statistics, mask=None, first=0):
    mean = self.variable('batch_stats', 'mean', jnp.zeros, (8,))
    own = x.mean((0, 1, 2)) if statistics == 'batch' else mean.value
    return x - own.reshape(1, 1, 1, -1)


def made(norm, **keywords):
  module = Net(norms.make(norm, **keywords))
  return module, models_small.variables(module, X.shape[1:])


def keeping():
  """The norms that keep statistics of batches."""
  for name in norms.NORMS:
    try:
      _, variables = made(name)
    except ValueError:
      continue  # its keywords fit no such small network
    flat = jax.tree_util.tree_leaves_with_path(variables.get('batch_stats', {}))
    if any(path[-1].key in ('mean', 'var') for path, _ in flat):
      yield name


@functools.partial(jax.jit, static_argnums=(0, 2))
def adapted(module, variables, size, x=X, mask=None):
  return mixture.adapted(module, variables, x, size=size, mask=mask)


class LayerTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 16.0)
  def test_closed_form_without_padding(self, size):
    layer = norms.make('batch').layer(None)
    variables = models_small.variables(layer, X.shape[1:])
    padded = np.concatenate([X, np.full_like(X[:2], np.inf)])
    mask = jnp.arange(8) < 6
    y = adapted(layer, variables, size, padded, mask)[:6]
    kept, params = (
      {name: np.float64(v) for name, v in variables[key].items()}
      for key in ('batch_stats', 'params')
    )
    x, share = np.float64(X), 6 / (size + 6)
    mean = (1 - share) * kept['mean'] + share * x.mean((0, 1, 2))
    var = (1 - share) * kept['var'] + share * x.var((0, 1, 2))
    want = (x - mean) / np.sqrt(var + 1e-5) * params['scale'] + params['bias']
    np.testing.assert_allclose(y, want, rtol=2e-5, atol=2e-5)


class NetworkTest(parameterized.TestCase):
  @parameterized.parameters('batch', 'iternorm')
  def test_ends_are_the_batch_and_the_kept_statistics(self, name):
    self.check_ends(name)

  @parameterized.parameters(*sorted({*keeping()} - {'batch', 'iternorm'}))
  @pytest.mark.slow  # more than a second each
  def test_so_with_every_norm_that_keeps_some(self, name):
    self.check_ends(name)

  def check_ends(self, name):
    for keywords in ({}, {'group_size': 3}):
      module, variables = made(name, **keywords)
      for size, statistics in ((0.0, 'batch'), (float('inf'), 'running')):
        with self.subTest(statistics, **keywords):
          want = module.apply(variables, X, statistics=statistics)
          y = adapted(module, variables, size)
          np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
      between = adapted(module, variables, 6.0)
      self.assertGreater(np.abs(between - want).max(), 0.01)

  def test_what_training_does_beside_has_no_part_in_it(self):
    plain, variables = made('batch')
    want = plain.apply(variables, X, statistics='batch')
    late = jax.tree.map(lambda x: x, variables)
    for number in (1, 2):
      late['batch_stats'][f'norm{number}']['count'] = jnp.int32(10**6)
    for norm in (
      norms.make('batch', frozen=True), norms.make('batch_renorm')
    ):  # fmt: skip
      module = Net(norm)
      in_training = module.apply(late, X, statistics='batch')
      self.assertGreater(np.abs(in_training - want).max(), 0.1)
      np.testing.assert_allclose(adapted(module, late, 0.0), want, atol=1e-5)

  def test_what_tapers_stays_as_it_is(self):
    """It keeps averages, but normalises no batch by them."""
    module, variables = made('taper', taper_steps=(0, 9))
    variables['batch_stats']['norm1']['count'] = jnp.int32(4)
    want = module.apply(variables, X, statistics='running')
    for size in (0.0, 16.0):
      y = adapted(module, variables, size)
      np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)

  def test_norms_of_flax_and_those_in_their_place(self):
    foreign = models.adapt(Foreign(), shape=X.shape[1:])
    swapped = models.replace_norms(foreign, 'l2')
    mask = jnp.arange(6) < 4
    for module, name in ((foreign, 'batch'), (swapped, 'l2')):
      ours, variables = made(name)
      for size in (0.0, 16.0):
        want = adapted(ours, variables, size, X, mask)[:4]
        y = adapted(module, variables, size, X, mask)[:4]
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)

  def test_a_norm_that_hands_nothing_out(self):
    module = Net(norms.Norm(lambda name: Unknown(name=name), bias_before=True))
    variables = models_small.variables(module, X.shape[1:])
    want = module.apply(variables, X, statistics='batch')
    np.testing.assert_allclose(adapted(module, variables, 0.0), want, atol=1e-6)
    with self.assertRaisesRegex(ValueError, 'norm1 keeps .*nobody here knows'):
      adapted(module, variables, 16.0)


if __name__ == '__main__':
  absltest.main()
