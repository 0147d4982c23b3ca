"""Lists the images of a folder with their labels, without opening them.

A folder has a sub-folder for each class, or a CSV of names and labels; see
`RULES`. Nothing is written into it.
"""

import csv
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax import errors
from bn_jax.data.disk import labels as labels_lib

CSV = 'labels.csv'
SUFFIXES = (
  '.bmp', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png',
  '.ppm', '.tif', '.tiff', '.webp',
)  # fmt: skip
# A folder or a word of the CSV -> the split that it is.
SPLITS = {
  'train': 'train', 'test': 'test', 'validation': 'validation',
  'val': 'validation', 'valid': 'validation',
}  # fmt: skip
RULES = (
  ('classes', 'the sub-folders in the order of their names, and in each its '
              'images in the order of theirs, those of deeper folders too'),
  ('splits', 'where train/ lies beside test/, val/, valid/ or validation/, or '
             'alone, the classes lie in these; the first of test and '
             'validation is the one to test on'),
  (CSV, 'beside the images, or a CSV that is named, comes first: columns name '
        'and label (or target, target2, ...: numbers), and split if wanted; '
        'its order is that of the examples; blank lines are left out, and '
        'labels are numbers where all are written as 7, +7 or -7'),
  ('left out', 'files whose names begin with a point, Thumbs.db, desktop.ini, '
               '*.csv, __MACOSX; and beside the class folders what has no '
               'name of an image, such as README.md, which is refused in them'),
)  # fmt: skip
_WHOLE = re.compile('[+-]?[0-9]+')  # int also takes 1_000
_DECIMAL = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')
_LEFT_OUT = ('thumbs.db', 'desktop.ini', '__macosx')


class Listing(NamedTuple):
  """The images of a folder, by split.

  Attributes:
    root: the folder.
    files: split -> paths below the folder, [N].
    sizes: split -> bytes of each file, [N].
    labels: split -> [N] int32, or targets, [N, K] float32.
    class_names: by label; () where there are targets.
  """

  root: pathlib.Path
  files: dict[str, tuple[str, ...]]
  sizes: dict[str, np.ndarray]
  labels: dict[str, np.ndarray]
  class_names: tuple[str, ...]


def of(path: pathlib.Path) -> Listing:
  """Lists the images of a folder, or of a CSV.

  Raises:
    DataError: there is none; a file that is no image; a class without images
      or that a split lacks; a CSV that is damaged or names what is not there.
  """
  if not path.exists():
    raise errors.DataError(f'folder:{path}: there is no such folder or CSV')
  try:
    if path.is_file():
      return _of_csv(path)
    if (path / CSV).is_file():
      return _of_csv(path / CSV)
    return _of_classes(path)
  except ValueError as error:
    raise errors.DataError(f'folder:{path}: {error}') from error
  except OSError as error:
    raise errors.DataError(f'cannot read folder:{path}: {error}') from error


def _of_classes(root: pathlib.Path) -> Listing:
  folders = _folders(root)
  levels = _levels(folders)
  # Split -> class -> path of a file below the root -> its bytes.
  trees = {
    split: {
      name: _images(root, os.path.join(folder, name))
      for name in _folders(root / folder)
    }
    for split, folder in levels.items()
  }
  names = sorted(trees['train'])
  if not names:
    hint = ', or a labels.csv'
    raise ValueError(
      f'{levels["train"] or "it"} has no sub-folders; give one for each class'
      f'{hint}'
    )
  for split, classes in trees.items():
    _check_classes(split, levels[split], classes, names)
  files, sizes, labels = {}, {}, {}
  for split, classes in trees.items():
    files[split] = tuple(path for name in names for path in classes[name])
    sizes[split] = np.array(
      [size for name in names for size in classes[name].values()], np.int64
    )
    counts = [len(classes[name]) for name in names]
    labels[split] = np.repeat(np.arange(len(names), dtype=np.int32), counts)
  return Listing(root, files, sizes, labels, tuple(names))


def _check_classes(split, folder, classes, names) -> None:
  """Raises ValueError unless a split has an image of each of these classes."""
  where = f'{folder}/' if folder else ''
  for name in names:
    if name not in classes:
      raise ValueError(
        f'{where}{name} is missing, a class of train; give its images, or take '
        'it away from train'
      )
  for name, images in classes.items():
    if name not in names:
      raise ValueError(
        f'{where}{name} is a class that train lacks; give images to train on, '
        'or take it away'
      )
    if not images:
      raise ValueError(
        f'the class {where}{name} has no images; give some, or take the folder '
        'away'
      )


def _levels(folders: list[str]) -> dict[str, str]:
  """Returns split -> its folder; '' where the classes lie in the root."""
  among = [name for name in folders if name in SPLITS]
  others = [name for name in folders if name not in SPLITS]
  if 'train' not in among:
    if among and not others:
      raise ValueError(f'it has {", ".join(among)} and no train')
    return {'train': ''}
  if others and len(among) == 1:  # a class of that name
    return {'train': ''}
  if others:
    raise ValueError(
      f'{others[0]} lies beside {" and ".join(among)}; allowed: splits alone, '
      f'or classes alone'
    )
  levels = {}
  for name in among:
    if SPLITS[name] in levels:
      raise ValueError(
        f'{levels[SPLITS[name]]} and {name} are one split; give one of them'
      )
    levels[SPLITS[name]] = name
  return levels


def _is_left_out(name: str) -> bool:
  lower = name.lower()
  return lower.startswith('.') or lower in _LEFT_OUT or lower.endswith('.csv')


def _folders(root: pathlib.Path) -> list[str]:
  """Returns the names of the sub-folders; images beside them are refused."""
  names = []
  with os.scandir(root) as entries:
    for entry in entries:
      if _is_left_out(entry.name):
        continue
      if entry.is_dir():
        names.append(entry.name)
      elif entry.name.lower().endswith(SUFFIXES):
        raise ValueError(
          f'{pathlib.Path(entry.path).relative_to(root)} lies in no class; '
          f'put it into a sub-folder of {root.name}, or give a {CSV}'
        )
  return sorted(names)


def _images(root: pathlib.Path, folder: str) -> dict[str, int]:
  """Returns path below the root -> bytes, of all images below a folder."""
  images = {}
  for path, size in _walked(root, folder, ()):
    if not path.lower().endswith(SUFFIXES):
      raise ValueError(
        f'{path} is no image; allowed: {", ".join(SUFFIXES)}; take it away, or '
        f'give a {CSV}'
      )
    images[path] = size
  return images


def _walked(
  root: pathlib.Path, folder: str, above: tuple
) -> Iterable[tuple[str, int]]:
  """Yields (path below the root, bytes) of all files, in the order of names."""
  stat = os.stat(root / folder)
  if (stat.st_dev, stat.st_ino) in above:
    raise ValueError(f'{folder} leads back to a folder above it')
  above += ((stat.st_dev, stat.st_ino),)
  with os.scandir(root / folder) as unordered:
    entries = sorted(unordered, key=lambda entry: entry.name)
  for entry in entries:
    if _is_left_out(entry.name):
      continue
    path = os.path.join(folder, entry.name)
    if entry.is_dir():
      yield from _walked(root, path, above)
    else:
      yield path, entry.stat().st_size


def _of_csv(path: pathlib.Path) -> Listing:
  root = path.parent
  lines, columns = _columns(path)
  names = columns.pop('name')
  splits = [
    _split_of(path, line, word)
    for line, word in zip(lines, columns.pop('split'))
  ]
  sizes = _sizes(path, lines, names)
  is_in = {
    split: np.array([word == split for word in splits])
    for split in dict.fromkeys(splits)
  }
  if 'train' not in is_in:
    raise ValueError(f'{path.name} has no row to train on')
  listing = Listing(
    root,
    {
      split: tuple(names[i] for i in np.flatnonzero(rows))
      for split, rows in is_in.items()
    },
    {split: sizes[rows] for split, rows in is_in.items()},
    *_values(path, lines, columns, is_in),
  )
  return listing


def _rows(path: pathlib.Path) -> list[tuple[int, list[str]]]:
  """Returns (number of the line, its texts) of each line that is not blank."""
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      reader = csv.reader(file)
      rows = [(reader.line_num, [x.strip() for x in row]) for row in reader]
  except (ValueError, csv.Error) as error:
    raise ValueError(
      f'{path.name} is no CSV with a header: {errors.first_line(error)}'
    ) from error
  rows = [(line, row) for line, row in rows if any(row)]
  if not rows:
    raise ValueError(
      f'{path.name} is empty; needed: a header, name and label (or target, '
      'target2, ...), and a line for each image'
    )
  return rows


def _columns(path: pathlib.Path) -> tuple[list[int], dict[str, list[str]]]:
  """Returns (numbers of the lines, column -> its texts).

  There is always a column `split`.
  """
  (_, header), *rows = _rows(path)
  targets = [word for word in header if word.startswith('target')]
  allowed = {'name', 'split', *(targets or ['label'])}
  for word in header:
    if word not in allowed or header.count(word) > 1:
      raise ValueError(
        f'{path.name} has the column {word!r}; allowed: name, label (or '
        'target, target2, ...), split, each once'
      )
  if not {'name', *(targets or ['label'])} <= set(header):
    raise ValueError(
      f'{path.name} has the columns {", ".join(header)}; needed: name, and '
      'label (or target, target2, ...)'
    )
  for line, row in rows:
    if len(row) != len(header):
      raise ValueError(
        f'{path.name}, line {line}: {len(row)} values; expected: '
        f'{len(header)}, as in the header'
      )
  if not rows:
    raise ValueError(f'{path.name} names no image')
  lines, rows = zip(*rows)
  columns = {word: list(texts) for word, texts in zip(header, zip(*rows))}
  return list(lines), {'split': ['train'] * len(rows), **columns}


def _split_of(path: pathlib.Path, line: int, word: str) -> str:
  if word not in SPLITS:
    raise ValueError(
      f'{path.name}, line {line}: the split {word!r}; allowed: '
      f'{", ".join(SPLITS)}'
    )
  return SPLITS[word]


def _sizes(
  path: pathlib.Path, lines: Sequence[int], names: Sequence[str]
) -> np.ndarray:
  """Returns the bytes of each file that a CSV names."""
  seen, sizes = {}, []
  for line, name in zip(lines, names):
    if name in seen:
      raise ValueError(
        f'{path.name}, line {line}: {name} once more, after line {seen[name]}'
      )
    seen[name] = line
    try:
      stat = os.stat(path.parent / name)
    except (OSError, ValueError):
      stat = None
    if stat is None or not name or os.path.isdir(path.parent / name):
      raise ValueError(f'{path.name}, line {line}: there is no file {name!r}')
    sizes.append(stat.st_size)
  return np.array(sizes, np.int64)


def _values(
  path: pathlib.Path,
  lines: Sequence[int],
  columns: Mapping[str, list[str]],
  is_in: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  """Returns (split -> labels or targets, names of the classes)."""
  if 'label' in columns:
    texts = columns['label']
    for line, text in zip(lines, texts):
      if not text:
        raise ValueError(f'{path.name}, line {line}: the label is missing')
    values = _label_values(path, texts)
    return labels_lib.numbered(
      {split: values[rows] for split, rows in is_in.items()}
    )
  targets = np.empty(
    (len(next(iter(columns.values()))), len(columns)), np.float32
  )
  for place, (word, texts) in enumerate(columns.items()):
    for number, (line, text) in enumerate(zip(lines, texts)):
      targets[number, place] = _number(path, line, word, text)
  return {split: targets[rows] for split, rows in is_in.items()}, ()


def _label_values(path: pathlib.Path, texts: Sequence[str]) -> np.ndarray:
  """Returns labels as numbers, where all are written as such, or as text."""
  if not all(map(_WHOLE.fullmatch, texts)):
    return np.array(texts)
  written = {}
  try:
    for text in texts:
      first = written.setdefault(int(text), text)
      if first != text:
        raise ValueError(
          f'{path.name}: the labels {first!r} and {text!r} are one number; '
          'allowed: one way to write it, or names'
        )
    return np.array([int(text) for text in texts], np.int64)
  except OverflowError:
    return np.array(texts)


def _number(path: pathlib.Path, line: int, word: str, text: str) -> float:
  with np.errstate(over='ignore'):
    value = np.float32(text if _DECIMAL.fullmatch(text) else np.nan)
  if not np.isfinite(value):
    raise ValueError(
      f'{path.name}, line {line}: the {word} {text!r}; allowed: a finite number'
    )
  return value
