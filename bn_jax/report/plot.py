"""Draws what a function of `bn_jax.analysis` returned, in the page's style."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, picture, record

# What others of its length are drawn against, and whether logarithmically.
_AXES = {
  'step_size': ('Step size e', True),
  'learning_rate': ('Learning rate', True),
  'radius': ('Radius', True),
  't': ('t, the share of the second network', False),
  'grid': ('Eigenvalue', False),
}
# What says how a result was come by, and is no result.
_QUIET = (
  'products', 'iterations', 'width', 'nodes', 'weights', 'eigenvectors',
  'smallest_eigenvectors', 'converged', 'smallest_converged',
)  # fmt: skip
_ERRORS = ('standard_error', 'low', 'high')  # ends of names: drawn as bars
# A quantity above 0 that varies by more is drawn on a logarithmic axis.
_WIDE = 20.0


def plot(
  result: Mapping[str, Any] | Any,
  *,
  layers: Sequence[str] = (),
  coordinates: Sequence[Any] = (),
) -> mpl.Figure:
  """Draws a result of an analysis, or several beside each other.

    figure = bn_jax.plot(analysis.along_gradient(loss, params, sizes))
    figure.savefig('along.png')
    bn_jax.plot({'batch': of_batch, 'none': of_none})  # a colour each

  A panel a quantity. Vectors are drawn against the step size, rate, radius, t
  or eigenvalue of the same result, else against the layers or by number;
  matrices as maps, a surface of two directions as contours; single numbers as
  points with their intervals. Axes are logarithmic where all numbers are above
  0 and vary by more than a factor of 20.

  Args:
    result: what the function returned; or label -> that, of several.
    layers: their names, where a quantity is [L].
    coordinates: of `analysis.surface`, as it took them.

  Returns:
    A Matplotlib figure that is laid out; it belongs to no window: save it, or
    let a notebook show it.

  Raises:
    ValueError: nothing in the result can be drawn.
  """
  by_label = result if isinstance(result, Mapping) else {'value': result}
  if not by_label or not all(isinstance(v, Mapping) for v in by_label.values()):
    by_label = {'': by_label}
  results = {
    label: {
      name: np.asarray(value, float)
      for name, value in of.items()
      if not name.removeprefix('smallest_').startswith(_QUIET)
      and not isinstance(value, (list, tuple, Mapping))
    }
    for label, of in by_label.items()
  }
  panels = tuple(_panels(results, layers, coordinates))
  if not panels:
    names = sorted({name for of in results.values() for name in of})
    raise ValueError(
      f'nothing to draw in {", ".join(names) or "an empty result"}; give what '
      'a function of bn_jax.analysis returned, or label -> that'
    )
  has_lines = any(
    isinstance(mark, record.Lines) for panel in panels for mark in panel.marks
  )
  keys = record.names(list(results)) if len(results) > 1 and has_lines else ()
  figure = record.Figure(
    'plot', '', '', (panels,), keys, shares=False, abreast=(3, 1)
  )
  with canvas.style():
    return canvas.settled(picture.drawn(figure, False))


def _panels(results, layers, coordinates) -> Iterator[record.Panel]:
  names = dict.fromkeys(name for of in results.values() for name in of)
  for name in names:
    values = {
      index: of[name]
      for index, of in enumerate(results.values())
      if name in of and np.isfinite(of[name]).any()
    }
    dimensions = {array.ndim for array in values.values()}
    is_part = name in _AXES or name == 'interval' or name.endswith(_ERRORS)
    if is_part or len(dimensions) != 1:
      continue
    (count,) = dimensions
    if count == 0 and not name.endswith('_0'):
      yield _numbers(name, values, results)
    elif count == 1:
      yield _curves(name, values, results, layers)
    elif count == 2:
      for index, matrix in values.items():
        title = list(results)[index] or _words(name)
        yield _map(name, matrix, title, layers, coordinates)


def _curves(name, values, results, layers) -> record.Panel:
  """Returns a panel of vectors, with the band of a density."""
  marks, against, is_log_x = [], None, False
  for index, array in values.items():
    of = list(results.values())[index]
    axis = next(
      (key for key in _AXES if key in of and of[key].shape == array.shape), None
    )
    x = np.arange(1, len(array) + 1) if axis is None else of[axis]
    against, is_log_x = (None, False) if axis is None else _AXES[axis]
    order = np.argsort(x)
    curve = record.Curve(0, x[order], array[order])
    marks.append(record.Lines(index, name, (curve,)))
    if name == 'density' and 'interval' in of:
      low, high = of['interval'][order].T
      band = record.Curve(0, x[order], low, high)
      marks.append(record.Lines(index, name, (band,)))
    if len(array) == 1:
      marks.append(record.Points(index, 'dot', x, array))
  length = max(map(len, values.values()))
  names = tuple(layers) if against is None and len(layers) == length else ()
  x_axis = record.Axis(
    against or ('' if names else 'Number'), 'x', is_log_x, names=names
  )
  every = np.concatenate(list(values.values()))
  every = every[np.isfinite(every)]
  is_log = 0 < _WIDE * every.min() < every.max()
  limits = None
  if name == 'density':  # Gaussians go on for ever
    is_log, limits = True, (every.max() * 10**-6.5, 2 * every.max())
  y_axis = record.Axis(_words(name), name, is_log, limits=limits)
  return record.Panel(x_axis, y_axis, tuple(marks), _words(name))


def _numbers(name, values, results) -> record.Panel:
  """Returns a panel of one number a result, with its interval."""
  marks = []
  for index, number in values.items():
    of = list(results.values())[index]
    x = np.array([index + 1.0])
    marks.append(record.Points(index, 'dot', x, [float(number)]))
    stem = name.removesuffix('trace') if name.endswith('trace') else f'{name}_'
    low, high = (of.get(f'{stem}{end}') for end in ('low', 'high'))
    error = of.get(f'{stem}standard_error')
    if low is None and error is not None:
      low, high = number - error, number + error
    if low is not None and np.isfinite([low, high]).all():
      bar = record.Curve(0, x, np.array([low]), np.array([high]))
      marks.append(record.Bars(index, name, (bar,)))
  labels = tuple(label or ' ' for label in results)
  x_axis = record.Axis('', 'x', names=labels, limits=(0.5, len(labels) + 0.5),
                       fixed=True)  # fmt: skip
  return record.Panel(x_axis, record.Axis('', name), tuple(marks), _words(name))


def _map(name, matrix, title, layers, coordinates) -> record.Panel:
  finite = matrix[np.isfinite(matrix)]
  low, high = float(finite.min()), float(finite.max())
  if not high > low:
    low, high = low - 0.5, high + 0.5
  scale = record.Scale(_words(name), low, high, 0 < 10 * low <= high)
  if len(coordinates) == 2 or name == 'loss':
    x, y = (
      np.asarray(axis, float)
      for axis in (coordinates or [np.arange(size) for size in matrix.shape])
    )
    mark = record.Contours(name, x, y, matrix, scale, 0, 0)
    axes = record.Axis('d₁', 'x'), record.Axis('d₂', 'y')
    return record.Panel(*axes, (mark,), title)
  edges = [np.arange(size + 1) + 0.5 for size in matrix.shape]
  names = tuple(layers) if len(layers) == len(matrix) else ()
  square = matrix.shape[0] == matrix.shape[1]
  cells = record.Cells(name, edges[1], edges[0], matrix, scale, written=True)
  axes = (
    record.Axis('', 'x', names=names if square else ()),
    record.Axis('', 'y', names=names),
  )
  return record.Panel(*axes, (cells,), title)


def _words(name: str) -> str:
  return name.replace('_', ' ').capitalize()
