import collections
import io
import pathlib
import re
import warnings
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.figures import activations, landscape, training
from bn_jax.report.results import read
from tests.fixtures import (
  made_up,
  pictures,
  strict,  # noqa: F401
)


class _Drawn(parameterized.TestCase):
  def runs(self, seeds=(0,), **runs):
    folder = pathlib.Path(self.create_tempdir().full_path)
    return read.runs([made_up.workdir(folder / 'w', seeds, **runs)])

  def drawn(self, figure, runs, narrow=False):
    return pictures.drawing(pictures.of(figure, runs), narrow)


def blank():
  """One pair of axes from 0 to 100."""
  with canvas.style():
    drawing, axes = canvas.grid(1, 1, False)
    axes[0, 0].set_xlim(0, 100)
  return drawing, axes[0, 0]


class NamesTest(parameterized.TestCase):
  @parameterized.parameters('standard', 'W' * 100, 'il' * 50, 'a_b.c-d' * 14)
  def test_fit(self, name):
    rows = canvas.fitted(name, 120).split('\n')
    self.assertLessEqual(len(rows), 3)
    for row in rows:
      self.assertLessEqual(canvas.width(row), 120)

  def test_short_ones_stay(self):
    self.assertEqual(canvas.fitted('runs/a/standard', 200), 'runs/a/standard')

  def test_long_ones_keep_their_ends(self):
    fitted = canvas.fitted('first' + 'x' * 100 + 'last', 80).replace('\n', '')
    self.assertRegex(fitted, '^first.*….*last$')

  def test_break_after_a_mark(self):
    self.assertEqual(
      canvas.fitted('some_workdir/run', 80), 'some_workdir/\nrun'
    )


class LegendTest(_Drawn):
  @parameterized.product(
    length=(8, 60, 100),
    narrow=(False, True),
    figure=(training.figure, activations.drift),
  )
  def test_lies_within_the_drawing(self, length, narrow, figure):
    runs = self.runs(**{f'{i}'.rjust(length, 'w'): {} for i in range(5)})
    drawing = self.drawn(figure, runs, narrow)
    (legend,) = drawing.legends
    box, around = legend.get_window_extent(), drawing.bbox
    self.assertGreaterEqual(box.x0, around.x0)
    self.assertLessEqual(box.x1, around.x1)
    self.assertGreaterEqual(box.y0, around.y0)
    self.assertLen(legend.get_texts(), 5)

  @parameterized.parameters(False, True)
  def test_leaves_the_panels_their_height(self, narrow):
    few, many = (
      self.drawn(
        training.figure,
        self.runs(**{f'{i}'.rjust(90, 'w'): {} for i in n}),
        narrow,
      )
      for n in (range(1), range(8))
    )
    heights = [d.axes[0].get_window_extent().height for d in (few, many)]
    self.assertAlmostEqual(*heights, delta=5)

  def test_short_names_stand_in_one_row(self):
    drawing = self.drawn(training.figure, self.runs(a={}, b={}, c={}, d={}))
    (legend,) = drawing.legends
    self.assertLen({t.get_window_extent().y0 for t in legend.get_texts()}, 1)

  def test_dollars_and_underscores_are_no_markup(self):
    drawing, _ = blank()
    with canvas.style():
      strokes.legend(drawing, [(0, '$_x$/a'), (1, '_b')])
      canvas.settled(drawing)
    shown = [text.get_text() for text in drawing.legends[0].get_texts()]
    self.assertEqual(shown, ['$_x$/a', '_b'])

  def test_eight_runs_are_told_apart_without_colour(self):
    drawing, _ = blank()
    with canvas.style():
      strokes.legend(drawing, [(i, f'{i}') for i in range(8)])
    looks = {
      (str(line._dash_pattern), line.get_marker())
      for line in drawing.legends[0].get_lines()
    }
    self.assertLen(looks, 8)

  def test_32_runs_have_32_looks(self):
    _, axis = blank()
    for index in range(32):
      strokes.line(axis, [0, 1], [0, 1], index)
    lines = [line for line in axis.lines if line.get_linestyle() != 'None']
    looks = {
      (line.get_color(), str(line._unscaled_dash_pattern)) for line in lines
    }
    self.assertLen(looks, 32)


class LongTest(_Drawn):
  """Lines of more points than an axis has pixels."""

  COUNT, PARTS = 20_000, 500

  def noise(self):
    values = np.random.default_rng(0).normal(size=self.COUNT)
    values[12_345] = 99.0
    return np.arange(self.COUNT), values

  def ends(self, values, steps):
    """(lowest, highest) of values at steps, in each of equal parts of all."""
    parts = steps * self.PARTS // self.COUNT
    return [
      (part.min(), part.max())
      for part in (values[parts == k] for k in range(self.PARTS))
    ]

  def test_a_line_keeps_what_can_be_seen(self):
    step_T, value_T = self.noise()
    _, axis = blank()
    strokes.line(axis, step_T, value_T, 0)
    (line,) = axis.lines
    self.assertLessEqual(len(line.get_xdata()), 2 * self.PARTS + 2)
    self.assertEqual(
      self.ends(line.get_ydata(), line.get_xdata()), self.ends(value_T, step_T)
    )
    self.assertEqual((line.get_xdata()[0], line.get_xdata()[-1]), (0, 19_999))
    np.testing.assert_array_equal(value_T[line.get_xdata()], line.get_ydata())

  def test_so_does_a_band(self):
    step_T, low_T = self.noise()
    high_T = 3 + low_T[::-1]
    _, axis = blank()
    strokes.band(axis, step_T, low_T, high_T, 0)
    (band,) = axis.collections
    x, y = band.get_paths()[0].vertices.T
    self.assertLess(len(x), 10 * self.PARTS)
    self.assertEqual((y.min(), y.max()), (low_T.min(), high_T.max()))
    self.assertEqual(len(np.unique(x * self.PARTS // self.COUNT)), self.PARTS)

  def test_a_gap_stays_a_gap(self):
    step_T, value_T = self.noise()
    value_T[5_000:5_010] = np.nan
    _, axis = blank()
    strokes.line(axis, step_T, value_T, 0)
    (line,) = axis.lines
    kept_T = line.get_xdata()
    for step in (4_999, 5_000, 5_009, 5_010):
      self.assertIn(step, kept_T)
    nan_T = np.isnan(line.get_ydata())
    np.testing.assert_array_equal(kept_T[nan_T], [5_000, 5_009])

  def test_short_ones_and_what_is_nowhere_are_as_they_are(self):
    for value_T in (np.arange(1000.0), np.full(20_000, np.nan)):
      _, axis = blank()
      strokes.line(axis, np.arange(len(value_T)), value_T, 0)
      (line,) = axis.lines
      kept_T = line.get_xdata()
      np.testing.assert_array_equal(line.get_ydata(), value_T[kept_T])
      if len(value_T) == 1000:
        np.testing.assert_array_equal(kept_T, np.arange(1000))


class FilesTest(_Drawn):
  def noisy(self):
    drawing, axis = blank()
    with canvas.style():
      values = np.random.default_rng(0).normal(size=(9, 300))
      for index, value_T in enumerate(values):
        strokes.line(axis, np.arange(300), value_T, index)
      return canvas.settled(drawing)

  def test_a_large_png_has_256_colours_and_looks_the_same(self):
    drawing = self.noisy()
    whole = canvas.rendered(drawing, 'png')
    with mock.patch.object(canvas, '_LARGE', len(whole) - 1):
      few = canvas.rendered(drawing, 'png')
      again = canvas.rendered(drawing, 'png')
    self.assertEqual(few, again)
    self.assertLess(len(few), len(whole) / 1.5)
    one, other = (Image.open(io.BytesIO(png)) for png in (whole, few))
    self.assertEqual((one.mode, other.mode), ('RGBA', 'P'))
    self.assertEqual(one.info['dpi'], other.info['dpi'])
    apart = np.abs(
      np.array(one.convert('RGB'), float) - np.array(other.convert('RGB'))
    )
    self.assertLess(apart.mean(), 2.0)

  def test_lines_of_an_svg_are_exact_to_a_tenth_of_a_point(self):
    drawing = self.noisy()
    short = canvas.rendered(drawing, 'svg')
    with mock.patch.object(canvas, '_SVG_PATH', re.compile(b'(?!)')):
      long = canvas.rendered(drawing, 'svg')
    self.assertLess(len(short), 0.7 * len(long))
    number = re.compile(rb'-?(?:\d+\.?\d*|\.\d+)')
    count = 0
    for a, b in zip(
      *(re.findall(rb' d="([^"]*)"', svg) for svg in (short, long))
    ):
      self.assertEqual(a.count(b'M'), b.count(b'M'))
      if b.count(b'M') > 1 or b'C' in b or b.count(b'L') < 9:
        continue
      first, _, rest = a.partition(b'l')
      steps = [
        number.findall(first),
        *np.reshape(number.findall(rest), (-1, 2)),
      ]
      places = np.cumsum(np.array(steps, float), axis=0)
      whole = np.reshape(np.array(number.findall(b), float), (-1, 2))
      # Points of one tenth are one.
      tenths = np.rint(10 * whole)
      apart = np.any(np.diff(tenths, axis=0, prepend=-1), axis=1)
      np.testing.assert_allclose(places, tenths[apart] / 10, rtol=0, atol=1e-9)
      count += 1
    self.assertGreaterEqual(count, 9)

  def test_all_files_have_one_layout(self):
    drawing = self.noisy()
    (axis,) = drawing.axes
    place = axis.get_position().bounds
    for kind in ('png', 'pdf', 'svg', 'png'):
      canvas.rendered(drawing, kind)
      self.assertEqual(axis.get_position().bounds, place)

  def test_one_number_on_a_logarithmic_axis(self):
    """That two of the same number are apart by rounding is no scale."""
    for low, high in ((5.0, 5.0), (5.0, 5 * (1 + 1e-15))):
      _, axis = blank()
      strokes.line(axis, [0, 1], [low, high], 0)
      with warnings.catch_warnings():
        warnings.simplefilter('error')
        canvas.scale_logarithmically(axis)
      bottom, top = axis.get_ylim()
      self.assertLess(bottom, 4)
      self.assertGreater(top, 6)


class PanelsTest(_Drawn):
  def test_numbers_below_a_narrow_panel_do_not_lie_on_each_other(self):
    drawing, axes = canvas.panels(1, 2, True, True, 2)
    axis = axes[0, 0]
    strokes.line(axis, [0.01, 1], [0, 1], 0)
    canvas.scale_logarithmically(axis, 'x', canvas.ticks_below(True))
    canvas.settled(drawing)
    boxes = [
      label.get_window_extent()
      for label in axis.get_xticklabels()
      if label.get_text() and axis.bbox.x0 <= label.get_window_extent().x1
    ]
    self.assertNotEmpty(boxes)
    for box in boxes:
      self.assertEqual(sum(box.overlaps(other) for other in boxes), 1)

  @parameterized.parameters(2, 4, 6, 8)
  def test_letters_can_be_read(self, columns):
    """10 points in a drawing of 960 pixels: at least 12 of them."""
    runs = {f'{i}': {} for i in range(columns)}
    drawing = self.drawn(landscape.figure, self.runs(**runs))
    self.assertGreaterEqual(10 / 72 / drawing.get_figwidth() * 960, 12)

  def test_each_block_says_what_its_axes_are(self):
    runs = self.runs(**{f'{i}': {} for i in range(6)})
    drawing = self.drawn(landscape.figure, runs)
    labels = collections.Counter(a.get_ylabel() for a in drawing.axes)
    self.assertEqual(labels['Loss (nats)'], 2)
    drawing = self.drawn(activations.figure, runs)
    labels = collections.Counter(a.get_xlabel() for a in drawing.axes)
    self.assertEqual(labels['Activation'], 6)

  def test_titles_lie_within_the_drawing(self):
    runs = self.runs(**{f'{i}'.rjust(100, 'w'): {} for i in range(4)})
    for figure in (landscape.figure, activations.figure):
      drawing = self.drawn(figure, runs, narrow=True)
      boxes = [
        axis.title.get_window_extent()
        for axis in drawing.axes
        if axis.get_visible() and axis.get_title()
      ]
      self.assertLen(boxes, 4)
      for box in boxes:
        self.assertGreaterEqual(box.x0, 0)
        self.assertLessEqual(box.x1, drawing.bbox.x1)
        self.assertEqual(sum(box.overlaps(other) for other in boxes), 1)


class DivergenceTest(_Drawn):
  @parameterized.parameters(
    training.figure, landscape.figure, activations.drift
  )
  def test_is_in_every_panel(self, figure):
    runs = self.runs(
      standard={'status': 'diverged', 'steps': 120}, batchnorm={'norm': 'batch'}
    )
    drawing = self.drawn(figure, runs)
    said = [text.get_text() for axis in drawing.axes for text in axis.texts]
    panels = len(drawing.axes) // (2 if figure is landscape.figure else 1)
    self.assertEqual(said, ['diverged at 120'] * panels)

  def test_is_said_above_the_ridges(self):
    runs = self.runs(
      standard={'status': 'diverged', 'steps': 120}, batchnorm={'norm': 'batch'}
    )
    titles = [a.get_title() for a in self.drawn(activations.figure, runs).axes]
    self.assertEqual(titles[:2], ['standard\ndiverged at 120', 'batchnorm'])

  def test_labels_do_not_lie_on_each_other(self):
    drawing, axis = blank()
    ends = [(40, 0), (41, 0), (43, 0), (41, 1), (90, 1)]
    strokes.divergences(axis, ends)
    said = [text.get_text() for text in axis.texts]
    self.assertEqual(said, ['diverged at 40 to 43', 'diverged at 90'])
    self.assertLen(axis.lines, 5)
    canvas.settled(drawing)
    one, other = (text.get_window_extent() for text in axis.texts)
    self.assertFalse(one.overlaps(other))

  def test_two_that_are_close_are_both_named(self):
    _, axis = blank()
    strokes.divergences(axis, [(2, 0), (5, 1)])
    said = [text.get_text() for text in axis.texts]
    self.assertEqual(said, ['diverged at 2 and 5'])

  def test_at_once_stands_beside_the_axis(self):
    drawing, axis = blank()
    strokes.divergences(axis, [(0, 0)])
    canvas.settled(drawing)
    (text,) = axis.texts
    self.assertGreaterEqual(text.get_window_extent().x0, axis.bbox.x0)


class AloneTest(_Drawn):
  def marked(self, axis):
    return [line for line in axis.lines if line.get_marker() != 'None']

  def test_a_point_without_neighbours_has_a_marker(self):
    _, axis = blank()
    strokes.line(axis, [0, 1, 2, 3], [1.0, np.nan, 3, 4], 0)
    (marked,) = self.marked(axis)
    np.testing.assert_array_equal(marked.get_xdata(), [0])

  def test_a_line_has_none(self):
    _, axis = blank()
    strokes.line(axis, [0, 1, 2], [1.0, 2, 3], 0)
    self.assertEmpty(self.marked(axis))

  def test_a_run_with_one_look_can_be_seen(self):
    once = self.runs(standard={'steps': 0})
    axes = self.drawn(training.figure, once).axes
    titles = [axis.get_title() for axis in axes if self.marked(axis)]
    self.assertEqual(titles, ['Test loss', 'Test accuracy'])

  def test_a_run_with_two_looks_has_drifted_once(self):
    made = pictures.of(activations.drift, self.runs(standard={'steps': 50}))
    self.assertEmpty(made.rows)
    self.assertLen(made.numbers, 1 + 3 * 2)  # quantities x layers
    self.assertEqual(made.numbers[1], ['Change of mean, conv1', '0.1'])


if __name__ == '__main__':
  absltest.main()
