import math
import re

import numpy as np
from absl.testing import absltest, parameterized

from bn_jax.report import notices, summary
from bn_jax.report.results import conditions, curves, pairs
from tests.fixtures import (
  hand_made,
  strict,  # noqa: F401
)

TEST = {'name': 'evaluation', 'data': 'test', 'every_steps': 10}
# Student's t of 2 degrees of freedom at 97.5 %: (2p - 1) / sqrt(2p (1 - p)).
T2 = 0.95 / math.sqrt(2 * 0.975 * 0.025)


def run(name, accuracies=(0.5,), losses=None, *, status='done', **config):
  """A run; accuracies and losses of the test set are one a seed."""
  losses = [1.0] * len(accuracies) if losses is None else losses
  seeds = []
  for number, (accuracy, loss) in enumerate(zip(accuracies, losses)):
    values = {'accuracy': [accuracy], 'loss': [loss]}
    seed = hand_made.seed(number, status=status, test=((10,), values))
    seed.manifest['config'] |= {
      'norm': {'name': 'none'}, 'data': {'name': 'digits'}, 'batch_size': 8,
      'measures': {'test': TEST}, **config,
    }  # fmt: skip
    seeds.append(seed._replace(manifest={'parameters': 10, **seed.manifest}))
  return curves.Run(name, tuple(seeds))


def columns(*runs):
  return {column.label: column for column in summary.columns(runs)}


def html(*runs):
  return summary.section(runs, summary.columns(runs))


class SettingsTest(parameterized.TestCase):
  def first(self, *runs):
    labels = list(columns(*runs))
    return labels[: labels.index('Steps')]

  def test_first_columns_are_what_runs_differ_in(self):
    sgd = {'optimizer': {'name': 'sgd', 'momentum': 0.0}}
    adam = {'optimizer': {'name': 'adam', 'b1': 0.9}}
    one = run('a', batch_size=8, weight_decay=0.1, ema=0.5, **sgd)
    two = run('b', batch_size=16, weight_decay=0.2, ema=0.9, **adam)
    self.assertEqual(
      self.first(one, two), ['Optimizer', 'Batch size', 'Weight decay', 'ema']
    )
    self.assertEqual(columns(one, two)['Batch size'].keys, [8, 16])
    self.assertEqual(columns(one, two)['Optimizer'].keys, ['sgd', 'adam'])
    column = columns(one, run('c', ema=None))['ema']
    self.assertEqual(column.texts, ['0.5', 'None'])
    self.assertFalse(column.has_texts)

  def test_runs_that_do_not_differ_have_norm_and_rate(self):
    for runs in ((run('a'),), (run('a'), run('b', measures={}))):
      self.assertEqual(self.first(*runs), ['Norm', 'Learning rate'])

  def test_keywords_are_compared_beside_the_same_constructor(self):
    runs = [
      run('a', norm={'name': 'batch', 'epsilon': 1e-5}),
      run('b', norm={'name': 'layer', 'epsilon': 1e-6}),
      run('c'),
    ]
    self.assertEqual(conditions.varied(runs), ['norm.name'])
    runs.append(run('d', norm={'name': 'batch', 'epsilon': 1e-3}))
    self.assertEqual(self.first(*runs), ['Norm', 'norm.epsilon'])
    texts = columns(*runs)['norm.epsilon'].texts
    self.assertEqual(texts, ['1e-05', '1e-06', '', '0.001'])

  def test_a_schedule_without_a_rate_is_named(self):
    own = run('own', schedule={'name': 'my:own'})
    column = columns(run('a'), own)['Learning rate']
    self.assertEqual(column.texts, ['0.1', 'my:own'])
    self.assertTrue(column.has_texts)

  def test_the_config_is_told_once_where_runs_share_it(self):
    one, two = run('a', batch_size=8), run('b', batch_size=16)
    ((_, shared), *rest) = notices.configs([one, two])
    self.assertIn('data.name: "digits"\n', shared)
    self.assertNotIn('batch_size', shared)
    self.assertEqual(rest, [('a', 'batch_size: 8'), ('b', 'batch_size: 16')])
    ((name, alone),) = notices.configs([one])
    self.assertEqual(name, '')
    self.assertIn('batch_size: 8\n', alone)


class BestTest(absltest.TestCase):
  def best(self, label, *runs):
    return set(columns(*runs)[label].best)

  def test_accuracy_is_better_high_and_loss_low(self):
    runs = (run('a', [0.5], [0.1]), run('b', [0.9], [0.3]), run('c', [0.7]))
    self.assertEqual(self.best('Accuracy, test set', *runs), {1})
    self.assertEqual(self.best('Loss in nats, test set', *runs), {0})
    text = html(*runs)
    for cell in ('90.0 %', '0.1'):
      self.assertIn(f'<strong>{cell}</strong><span class="unseen"> (b', text)
    self.assertEqual(text.count('</strong>'), 2)

  def test_what_looks_the_same_is_as_good(self):
    runs = (run('a', [0.50001]), run('b', [0.5]), run('c', [0.4]))
    self.assertEqual(self.best('Accuracy, test set', *runs), {0, 1})
    self.assertEqual(self.best('Accuracy, test set', *runs[:2]), set())

  def test_only_whole_runs(self):
    """Neither one in training, nor one of which a seed is missing."""
    late = run('late', [0.9], status='running')
    partial = run('partial', [0.9, math.nan])
    runs = (run('a', [0.5]), run('b', [0.4]), late, partial)
    self.assertEqual(self.best('Accuracy, test set', *runs), {0})


class PairsTest(parameterized.TestCase):
  def test_differences_by_hand(self):
    a = {0: 0.9, 1: 0.8, 2: 0.85, 3: 1.0}
    b = {0: 0.7, 1: 0.75, 2: 0.72, 7: 0.0}
    interval, count = pairs.compared(a, b)
    mean = (0.2 + 0.05 + 0.13) / 3
    variance = sum((d - mean) ** 2 for d in (0.2, 0.05, 0.13)) / 2
    half = T2 * math.sqrt(variance / 3)
    self.assertEqual(count, 3)
    np.testing.assert_allclose(
      interval, (mean, mean - half, mean + half), 1e-12
    )

  def test_ratios_by_hand(self):
    """2, 8 and 4: the logarithms of base 2 are 1, 3 and 2."""
    interval, _ = pairs.compared({0: 2, 1: 8, 2: 12}, {0: 1, 1: 1, 2: 3}, True)
    half = T2 / math.sqrt(3)
    want = (4, 2 ** (2 - half), 2 ** (2 + half))
    np.testing.assert_allclose(interval, want, 1e-12)

  @parameterized.parameters(
    ({0: 1.0}, {0: 2.0}), ({0: 1.0, 1: 2.0}, {1: 1.0, 2: 3.0}),
    ({0: 1.0, 1: math.nan}, {0: 1.0, 1: 2.0}),
    ({0: 1.0, 1: math.inf}, {0: 1.0, 1: 2.0}),
  )  # fmt: skip
  def test_none_of_fewer_than_two_or_without_an_end(self, a, b):
    self.assertIsNone(pairs.compared(a, b))

  def test_on_the_page(self):
    base = run('base', [0.7, 0.75, 0.72], [1.0, 1.0, 3.0])
    other = run('other', [0.9, 0.8, 0.85], [2.0, 8.0, 12.0])
    text = html(base, other)
    self.assertIn('<summary>Against base</summary>', text)
    self.assertIn('>+12.7 % ± 18.6 %<', text)  # by hand, above
    self.assertIn('>× 4 (0.715 to 22.4)<', text)
    self.assertIn('>−12.7 % ± 18.6 %<', text)
    self.assertIn('>× 0.25 (0.0447 to 1.4)<', text)
    self.assertEqual(text.count('<details name="against" open>'), 1)

  def test_a_loss_that_is_zero_is_subtracted(self):
    text = html(run('a', [0.5] * 2, [1.0, 3.0]), run('b', [0.5] * 2, [0, 2]))
    self.assertIn('>−1 ± 0<', text)
    self.assertNotIn('>×', text)

  def test_none_without_two_seeds_that_are_done(self):
    late = run('late', [0.5, 0.6], status='running')
    for runs in (
      (run('a'), run('b')), (run('a', [0.5, 0.6]),),
      (run('a', [0.5, 0.6]), late),
    ):  # fmt: skip
      self.assertNotIn('Differences', html(*runs))


class TableTest(absltest.TestCase):
  def test_what_matters_first_and_the_rest_folded(self):
    fast = {'train': (np.arange(40), {'accuracy': np.linspace(0, 1, 40)})}
    runs = [run('a'), run('b', batch_size=16)]
    for place, one in enumerate(runs):
      seeds = tuple(s._replace(series=s.series | hand_made.seed(
        0, **fast).series) for s in one.seeds)  # fmt: skip
      runs[place] = one._replace(seeds=seeds)
    text = html(*runs)
    first, folded = text.split('<details>')
    of = r'<th scope="col"[^>]*>([^/]*)</th>'
    told = [re.sub('<wbr>', '', name) for name in re.findall(of, first)]
    self.assertEqual(told, [
      'Run', 'Batch size', 'Steps', 'Steps to 70 % training accuracy',
      'Training accuracy, last 20 batches', 'Accuracy, test set',
      'Loss in nats, test set', 'Total time',
    ])  # fmt: skip
    self.assertIn('<summary>4 further numbers</summary>', folded)
    for name in ('Seeds', 'Steps to 60 % training', 'Training time'):
      self.assertIn(f'>{name}', folded)

  def test_seeds_are_told_where_runs_have_other_numbers(self):
    first, *_ = html(run('a'), run('b', [0.5, 0.6])).split('<details>')
    self.assertIn('>Seeds</th>', first)

  def test_what_a_script_sorts_by(self):
    text = html(run('a', [0.5]), run('<b>"', [math.nan], batch_size=16))
    self.assertIn('<table class="summary">', text)
    self.assertIn('<th scope="col" data-sort="text">Run</th>', text)
    self.assertIn('data-sort="number" data-better="high">Accuracy, test', text)
    self.assertIn('<td class="number" data-value="0.5">50.0 %</td>', text)
    self.assertIn('<td class="number" data-value="">not measured</td>', text)
    # No step reached any accuracy.
    self.assertIn('<td class="number" data-value="Infinity">never</td>', text)
    self.assertIn('data-value="&lt;b&gt;&quot;">&lt;b&gt;&quot;</th>', text)

  def test_numbers_are_plain(self):
    runs = [run('a', [0.5, 0.25], [1e-20, math.nan]), run('b', batch_size=16)]
    rows = summary.numbers(runs, summary.columns(runs))
    self.assertEqual(rows[0], ('run', 'seed', 'quantity', 'value'))
    self.assertIn(('a', 1, 'Accuracy, test set', '0.25'), rows)
    self.assertIn(('a', 0, 'Loss in nats, test set', '1e-20'), rows)
    self.assertIn(('a', 1, 'Loss in nats, test set', 'nan'), rows)
    self.assertIn(('b', 0, 'Batch size', '16'), rows)
    for *_, value in rows[1:]:
      self.assertIsNotNone(re.fullmatch(r'nan|inf|[\d.e-]+', value), value)


if __name__ == '__main__':
  absltest.main()
