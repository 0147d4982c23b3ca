"""How fast images come in, against what the same cores can decode at best.

jpeg: the stream that training and evaluation read, with random and with middle
crops, from threads and from 1 and 2 worker processes. It is set against Pillow
alone, in as many processes as there are cores, each with its images in memory:
decoding them, also into arrays, and with a random crop resized. Bare decoding
and stream alternate, so that what else the machine does touches both; where it
does much, the time of the processors says more than the clock.

  python benchmarks/input.py [--part=jpeg] [--data_dir=DIR] [--originals=DIR]
    [--workers 0 1 2]

Without folders the photographs that come with scikit-learn are read; DIR may
hold imagenette_mini (of 224 pixels) as a TFDS data_dir, or be any folder of
larger JPEGs.
"""

import argparse
import concurrent.futures
import contextlib
import io
import itertools
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
from typing import NamedTuple

import grain
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn import datasets

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax.data.batches import ahead, crops, encoded, stream
from bn_jax.data.disk import store

_SIZE = 224
_RECORDS = 256
_BATCHES = 16  # that are timed
_CORES = os.cpu_count()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--part', choices=PARTS, default=None)
  parser.add_argument('--batch_size', type=int, default=64)
  parser.add_argument('--pairs', type=int, default=3)
  parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2])
  parser.add_argument('--data_dir', default=None)
  parser.add_argument('--originals', default=None)
  given = parser.parse_args()
  for name, part in PARTS.items():
    if given.part in (None, name):
      part(given)


# jpeg: images that are streamed.


def jpeg(given: argparse.Namespace) -> None:
  with tempfile.TemporaryDirectory() as folder:
    sets = {f'{_SIZE} px': _small(given, folder)}
    sets['originals'] = _prepared('originals', folder, _originals(given))
    for name, prepared in sets.items():
      _measure(name, prepared, given)


class Photographs(tfds.core.GeneratorBasedBuilder):
  """JPEGs that lie in memory, as a prepared set."""

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, images, **keywords):
    self._images = images
    super().__init__(**keywords)

  def _info(self):
    features = {
      'image': tfds.features.Image(shape=(None, None, 3)),
      'label': tfds.features.ClassLabel(num_classes=10),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('image', 'label'),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for number in range(_RECORDS):
      image = io.BytesIO(self._images[number % len(self._images)])
      yield number, {'image': image, 'label': number % 10}


def _prepared(name, folder, images) -> store.Prepared:
  tfds.disable_progress_bar()
  keywords = {'data_dir': f'{folder}/{name}', 'file_format': 'array_record'}
  builder = Photographs(images=images, **keywords)
  # TFDS prints that it downloads, which here it does not.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(file_format='array_record')
  return store.opened('photographs', keywords['data_dir'])


def _small(given, folder) -> store.Prepared:
  if given.data_dir is not None:
    return store.opened('imagenette_mini', given.data_dir)
  images = []
  for photograph in datasets.load_sample_images().images:
    for left in range(0, photograph.shape[1] - _SIZE, 32):
      square = photograph[100 : 100 + _SIZE, left : left + _SIZE]
      images.append(_encoded(Image.fromarray(square)))
  return _prepared('small', folder, images)


def _originals(given) -> list[bytes]:
  if given.originals is None:
    photographs = datasets.load_sample_images().images
    return [_encoded(Image.fromarray(pixels)) for pixels in photographs]
  files = sorted(pathlib.Path(given.originals).iterdir())
  return [
    file.read_bytes() for file in files if file.suffix.lower()[:3] == '.jp'
  ]


def _encoded(image: Image.Image) -> bytes:
  data = io.BytesIO()
  image.save(data, 'JPEG', quality=90)
  return data.getvalue()


class _Speed(NamedTuple):
  """Images a second, by the clock and by the time of the processors."""

  clock: float
  processor: float


def _measure(name, prepared, given) -> None:
  source = store.source(prepared, 'train')
  images = [source[i]['image'] for i in range(min(len(source), _RECORDS))]
  count = _BATCHES * given.batch_size // _CORES
  context = multiprocessing.get_context('spawn')
  speeds, ratios = {}, {}
  with concurrent.futures.ProcessPoolExecutor(
    _CORES, context, _hold, (images,)
  ) as pool:
    _bare_speed(pool, _decode, 1)  # starts the processes
    for crop, workers in itertools.product(('middle', 'random'), given.workers):
      for _ in range(given.pairs):
        streamed = _stream_speed(prepared, crop, workers, given.batch_size)
        speeds.setdefault((crop, workers), []).append(streamed)
        for bare in _BARE:
          speed = _bare_speed(pool, bare, count)
          speeds.setdefault(bare.__doc__, []).append(speed)
          ratio = _Speed(*np.divide(streamed, speed))
          ratios.setdefault((crop, workers, bare.__doc__), []).append(ratio)
  _print(name, speeds, ratios)


def _print(name, speeds, ratios) -> None:
  print(f'{name}: images/s by the clock (per second of a core)')
  for key, found in speeds.items():
    what = f'Pillow, {key}'
    if isinstance(key, tuple):
      what = 'stream, {} crop, {} workers'.format(*key)
    clock, processor = np.median(found, axis=0)
    print(f'  {what}: {clock:.0f} ({processor:.0f})')
  for (crop, workers, bare), found in ratios.items():
    clock, processor = np.median(found, axis=0)
    print(
      f'  {crop} crop, {workers} workers: {clock:.2f} ({processor:.2f}) of '
      f'bare {bare}'
    )


class _Middles:
  """Batches as `evaluation` makes them, but without end."""

  def __init__(self, records, batch_size):
    self._records = records
    self._batch_size = batch_size

  def __len__(self):
    return 2**40

  def __getitem__(self, step):
    numbers = step * self._batch_size + np.arange(self._batch_size)
    view = encoded.TestView(1, _SIZE, 3)
    return encoded.batch(
      self._records, numbers, numbers, view, size=self._batch_size
    )


def _stream(prepared, crop, workers, batch_size) -> ahead.Stream:
  if crop == 'random':
    settings = stream.Settings(size=_SIZE, workers=workers)
    return stream.training(
      prepared, 'train', batch_size=batch_size, seed=0, settings=settings
    )
  records = encoded.Records(prepared, 'train')
  return ahead.Stream(
    grain.MapDataset.source(_Middles(records, batch_size)),
    records,
    lambda batch: batch[:3],
    batch_bytes=batch_size * _SIZE * _SIZE * 3,
    workers=workers,
    max_skipped=0,
  )


def _stream_speed(prepared, crop, workers, batch_size) -> _Speed:
  """Of the stream, once all are at work."""
  others = set(multiprocessing.active_children())
  with _stream(prepared, crop, workers, batch_size) as read:
    for _ in range(4 * max(_CORES, workers)):  # those that were made ahead
      next(read)
    made = set(multiprocessing.active_children()) - others
    start, busy = time.perf_counter(), _busy(made)
    for _ in range(_BATCHES):
      next(read)
    seconds, used = time.perf_counter() - start, _busy(made) - busy
  return _Speed(_BATCHES * batch_size / seconds, _BATCHES * batch_size / used)


def _busy(processes) -> float:
  """Seconds that processors have worked for this process and these."""
  used = time.process_time()
  for process in processes:
    fields = pathlib.Path(f'/proc/{process.pid}/stat').read_text().split()
    used += (int(fields[13]) + int(fields[14])) / os.sysconf('SC_CLK_TCK')
  return used


# What a process of the pool does with the images that it holds.
_held = []


def _hold(images) -> None:
  _held.extend(images)


def _decode(data):
  """decoding"""
  Image.open(io.BytesIO(data)).load()


def _decode_to_array(data):
  """decoding into arrays"""
  np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


def _decode_and_crop(data):
  """decoding and cropping"""
  image = Image.open(io.BytesIO(data)).convert('RGB')
  crops.random_resized(image, _SIZE, np.random.default_rng(0))


_BARE = (_decode, _decode_to_array, _decode_and_crop)


def _run(bare, count) -> float:
  """Seconds that the processor has worked."""
  start = time.process_time()
  for data in itertools.islice(itertools.cycle(_held), count):
    bare(data)
  return time.process_time() - start


def _bare_speed(pool, bare, count) -> _Speed:
  """Of all processes together, each with so many images."""
  start = time.perf_counter()
  used = sum(pool.map(_run, [bare] * _CORES, [count] * _CORES))
  images = _CORES * count
  return _Speed(images / (time.perf_counter() - start), images / used)


# A further part is a function of the arguments, and a line here.
PARTS = {'jpeg': jpeg}


if __name__ == '__main__':
  main()
