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
# Equal parts of a long line, of each of which both extremes and the mean are
# told: no fewer than its pixels, but of very many lines, which hide each other.
_BINS, _FEWEST, _POINTS = 500, 60, 100_000
_MAPS = (record.Cells, record.Contours, record.Ridges)  # without a margin
_SHADES = 64  # of a map
_LEVELS = 17  # of a surface, one between each two of `static.levels_of`
# Of a config whose values colour runs at most: colours that are told apart.
_MOST_VALUES = 8
_MANY = 10  # runs from which on a key of their configs colours them at first
# Of a config: what is measured and kept, and where; runs differ in what trains.
_NOT_TRAINING = ('measures', 'checkpoint', 'data_dir', 'log_every_steps')


def encoded(figure: record.Figure) -> tuple[str, str]:
  """Returns ('json' or 'gzip', text): the data of a figure as a page has it.

  A line of arrays, and one of all else, in which {"$": 3} is the fourth array.
  'gzip' is base64 of both, compressed.
  """
  marks = [mark for panel in figure.panels for mark in panel.marks]
  lines = sum(len(getattr(mark, 'curves', ())) for mark in marks)
  arrays = _Arrays(max(_FEWEST, min(_BINS, _POINTS // max(1, lines))))
  steps = {
    step for m in marks if isinstance(m, record.Ridges) for step in m.steps
  }
  data = {
    'title': figure.title,
    'shares': figure.shares,
    'abreast': figure.abreast,
    'reference': figure.reference,
    'keys': [_key(key) for key in figure.keys],
    'rows': _rows(figure, figure.rows, arrays),
    'frames': [
      {'rows': _rows(figure, rows, arrays)} for _, rows in figure.frames
    ],
    'steps': [int(step) for step, _ in figure.frames]
    or sorted(map(int, steps)),
    'surfaces': any(isinstance(mark, record.Contours) for mark in marks),
  }
  text = '\n'.join(
    json.dumps(part, separators=(',', ':')) for part in (arrays.every, data)
  )
  if len(text) < _LARGE:
    return 'json', text.replace('<', '\\u003c')
  # Without a time, so that the same records are the same page.
  compressed = gzip.compress(text.encode(), 9, mtime=0)
  return 'gzip', base64.b64encode(compressed).decode()


class _Arrays:
  """The arrays of a figure, each once: most lines share their steps.

  Attributes:
    bins: equal parts of a long line, of each of which two points are left.
  """

  def __init__(self, bins: int):
    self.bins = bins
    self.every, self._places = [], {}

  def __call__(self, values: Any) -> dict[str, int]:
    """Returns the name of an array, of any shape."""
    values = np.asarray(values, float)
    content = values.shape, values.tobytes()
    if content not in self._places:
      self._places[content] = len(self.every)
      self.every.append(_rounded(values))
    return {'$': self._places[content]}


def _rounded(values: np.ndarray) -> Any:
  """Returns lists of numbers of six digits; None of what is not finite."""
  if values.ndim > 1:
    return [_rounded(part) for part in values]
  if not values.ndim:
    return _rounded(values[None])[0]
  with np.errstate(all='ignore'):
    places = _DIGITS - 1 - np.floor(np.log10(np.abs(values)))
    # Of powers of ten that are exact, so that the digits are.
    up, down = (10.0 ** np.clip(sign * places, 0, 22) for sign in (1, -1))
    rounded = np.where(np.abs(places) > 22, np.nan, values)
    rounded = np.round(rounded * up / down) / up * down
  rows = []
  for number, exact in zip(rounded.tolist(), values.tolist()):
    if number != number:  # 0, far from 1, or not finite
      number = float(f'{exact:.{_DIGITS}g}') if math.isfinite(exact) else None
    whole = number is not None and number.is_integer() and abs(number) < 1e15
    rows.append(int(number) if whole else number)
  return rows


def _key(key: record.Key) -> dict[str, Any]:
  return {**key._asdict(), **strokes.look(key.index)}


def _rows(figure: record.Figure, rows, arrays: _Arrays) -> list:
  """Returns panels; the axes of those with one name are one."""
  return [
    [
      panel
      and {
        **_panel(panel, arrays),
        'ends': static.diverged(panel, figure.keys),
        'names': _names(figure.shares, panel, (down, across)),
      }
      for across, panel in enumerate(row)
    ]
    for down, row in enumerate(rows)
  ]


def _names(
  shares: bool, panel: record.Panel, place: tuple[int, int]
) -> dict[str, str]:
  one_x = shares or panel.x.name == record.STEPS.name
  return {
    'x': f'x {panel.x.name if one_x else place}',
    'y': f'y {place[0] if shares else place}',
  }


def _panel(panel: record.Panel, arrays: _Arrays) -> dict[str, Any]:
  x, y = _axis(panel.x), _axis(panel.y)
  for mark in panel.marks:
    if isinstance(mark, record.Ridges):
      y['names'] = [str(mark.steps[look]) for look in mark.drawn]
      y['limits'] = None
  return {
    **panel._asdict(),
    'x': x,
    'y': y,
    'about': panel.about or panel.title,
    'is_map': any(isinstance(mark, _MAPS) for mark in panel.marks),
    'marks': [
      {'kind': type(mark).__name__.lower(), **_mark(mark, panel, arrays)}
      for mark in panel.marks
      if getattr(mark, 'style', '') != 'hidden'
    ],
  }


def _axis(axis: record.Axis) -> dict[str, Any]:
  # JSON has no infinity.
  label = axis.label.replace('\n', ' ')
  ticks = static.roomy(axis) if axis.ticks else None
  return {**axis._asdict(), 'label': label, 'ticks': ticks,
    'within': axis.within and [
      end if math.isfinite(end) else None for end in axis.within]}  # fmt: skip


def _mark(mark, panel: record.Panel, arrays: _Arrays) -> dict[str, Any]:
  if isinstance(mark, (record.Lines, record.Bars)):
    return _lines(mark, panel, arrays)
  told = {}
  for name, value in mark._asdict().items():
    if isinstance(value, record.Scale):
      count = _LEVELS if isinstance(mark, record.Contours) else _SHADES
      told[name] = {**value._asdict(), 'shades': _shades(value, count)}
    elif isinstance(value, (np.ndarray, list, tuple)):
      told[name] = arrays(value)
    else:
      told[name] = value
  if isinstance(mark, (record.Cells, record.Contours)):
    for at, axis in (('x', panel.x), ('y', panel.y)):
      told[f'at_{at}'] = arrays(_places(mark, at, axis))
  return told


def _places(mark, which: str, axis: record.Axis) -> np.ndarray:
  """Returns where the values of a map are, as in the table."""
  edges = getattr(mark, which)
  if isinstance(mark, record.Contours):
    return edges
  if (at := getattr(mark, f'at_{which}')) is not None:
    return at
  if axis.logarithmic and not axis.names:
    return np.sqrt(edges[1:] * edges[:-1])
  return (edges[1:] + edges[:-1]) / 2


def _lines(mark, panel: record.Panel, arrays: _Arrays) -> dict[str, Any]:
  """Returns the seeds of lines, and of each edge mean and interval."""
  edges = static.means(mark, panel.y)
  fixed = {
    name: value for name, value in mark._asdict().items() if name != 'curves'
  }
  if mark.key is None:
    fixed['style'] = 'grey'
  has_interval = seeds.shows_interval(len(mark.curves))
  return {
    **fixed,
    'edges': [
      {
        name: arrays(part)
        for name, part in _thin(edge, has_interval, arrays.bins).items()
      }
      for edge in edges
    ],
    'seeds': [_seed(curve, arrays) for curve in mark.curves],
  }


def _thin(
  edge: seeds.Mean, has_interval: bool, bins: int
) -> dict[str, np.ndarray]:
  parts = {'x': edge.x, 'mean': edge.mean}
  if has_interval:
    parts |= {'low': edge.low, 'high': edge.high}
  points = strokes.thinned(edge.mean, bins)
  return {name: part[points] for name, part in parts.items()}


def _seed(curve: record.Curve, arrays: _Arrays) -> dict[str, Any]:
  """Returns the points of a seed, and of a long one means of equal parts.

  For the points that are left of a long one are its extremes.
  """
  parts = {'x': curve.x, 'y': curve.y, 'high': curve.high}
  parts = {k: np.asarray(v) for k, v in parts.items() if v is not None}
  points = strokes.thinned(parts['y'], arrays.bins)
  if 'high' in parts:
    points = np.union1d(points, strokes.thinned(parts['high'], arrays.bins))
  told = {'seed': curve.seed, 'step': curve.step}
  told |= {name: arrays(part[points]) for name, part in parts.items()}
  if len(points) == len(parts['y']):
    return told
  told['size'] = size = -(-len(parts['y']) // arrays.bins)
  starts = np.arange(0, len(parts['y']), size)
  counts = np.diff([*starts, len(parts['y'])])
  for name, part in parts.items():
    means = np.add.reduceat(part, starts) / counts
    told[f'{name}_bins'] = arrays(
      part[starts + counts - 1] if name == 'x' else means
    )
  return told


def _shades(scale: record.Scale, count: int) -> list[str]:
  """Returns the colours of a scale from its low to its high end."""
  of: Callable = static.colour_map(scale)
  return [static.colors.to_hex(of(share)) for share in np.linspace(0, 1, count)]


def runs(of_page: Sequence[curves.Run]) -> str:
  """Returns what the script knows of the runs of a page, as JSON.

  The config of each in the keys in which they differ, and what a step is in
  other units; by value of each of these keys the runs that have it; which of
  them colours many runs at first; looks.
  """
  configs = [dict(_flat(run.config)) for run in of_page]
  groups = {}
  for key in dict.fromkeys(key for config in configs for key in config):
    values = {}
    for run, config in zip(of_page, configs):
      value = {key: 'none', **config}[key]
      values.setdefault(value, []).append(run.name)
    # A key that some runs lack is a difference only if the others differ.
    if len({config[key] for config in configs if key in config}) > 1:
      groups[key] = sorted(values.items(), key=lambda pair: _order(pair[0]))
  units = {
    unit: steps
    for unit, of in _UNITS.items()
    if all(steps := [of(run) for run in of_page])
  }
  few = [key for key in groups if len(groups[key]) <= _MOST_VALUES]
  told = {
    'runs': [
      {
        'name': run.name,
        'seeds': [seed.seed for seed in run.seeds],
        'config': {key: config[key] for key in groups if key in config},
        'units': [steps[place] for steps in units.values()],
      }
      for place, (run, config) in enumerate(zip(of_page, configs))
    ],
    'units': list(units),
    'groups': list(groups.items()),
    'by': max(few, key=lambda key: len(groups[key]), default='')
    if len(of_page) > _MANY
    else '',
    **strokes.looks(),
  }
  text = json.dumps(told, separators=(',', ':'))
  return text.replace('<', '\\u003c')


def _order(value: str) -> tuple:
  """Returns by what values of configs are sorted: numbers by size."""
  try:
    return 0, float(value), value
  except ValueError:
    return 1, 0.0, value


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


def _epochs(run: curves.Run) -> float | None:
  examples = run.seeds[0].manifest.get('examples')
  return run.config['batch_size'] / examples if examples else None


# What a step is in them; one that is untold of a run is not offered.
_UNITS: dict[str, Callable[[curves.Run], float | None]] = {
  'Training step': lambda run: 1,
  'Epoch': _epochs,
  'Training examples': lambda run: run.config['batch_size'],
  'Seconds of training': _seconds,
}
