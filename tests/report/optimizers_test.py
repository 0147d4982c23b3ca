"""What the page says of optimizers: where 2 / rate means something."""

import math

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report.results import curves, optimizers, statistics
from tests.fixtures import (
  hand_made,
  strict,  # noqa: F401
)

SGD = {'optimizer': {'name': 'sgd', 'momentum': 0.0, 'nesterov': False}}


def with_(**changes):
  return {**SGD, **changes}


def momentum(m, nesterov=False):
  return {'optimizer': {'name': 'sgd', 'momentum': m, 'nesterov': nesterov}}


class EdgeTest(parameterized.TestCase):
  @parameterized.parameters(
    (SGD, 2.0), ({}, 2.0), (momentum(0.9), 3.8),
    (momentum(0.9, nesterov=True), 3.8 / 2.8),
    (with_(rates={}, trainable='all', clip_norm=None), 2.0),
    (with_(clip_norm=1.0), None), (with_(trainable='*norm*'), None),
    (with_(rates={'*': 2.0}), None),
    ({'optimizer': {'name': 'adamw'}}, None),
    ({'optimizer': {'name': 'sam', 'momentum': 0.0}}, None),
  )  # fmt: skip
  def test_of_a_config(self, config, want):
    self.assertEqual(optimizers.edge(config), want)

  @parameterized.parameters(
    (0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)
  )
  def test_is_where_training_on_a_parabola_becomes_unstable(self, m, nesterov):
    """x -> curvature x, at a rate of 0.1: stable below, unstable above."""
    edge = optimizers.edge(momentum(m, nesterov)) / 0.1
    for factor, is_stable in ((0.98, True), (1.02, False)):
      x, trace, largest = 1.0, 0.0, []
      for _ in range(4000):
        g = factor * edge * x
        trace = m * trace + g
        x -= 0.1 * (g + m * trace if nesterov else trace)
        largest.append(abs(x))
        if abs(x) > 1e6:
          break
      self.assertEqual(largest[-1] < 1e-3, is_stable, factor)


class PageTest(absltest.TestCase):
  def run_of(self, name, config):
    seed = hand_made.seed(rate=0.1, along=((0,), {'beta': [[20.0]]}))
    seed.manifest['config'] |= config
    return curves.Run(name, (seed,))

  def test_what_captions_say(self):
    runs = [
      self.run_of('plain', SGD), self.run_of('heavy', momentum(0.9)),
      self.run_of('a', {'optimizer': {'name': 'adamw'}}),
      self.run_of('b', {'optimizer': {'name': 'adamw'}}),
      self.run_of('slow', with_(rates={'*': 0.5})),
    ]  # fmt: skip
    self.assertEqual(
      optimizers.of_edge(runs),
      [
        'heavy: trained with momentum, stable up to a curvature of 3.8 / '
        '(learning rate), not of 2 / (learning rate).',
        'a, b: trained by adamw, for which 2 / (learning rate) is no edge of '
        'stability, and none is defined.',
        "slow: trained by sgd with rates {'*': 0.5}, for which 2 / (learning "
        'rate) is no edge of stability, and none is defined.',
      ],
    )
    self.assertEqual(
      optimizers.of_rates(runs),
      'The effective learning rate is not defined for a (adamw), b (adamw), '
      'whose updates are no sums of gradients times the rate: the angle '
      'tells.',
    )
    self.assertEmpty(optimizers.of_edge(runs[:1]))
    self.assertEqual(optimizers.of_rates(runs[:2]), '')

  def test_the_records_say_whether_there_is_an_effective_rate(self):
    """A user's function may return ours; its name does not tell."""
    measured = {'conv1/weight_norm': [1.0]}
    rate = {'conv1/effective_learning_rate': [0.1]}
    for values, is_said in ((measured, True), (measured | rate, False)):
      seed = hand_made.seed(weights=((0,), values))
      seed.manifest['config']['optimizer'] = {'name': 'a:b'}
      said = optimizers.of_rates([curves.Run('own', (seed,))])
      self.assertEqual('not defined for own (a:b)' in said, is_said)

  def test_the_edge_in_claims(self):
    """A beta of 20 at a rate of 0.1."""
    for config, want in (
      (SGD, 1.0), (momentum(0.9), 2 / 3.8),
      ({'optimizer': {'name': 'adamw'}}, math.nan),
    ):  # fmt: skip
      (seed,) = self.run_of('one', config).seeds
      got = statistics.beta_of_rate(seed, name='along', reduce='mean')
      np.testing.assert_allclose(got, want)


if __name__ == '__main__':
  absltest.main()
