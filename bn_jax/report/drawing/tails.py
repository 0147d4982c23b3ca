"""Keeps what seeds recorded as they diverged from stretching an axis."""

import numpy as np

from bn_jax.report.drawing import record

# The first number of a seed that diverged, or its median if that is more: there
# its tail begins.
TIMES = 10


def cut_off(figure: record.Figure) -> record.Figure:
  """Returns a figure whose y axes are not set by how seeds diverged.

  Such an axis holds all that is finite of other seeds, and of one that diverged
  what is at most `TIMES` times its first number or its median: with 1e32 on it,
  all else would be a flat line. Axes with limits keep theirs.
  """
  rows = []
  for row in figure.rows:
    groups = [row] if figure.shares else [(panel,) for panel in row]
    rows.append(sum(map(_cut_off, groups), ()))
  return figure._replace(rows=tuple(rows))


def _cut_off(panels: tuple[record.Panel | None, ...]) -> tuple:
  """Returns panels that share a y axis, with limits where a tail is cut."""
  shown = [panel for panel in panels if panel is not None]
  marks = [mark for panel in shown for mark in panel.marks]
  lines = [m for m in marks if getattr(m, 'style', 'hidden') != 'hidden']
  every = [curve for mark in lines for curve in mark.curves]
  whole = [_finite(curve.y, curve.high) for curve in every]
  kept = [
    values[abs(values) <= _highest(values)] if curve.diverged else values
    for curve, values in zip(every, whole)
  ]
  if sum(map(len, kept)) == sum(map(len, whole)) or shown[0].y.limits:
    return panels
  kept += [_finite(m.low, m.high) for m in marks if type(m) is record.Reference]
  is_log = shown[0].y.logarithmic
  place, back = (np.log, np.exp) if is_log else (np.array, float)
  values = np.concatenate(kept)
  values = place(values[values > 0] if is_log else values)
  if not len(values):
    return panels
  margin = 0.05 * np.ptp(values) or 1.0
  limits = back(values.min() - margin), back(values.max() + margin)
  y = shown[0].y._replace(limits=tuple(map(float, limits)))
  return tuple(panel and panel._replace(y=y) for panel in panels)


def _finite(y: np.ndarray, high: np.ndarray | None) -> np.ndarray:
  """Returns all finite values of a line, or of both edges of a band."""
  edges = [y] if high is None else np.stack([y, high], axis=1)
  values = np.ravel(edges).astype(float)
  return values[np.isfinite(values)]


def _highest(values: np.ndarray) -> float:
  """Returns the size up to which values are no tail, of a line or a band."""
  sizes = np.sort(abs(values[values != 0]))
  # Of an even number the lower one: of two values the last is the tail.
  median = sizes[(len(sizes) - 1) // 2] if len(sizes) else 0.0
  return TIMES * max([median, *abs(values[:1])])
