"""What services outside are sent, in what order, and when they fail."""

import contextlib
import json
import pathlib
import sys
import threading
from unittest import mock

from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.host import sinks
from bn_jax.host.sinks import about, outside, wandb
from bn_jax.storage import records
from tests.fixtures import strict  # noqa: F401


class Service:
  """Keeps what it is told; `broken` says of which call it raises."""

  def __init__(self, broken=None):
    self.calls, self.rows, self.broken = [], [], broken

  def client(self, run, old_id):
    self._called('begin', old_id)
    return mock.Mock(
      spec=outside.Client, id='its id', send=self._send,
      finish=lambda status: self._called('finish', status),
      send_images=lambda paths, step: self._called('images', paths, step),
    )  # fmt: skip

  def _send(self, rows):
    self._called('send', [step for step, _ in rows])
    self.rows += rows

  def _called(self, *call):
    if call[0] == self.broken:
      raise ConnectionError('no route\nto host')
    self.calls.append(call)


def killed(sink, status):
  """Ends a sink as `kill -9` does, after what was handed over is sent."""
  sink._jobs.put(None)
  sink._thread.join()


def looks(*steps):
  """Records of training, and of a test at each third step before it."""
  for step in steps:
    if step % 3 == 0:
      yield records.Record(step, 'test', {'loss': [1.0, step]})
    yield records.Record(step, 'train', {'loss': float(step)})


class OutsideTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.state = self.folder / 'sinks' / 'a.json'

  def sent(self, service, wrote, status, recorded=()):
    """Sends records in one go to a service; returns what was logged."""
    run = about.Run(self.folder, 'p', 'bn/seed0', 'bn', {})
    with self.assertLogs('bn_jax') as logged:
      outside._log.warning('so that there is something')
      sink = outside.Outside('a', service.client, run, self.state, recorded)
      for record in wrote:
        sink.write(record)
      sink.close(status)
    return logged.output[1:]

  def test_a_step_is_sent_whole(self):
    service = Service()
    self.sent(service, looks(*range(4)), 'done')
    self.assertEqual(
      service.calls,
      [('begin', None), ('send', [0, 1, 2, 3]), ('finish', 'done')],
    )
    self.assertEqual(
      service.rows[3],
      (3, {'test/loss_min': 1.0, 'test/loss_max': 3.0, 'train/loss': 3.0}),
    )
    state = json.loads(self.state.read_text())
    self.assertEqual(state, {'id': 'its id', 'sent': {'test': 3, 'train': 3}})

  @parameterized.parameters('interrupted', 'failed', None)
  def test_nothing_is_sent_twice(self, status):
    """Also not the step at which a run stopped; None is a kill."""
    # The newest look is at step 6, which was not yet taken.
    service, wrote = Service(), [*looks(*range(7))][:-1]
    before = mock.patch.object(outside, '_MOST_STEPS', 0)
    after = mock.patch.object(outside.Outside, 'close', killed)
    with before, after if status is None else contextlib.nullcontext():
      self.sent(service, wrote, status)
    # It goes on from a checkpoint of step 2.
    self.sent(service, looks(*range(2, 8)), 'done', wrote[:3])
    self.assertEqual([step for step, _ in service.rows], [*range(8)])
    self.assertIn(('begin', 'its id'), service.calls)
    self.assertLen(dict(service.rows)[6], 3)

  def test_what_was_recorded_without_it_is_sent_first(self):
    service = Service()
    self.sent(service, looks(3, 4), 'done', looks(0, 1, 2))
    self.assertEqual([step for step, _ in service.rows], [*range(5)])

  def test_a_service_that_fails_ends_no_training(self):
    service = Service(broken='send')
    (line,) = self.sent(service, looks(*range(4)), 'interrupted')
    self.assertIn('bn/seed0: a takes no more records (no route)', line)
    # What it lacks is sent when training goes on.
    service.broken = None
    self.sent(service, looks(4, 5), 'done', looks(*range(4)))
    self.assertEqual([step for step, _ in service.rows], [*range(6)])

  def test_one_that_refuses_is_said_before_training(self):
    with self.assertRaisesRegex(
      errors.StorageError, r'a refuses \(no route\).*out of config.sinks'
    ):
      self.sent(Service(broken='begin'), [], 'done')

  def test_one_that_does_not_answer_is_left(self):
    service, answer = Service(), threading.Event()
    service._send = lambda rows: answer.wait(10)
    with mock.patch.object(outside, '_PATIENCE', 0.01):
      (line,) = self.sent(service, looks(0, 1), 'done')
    answer.set()
    self.assertIn('has not answered', line)

  def test_figures_are_sent_when_they_change(self):
    service, run = Service(), about.figures(self.folder)
    png = self.folder / 'a.png'
    for content in (b'1', b'1', b'2'):
      png.write_bytes(content)
      outside.send_figures('a', service.client, run, self.state, [png], 5)
    once = [('images', [png], 5), ('finish', 'done')]
    self.assertEqual(
      service.calls, [('begin', None), *once, ('begin', 'its id'), *once]
    )


class InstalledTest(absltest.TestCase):
  def test_what_is_not_installed_is_refused(self):
    def found(*names):
      return mock.patch(
        'importlib.util.find_spec', lambda n: n in names or None
      )

    sinks.check(['tensorboard'])
    with found(), self.assertRaisesRegex(
      errors.ConfigError, 'config.sinks: wandb is not installed; pip install w'
    ):  # fmt: skip
      sinks.check(['tensorboard', 'wandb'])
    with found('mlflow'), self.assertRaisesRegex(
      errors.ConfigError, 'mlflow-skinny has no database'
    ):  # fmt: skip
      sinks.check(['mlflow'])
    with (
      found('mlflow'),
      mock.patch.dict('os.environ', MLFLOW_TRACKING_URI='http://a'),
    ):
      sinks.check(['mlflow'])


class WandbTest(absltest.TestCase):
  def test_order_of_calls_without_a_login(self):
    module = mock.Mock(spec=['init', 'login', 'Settings', 'Image'])
    module.login.return_value = False
    module.init.return_value.summary = {}
    run = about.Run(
      pathlib.Path(self.create_tempdir().full_path),
      'p',
      'bn/seed0',
      'bn',
      {'a': 1},
    )
    with (
      mock.patch.dict(sys.modules, wandb=module),
      mock.patch.dict('os.environ', clear=True),
    ):
      client = wandb.Client(run, None)
      client.send([(0, {'train/loss': 1.0})])
      client.finish('diverged')
      again = wandb.Client(run, client.id)
    # Nobody is asked for a login.
    module.login.assert_called_with(prompt=False, verify=False)
    first, second = (call.kwargs for call in module.init.call_args_list)
    self.assertEqual((first['mode'], first['resume']), ('offline', 'allow'))
    self.assertEqual(first['id'], second['id'])
    self.assertEqual(again.id, first['id'])
    methods = [call[0] for call in module.init.return_value.method_calls]
    self.assertEqual(methods, ['log', 'finish'])
    module.init.return_value.finish.assert_called_once_with(exit_code=1)


if __name__ == '__main__':
  absltest.main()
