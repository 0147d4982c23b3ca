import contextlib
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized
from flax import linen as nn

from bn_jax import __main__, norms
from bn_jax.trained import statements
from tests.fixtures import commanded, strict

_TINY = '--config=tests/fixtures/tiny_config.py'
_ROWS = (
  *statements.AT_ZERO,
  *statements.AT_EPSILON,
  *statements.OF_WEIGHTS,
)


class CommandTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))

  def main(self, *words):
    """(exit code, stdout, stderr) of `python -m bn_jax theory`."""
    return commanded.run('theory', *words)

  def test_help(self):
    code, printed, _ = self.main('--help')
    self.assertEqual(code, 0)
    for flag in ('--config', '--only', '--data_dir', '--units', '--steps'):
      self.assertIn(flag, printed)

  def test_it_is_a_command(self):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      self.assertEqual(__main__.main(['bn_jax', '--help']), 0)
    self.assertIn(
      'theory     computes both sides of each theorem', printed.getvalue()
    )

  def test_another_network_is_left_out(self):
    code, printed, _ = self.main(_TINY, '--only=standard')
    self.assertEqual((code, printed.count('\n')), (0, 2))
    self.assertStartsWith(printed, 'standard: norm none; the theory is about')

  @pytest.mark.slow
  def test_the_table_of_a_small_network(self):
    code, printed, said = self.main(
      _TINY, '--units=2', '--steps=2', '--config.norm.group_size=8'
    )
    self.assertEqual(code, 0, said)
    self.assertStartsWith(printed, 'standard: norm none; ')
    self.assertRegex(
      ' '.join(printed.split()),
      'after step 2 of seed 0; .* batch of 16, in float64, .* after conv1, '
      'conv5, conv8. ',
    )
    holds = re.findall(r'(\d+) of (\d+)  ', printed)
    self.assertLen(holds, len(_ROWS))
    for (name, title, _), (number, units) in zip(_ROWS, holds):
      with self.subTest(title):
        self.assertEqual(units, '1' if name in ('lemma_4_5', 'factor') else '6')
        if name not in ('theorem_4_2_line_2', 'condition', 'improvement'):
          self.assertEqual(number, units)
    worst = re.findall(r' = .* of \d+ +(\S+)\n', printed)
    self.assertLess(max(map(float, worst)), 1e-12)
    self.assertLess(max(map(len, printed.split('\n'))), 101)


class TableTest(absltest.TestCase):
  def outcome(self, *numbers):
    return [
      statements.Outcome(left, right, difference, holds)
      for left, right, difference, holds in numbers
    ]

  def line(self, numbers):
    of = {name: numbers for name, *_ in _ROWS}
    table = statements.table(of, of, 1e-5, of)
    return next(line for line in table.split('\n') if 'Fact C.2' in line)

  def test_the_worst_unit_is_shown(self):
    line = self.line(
      self.outcome((1.0, 1.0, 0.0, True), (2.0, 3.0, 0.5, False),
                 (4.0, 4.0, 1e-16, True))
    )  # fmt: skip
    self.assertRegex(line, r'2\.000e\+00 +3\.000e\+00 +2 of 3 +5e-01$')

  def test_what_is_no_number_is_the_worst(self):
    line = self.line(
      self.outcome((1.0, 1.0, 9.0, False), (np.nan, 1.0, np.nan, False))
    )
    self.assertRegex(line, r'nan +1\.000e\+00 +0 of 2 +nan$')

  def test_no_units(self):
    self.assertRegex(self.line([]), 'no unit whose input varies$')

  def test_it_fits(self):
    of = {name: self.outcome((-1.0, -1.0, -1.0, True)) for name, *_ in _ROWS}
    table = statements.table(of, of, 1e-5, of) + statements.LEGEND
    widths = [len(line) for line in table.split('\n')]
    self.assertLessEqual(max(widths), statements.WIDTH)

  def test_every_title_is_said_once_in_a_part(self):
    for rows in (statements.AT_ZERO, statements.AT_EPSILON):
      names = [name for name, *_ in rows]
      self.assertLen(set(names), len(names))


class UnitsTest(absltest.TestCase):
  def test_units_that_vary_are_looked_at_evenly(self):
    """A unit of a constant input has no variance to divide by."""

    class Net(nn.Module):
      @nn.compact
      def __call__(self, x):
        x = nn.Dense(5, dtype=x.dtype, name='dense')(x)
        x = norms.make('batch').layer('norm')(x, statistics='batch')
        return nn.Dense(1, dtype=x.dtype, name='logits')(nn.tanh(x))

    with jax.enable_x64(True):
      x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)))
      variables = jax.jit(Net().init)(jax.random.key(0), x)
      params = jax.tree.map(lambda p: p.astype(float), variables['params'])
      kernel = params['dense']['kernel'].at[:, 2].set(0)
      params['dense'] = {'kernel': kernel, 'bias': jnp.full(5, 3.7)}

      def loss(params):
        y, _ = Net().apply(
          {'params': params, 'batch_stats': variables['batch_stats']}, x,
          mutable=['batch_stats'],
        )  # fmt: skip
        return (y**2).sum()

      network = statements.Network(loss, params, {'norm': 'dense'})
      at_zero, at_own, epsilon = statements.of_units(
        network, units=3, key=jax.random.key(0)
      )
    self.assertEqual(epsilon, 1e-5)
    for found in (at_zero, at_own):
      self.assertLen(found['fact_c1'], 3)
      self.assertTrue(all(one.holds for one in found['fact_c1']))
    # The layer is what it computes with its own epsilon, and not with 0.
    self.assertTrue(all(one.holds for one in at_own['algorithm_1']))
    self.assertFalse(any(one.holds for one in at_zero['algorithm_1']))


if __name__ == '__main__':
  absltest.main()
