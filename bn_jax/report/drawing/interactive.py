"""Makes the data of the page's script from the records of figures.

Numbers have six digits, as in the tables: what a cursor tells stands there.
Long lines are thinned to the points that a screen can show, and each point that
is left is exact.
"""

import base64
import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bn_jax.report.drawing import record, static, strokes
from bn_jax.report.results import curves, seeds

_DIGITS = 6
# Bytes of JSON above which it stands on the page compressed: smaller, it is
# readable as it is.
_LARGE = 20_000
# Of a config: what is measured and kept, and where; runs differ in what trains.
_NOT_TRAINING = ('measures', 'checkpoint', 'data_dir', 'log_every_steps')


def encoded(figure: record.Figure) -> tuple[str, str]:
  """Returns ('json' or 'gzip', text): the data of a figure as a page has it.

  'gzip' is base64 of compressed JSON.
  """
  arrays = _Arrays()
  data = {
    'name': figure.name,
    'title': figure.title,
    'shares': figure.shares,
    'abreast': figure.abreast,
    'reference': figure.reference,
    'keys': [_key(key) for key in figure.keys],
    'rows': _rows(figure.rows, arrays),
    'frames': [
      {'step': step, 'rows': _rows(rows, arrays)}
      for step, rows in figure.frames
    ],
  }
  data['arrays'] = arrays.every
  text = json.dumps(data, separators=(',', ':'), ensure_ascii=True)
  if len(text) < _LARGE:
    return 'json', text.replace('<', '\\u003c')
  # Without a time, so that the same records are the same page.
  compressed = gzip.compress(text.encode(), 9, mtime=0)
  return 'gzip', base64.b64encode(compressed).decode()


class _Arrays:
  """The arrays of a figure, each once: most lines share their steps."""

  def __init__(self):
    self.every, self._places = [], {}

  def __call__(self, values: Any) -> int:
    """Returns the place of an array, of any shape."""
    values = _rounded(np.asarray(values, float))
    text = json.dumps(values)
    if text not in self._places:
      self._places[text] = len(self.every)
      self.every.append(values)
    return self._places[text]


def _rounded(values: np.ndarray) -> Any:
  """Returns lists of numbers of six digits; None of what is not finite."""
  if values.ndim:
    return [_rounded(part) for part in values]
  number = float(values)
  if not math.isfinite(number):
    return None
  number = float(f'{number:.{_DIGITS}g}')
  return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _key(key: record.Key) -> dict[str, Any]:
  return {**key._asdict(), **strokes.look(key.index)}


def _rows(rows, arrays: _Arrays) -> list:
  return [
    [None if panel is None else _panel(panel, arrays) for panel in row]
    for row in rows
  ]


def _panel(panel: record.Panel, arrays: _Arrays) -> dict[str, Any]:
  return {
    **panel._asdict(),
    'x': _axis(panel.x),
    'y': _axis(panel.y),
    'marks': [
      {'kind': type(mark).__name__.lower(), **_mark(mark, panel, arrays)}
      for mark in panel.marks
      if getattr(mark, 'style', '') != 'hidden'
    ],
  }


def _axis(axis: record.Axis) -> dict[str, Any]:
  # JSON has no infinity.
  return {**axis._asdict(), 'within': axis.within and [
    end if math.isfinite(end) else None for end in axis.within]}  # fmt: skip


def _mark(mark, panel: record.Panel, arrays: _Arrays) -> dict[str, Any]:
  if isinstance(mark, (record.Lines, record.Bars)):
    return _lines(mark, panel, arrays)
  told = {}
  for name, value in mark._asdict().items():
    if isinstance(value, record.Scale):
      told[name] = {**value._asdict(), 'shades': _shades(value)}
    elif isinstance(value, (np.ndarray, list, tuple)):
      told[name] = arrays(value)
    else:
      told[name] = value
  return told


def _lines(mark, panel: record.Panel, arrays: _Arrays) -> dict[str, Any]:
  """Returns the seeds of lines, and of each edge mean and interval."""
  edges = static.means(mark, panel.y)
  fixed = {
    name: value for name, value in mark._asdict().items() if name != 'curves'
  }
  has_interval = seeds.shows_interval(len(mark.curves))
  return {
    **fixed,
    'edges': [
      {name: arrays(part) for name, part in _thin(edge, has_interval).items()}
      for edge in edges
    ],
    'seeds': [_seed(curve, arrays) for curve in mark.curves],
  }


def _thin(edge: seeds.Mean, has_interval: bool) -> dict[str, np.ndarray]:
  parts = {'x': edge.x, 'mean': edge.mean}
  if has_interval:
    parts |= {'low': edge.low, 'high': edge.high}
  points = strokes.thinned(edge.mean)
  return {name: part[points] for name, part in parts.items()}


def _seed(curve: record.Curve, arrays: _Arrays) -> dict[str, Any]:
  points = strokes.thinned(curve.y)
  told = {'seed': curve.seed, 'step': curve.step}
  for name in ('x', 'y', 'high'):
    part = getattr(curve, name)
    if part is not None:
      told[name] = arrays(np.asarray(part)[points])
  return told


def _shades(scale: record.Scale, count: int = 32) -> list[str]:
  """Returns the colours of a scale from its low to its high end."""
  of: Callable = static.colour_map(scale)
  return [static.colors.to_hex(of(share)) for share in np.linspace(0, 1, count)]


def runs(of_page: Sequence[curves.Run]) -> str:
  """Returns what the script knows of the runs of a page, as JSON.

  Their seeds, the keys in which their configs differ, and by how many examples
  and seconds a step leads on; of an epoch where the manifest tells it.
  """
  flat = [dict(_flat(run.config)) for run in of_page]
  differing = [
    key
    for key in dict.fromkeys(key for config in flat for key in config)
    if len({config[key] for config in flat if key in config}) > 1
  ]
  facts = [
    {
      'name': run.name,
      'seeds': [seed.seed for seed in run.seeds],
      'config': {key: config[key] for key in differing if key in config},
      'batch': run.config.get('batch_size'),
      'examples': run.seeds[0].manifest.get('examples'),
      'seconds': _seconds(run),
    }
    for run, config in zip(of_page, flat)
  ]
  return json.dumps(facts, separators=(',', ':')).replace('<', '\\u003c')


def _flat(config: Mapping, above: str = '') -> Iterator[tuple[str, str]]:
  """Yields 'schedule.learning_rate', '0.1'; a section's name as the section."""
  for key, value in config.items():
    name = above if key == 'name' and above else f'{above}.{key}'.strip('.')
    if isinstance(value, Mapping):
      if name not in _NOT_TRAINING:
        yield from _flat(value, name)
    elif name not in _NOT_TRAINING:
      yield name, f'{value}'


def _seconds(run: curves.Run) -> float | None:
  """Returns the mean seconds of a step of training; None where untold."""
  rates = [
    seed.seconds['train'] / steps
    for seed in run.seeds
    if 'train' in seed.seconds and (steps := curves.reached(seed))
  ]
  return float(f'{np.mean(rates):.6g}') if rates else None
