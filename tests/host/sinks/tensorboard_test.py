import pathlib

import numpy as np
from absl.testing import absltest
from PIL import Image
from tensorboardX.proto import event_pb2, plugin_hparams_pb2
from tensorboardX.record_writer import masked_crc32c

from bn_jax import distributions, errors
from bn_jax.host.sinks import about, tensorboard
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

  def test_a_config_becomes_hparams(self):
    """And none of a list of keys, which TensorBoard would take for all runs."""
    config = {
      'norm': {'name': 'batch', 'group_size': None},
      'steps': 4,
      'l': [1],
    }
    for status, end in (('done', 1), ('diverged', 2), ('interrupted', None)):
      with self.subTest(status):
        folder = self.folder / status
        written = tensorboard.Events(folder, first_step=0, config=config)
        written.close(status)
        plugins = {
          event.summary.value[
            0
          ].tag: plugin_hparams_pb2.HParamsPluginData.FromString(
            event.summary.value[0].metadata.plugin_data.content
          )
          for event in events(folder)
          if event.summary.value
        }
        start = plugins.pop('_hparams_/session_start_info').session_start_info
        self.assertEqual(
          {k: v.WhichOneof('kind') for k, v in start.hparams.items()},
          {
            'norm.name': 'string_value',
            'steps': 'number_value',
            'l': 'string_value',
          },
        )
        self.assertEqual(start.hparams['steps'].number_value, 4)
        ends = [one.session_end_info.status for one in plugins.values()]
        self.assertEqual(ends, [end] * (end is not None))

  def test_histograms(self):
    values = np.array([[-5e3, 0.3], [0.0, 2.0], [0.01, 2e3]])  # [3, C = 2]
    layer = distributions.of(values)
    record = records.Record(4, 'activations', {
      'edges': distributions.EDGES,
      'conv1/count': np.array(layer.count),
      'conv1/mean': layer.mean,
      'conv1/var': layer.var,
      'conv1/histogram': layer.histogram.sum(axis=0),
    })  # fmt: skip
    written = tensorboard.Events(self.folder, first_step=0)
    written.write_arrays(record)
    written.close()
    *_, event = events(self.folder)
    (value,) = event.summary.value
    self.assertEqual((event.step, value.tag), (4, 'activations/conv1'))
    histogram = value.histo
    self.assertEqual(histogram.num, values.size)
    self.assertAlmostEqual(histogram.sum, values.sum())
    self.assertAlmostEqual(histogram.sum_squares / (values**2).sum(), 1)
    # What lies outside of all bins is in the outermost.
    self.assertEqual((histogram.min, histogram.max), (-1e3, 1e3))
    # TensorBoard takes a bucket to begin where the one before it ends.
    limits, counts = map(np.array, (histogram.bucket_limit, histogram.bucket))
    inner = np.clip(values.ravel(), -999, 999)
    place = np.searchsorted(limits, inner, side='right')
    self.assertTrue((np.diff(limits) > 0).all())
    np.testing.assert_array_equal(np.bincount(place), counts)

  def test_figures(self):
    png = self.folder.parent / 'accuracy.png'
    Image.new('RGB', (20, 10)).save(png)
    run = about.figures(self.folder.parent)
    tensorboard.Figures(run, None).send_images([png], 7)
    *_, event = events(run.home / 'figures')
    (value,) = event.summary.value
    self.assertEqual((event.step, value.tag), (7, 'figures/accuracy'))
    self.assertEqual((value.image.width, value.image.height), (20, 10))
    self.assertEqual(value.image.encoded_image_string, png.read_bytes())

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
