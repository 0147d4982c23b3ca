"""Analyses that are broken off at any point, and go on to the same bits."""

import functools
import itertools
import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis, losses, types
from bn_jax.analysis import gradients
from bn_jax.data.batches import in_memory
from bn_jax.storage import journal
from tests.fixtures import regression as regressions
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)

FUNCTIONS = ('along_gradient', 'covariate_shift', 'one_step_loss', 'weights')
MEASURES = {
  'along_gradient': {'direction': 'update', 'step_factors': (1.0,)},
  'covariate_shift': {},
  'one_step_loss': {'learning_rates': (0.1,)},
  'weights': {},
}


class Killed(Exception):
  pass


class Journal(dict):
  """A `types.Journal` in memory, which ends the process that keeps in it.

  Attributes:
    left: how many times it keeps something before that; None: for ever.
    stores_last: whether what is to be kept at the end is still stored.
  """

  left = None
  stores_last = True

  def kept(self, name):
    return self.get(name)

  def keep(self, name, arrays):
    if self.left is not None:
      self.left -= 1
    ends = self.left == 0
    if not ends or self.stores_last:
      self[name] = {key: np.array(value) for key, value in arrays.items()}
    if ends:
      raise Killed

  def drop(self, name):
    self.pop(name, None)


class Counted:
  """A function that counts how often it is called."""

  def __init__(self, function):
    self.function, self.calls = function, 0

  def __call__(self, *arguments):
    self.calls += 1
    return self.function(*arguments)


def counting():
  """(what counts gradients, products and values, while it is entered)."""
  names = ('_value', '_value_and_gradient', '_product')
  counted = [Counted(getattr(gradients, name)) for name in names]
  patches = [
    mock.patch.object(gradients, name, function)
    for name, function in zip(names, counted)
  ]
  return counted, patches


def line():
  """(Problem, state, batch) of a linear regression: compiled in no time."""
  made = regressions.made_of(
    regressions.Line(),
    loss=losses.squared_error(reduction='mean'),
    group_size=1,
    image_shape=(3,),
  )
  generator = np.random.default_rng(0)
  batch = types.Batch(
    jnp.asarray(generator.normal(size=(10, 3)), jnp.float32),
    jnp.asarray(generator.normal(size=(10, 2)), jnp.float32),
  )
  return made, made.init(0), [batch]


@functools.cache
def looks():
  """name -> journal -> its arrays; compiled once for all tests."""
  error, batch, params = regressions.regression()
  loss = analysis.chunked(
    error, batch, chunk_size=4, group_size=1
  )  # three of them
  new = jax.tree.map(lambda w: w + 0.1 * jnp.cos(w), params)
  layers = regressions.LAYERS
  functions = {
    'along_gradient': lambda journal: analysis.along_gradient(
      loss,
      params,
      (0.1, 0.5),
      layers=layers,
      curvature=True,
      journal=journal,
    ),
    'covariate_shift': lambda journal: analysis.covariate_shift(
      loss, params, new, layers, journal=journal
    ),
    'one_step_loss': lambda journal: analysis.one_step_loss(
      loss, params, (0.1, 0.5), journal=journal
    ),
    'weights': lambda journal: analysis.weights(
      loss, params, new, layers, 0.1, journal=journal
    ),
  }
  measures = {
    f'measure_{name}': functools.partial(
      analysis.make(name, chunk_size=4, **keywords), *line()
    )
    for name, keywords in MEASURES.items()
  }
  return functions | measures


class ChunksTest(parameterized.TestCase):
  def looked(self, look, journal, then=None):
    """(what it finds, in how many calls), going on as often as it is ended.

    It is ended after it has kept so many things: journal.left the first time,
    `then` at all later ones.
    """
    counted, patches = counting()
    with patches[0], patches[1], patches[2]:
      for _ in range(30):
        try:
          found = look(journal)
          return found, sum(function.calls for function in counted)
        except Killed:
          journal.left = then
    self.fail('it does not get on')

  @parameterized.parameters(
    *FUNCTIONS, *(f'measure_{name}' for name in MEASURES)
  )
  def test_goes_on_to_the_same_bits(self, name):
    look = looks()[name]
    whole, calls = self.looked(look, None)
    journal = Journal()
    journal.left = 1_000
    self.looked(look, journal)
    times = 1_000 - journal.left
    self.assertGreaterEqual(times, 3)
    for stores_last in (True, False):
      for left in range(1, times + 1):
        journal = Journal()
        journal.left, journal.stores_last = left, stores_last
        got, again = self.looked(look, journal)
        same_bits.assert_same(got, whole)
        # What was kept is not computed again; else one chunk is, at most.
        self.assertLessEqual(again, calls + (not stores_last))

  def test_ended_every_time_it_keeps_something(self):
    look = looks()['along_gradient']
    whole, calls = self.looked(look, None)
    # Three chunks of the point itself, of two more, and of the product.
    self.assertEqual(calls, 12)
    journal = Journal()
    journal.left = 1
    got, again = self.looked(look, journal, then=1)
    self.assertEqual(again, calls)
    same_bits.assert_same(got, whole)

  def test_what_is_known_is_not_computed(self):
    for name, look in looks().items():
      journal = Journal()
      whole, _ = self.looked(look, journal)
      got, calls = self.looked(look, journal)
      self.assertEqual(calls, 0, name)
      same_bits.assert_same(got, whole)


class BatchesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('activations', 'activations', {'statistics': 'running'}),
    ('evaluation', 'evaluate', {}),
  )
  def test_goes_on_to_the_same_bits(self, name, function, keywords):
    made = toys.classifier('batch')
    state, look = made.init(0), analysis.make(name, **keywords)
    # 8, 8 and 4 examples.
    batches = lambda: in_memory.padded_batches(toys.split(), batch_size=8)
    whole = look(made, state, batches())
    for stores_last, left in itertools.product((True, False), (1, 2, 3)):
      counted, journal = Counted(getattr(made, function)), Journal()
      journal.left, journal.stores_last = left, stores_last
      counting = made._replace(**{function: counted})
      with self.assertRaises(Killed):
        look(counting, state, batches(), journal)
      journal.left = None
      got = look(counting, state, batches(), journal)
      self.assertEqual(counted.calls, 3 + (not stores_last))
      same_bits.assert_same(got, whole)


class DiskTest(absltest.TestCase):
  def test_half_precision_comes_back(self):
    """NumPy's files know no bfloat16."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    params = {'w': jnp.asarray([1.0, 2.0, 3.0], jnp.bfloat16)}
    loss = lambda p: jnp.sum(p['w'] ** 3)
    look = functools.partial(analysis.along_gradient, loss, params)
    disk = journal.Journal(folder / 'kept')
    look([0.1], journal=disk)
    got = look([0.1, 0.2], journal=disk)
    want = look([0.1, 0.2])
    same_bits.assert_same(got, want)


if __name__ == '__main__':
  absltest.main()
