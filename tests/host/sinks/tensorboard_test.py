import pathlib

from absl.testing import absltest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from bn_jax import errors
from bn_jax.host.sinks import tensorboard
from bn_jax.storage import records
from tests.fixtures import strict  # noqa: F401


def events(folder):
  """All events of a folder, read as TensorBoard would."""
  for path in sorted(folder.glob('events.out.tfevents.*')):
    content = path.read_bytes()
    while content:
      size = int.from_bytes(content[:8], 'little')
      crc = int.from_bytes(content[8:12], 'little')
      assert crc == masked_crc32c(content[:8])
      yield event_pb2.Event.FromString(content[12 : 12 + size])
      content = content[16 + size :]


class EventsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / 'tb'

  def test_what_is_written(self):
    written = tensorboard.Events(self.folder, first_step=3)
    written.write(records.Record(4, 'train', {'loss': 0.5, 'x': [1.0, 3.0]}))
    written.close()
    version, start, *scalars = events(self.folder)
    self.assertEqual(version.file_version, 'brain.Event:2')
    # From this step on, older events are no more shown.
    self.assertEqual(start.step, 3)
    self.assertEqual(start.session_log.status, event_pb2.SessionLog.START)
    self.assertEqual(
      [(e.step, e.summary.value[0].tag) for e in scalars],
      [(4, 'train/loss'), (4, 'train/x_min'), (4, 'train/x_max')],
    )
    self.assertEqual(
      [e.summary.value[0].simple_value for e in scalars], [0.5, 1, 3]
    )

  def test_one_that_goes_on_in_the_same_second_has_its_own_file(self):
    for step in (0, 5):
      tensorboard.Events(self.folder, first_step=step).close()
    self.assertLen(list(self.folder.iterdir()), 2)

  def test_a_failure_is_told_once(self):
    written = tensorboard.Events(self.folder, first_step=0)
    written._writer.close()

    def full(event):
      raise OSError(28, 'No space left on device')

    written._writer.write_event = full
    with self.assertRaisesRegex(errors.StorageError, 'No space left'):
      written.write(records.Record(4, 'train', {'loss': 0.5}))
    written.close()


if __name__ == '__main__':
  absltest.main()
