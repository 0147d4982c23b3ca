"""Shows a dataset, or prepares one."""

import argparse
import ast
import pathlib
import sys
import textwrap
from typing import Any

from bn_jax import commands, errors
from bn_jax.config import parser as parser_lib

_PREPARE = """\
Writes a dataset as array_record, once. digits is made offline; cifar10,
cifar100, mnist and fashion_mnist are downloaded, and need no TensorFlow. Any
other dataset of tensorflow-datasets needs TensorFlow to be prepared, but not to
be read.
"""
_INFO = """\
Prints what a dataset holds, and draws images of its first classes. NAME is a
prepared one, or your own: folder:PATH, PATH.npz, X.npy,Y.npy, my_module:make.
Keywords of such a function follow it: my_module:make count=100.
"""
_CLASSES, _EACH = 10, 8  # rows of the sheet, images in each
_UNBROKEN = '\u00a0'
_NAMED, _FEW = 100, 20  # classes named on the terminal; of more, the first few


def configure(parser: parser_lib.Parser) -> None:
  """Adds the actions and their flags."""
  actions = parser.add_subparsers(
    metavar='ACTION', title='actions', required=True
  )
  prepare = actions.add_parser(
    'prepare', help='writes a dataset, once', description=_PREPARE
  )
  prepare.set_defaults(run=_prepare)
  _add_name(prepare)
  prepare.add_argument(
    '--manual_dir', metavar='DIR', type=parser_lib.path,
    help='folder of archives that were downloaded by hand',
  )  # fmt: skip
  info = actions.add_parser(
    'info', help='prints what a dataset holds, and draws it', description=_INFO
  )
  info.set_defaults(run=_info)
  _add_name(info)
  info.add_argument(
    'keywords', metavar='KEY=VALUE', nargs='*',
    help='keywords of my_module:make; a value that is no number, list or such '
    'of Python is text',
  )  # fmt: skip
  info.add_argument(
    '--out', metavar='FILE.png', type=parser_lib.path,
    help='where to draw; default: NAME.png in the current folder',
  )  # fmt: skip


def _add_name(parser: parser_lib.Parser) -> None:
  parser.add_argument('name', metavar='NAME', nargs='?', help='the dataset')
  parser.add_argument(
    '--data_dir', metavar='DIR', type=parser_lib.path,
    help='folder of tensorflow-datasets; default: TFDS_DATA_DIR, or '
    '~/tensorflow_datasets',
  )  # fmt: skip


def _check_name(arguments: argparse.Namespace) -> None:
  """Refuses a line without NAME; the message has those that are prepared."""
  if arguments.name is None:
    from bn_jax.data.disk import store

    data_dir = arguments.data_dir
    prepared = ', '.join(store.names(data_dir)) or 'none'
    raise errors.ConfigError(
      f'NAME is missing (prepared in {store.data_dir(data_dir)}: {prepared})'
    )


def _say(line: str) -> None:
  sys.stdout.write(f'{line}\n')
  sys.stdout.flush()


def _prepare(arguments: argparse.Namespace) -> int:
  _check_name(arguments)
  from bn_jax.data.disk import prepare

  prepare.prepare(
    arguments.name,
    data_dir=arguments.data_dir,
    manual_dir=arguments.manual_dir,
    say=_say,
  )
  return 0


def _info(arguments: argparse.Namespace) -> int:
  _check_name(arguments)
  # Imported late: a wrong command line need not wait for them.
  from bn_jax.data.disk import show

  path = pathlib.Path(arguments.out or _file_name(arguments.name))
  show.check_place(path)
  dataset = _opened(arguments.name, arguments.data_dir, _keywords(arguments))
  glance = None
  if dataset.stated is not None:
    glance = show.glance(dataset, classes=_CLASSES, each=_EACH)
  sizes = {split: dataset.size_on_disk(split) for split in dataset.splits}
  sys.stdout.write(_described(dataset, glance, sizes))
  if glance is not None:
    _draw(path, dataset, glance)
  return 0


def _draw(path: pathlib.Path, dataset, glance) -> None:
  from bn_jax.data.disk import show
  from bn_jax.storage import files

  sheet = show.draw(*_sheet(dataset, glance))
  try:
    files.write(path, lambda file: sheet.save(file, 'PNG'))
  except errors.StorageError as error:
    raise errors.StorageError(
      f'{error}; give another file with --out=FILE.png'
    ) from error
  _say(f'wrote {path}')


def _file_name(name: str) -> str:
  """Returns the name of the picture of a dataset, in the current folder."""
  from bn_jax.data.disk import own

  if own.is_own(name):
    name = pathlib.Path(own.absolute(name).partition(',')[0]).stem
  return f'{name.replace("/", "-").replace(":", "-")}.png'


def _keywords(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns the keywords that are given to a user's function."""
  from bn_jax import plugins

  keywords = {}
  for word in arguments.keywords:
    keyword, is_given, text = word.partition('=')
    if not (is_given and keyword) or not plugins.is_reference(arguments.name):
      raise errors.ConfigError(
        f'{word!r} follows {arguments.name}; allowed: KEY=VALUE, after a '
        'function, my_module:make'
      )
    try:
      keywords[keyword] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      keywords[keyword] = text
  return keywords


def _opened(name: str, data_dir: str | None, keywords: dict[str, Any]) -> Any:
  """Opens a dataset; of a user's own, a test split is held out."""
  from bn_jax import modules, plugins
  from bn_jax.data import returned
  from bn_jax.data.disk import held_out, own, store

  if plugins.is_reference(name):
    modules.search('.')
    function = plugins.constructor(name)
    value = _called(name, function, data_dir, keywords)
    return held_out.of(returned.opened(name, function, value), None, 0)
  if own.is_own(name):
    return held_out.of(own.opened(name), None, 0)
  return store.opened(name, data_dir)


def _called(
  name: str, function, data_dir: str | None, keywords: dict[str, Any]
) -> Any:
  """Returns what a user's function makes.

  Raises:
    ConfigError: it fails, lacks a keyword, or has one without a value.
  """
  from bn_jax import plugins

  try:
    parameters = plugins.keywords_of(function)
    # As in training, see `datasets.make`.
    ours = {'data_dir': data_dir, 'seed': 0}
    keywords = {k: x for k, x in ours.items() if k in parameters} | keywords
    for keyword, parameter in parameters.items():
      is_needed = parameter.default is parameter.empty
      if is_needed and keyword not in keywords:
        raise errors.ConfigError(
          f'{name} needs {keyword}; give it: {name} {keyword}=VALUE'
        )
    for keyword in keywords:
      if not plugins.takes(function, keyword):
        raise errors.ConfigError(
          f'{name}: {errors.unknown("keyword", keyword, parameters)}'
        )
    return plugins.call(name, function, **keywords)
  except errors.Failure:
    raise
  except ValueError as error:
    raise errors.ConfigError(str(error)) from error


def _described(dataset, glance, sizes: dict[str, int]) -> str:
  """Returns the text of `info`; sizes is split -> bytes on disk."""
  from bn_jax.data.disk import arrays, facts, levels, own, pixels

  rules = own.rules(dataset)
  lines = [_title(dataset), f'folder   {dataset.folder}']
  if dataset.stated is None:
    lines += [f'vectors  {dataset.shape[0]:,} numbers, as float32']
  else:
    sides = [side or 'any' for side in dataset.shape]
    lines += [
      f'images   {" x ".join(map(str, sides))} (height x width x channels)',
      f'pixels   {levels.described(dataset.stated)}',
    ]
  if not isinstance(getattr(dataset, 'base', dataset), arrays.Arrays):
    rules += pixels.RULES  # of files
  width = max(map(len, dataset.splits), default=0)
  for split, count in dataset.splits.items():
    size = f'{sizes[split] / 1e6:,.1f} MB'
    lines.append(f'split    {split:{width}} {count:>12,} examples {size:>12}')
  if dataset.classifies:
    lines += _classes(dataset, glance)
    try:
      facts.check_classes(dataset)
    except errors.DataError as error:
      lines += textwrap.wrap(
        f'refused  to train on: {error}', 80,
        subsequent_indent=' ' * 9, break_on_hyphens=False,
      )  # fmt: skip
  else:
    lines += [f'targets  {dataset.num_classes:,} numbers each']
  of = 'all images, in memory and in a stream'
  lines += [f'rules    of {"data of your own" if own.rules(dataset) else of}']
  width = max(len(kind) for kind, _ in rules)
  for kind, becomes in rules:
    lines += textwrap.wrap(
      f'{kind:{width}}  {becomes}', 80,
      initial_indent=' ' * 9, subsequent_indent=' ' * (11 + width),
    )  # fmt: skip
  return '\n'.join(lines) + '\n'


def _title(dataset) -> str:
  """Returns the name of a dataset, and its version where it has one."""
  from bn_jax.data.disk import store

  is_prepared = isinstance(dataset, store.Prepared)
  version = f' {dataset.folder.name}' if is_prepared else ''
  return f'{dataset.name}{version}'


def _counts(dataset, glance) -> tuple[Any, str]:
  """Returns (examples of each class, or None; in which split)."""
  if glance is not None:
    return glance.counts, glance.split
  import numpy as np

  labels = dataset.known_labels('train')
  return np.bincount(labels, minlength=dataset.num_classes), 'train'


def _classes(dataset, glance) -> list[str]:
  """Returns the lines that name the classes, broken only between names."""
  total = dataset.num_classes
  num_named = total if total <= _NAMED else _FEW
  names, heading = list(dataset.class_names[:num_named]), ''
  counts, split = _counts(dataset, glance)
  if counts is not None:
    names = [f'{n} ({c:,})' for n, c in zip(names, counts)]
    heading = f' (examples in {split})'
  names += [f'and {total - num_named:,} more'] if total > num_named else []
  names = ', '.join(name.replace(' ', _UNBROKEN) for name in names)
  lines = textwrap.wrap(
    f'classes  {total:,}{heading}: {names}',
    80,
    subsequent_indent=' ' * 9,
    break_on_hyphens=False,
  )
  return [line.replace(_UNBROKEN, ' ') for line in lines]


def _sheet(dataset, glance) -> tuple:
  """Returns (title, rows, note) of a dataset's contact sheet."""
  from bn_jax.data.disk import show

  rows = []
  for number, images in glance.images.items():
    count = '' if glance.counts is None else _examples(glance.counts[number])
    name = dataset.class_names[number] if dataset.classifies else 'examples'
    rows.append(show.Row(name, count, images))
  notes = []
  if dataset.classifies and len(rows) < dataset.num_classes:
    notes.append(f'the first {len(rows)} of {dataset.num_classes:,} classes')
  if glance.counts is None and any(len(row.images) < _EACH for row in rows):
    notes.append(f'found among {_examples(glance.looked_at)}')
  title = f'{_title(dataset)}, {glance.split}'
  return title, rows, '; '.join(notes)


def _examples(count: int) -> str:
  return f'{count:,} example{"" if count == 1 else "s"}'


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
