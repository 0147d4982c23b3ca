"""What the page's script is told."""

import base64
import gzip
import json

import numpy as np
from absl.testing import absltest

from bn_jax.report.drawing import interactive, record
from tests.fixtures import answering


def told(figure):
  """(arrays, all else) of a figure, as the script reads it."""
  kind, text = interactive.encoded(figure)
  if kind == 'gzip':
    text = gzip.decompress(base64.b64decode(text)).decode()
  return [json.loads(part) for part in text.split('\n')]


def figure(of_page, *curves, **keywords):
  mark = record.Lines(0, 'loss', curves, **keywords)
  panel = record.Panel(record.STEPS, record.Axis('L', 'loss', True), (mark,))
  keys = record.keys_of(enumerate(of_page))
  return record.Figure('f', '</script>', '', ((panel,),), keys)


class InteractiveTest(absltest.TestCase):
  def test_numbers_are_those_of_the_tables(self):
    draw = np.random.default_rng(0)
    sizes = 10.0 ** draw.uniform(-40, 40, 2000)
    y = np.concatenate([draw.standard_normal(2000) * sizes, [0, 5, 1e20]])
    y = np.concatenate([y, [np.nan, np.inf]])
    curve = record.Curve(0, np.arange(len(y)), y, y)
    arrays, data = told(figure(answering.runs(['a']), curve))
    seed = data['rows'][0][0]['marks'][0]['seeds'][0]
    x, y_of_seed = arrays[seed['x']['$']], arrays[seed['y']['$']]
    self.assertGreater(len(x), 900)
    for place, number in zip(x, y_of_seed):
      exact = y[place]
      self.assertEqual(
        number, float(f'{exact:.6g}') if np.isfinite(exact) else None
      )

  def test_a_long_line_has_its_extremes_and_means_of_parts(self):
    y = np.ones(15_000)
    y[7777] = 99
    curve = record.Curve(0, np.arange(15_000), y)
    arrays, data = told(figure(answering.runs(['a']), curve))
    seed = data['rows'][0][0]['marks'][0]['seeds'][0]
    self.assertIn(99, arrays[seed['y']['$']])
    self.assertEqual(seed['size'], 30)
    means = arrays[seed['y_bins']['$']]
    self.assertLen(means, 500)
    self.assertAlmostEqual(means[7777 // 30], 1 + 98 / 30, 4)
    self.assertEqual(arrays[seed['x_bins']['$']][:2], [29, 59])

  def test_nothing_ends_the_data_early(self):
    curve = record.Curve(0, np.arange(2), np.ones(2))
    of_page = answering.runs(['<!--<b>'])
    kind, text = interactive.encoded(figure(of_page, curve))
    self.assertEqual(kind, 'json')
    self.assertNotIn('<', text)
    self.assertNotIn('<', interactive.runs(answering.runs(['</script>', 'a'])))

  def test_runs_are_told_apart_by_what_differs(self):
    facts = json.loads(interactive.runs(answering.runs(list('abcdef'), 1)))
    groups = dict(facts['groups'])
    self.assertEqual(
      groups['norm'],
      [['batch', ['a', 'd']], ['group', ['b', 'e']], ['none', ['c', 'f']]],
    )
    self.assertNotIn('batch_size', groups)
    self.assertEqual(facts['by'], '')
    self.assertEqual(facts['units'][1], 'Epoch')
    # 120 steps take a second, and an epoch is ten batches.
    self.assertEqual(facts['runs'][0]['units'], [1, 0.1, 64, 0.00833333])
    many = json.loads(interactive.runs(answering.runs(list('abcdefghijkl'))))
    self.assertEqual(many['by'], 'schedule.learning_rate')


if __name__ == '__main__':
  absltest.main()
