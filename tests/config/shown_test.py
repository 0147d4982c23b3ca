"""What --show prints of the resolved runs."""

import json
import subprocess
import sys

import pytest
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import shown
from bn_jax.config.run_config import KEYS
from tests.fixtures import strict, typed

_RUNS = (
  'config.runs = defaults.runs(none=dict(norm="none"), '
  'layer=dict(norm="layer"), big=dict(norm="layer", batch_size=256, '
  'schedule=dict(learning_rate=0.4)))'
)


def read(text):
  """(head, {'model.width': 1.0, ...}) of each paragraph but that of seeds."""
  paragraphs = []
  for paragraph in text.split('\n\n')[1:]:
    head, *lines = paragraph.splitlines()
    values = {}
    for line in lines:
      key, _, value = line.partition(' = ')
      values[key.strip()] = eval(value)
    paragraphs.append((head, values))
  return paragraphs


def nested(values):
  tree = {}
  for path, value in values.items():
    *above, last = path.split('.')
    section = tree
    for key in above:
      section = section.setdefault(key, {})
    section[last] = value
  return json.loads(json.dumps(tree))


class ShownTest(parameterized.TestCase):
  def test_is_all_of_each_run(self):
    experiment = typed.experiment(_RUNS, 'config.measures.test = None')
    (_, common), *own = read(shown.text(experiment, None))
    self.assertEqual(
      [head for head, _ in own], ['run none:', 'run layer:', 'run big:']
    )
    for (_, values), (name, run) in zip(own, experiment.runs.items()):
      self.assertEmpty(common.keys() & values.keys(), name)
      self.assertEqual(nested({**common, **values}), run.as_json())

  def test_what_all_share_stands_once(self):
    text = shown.text(typed.experiment(_RUNS), None)
    lines = text.splitlines()
    self.assertEqual(lines[:3], ['seeds = 0', '', 'all runs:'])
    self.assertEqual(lines.count("  model.name = 'vgg11'"), 1)
    self.assertEqual(lines.count("  norm.name = 'layer'"), 2)
    self.assertEqual(lines.count('  schedule.learning_rate = 0.4'), 1)

  def test_a_section_of_other_names_stands_whole(self):
    """Although both norms have the same epsilon."""
    line = 'config.runs = dict(layer=dict(norm="layer"), l1=dict(norm="l1"))'
    for head, values in read(shown.text(typed.experiment(line), None)):
      self.assertEqual('norm.epsilon' in values, head != 'all runs:', head)

  def test_of_one_run_there_is_no_other(self):
    experiment = typed.experiment(_RUNS, 'config.seeds = range(3)')
    text = shown.text(experiment, 'big/seed2')
    ((head, values),) = read(text)
    self.assertStartsWith(text, 'seeds = 2\n')
    self.assertEqual(head, 'run big:')
    self.assertEqual(nested(values), experiment.runs['big'].as_json())
    self.assertEqual(list(nested(values)), list(KEYS))
    with self.assertRaisesRegex(errors.ConfigError, "unknown run 'bog'"):
      shown.text(experiment, 'bog')

  @parameterized.parameters(
    ('config.epochs = 2', 'steps = 23  # 2.042 epochs of 1442 examples'),
    ('config.steps = 1442', 'steps = 1442  # 128 epochs of 1442 examples'),
  )
  def test_steps_in_epochs(self, line, expected):
    experiment = typed.experiment('config.runs = dict(one={})', line)
    self.assertIn(f'\n  {expected}\n', shown.text(experiment, None))

  @parameterized.parameters(
    ("config.data = 'my_set'", 'config.data: unknown dataset'),
    ("config.data = 'folder:/nowhere'", '/nowhere'),
    ('config.runs.one = dict(rates=2.0)', 'config.rates: 2.0; allowed: '),
    ('config.runs.one = dict(trainable=3)', 'config.trainable: 3; '),
    ('config.norm = dict(name="group", num_groups=0)', 'num_groups is 0'),
    ('config.model.width = 0', 'config.model: width is 0'),
    ('config.model.lowering = "own"', "config.model: lowering is 'own'"),
    ('config.schedule.learning_rate = -1', 'learning_rate is -1'),
    ('config.batch_size = 1443', 'allowed: 1 to 1442'),
    ("config.loss = 'squared_error'", 'does not fit digits'),
  )
  def test_refuses_what_training_refuses(self, line, message):
    experiment = typed.experiment('config.runs = dict(one={})', line)
    with self.assertRaises(errors.Failure) as raised:
      shown.text(experiment, None)
    self.assertIn(message, str(raised.exception))
    self.assertNotIn('\n', str(raised.exception))

  @pytest.mark.slow
  def test_looks_for_no_devices(self):
    code = """
import pathlib, sys
from jax._src import xla_bridge
from bn_jax.config import files, resolve, shown
config = files.load('configs/quickstart.py').to_dict()
shown.text(resolve.experiment(config, {}), None)
sys.exit(str(list(xla_bridge._backends)))
"""
    run = subprocess.run(
      [sys.executable, '-c', code],
      capture_output=True, text=True, cwd=strict.ROOT, check=False,
    )  # fmt: skip
    self.assertEqual(run.stderr, '[]\n')


if __name__ == '__main__':
  absltest.main()
