"""Times the streams of images, against each other and bare decoding.

jpeg: the stream that training and evaluation read, with random and with middle
crops, from threads and from 1 and 2 worker processes. It is compared with
Pillow alone, in one process for each core, with the images in memory: decoding
them, also into arrays, and with a random crop resized. Bare decoding and stream
alternate, so that other load on the machine affects both; under a high load,
the time of the processors says more than the clock.

folder: a folder of images against the same files in an array_record of TFDS, by
turns, from the memory of the system. It writes both into a temporary folder.

  python benchmarks/input.py [--part=jpeg] [--data_dir=DIR] [--originals=DIR]
    [--workers 0 1 2]
  python benchmarks/input.py --part=folder [--files=100000] [--rounds=6]
    [--side=64] [--format=JPEG]

Without folders the photographs that come with scikit-learn are read. --data_dir
may hold imagenette_mini (of 224 pixels); --originals is any folder of larger
JPEGs.
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
import results
import tensorflow_datasets as tfds
from PIL import Image
from sklearn import datasets

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bn_jax.data.batches import ahead, crops, encoded, stream
from bn_jax.data.disk import folders, store

_SIZE = 224  # pixels of a side, as ImageNet's networks take them
_RECORDS = 256  # images of a set: few enough to write in a second
_BATCHES = 16  # batches that are timed at a time
_CORES = os.cpu_count()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--part', choices=PARTS, default='jpeg')
  parser.add_argument('--batch_size', type=int, default=64)
  parser.add_argument('--pairs', type=int, default=3)
  parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2])
  parser.add_argument('--data_dir', default=None)
  parser.add_argument('--originals', default=None)
  parser.add_argument('--files', type=int, default=100_000)
  parser.add_argument('--distinct', type=int, default=1000)
  parser.add_argument('--side', type=int, default=64)
  parser.add_argument('--format', choices=('JPEG', 'PNG'), default='JPEG')
  parser.add_argument('--rounds', type=int, default=6)
  parser.add_argument('--batches', type=int, default=300)
  options = parser.parse_args()
  PARTS[options.part](options)


# jpeg: images that are streamed.


def jpeg(options: argparse.Namespace) -> None:
  with tempfile.TemporaryDirectory() as folder:
    sets = {f'{_SIZE} px': _small(options, folder)}
    sets['originals'] = _prepared('originals', folder, _originals(options))
    for name, prepared in sets.items():
      _measure(name, prepared, options)


class Photographs(tfds.core.GeneratorBasedBuilder):
  """A set of JPEGs that are in memory."""

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, images, count=_RECORDS, **keywords):
    self._images = images
    self._count = count
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
      # TFDS needs TensorFlow to shuffle more than 1,000 MiB.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is downloaded
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for number in range(self._count):
      image = io.BytesIO(self._images[number % len(self._images)])
      yield number, {'image': image, 'label': number % 10}


def _prepared(name, folder, images, count=_RECORDS) -> store.Prepared:
  tfds.disable_progress_bar()
  keywords = {'data_dir': f'{folder}/{name}', 'file_format': 'array_record'}
  builder = Photographs(images=images, count=count, **keywords)
  # TFDS says that it downloads, although nothing is downloaded here.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(file_format='array_record')
  return store.opened('photographs', keywords['data_dir'])


def _small(options, folder) -> store.Prepared:
  if options.data_dir is not None:
    return store.opened('imagenette_mini', options.data_dir)
  images = []
  for photograph in datasets.load_sample_images().images:
    for column in range(0, photograph.shape[1] - _SIZE, 32):
      square = photograph[100 : 100 + _SIZE, column : column + _SIZE]
      images.append(_encoded(Image.fromarray(square)))
  return _prepared('small', folder, images)


def _originals(options) -> list[bytes]:
  if options.originals is None:
    photographs = datasets.load_sample_images().images
    return [_encoded(Image.fromarray(pixels)) for pixels in photographs]
  files = sorted(pathlib.Path(options.originals).iterdir())
  return [
    file.read_bytes() for file in files if file.suffix.lower()[:3] == '.jp'
  ]


def _encoded(image: Image.Image, kind: str = 'JPEG') -> bytes:
  data = io.BytesIO()
  image.save(data, kind, **({'quality': 90} if kind == 'JPEG' else {}))
  return data.getvalue()


class _Speed(NamedTuple):
  """Images a second, by the clock and by the time of the processors."""

  clock: float
  processor: float


def _measure(name, prepared, options) -> None:
  source = store.source(prepared, 'train')
  images = [source[i]['image'] for i in range(min(len(source), _RECORDS))]
  count = _BATCHES * options.batch_size // _CORES
  context = multiprocessing.get_context('spawn')
  speeds, ratios = {}, {}
  with concurrent.futures.ProcessPoolExecutor(
    _CORES, context, _hold, (images,)
  ) as pool:
    _bare_speed(pool, _decode, 1)  # starts the processes
    for crop, workers in itertools.product(
      ('middle', 'random'), options.workers
    ):
      for _ in range(options.pairs):
        streamed = _stream_speed(prepared, crop, workers, options.batch_size)
        speeds.setdefault((crop, workers), []).append(streamed)
        for bare in _BARE:
          speed = _bare_speed(pool, bare, count)
          speeds.setdefault(bare.__doc__, []).append(speed)
          ratio = _Speed(*np.divide(streamed, speed))
          ratios.setdefault((crop, workers, bare.__doc__), []).append(ratio)
  _print(name, speeds, ratios)


def _print(name, speeds, ratios) -> None:
  print(f'{name}: images/s by the clock (per second of a core)')
  for key, values in speeds.items():
    what = f'Pillow, {key}'
    if isinstance(key, tuple):
      what = 'stream, {} crop, {} workers'.format(*key)
    clock, processor = np.median(values, axis=0)
    print(f'  {what}: {clock:.0f} ({processor:.0f})')
  for (crop, workers, bare), values in ratios.items():
    clock, processor = np.median(values, axis=0)
    clocks = [value.clock for value in values]
    results.add(
      f'{name}: {crop} crop, {workers} workers / bare {bare}',
      ratio=float(clock), low=min(clocks), high=max(clocks), pairs=len(clocks),
    )  # fmt: skip
    print(
      f'  {crop} crop, {workers} workers: {clock:.2f} ({processor:.2f}) of '
      f'bare {bare}'
    )


class _Middles:
  """Endless batches like those of `stream.evaluation`."""

  def __init__(self, records, batch_size):
    self._records = records
    self._batch_size = batch_size

  def __len__(self):
    return 2**40

  def __getitem__(self, step):
    numbers = step * self._batch_size + np.arange(self._batch_size)
    view = encoded.TestView(1, _SIZE, self._records.prepared.stated)
    return encoded.batch(
      self._records, numbers, numbers, view, size=self._batch_size
    )


def _stream(prepared, crop, workers, batch_size, size=_SIZE) -> ahead.Stream:
  if crop == 'random':
    settings = stream.Settings(size=size, workers=workers)
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


def _stream_speed(
  prepared, crop, workers, batch_size, count=_BATCHES, size=_SIZE
) -> _Speed:
  """Returns the speed of a stream, once all its workers are busy."""
  others = set(multiprocessing.active_children())
  with _stream(prepared, crop, workers, batch_size, size) as batches:
    for _ in range(4 * max(_CORES, workers)):  # those prepared ahead
      next(batches)
    started = set(multiprocessing.active_children()) - others
    start, busy = time.perf_counter(), _busy(started)
    for _ in range(count):
      next(batches)
    seconds, used = time.perf_counter() - start, _busy(started) - busy
  return _Speed(count * batch_size / seconds, count * batch_size / used)


def _busy(processes) -> float:
  """Returns the processor time, in seconds, of this process and others."""
  used = time.process_time()
  for process in processes:
    fields = pathlib.Path(f'/proc/{process.pid}/stat').read_text().split()
    used += (int(fields[13]) + int(fields[14])) / os.sysconf('SC_CLK_TCK')
  return used


# The images of a process of the pool, and what it does with them; docstrings of
# the functions in _BARE are their names in the table.
_images = []


def _hold(images) -> None:
  _images.extend(images)


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
  """Decodes `count` images; returns the processor time in seconds."""
  start = time.process_time()
  for data in itertools.islice(itertools.cycle(_images), count):
    bare(data)
  return time.process_time() - start


def _bare_speed(pool, bare, count) -> _Speed:
  """Returns the speed of all processes together, each with `count` images."""
  start = time.perf_counter()
  used = sum(pool.map(_run, [bare] * _CORES, [count] * _CORES))
  images = _CORES * count
  return _Speed(images / (time.perf_counter() - start), images / used)


# folder: files against an array_record.


def folder(options: argparse.Namespace) -> None:
  images = _varied(options)
  with tempfile.TemporaryDirectory() as place:
    root = pathlib.Path(place) / 'folder'
    for number in range(options.files):
      # In the order of the records: ten classes, by turns.
      file = root / str(number % 10) / f'{number:07}.{options.format.lower()}'
      if number < 10:
        file.parent.mkdir(parents=True)
      file.write_bytes(images[number % len(images)])
    records = _prepared('records', place, images, options.files)
    start = time.perf_counter()
    files = folders.opened(root)
    print(
      f'{options.files:,} {options.format}s of {options.side} px, '
      f'{sum(map(len, images)) / len(images):,.0f} bytes each: listed in '
      f'{time.perf_counter() - start:.1f} s'
    )
    _compare({'array_record': records, 'folder': files}, options)


def _varied(options: argparse.Namespace) -> list[bytes]:
  """Returns the files of as many different images as are asked for."""
  photographs = datasets.load_sample_images().images
  generator = np.random.default_rng(0)
  images = []
  for number in range(options.distinct):
    pixels = photographs[number % len(photographs)]
    side = options.side
    top, left = (
      generator.integers(length - side + 1) for length in pixels.shape[:2]
    )
    part = pixels[top : top + side, left : left + side]
    images.append(_encoded(Image.fromarray(part), options.format))
  return images


def _compare(sets, options: argparse.Namespace) -> None:
  """Prints the speed of each set, and the ratio of the last to the first."""
  for prepared in sets.values():  # into the memory of the system
    examples = prepared.records('train')
    for start in range(0, len(examples), 1000):
      examples.read(range(start, min(start + 1000, len(examples))))
  for workers in options.workers:
    speeds = {name: [] for name in sets}
    for turn in range(options.rounds):
      names = list(sets) if turn % 2 else list(sets)[::-1]
      for name in names:
        speeds[name].append(
          _stream_speed(
            sets[name], 'random', workers, options.batch_size, options.batches,
            options.side,
          )
        )  # fmt: skip
    for name, values in speeds.items():
      clock, processor = np.median(values, axis=0)
      print(
        f'  {workers} workers, {name}: {clock:.0f} images/s ({processor:.0f} '
        'per second of a core)'
      )
    first, last = (np.array(speeds[name]) for name in (*sets,))
    ratios = last / first
    clock, processor = np.median(ratios, axis=0)
    results.add(
      f'{options.format}s: a folder / an array_record, {workers} workers',
      ours=float(np.median(last[:, 0])), peer=float(np.median(first[:, 0])),
      unit='images/s', ratio=float(clock), low=float(ratios[:, 0].min()),
      high=float(ratios[:, 0].max()), pairs=options.rounds,
    )  # fmt: skip
    print(
      f'  {workers} workers: {clock:.3f} of the first ({processor:.3f}), from '
      f'{ratios[:, 0].min():.3f} to {ratios[:, 0].max():.3f} in '
      f'{options.rounds} rounds'
    )


# A further part is a function of the arguments, and a line here.
PARTS = {'jpeg': jpeg, 'folder': folder}


if __name__ == '__main__':
  main()
