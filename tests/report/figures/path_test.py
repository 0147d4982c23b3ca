"""The figure of the line to another network, and its rows of the summary."""

import pathlib

import numpy as np
from absl.testing import absltest

from bn_jax.report import figures, summary
from bn_jax.report.figures import path
from bn_jax.report.results import read
from tests.fixtures import made_up, pictures

_T = np.array([0.0, 0.5, 1.0])
OVER = list(path.OVER.values())
_SECTION = {'name': 'path', 'data': 'train:64', 'to': '0'}


def line(*losses, accuracy=True):
  """What a look has found: losses at 0, 0.5 and 1 of each kind, in order."""
  found = {'t': _T}
  for name, loss in zip(path.OVER, losses):
    loss = np.array(loss, float)
    rise = loss - (1 - _T) * loss[0] - _T * loss[-1]
    found |= {f'{name}/loss': loss}
    found |= {f'{name}/accuracy': 1 / (1 + loss)} if accuracy else {}
    found |= {
      f'{name}/barrier': rise.max() if np.isfinite(rise).all() else np.inf,
      f'{name}/barrier_of_mean': 0.5,
    }
  return found


class FigureTest(absltest.TestCase):
  def runs(
    self, looks, steps=(100, 150), seeds=(0, 1), section=_SECTION, **said
  ):
    """Runs whose analyses have found looks[run](seed, step)."""
    folder = pathlib.Path(self.create_tempdir().full_path) / 'w'
    made_up.workdir(folder, seeds, **{run: said for run in looks})
    for run, of in looks.items():
      for seed in seeds:
        made_up.analysis(
          folder / run / f'seed{seed}', 'path', section,
          {step: of(seed, step) for step in steps},
          statistics='batch, reset, interpolated',
        )  # fmt: skip
    return read.runs([folder])

  def drawn(self, made, narrow=False):
    return pictures.drawing(made, narrow)

  def test_a_curve_for_each_kind_of_statistics(self):
    """The last look, the mean of seeds, and a chord from end to end."""
    last = lambda seed, step: line(
      [1, 2 + seed, 2], [1, 1, 2], [1, 5 * (step == 150), 2]
    )
    (made,) = [
      one for one in figures.every(self.runs({'batchnorm': last}))
      if one.name.startswith('path')
    ]  # fmt: skip
    self.assertEqual(made.name, 'path-analysis')
    self.assertIn('step 150 and b that of before training', made.caption)
    self.assertIn('with batch, reset, interpolated statistics', made.caption)
    self.assertNotIn('Crosses', made.caption)
    drawing = self.drawn(made)
    loss, accuracy = drawing.axes
    self.assertEqual(loss.get_ylabel(), 'Loss (nats)')
    self.assertEqual(accuracy.get_ylabel(), 'Accuracy')
    # Of each kind the mean, both seeds thin, and the chord.
    lines = [line.get_ydata().tolist() for line in loss.get_lines()]
    for kind, (mean, chord) in enumerate((
      ([1, 2.5, 2], [1, 1.5, 2]), ([1, 1, 2], [1, 1.5, 2]),
      ([1, 5, 2], [1, 1.5, 2]),
    )):  # fmt: skip
      self.assertEqual([lines[4 * kind], lines[4 * kind + 3]], [mean, chord])
    self.assertEqual(lines[1:3], [[1, 2, 2], [1, 3, 2]])
    for line_ in loss.get_lines():
      self.assertEqual(line_.get_xdata().tolist(), [0, 0.5, 1])
    self.assertLen({line.get_color() for line in loss.get_lines()[::4]}, 3)
    self.assertLen(accuracy.get_lines(), 3 * 3)
    self.assertEqual([step for step, _ in made.frames], [100, 150])
    (legend,) = drawing.legends
    said = [text.get_text().replace('\n', '') for text in legend.get_texts()]
    self.assertEqual(said, list(path.OVER.values()))
    self.drawn(made, narrow=True)

  def test_accuracy_is_in_percent_and_its_shade_in_its_range(self):
    of = lambda seed, step: line([4 * (seed > 1)] * 3, [0] * 3, [0] * 3)
    runs = self.runs({'batchnorm': of}, seeds=(0, 1, 2, 3, 4))
    made = pictures.of(path.figure, runs, 'analysis/path')
    loss, accuracy = self.drawn(made).axes
    self.assertEqual(accuracy.yaxis.get_major_formatter()(0.5), '50 %')
    heights = [
      [path_.vertices[:, 1] for path_ in axis.collections[0].get_paths()]
      for axis in (loss, accuracy)
    ]
    self.assertEqual(np.min(heights[0]), 0)
    self.assertEqual((np.min(heights[1]), np.max(heights[1])), (0, 1))

  def test_the_table_has_every_look_and_point(self):
    of = lambda seed, step: line([1, step, 2], [1, 1, 2], [1, 5, 2])
    made = pictures.of(
      path.figure, self.runs({'batchnorm': of}), 'analysis/path'
    )
    for quantity, want in (
      ('loss', [1, 100, 2]), ('accuracy', [0.5, 0.00990099, 0.333333]),
      ('barrier', [98.5]), ('barrier_of_mean', [0.5]),
    ):  # fmt: skip
      cells = {'run': 'batchnorm', 'seed': 0, 'step': 100, 'key': OVER[0]}
      got = pictures.values(made, quantity=quantity, **cells)
      self.assertEqual(got, want)
    self.assertLen(pictures.rows(made, seed=1, quantity='loss'), 2 * 3 * 3)

  def test_without_statistics_there_is_one_curve(self):
    alike = lambda seed, step: line(*[[1, 3, 1]] * 3)
    other = lambda seed, step: line([1, 2, 1], [1, 2, 1], [1, 4, 1])
    runs = self.runs({'standard': alike, 'batchnorm': other})
    made = pictures.of(path.figure, runs, 'analysis/path')
    axes = self.drawn(made).axes
    self.assertEqual(
      [axis.get_title() for axis in axes],
      ['standard\none function', 'batchnorm', '', ''],
    )
    self.assertEqual([len(axis.get_lines()) for axis in axes[:2]], [4, 12])
    of_one = pictures.rows(made, run='standard', seed=0, quantity='loss')
    self.assertLen(of_one, 2 * 3 * 3)  # the table has all kinds

  def test_what_is_not_finite_is_marked(self):
    lost = lambda seed, step: line([1, np.inf, 2], [1, np.nan, 2], [1, 5, 2])
    runs = self.runs({'batchnorm': lost}, seeds=(0,), steps=(150,))
    made = pictures.of(path.figure, runs, 'analysis/path')
    self.assertIn('Crosses at the top: not finite.', made.caption)
    loss, _ = self.drawn(made).axes
    crosses = [line for line in loss.get_lines() if line.get_marker() == 'x']
    self.assertEqual(
      [line.get_xdata().tolist() for line in crosses], [[0.5]] * 2
    )
    rows = {c.label: c.texts[0] for c in summary.columns(runs)}
    self.assertEqual(
      rows['Barrier in nats, statistics of the batch, last'], 'inf'
    )
    self.assertEqual(
      rows['Barrier in nats, running, interpolated, last'], '3.5'
    )

  def test_losses_of_many_sizes_are_on_a_logarithmic_axis(self):
    for top, scale in ((40, 'linear'), (100, 'log')):
      of = lambda seed, step, top=top: line([1, top, 1])
      made = pictures.of(
        path.figure, self.runs({'batchnorm': of}), 'analysis/path'
      )
      self.assertEqual(self.drawn(made).axes[0].get_yscale(), scale)

  def test_a_regression_has_no_accuracy(self):
    of = lambda seed, step: line([1, 2, 1], accuracy=False)
    runs = self.runs(
      {'linear': of}, section=_SECTION | {'to': 'runs/a/seed1'}, accuracy=False
    )
    made = pictures.of(path.figure, runs, 'analysis/path')
    self.assertEqual([a.get_ylabel() for a in self.drawn(made).axes], ['Loss'])
    self.assertIn('b that of runs/a/seed1', made.caption)
    self.assertNotIn('Batch Normalization', made.caption)
    self.assertEmpty(pictures.rows(made, quantity='accuracy'))

  def test_of_nothing(self):
    self.assertIsNone(
      pictures.of(path.figure, self.runs({'a': lambda *_: {}}, steps=()))
    )


if __name__ == '__main__':
  absltest.main()
