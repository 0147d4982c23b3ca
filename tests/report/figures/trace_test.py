"""The figure of the trace with its interval, and its rows of the summary."""

import pathlib

import numpy as np
from absl.testing import absltest
from matplotlib import collections

from bn_jax.report import summary
from bn_jax.report.figures import trace
from bn_jax.report.results import read
from tests.fixtures import made_up, pictures

_SECTION = {
  'name': 'trace', 'data': 'train:64', 'matrix': 'hessian', 'method': 'xtrace',
  'penalised': False, 'layers': ['conv1'],
}  # fmt: skip


def _look(value, squared=False, layer=False):
  """An estimate with an error of 1 and an interval of 2 around it."""
  found = {
    'trace': value, 'standard_error': 1.0, 'low': value - 2.0,
    'high': value + 2.0, 'products': 30,
  }  # fmt: skip
  if squared:
    found |= {
      f'squared_{name}': 2 * x for name, x in found.items() if 'p' not in name
    }
  if layer:
    found |= {
      f'conv1/{name}': x for name, x in found.items() if 'p' not in name
    }
  return found


class TraceTest(absltest.TestCase):
  def runs(self, of, steps=(0, 10), seeds=(0, 1)):
    folder = pathlib.Path(self.create_tempdir().full_path) / 'w'
    made_up.workdir(folder, seeds, batchnorm={})
    for seed in seeds:
      looks = {step: of(seed, step) for step in steps}
      place = folder / 'batchnorm' / f'seed{seed}'
      made_up.analysis(place, 'trace', _SECTION, looks)
    return read.runs([folder])

  def test_the_mean_of_seeds_with_bars_from_low_to_high(self):
    made = pictures.of(
      trace.figure, self.runs(lambda seed, step: _look(10.0 + step + seed))
    )
    (axis,) = pictures.axes(made)
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [10.5, 20.5])
    (bars,) = [
      one for one in axis.collections
      if isinstance(one, collections.LineCollection)
    ]  # fmt: skip
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[8.5, 12.5], [18.5, 22.5]])
    for words in ('data loss, without penalty', 'XTrace', 'Bars: 95 %',
                  'of one network'):  # fmt: skip
      self.assertIn(words, made.caption)
    first = {
      row['quantity']: row['value']
      for row in pictures.rows(made, run='batchnorm', seed=0, step=0)
    }
    self.assertEqual(
      first,
      {'trace': '10', 'interval_min': '8', 'interval_max': '12',
       'standard_error': '1', 'products': '30'},
    )  # fmt: skip

  def test_a_panel_a_square_and_a_layer_and_a_logarithm_where_wide(self):
    of = lambda seed, step: _look(10.0 + 100 * step, squared=True, layer=True)
    made = pictures.of(trace.figure, self.runs(of, seeds=(0,)))
    axes = pictures.axes(made)
    self.assertEqual(
      [axis.get_title() for axis in axes],
      ['Trace', 'Trace, conv1', 'Trace of the square',
       'Trace of the square, conv1'],
    )  # fmt: skip
    self.assertEqual([axis.get_yscale() for axis in axes], ['log'] * 4)
    self.assertIn('squares', made.caption)
    for panel in ('', 'conv1'):
      of = {'panel': panel, 'step': 10}
      self.assertEqual(pictures.values(made, quantity='trace', **of), [1010])
      ends = ('squared_interval_min', 'squared_interval_max')
      got = [pictures.values(made, quantity=end, **of) for end in ends]
      self.assertEqual(got, [[2016], [2024]])

  def test_of_more_than_six_the_table_has_the_others(self):
    blocks = {f'b{number}/trace': 1.0 for number in range(6)}
    runs = self.runs(lambda seed, step: _look(10.0) | blocks, seeds=(0,))
    made = pictures.of(trace.figure, runs)
    self.assertLen(pictures.axes(made), 6)
    self.assertEndsWith(made.caption, ' The CSV has more: Trace, b5.')
    self.assertEqual(pictures.values(made, panel='b5'), [1, 1])

  def test_one_look_is_a_table_with_the_interval(self):
    runs = self.runs(lambda seed, step: _look(10.0), steps=(5,), seeds=(0,))
    made = pictures.of(trace.figure, runs)
    self.assertEmpty(made.rows)
    self.assertEqual(made.numbers[1], ['Trace', '10 (8 to 12)'])

  def test_the_summary_has_traces_and_no_errors(self):
    of = lambda seed, step: _look(10.0, squared=True, layer=True)
    every = summary.columns(self.runs(of))
    rows = [[c.label, *c.texts] for c in every if 'race' in c.label]
    self.assertEqual(
      rows,
      [
        ['Trace, last measurement', '10 ± 0'],
        ['Trace of the square, last measurement', '20 ± 0'],
      ],
    )
    self.assertNotIn('Products', ' '.join(c.label for c in every))


if __name__ == '__main__':
  absltest.main()
