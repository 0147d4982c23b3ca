import re

import pytest
from absl.testing import absltest, parameterized

from bn_jax import models
from tests.fixtures import commanded, strict


def run(*words):
  """(exit code, standard output, standard error) of the command."""
  return commanded.run('models', *words)


class TableTest(absltest.TestCase):
  @pytest.mark.slow  # traces all of them
  def test_all_networks(self):
    code, text, _ = run()
    self.assertEqual(code, 0)
    lines = text.splitlines()
    starts = [line.split()[0] for line in lines[2:] if line[0] != ' ']
    self.assertEqual(starts, list(models.MODELS))
    self.assertLessEqual(max(map(len, lines)), 80)
    # Figures that papers and others have published.
    for figure in (
      '11,285,224      2,032.6 M      70', '100,010', '269,722', '853,018',
      '25,557,032      4,089.2 M', 'images of 4 x 4 pixels',
    ):  # fmt: skip
      self.assertIn(figure, text)
    self.assertEqual(text.count('dropout=0.4, lrn=True'), 1)
    self.assertNotIn('depth=20', text)  # it is the network's, no config's
    page = (strict.ROOT / 'docs' / 'models.md').read_text()
    self.assertIn(text, page, 'docs/models.md shows another table')

  @pytest.mark.slow
  def test_a_norm_that_is_not_for_every_network(self):
    code, text, _ = run('--norm=instance')
    self.assertEqual(code, 0)
    self.assertRegex(text, 'mlp .*groups of one value')
    self.assertIn('11,285,224', text)

  def test_help(self):
    code, text, _ = run('--help')
    self.assertEqual(code, 0)
    self.assertIn('usage: python -m bn_jax models', text)


class LayersTest(parameterized.TestCase):
  @parameterized.parameters('bn_inception', 'deep_linear', 'resnet20', 'vgg11')
  def test_layers_in_forward_order(self, name):
    code, text, _ = run(name, '--norm=batch')
    self.assertEqual(code, 0)
    *_, columns = (line for line in text.splitlines() if 'layer ' in line)
    self.assertIn('parameters  multiply-adds', columns)
    rows = text.splitlines()[2:]
    module = models.make(name, num_classes=10, norm='batch')
    self.assertEqual(
      [row.split()[0] for row in rows],
      [*(layer for layer, _ in module.layer_paths()), 'sum'],
    )
    parameters = [int(row.split()[-2].replace(',', '')) for row in rows]
    self.assertEqual(parameters[-1], sum(parameters[:-1]))

  def test_figures_of_a_layer(self):
    _, text, _ = run('bn_inception')
    row = next(row for row in text.splitlines() if 'mixed_4c/bpool' in row)
    self.assertEqual(
      re.split(' {2,}', row)[1:],
      ['14 x 14 x 128', '1 x 1 x 576 x 128', '73,984', '14,450,688'],
    )

  def test_a_norm(self):
    _, text, _ = run('mlp', '--norm=none')
    self.assertRegex(text, 'sum +99,710')
    _, text, _ = run('mlp', '--norm=batch')
    self.assertRegex(text, 'sum +100,010')

  def test_of_another_image(self):
    _, text, _ = run('bn_inception', '--image=64')
    self.assertTrue(re.search('conv1 +32 x 32 x 64', text))


if __name__ == '__main__':
  absltest.main()
