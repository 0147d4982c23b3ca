"""python -m bn_jax data prepare NAME, and data info NAME."""

import pathlib
import sys
import textwrap
from collections.abc import Sequence

from absl import flags

from bn_jax import commands, errors

_USAGE = """\
usage: python -m bn_jax data prepare NAME [--data_dir=DIR] [--manual_dir=DIR]
       python -m bn_jax data info NAME [--data_dir=DIR] [--out=FILE.png]

prepare  writes a dataset as array_record, once. digits is made offline;
         cifar10, cifar100, mnist and fashion_mnist are downloaded, and need no
         TensorFlow; any other name of tensorflow-datasets needs it here, not
         where the set is read.
info     says what a prepared dataset holds, and draws some images of its first
         classes.

  --data_dir=DIR    of tensorflow-datasets; default: TFDS_DATA_DIR, or
                    ~/tensorflow_datasets
  --manual_dir=DIR  where archives lie that were downloaded by hand
  --out=FILE.png    where to draw; default: NAME.png in this folder
"""
_CLASSES, _EACH = 10, 8  # on the sheet
_UNBROKEN = '\u00a0'
_NAMED, _FEW = 100, 20  # classes named on the terminal; of more classes, a few


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  if len(argv) == 1:
    sys.stdout.write(_USAGE)
    return errors.ConfigError.exit_code
  return commands.run(lambda: _data(argv))


def _data(argv: Sequence[str]) -> int:
  if argv[1] not in _ACTIONS:
    message = errors.unknown('action of data', argv[1], _ACTIONS)
    raise errors.ConfigError(message)
  optional, run = _ACTIONS[argv[1]]
  values = flags.FlagValues()
  for name in ('data_dir', optional):
    flags.DEFINE_string(name, None, '', flag_values=values)
  try:
    names = values(argv[1:])[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if len(names) != 1:
    raise errors.ConfigError(_one_name(names, values.data_dir))
  return run(names[0], values)


def _one_name(names: Sequence[str], data_dir: str | None) -> str:
  from bn_jax.data.disk import store

  there = ', '.join(store.names(data_dir)) or 'none'
  return (
    f'{len(names)} names given; give one, NAME '
    f'(prepared in {store.data_dir(data_dir)}: {there})'
  )


def _say(line: str) -> None:
  sys.stdout.write(f'{line}\n')
  sys.stdout.flush()


def _prepare(name: str, values: flags.FlagValues) -> int:
  from bn_jax.data.disk import prepare

  prepare.prepare(
    name, data_dir=values.data_dir, manual_dir=values.manual_dir, say=_say
  )
  return 0


def _info(name: str, values: flags.FlagValues) -> int:
  # Imported late: a wrong command line need not wait for them.
  from bn_jax.data.disk import show, store
  from bn_jax.storage import files

  path = pathlib.Path(values.out or f'{name.replace("/", "-")}.png')
  show.check_place(path)
  prepared = store.opened(name, values.data_dir)
  seen = show.glance(prepared, classes=_CLASSES, each=_EACH)
  sizes = {
    split: show.size_on_disk(prepared, split) for split in prepared.splits
  }
  sys.stdout.write(_described(prepared, seen, sizes))
  sheet = show.draw(*_sheet(prepared, seen))
  try:
    files.write(path, lambda file: sheet.save(file, 'PNG'))
  except errors.StorageError as error:
    raise errors.StorageError(
      f'{error}; give another place with --out=FILE.png'
    ) from error
  _say(f'wrote {path}')
  return 0


# action -> (its own flag, what it does)
_ACTIONS = {'prepare': ('manual_dir', _prepare), 'info': ('out', _info)}


def _described(prepared, seen, sizes: dict[str, int]) -> str:
  """What is said of a dataset, in lines."""
  sides = [side or 'any' for side in prepared.shape]
  lines = [
    f'{prepared.name} {prepared.folder.name}',
    f'folder   {prepared.folder}',
    f'images   {" x ".join(map(str, sides))} (height x width x channels)',
  ]
  width = max(map(len, prepared.splits), default=0)
  for split, count in prepared.splits.items():
    size = f'{sizes[split] / 1e6:,.1f} MB'
    lines.append(f'split    {split:{width}} {count:>12,} examples {size:>12}')
  return '\n'.join([*lines, *_classes(prepared, seen)]) + '\n'


def _classes(prepared, seen) -> list[str]:
  """The lines that name the classes; a line ends between two of them."""
  total = prepared.num_classes
  named = total if total <= _NAMED else _FEW
  names, of = list(prepared.class_names[:named]), ''
  if seen.counts is not None:
    names = [f'{n} ({c:,})' for n, c in zip(names, seen.counts)]
    of = f' (examples in {seen.split})'
  names += [f'and {total - named:,} more'] if total > named else []
  names = ', '.join(name.replace(' ', _UNBROKEN) for name in names)
  lines = textwrap.wrap(
    f'classes  {total:,}{of}: {names}',
    80,
    subsequent_indent=' ' * 9,
    break_on_hyphens=False,
  )
  return [line.replace(_UNBROKEN, ' ') for line in lines]


def _sheet(prepared, seen) -> tuple:
  """(title, rows, note) of its contact sheet."""
  from bn_jax.data.disk import show

  rows = []
  for number, images in seen.images.items():
    count = '' if seen.counts is None else _examples(seen.counts[number])
    name = prepared.class_names[number]
    rows.append(show.Row(name, count, images))
  notes = []
  if len(rows) < prepared.num_classes:
    notes.append(f'the first {len(rows)} of {prepared.num_classes:,} classes')
  if seen.counts is None and any(len(row.images) < _EACH for row in rows):
    notes.append(f'found among {_examples(seen.looked_at)}')
  title = f'{prepared.name} {prepared.folder.name}, {seen.split}'
  return title, rows, '; '.join(notes)


def _examples(count: int) -> str:
  return f'{count:,} example{"" if count == 1 else "s"}'
