"""Which figure of a page draws what a claim reads."""

import pathlib

from absl.testing import absltest

from bn_jax.report import figures
from bn_jax.report.claims import drawn
from bn_jax.report.results import read
from tests.fixtures import (
  made_up,
  strict,  # noqa: F401
)


class FigureTest(absltest.TestCase):
  def test_the_figures_of_a_page(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    measures = {
      **made_up.CONFIG['measures'],
      **{name: made_up.MORE[name] for name in ('shift', 'weights')},
      'shift_again': made_up.MORE['shift'],
    }  # fmt: skip
    workdir = made_up.workdir(folder / 'work', standard={'measures': measures})
    runs = read.runs([workdir])
    names = [figure.name for figure in figures.every(runs)]
    for statistic, name in (
      ('steps_to_accuracy(accuracy=0.9)', 'training'),
      ('steps_to_test_accuracy(name=test, accuracy=0.95)', 'training'),
      ('last_of(name=test, value=accuracy)', 'training'),
      ('band_width(name=landscape, value=loss, reduce=mean)', 'landscape'),
      ('beta_of_rate(name=landscape, reduce=max)', 'landscape'),
      (
        'at_factor(name=landscape, value=gradient_change, factor=4, '
        'reduce=max)',
        'distance',
      ),
      ('moment_change(name=activations, layer=conv2, reduce=max)', 'drift'),
      ('activation_std(name=activations, layer=conv2)', 'activations'),
      ('unit_movement(name=activations, layer=conv2, of=width)', 'activations'),
      ('of_layer(name=shift, layer=conv1, value=l2)', 'covariate-shift'),
      (
        'of_layer(name=shift_again, layer=conv1, value=l2)',
        'covariate-shift-shift_again',
      ),
      ('of_layer(name=weights, value=weight_norm, layer=conv1)', 'weights'),
      # Not drawn; not of this page.
      ('of_layer(name=weights, value=bias_norm, layer=conv1)', None),
      ('last_of(name=validation, value=accuracy)', None),
      ('of_edge(name=sharpness, value=sharpness)', None),
    ):
      row = {'statistic': statistic}
      self.assertEqual(drawn.figure(row, runs, names), name, statistic)


if __name__ == '__main__':
  absltest.main()
