import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import analysis
from bn_jax.analysis import by_layer
from tests.fixtures import (
  same_bits,
  strict,  # noqa: F401
  toys,
)

TREE = {
  'conv1': {'kernel': jnp.array([3.0, 4.0]), 'bias': jnp.array(12.0)},
  'conv1_norm': {'scale': jnp.array([84.0])},
  'conv10': {'kernel': jnp.array([5.0])},
  'conv2': {'kernel': jnp.array([7.0])},
}


class Pair(NamedTuple):
  first: jax.Array
  second: dict


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Block:
  """A tree of parameters that can be called, as modules of Equinox are."""

  weight: jax.Array
  rest: dict

  def __call__(self, x):
    return x @ self.weight


class NormsTest(parameterized.TestCase):
  def test_of_each_layer_in_the_order_given(self):
    layers = by_layer.checked(
      TREE,
      (
        ('conv2', ('conv2',)),
        ('conv1', ('conv1', 'conv1_norm')),
        ('conv10', ('conv10',)),
      ),
    )
    want = [7.0, np.sqrt(3**2 + 4**2 + 12**2 + 84**2), 5.0]
    np.testing.assert_allclose(by_layer.norms(TREE, layers), want, rtol=1e-6)
    twice = jax.tree.map(lambda x: 2 * x, TREE)
    np.testing.assert_allclose(
      by_layer.vdots(TREE, twice, layers), 2 * np.square(want), rtol=1e-6
    )

  def test_a_prefix_is_whole_words(self):
    layers = by_layer.checked(TREE, (('conv1', ('conv1',)),))
    np.testing.assert_allclose(by_layer.norms(TREE, layers), [13.0], rtol=1e-6)

  def test_a_path_may_be_a_leaf(self):
    layers = by_layer.checked(TREE, (('weights', ('conv1/kernel',)),))
    np.testing.assert_allclose(by_layer.norms(TREE, layers), [5.0], rtol=1e-6)

  @parameterized.named_parameters(
    ('list', [jnp.ones(4), [jnp.ones(9), jnp.ones(25)]], '1', '1/1'),
    ('tuple', (jnp.ones(4), (jnp.ones(9), jnp.ones(25))), '1', '1/1'),
    (
      'attributes',
      Pair(jnp.ones(4), {'a': jnp.ones(9), 'b': jnp.ones(25)}),
      'second',
      'second/b',
    ),
    (
      'dataclass',
      Block(jnp.ones(4), {'a': jnp.ones(9), 'b': jnp.ones(25)}),
      'rest',
      'rest/b',
    ),
    (
      'nested',
      {'net': [Pair(jnp.ones(4), {1: jnp.ones(9), 2: jnp.ones(25)})]},
      'net/0/second',
      'net/0/second/2',
    ),
  )
  def test_trees_of_all_kinds(self, tree, branch, leaf):
    for path, want in ((branch, np.sqrt(34)), (leaf, 5.0)):
      layers = by_layer.checked(tree, (('one', (path,)),))
      np.testing.assert_allclose(by_layer.norms(tree, layers), want, rtol=1e-6)

  def test_a_bare_array_is_a_layer_without_a_path(self):
    layers = by_layer.checked(jnp.full(4, 2.0), (('all', ('',)),))
    np.testing.assert_allclose(by_layer.norms(jnp.full(4, 2.0), layers), 4.0)


class MovedTest(absltest.TestCase):
  def test_takes_the_new_values_of_these_layers_alone(self):
    new = jax.tree.map(lambda x: x + 1, TREE)
    layers = (('conv1', ('conv1/kernel', 'conv1_norm')), ('conv2', ('conv2',)))
    got = by_layer.moved(TREE, new, layers)
    want = {
      'conv1': {'kernel': jnp.array([4.0, 5.0]), 'bias': jnp.array(12.0)},
      'conv1_norm': {'scale': jnp.array([85.0])},
      'conv10': {'kernel': jnp.array([5.0])},
      'conv2': {'kernel': jnp.array([8.0])},
    }
    self.assertEqual(jax.tree.structure(got), jax.tree.structure(want))
    same_bits.assert_same(got, want)
    np.testing.assert_array_equal(
      toys.flat(by_layer.moved(TREE, new, ())), toys.flat(TREE)
    )


class CheckedTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('none', (), 'no layers; give'),
    (
      'twice',
      (('a', ('conv1',)), ('a', ('conv2',))),
      "layer 'a' is given twice",
    ),
    (
      'shared',
      (('a', ('conv1',)), ('b', ('conv2', 'conv1/bias'))),
      "parameter 'conv1/bias' is in layer 'a' and in 'b'",
    ),
    (
      'near',
      (('a', ('conv2/kernl',)),),
      "layer 'a' has no parameters: unknown path 'conv2/kernl'; did you mean "
      "'conv2/kernel'",
    ),
    ('part_of_a_word', (('a', ('conv',)),), "unknown path 'conv'"),
    ('letters', (('a', 'conv1'),), r"the string 'conv1'; give \('conv1',\)"),
  )
  def test_refuses(self, layers, said):
    with self.assertRaisesRegex(ValueError, said) as caught:
      by_layer.checked(TREE, layers)
    self.assertNotIn('\n', str(caught.exception))

  def test_chosen_are_in_forward_order(self):
    layers = tuple((f'layer{i}', (f'w{i}',)) for i in (1, 2, 10))
    self.assertEqual(by_layer.chosen(layers, ('layer10', 'layer2')), layers[1:])
    with self.assertRaisesRegex(
      ValueError, "unknown layer 'layer3'; did you mean 'layer[12]"
    ):
      by_layer.chosen(layers, ('layer3',))


class DirectionTest(absltest.TestCase):
  def test_a_tree_that_can_be_called_is_a_direction(self):
    """Parameters of some libraries are modules, and so are like them."""
    params = Block(jnp.array([1.0, 2.0]), {'b': jnp.array([3.0])})
    along = Block(jnp.array([1.0, 0.0]), {'b': jnp.array([0.0])})

    def loss(block):
      return 0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(block))

    for function in (analysis.along_gradient, analysis.one_step_loss):
      got = function(loss, params, [1.0], along)
      np.testing.assert_allclose(got['loss'], 6.5)
      got = function(loss, params, [1.0], lambda gradient: gradient)
      np.testing.assert_allclose(got['loss'], 0.0)
      got = function(lambda x: 0.5 * x @ x, jnp.ones(4), [1.0], lambda g: g)
      np.testing.assert_allclose(got['loss'], 0.0)


if __name__ == '__main__':
  absltest.main()
