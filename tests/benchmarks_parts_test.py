"""Tests what benchmarks count without timing anything.

How `train_step` counts work, and which operation is of which part; which curves
`rounding` compares.
"""

import contextlib
import io
import math
import sys

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized

from bn_jax import models
from tests.fixtures import made_up, scratch, strict

sys.path.append(str(strict.ROOT / 'benchmarks'))  # as benchmarks do

import rounding
import train_step_networks as networks
import train_step_parts as parts


class WorkTest(parameterized.TestCase):
  @parameterized.parameters(*networks.CASES)
  def test_networks_have_our_parameters(self, name):
    case = networks.CASES[name]
    work = parts.Work()
    logits = case.forward(work, (2, case.side, case.side, 3))
    self.assertEqual(logits, (2, case.classes))
    module = models.make(**case.model, num_classes=case.classes, norm='batch')
    x = jnp.zeros((1, case.side, case.side, 3))
    shapes = jax.eval_shape(
      lambda: module.init(jax.random.key(0), x, statistics='running')
    )
    sizes = [
      math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes['params'])
    ]
    self.assertEqual(work.params, sum(sizes))

  # Of three forward passes of an image: 2 FLOPs a multiplication.
  @parameterized.parameters(('vgg11', 0.92e9), ('vgg16', 1.88e9))
  def test_flops(self, name, expected):
    work = parts.Work()
    networks.CASES[name].forward(work, (1, 32, 32, 3))
    self.assertBetween(work.flops, 0.98 * expected, 1.02 * expected)

  def test_bytes_and_seconds(self):
    work = parts.Work()
    x = work.normalised((2, 4, 4, 3), 'conv2', 5, 3, 2)
    self.assertEqual(x, (2, 2, 2, 5))
    x = work.max_pool(x, 2, 2)
    self.assertEqual(x, (2, 1, 1, 5))
    # Of 40 numbers 9 passes; of 40 and 10 numbers 2; of 145 parameters 5.
    seconds = work.seconds(flops=3.0, bandwidth=4.0)
    self.assertEqual(seconds['norm'], 40 * 9)
    self.assertEqual(seconds['pooling'], 50 * 2)
    self.assertEqual(seconds['update'], 145 * 5)
    self.assertEqual(seconds['convolution'], 2 * 8 * 27 * 5)


class PartTest(parameterized.TestCase):
  @parameterized.parameters(
    ('jit(step)/jvp(VGG)/conv1/dot_general', 'convolution'),
    ('jit(step)/transpose(jvp(Inception))/mixed_3a/bd3x3_1/pad', 'convolution'),
    ('jit(step)/transpose(jvp(ResNet))/logits/dot_general', 'convolution'),
    ('jit(step)/jvp(VGG)/conv1_norm/conv1_norm.transformed/add', 'norm'),
    ('jit(step)/jvp(VGG)/nonlinearity/jit(relu)/max', 'nonlinearity'),
    ('jit(step)/transpose(jvp(VGG))/pooling/select_n', 'pooling'),
    ('jit(step)/jvp(ResNet)/stage1_block1/sum/add', 'rest'),
    ('jit(step)/mul', 'update'),
  )
  def test_of_an_operation(self, operation, part):
    self.assertEqual(parts._part(operation), part)


class CurvesTest(absltest.TestCase):
  """The loss falls by a tenth in a tenth of the steps to `reaches`."""

  def setUp(self):
    super().setUp()
    self.folder = scratch.folder(self)
    for name, seed, reaches in (
      ('a', 0, 10), ('a', 1, 100), ('a', 2, 100), ('b', 1, 50), ('b', 2, 50),
      ('c', 7, 50),
    ):  # fmt: skip
      made_up.run(
        self.folder / name / 'run' / f'seed{seed}',
        seed=seed,
        reaches=reaches,
        accuracy=False,
        measures=False,
        steps=20,
      )

  def test_compares_the_seeds_that_both_have(self):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      rounding._compare(self.folder / 'a', self.folder / 'b')
    # The mean over steps 0 to 19 of t log(1 / 0.9) (10 / 50 - 10 / 100).
    apart = 9.5 * 0.1 * math.log(1 / 0.9)
    row = f'| run | {apart:.3f} to {apart:.3f} | 0.000 to 0.000 |'
    self.assertEqual(printed.getvalue().splitlines()[-1], row)

  def test_refuses_folders_without_one_in_common(self):
    with self.assertRaisesRegex(SystemExit, 'no seed of a run in common'):
      rounding._compare(self.folder / 'a', self.folder / 'c')


if __name__ == '__main__':
  absltest.main()
