"""What the services themselves wrote of a short training, without a network.

Slow, and only where they are installed: pip install .[sinks].
"""

import importlib.util
import json
import os
import pathlib
import sqlite3
import struct
import subprocess
import sys

import pytest
from absl.testing import absltest

from bn_jax.storage import records, run_folder
from tests.fixtures import strict

# Wherever they would ask or tell somebody, nobody is there.
_NOBODY = dict.fromkeys(('http_proxy', 'https_proxy'), 'http://127.0.0.1:9')
_UNSET = ('WANDB_MODE', 'MLFLOW_TRACKING_URI', 'TRACKIO_DIR', 'WANDB_API_KEY')
_TAG = 'train/data_loss'


def wandb_rows(workdir):
  """Returns (step, tag -> number) of each row, run by run, as they were begun.

  A .wandb file is a log of LevelDB: blocks of 32 KiB of records in parts.
  """
  from wandb.proto import wandb_internal_pb2

  for path in sorted(workdir.glob('sinks/wandb/offline-run-*/*.wandb')):
    data, at, content, rows, run = path.read_bytes(), 7, b'', [], None
    while at < len(data):
      if (left := 2**15 - at % 2**15) < 7:
        at += left
        continue
      _, size, kind = struct.unpack('<IHB', data[at : at + 7])
      content += data[at + 7 : at + 7 + size]
      at += 7 + size
      if kind not in (1, 4):  # a whole record, or its last part
        continue
      record = wandb_internal_pb2.Record.FromString(content)
      content = b''
      if record.HasField('run'):
        run = record.run
      elif record.HasField('history'):
        items = record.history.item
        numbers = {
          '/'.join(i.nested_key) or i.key: json.loads(i.value_json)
          for i in items
        }
        rows.append((record.history.step.num, numbers))
    yield run, rows


@pytest.mark.slow
class RealTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path) / 'work'

  def need(self, name):
    if importlib.util.find_spec(name) is None:
      self.skipTest(f'{name} is not installed: pip install .[sinks]')

  def train(self, name, steps, seeds='0'):
    environment = {k: v for k, v in os.environ.items() if k not in _UNSET}
    home = str(self.workdir.parent)
    subprocess.run(
      [
        sys.executable, 'train.py', '--config=tests/fixtures/small_config.py',
        f'--workdir={self.workdir}', f'--config.sinks={name}',
        f'--config.seeds={seeds}', f'--config.steps={steps}',
        '--config.measures.test=evaluation', '--config.measures.test.data=test',
        '--config.measures.test.every_steps=2',
      ],
      check=True, cwd=strict.ROOT, env=environment | _NOBODY | {'HOME': home},
    )  # fmt: skip

  def recorded(self):
    """Returns step -> the loss of training that the run itself recorded."""
    folder = run_folder.at(self.workdir, 'batchnorm', 0)
    return {
      record.step: record.values['data_loss']
      for record in records.read(folder.scalars)
      if record.name == 'train'
    }

  def test_wandb(self):
    self.need('wandb')
    self.train('wandb', 4, seeds='0,1')
    self.train('wandb', 8)
    runs = [*wandb_rows(self.workdir)]
    own = [(run, rows) for run, rows in runs if run.display_name[-1] == '0']
    self.assertLen({run.run_id for run, _ in own}, 1)
    run = own[0][0]
    config = {c.key: json.loads(c.value_json) for c in run.config.update}
    self.assertEqual(
      (run.project, run.display_name, run.run_group, config['seed']),
      ('work', 'batchnorm/seed0', 'batchnorm', 0),
    )
    self.assertEqual(config['norm']['name'], 'batch')
    rows = [row for _, rows in own for row in rows]
    steps = [step for step, numbers in rows if _TAG in numbers]
    self.assertEqual(steps, [*range(8)])
    losses = {step: n[_TAG] for step, n in rows if _TAG in n}
    self.assertEqual(losses, self.recorded())
    images = [
      row for run, rows in runs if run.run_group == 'figures' for row in rows
    ]
    self.assertTrue(any('figures/' in tag for _, n in images for tag in n))

  def test_mlflow(self):
    self.need('mlflow')
    self.need('sqlalchemy')
    self.train('mlflow', 4, seeds='0,1')
    self.train('mlflow', 8)
    os.environ['MLFLOW_DISABLE_TELEMETRY'] = 'true'
    import mlflow

    client = mlflow.MlflowClient(f'sqlite:///{self.workdir}/sinks/mlflow.db')
    experiment = client.get_experiment_by_name('work').experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    self.assertCountEqual(
      runs, ['batchnorm/seed0', 'batchnorm/seed1', 'figures']
    )
    run = runs['batchnorm/seed0']
    self.assertEqual(run.info.status, 'FINISHED')
    self.assertEqual(run.data.params['norm.name'], 'batch')
    self.assertEqual(run.data.tags['now.steps'], '8')
    history = client.get_metric_history(run.info.run_id, _TAG)
    self.assertLen(history, 8)
    self.assertEqual({m.step: m.value for m in history}, self.recorded())
    files = client.list_artifacts(runs['figures'].info.run_id, 'figures')
    self.assertIn('figures/accuracy.png', [file.path for file in files])

  def test_trackio(self):
    self.need('trackio')
    self.train('trackio', 4, seeds='0,1')
    self.train('trackio', 8)
    folder = self.workdir / 'sinks' / 'trackio'
    with sqlite3.connect(folder / 'work.db') as database:
      rows = [
        (step, json.loads(metrics))
        for step, metrics in database.execute(
          "SELECT step, metrics FROM metrics WHERE run_name = 'batchnorm/seed0'"
        )
      ]
      (config,) = database.execute(
        "SELECT config FROM configs WHERE run_name = 'batchnorm/seed0'"
      ).fetchone()
    losses = [(step, n[_TAG]) for step, n in rows if _TAG in n]
    self.assertEqual([step for step, _ in losses], [*range(8)])
    self.assertEqual(dict(losses), self.recorded())
    self.assertEqual(json.loads(config)['norm']['name'], 'batch')
    self.assertEqual(rows[-1][1], {'status': 'done'})
    self.assertNotEmpty([*folder.glob('media/work/figures/**/*.png')])


if __name__ == '__main__':
  absltest.main()
