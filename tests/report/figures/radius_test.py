"""The figure of the rise of the loss within a radius."""

import pathlib

import numpy as np
from absl.testing import absltest

from bn_jax.report import summary
from bn_jax.report.figures import radius
from bn_jax.report.results import read
from tests.fixtures import made_up, pictures

_SECTION = {
  'name': 'sharpness', 'data': 'train:64', 'case': 'worst', 'adaptive': False,
  'ascent_steps': 2, 'samples': 10, 'penalised': False,
}  # fmt: skip


def _look(scale, radii=(0.4, 0.1), error=False):
  """A rise of scale * radius; radii may be given in any order."""
  radii = np.array(radii)
  found = {'increase': scale * radii, 'loss_0': 1.0, 'radius': radii}
  found |= {'loss': 1 + scale * radii}
  return found | ({'standard_error': radii / 10} if error else {})


class RadiusTest(absltest.TestCase):
  def runs(self, of, steps=(0, 5, 10, 20), seeds=(0,), **section):
    folder = pathlib.Path(self.create_tempdir().full_path) / 'w'
    made_up.workdir(folder, seeds, batchnorm={})
    for seed in seeds:
      looks = {step: of(seed, step) for step in steps}
      place = folder / 'batchnorm' / f'seed{seed}'
      made_up.analysis(place, 'sharpness', _SECTION | section, looks)
    return read.runs([folder])

  def test_a_column_a_step_by_radius(self):
    made = pictures.of(
      radius.figure, self.runs(lambda seed, step: _look(1.0 + step))
    )
    axes = pictures.axes(made)
    titles = [axis.get_title() for axis in axes]
    self.assertEqual(titles, ['Step 0', 'Step 10', 'Step 20'])
    self.assertLen(axes[1].lines, 1)  # the loss itself is in the table alone
    self.assertEqual([step for step, _ in made.frames], [0, 5, 10, 20])
    np.testing.assert_allclose(
      axes[1].lines[0].get_xydata(), [[0.1, 1.1], [0.4, 4.4]]
    )
    self.assertEqual((axes[0].get_xscale(), axes[0].get_yscale()), ('log',) * 2)
    for quantity, want in (('increase', 0.6), ('loss', 1.6), ('loss_0', 1)):
      of = {'step': 5, 'radius': '0.1', 'quantity': quantity}
      self.assertEqual(pictures.values(made, **of), [want])
    self.assertLen(pictures.rows(made), 4 * 2 * 3)

  def test_title_and_caption_say_the_case(self):
    look = lambda seed, step: _look(1.0, error=True)
    worst = pictures.of(radius.figure, self.runs(look))
    self.assertStartsWith(worst.title, 'Largest rise of the loss within')
    for words in ('steps: 2', 'Not adaptive', 'data loss, without penalty'):
      self.assertIn(words, worst.caption)
    average = pictures.of(
      radius.figure,
      self.runs(look, case='average', adaptive=True, penalised=True),
    )
    self.assertStartsWith(average.title, 'Average rise of the loss at')
    for words in ('10 pairs', 'Adaptive: a radius', 'with its penalty'):
      self.assertIn(words, average.caption)
    got = pictures.values(average, step=0, quantity='standard_error')
    self.assertEqual(got, [0.01, 0.04])

  def test_a_negative_rise_is_on_a_linear_axis(self):
    made = pictures.of(radius.figure, self.runs(lambda seed, step: _look(-1.0)))
    axis = pictures.axes(made)[0]
    self.assertEqual(axis.get_yscale(), 'linear')
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [-0.1, -0.4])

  def test_one_radius_is_a_line_over_steps_or_a_number(self):
    of = lambda seed, step: _look(1.0 + step, radii=(0.1,))
    (axis,) = pictures.axes(pictures.of(radius.figure, self.runs(of)))
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.1, 0.6, 1.1, 2.1])
    made = pictures.of(radius.figure, self.runs(of, steps=(5,), seeds=(0, 1)))
    self.assertEmpty(made.rows)
    self.assertEqual(
      made.numbers[1], ['Rise of the loss, radius 0.1', '0.6 ± 0']
    )

  def test_the_summary_has_the_rise_alone(self):
    runs = self.runs(lambda seed, step: _look(1.0))
    columns = [c for c in summary.columns(runs) if 'adius' in c.label]
    label = 'Largest rise of the loss within a radius 0.4, last measurement'
    self.assertEqual([(c.label, c.texts) for c in columns], [(label, ['0.4'])])


if __name__ == '__main__':
  absltest.main()
