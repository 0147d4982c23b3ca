"""Draws the surface of a loss around parameters: contours, or curves of lines.

As Li et al. (2018), arXiv:1712.09913, Figures 5 and 9. On it lies the way of
the checkpoints, where it was measured; each has the colour of its own loss, for
the surface is that of a plane in which only the last of them lies.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.drawing import canvas, first_last, record
from bn_jax.report.results import curves, looks
from bn_jax.storage import records

MEASURE = 'surface'
_DECADE = 10  # of largest by smallest loss: from there on levels are powers
_TIMES = 3  # planes of a run that are drawn: one below the other
_LINES = 7  # lines of a run that are drawn, a colour each
# Normalisation -> what it gives to the normal vectors of the plane.
_NORMALISED = {
  'filter': ', each filter of which has the norm of the same filter of the '
  'weights (Li et al., 2018); biases and norms are not moved',
  'layer': ', each layer of which has the norm of its weights; biases and '
  'norms are not moved',
  'none': '',
}


class _Look(NamedTuple):
  """One look at a run."""

  run: curves.Run
  index: int  # of the run among all of the page
  seed: int
  look: records.Record

  @property
  def place(self) -> tuple[int, int, int]:
    """Returns what tells it from other looks."""
    return self.index, self.seed, self.look.step

  @property
  def loss(self) -> np.ndarray:
    """Returns the loss over the grid, [P, P], or [P] of a line."""
    return self.look.values['loss']

  @property
  def path_loss(self) -> np.ndarray:
    """Returns the losses of the checkpoints, [T]; [0] without any."""
    values = self.look.values
    return values['path_loss'] if 'path_loss' in values else np.zeros(0)


def figure(entry: looks.Entry) -> record.Figure | None:
  """Draws a panel a run and look, all on one scale of the loss."""
  every = _every(entry)
  if not every:
    return None
  shown = _shown(every)
  scale = _scale(entry, shown)
  keys = _keys(entry, shown)
  of = _rows_of_planes if every[0].loss.ndim == 2 else _rows_of_lines
  drawn = {one.place for one in shown}
  steps = {one.look.step for one in shown}
  others = [one for one in every if one.place not in drawn]
  first = _first_seeds(every)
  return record.of_entry(
    entry,
    'surface',
    'Surface of the loss',
    _caption(entry, shown, scale),
    rows=of(shown, scale, keys),
    keys=keys,
    shares=every[0].loss.ndim == 1,
    undrawn=sum((sum(of([one], scale, keys), ()) for one in others), ()),
    frames=first_last.frames(
      entry,
      lambda step: of([o for o in first if o.look.step == step], scale, keys),
      len(steps),
    ),
  )


def _every(entry: looks.Entry) -> list[_Look]:
  """Returns all looks, run by run, of planes if there are some."""
  every = [
    _Look(run, index, seed.seed, look)
    for index, run in entry.indexed
    for seed in run.seeds
    for look in seed.arrays.get(entry.name, ())
    if 'loss' in look.values
  ]
  # Runs of both kinds under one name: planes tell more.
  dimensions = max((one.loss.ndim for one in every), default=0)
  return [one for one in every if one.loss.ndim == dimensions]


def _first_seeds(every: Sequence[_Look]) -> list[_Look]:
  """Returns the looks of the first seed of each run that has looked."""
  first = {}
  for one in every:
    first.setdefault(one.index, one.seed)
  return [one for one in every if first[one.index] == one.seed]


def _shown(every: Sequence[_Look]) -> list[_Look]:
  """Returns the looks that a still picture has, evenly over the steps."""
  most = _TIMES if every[0].loss.ndim == 2 else _LINES
  return [
    of_run[place]
    for of_run in _by_run(_first_seeds(every))
    for place in looks.evenly(len(of_run), most)
  ]


def _keys(entry: looks.Entry, shown: Sequence[_Look]) -> tuple[record.Key, ...]:
  """Returns the runs; of lines the steps, where a panel has several."""
  steps = sorted({one.look.step for one in shown})
  if shown[0].loss.ndim == 2 or len(steps) == 1:
    return record.keys_of(entry.indexed)
  return record.names([f'step {step}' for step in steps])


def _rows_of_planes(
  shown: Sequence[_Look], scale: record.Scale, keys: Sequence[record.Key]
) -> tuple[tuple[record.Panel | None, ...], ...]:
  """Returns a column a run; of one run, looks beside each other."""
  del keys
  columns = _by_run(shown)
  if len(columns) == 1:
    columns = [[one] for one in shown]
  panels = [[_plane(one, scale) for one in column] for column in columns]
  return tuple(itertools.zip_longest(*panels))


def _plane(one: _Look, scale: record.Scale) -> record.Panel:
  values = one.look.values
  way = ()
  if 'path' in values:
    way = values['path'], values['path_steps'], one.path_loss
  mark = record.Contours(
    'loss', values['x'], values['y'], one.loss, scale, one.seed, one.look.step,
    *way,
  )  # fmt: skip
  axes = (record.Axis(_axis_label(one, k), 'xy'[k]) for k in range(2))
  return record.Panel(
    *axes, (mark,), title=one.run.name, note=_note(one), run=one.run.name
  )


def _rows_of_lines(
  shown: Sequence[_Look], scale: record.Scale, keys: Sequence[record.Key]
) -> tuple[tuple[record.Panel, ...], ...]:
  """Returns a panel a run, of a line a look."""
  y = record.Axis(scale.label, 'loss', scale.logarithmic)
  # Of a step that no still picture shows, a line has no key.
  index_of = {key.label: key.index for key in keys}
  key_of = lambda one: (
    one.index if keys[0].run else index_of.get(f'step {one.look.step}')
  )
  return (
    tuple(
      record.Panel(
        record.Axis(_axis_label(of_run[0], 0), 'x'),
        y,
        tuple(mark for one in of_run for mark in _line(one, key_of(one))),
        title=of_run[0].run.name,
        run=of_run[0].run.name,
      )
      for of_run in _by_run(shown)
    ),
  )


def _line(one: _Look, key: int) -> Iterator[record.Mark]:
  """Yields the loss along a line; spans that are not finite are hatched."""
  values, step = one.look.values, one.look.step
  order = np.argsort(values['x'])
  x, loss = values['x'][order], one.loss[order]
  yield record.Lines(key, 'loss', (record.Curve(one.seed, x, loss, step=step),))
  edges = canvas.cell_edges(x)
  spans = np.stack([edges[:-1], edges[1:]], 1)[~np.isfinite(loss)]
  if len(spans):
    yield record.Hatched(spans)
  if 'path' in values:
    x = values['path'][:, 0]
    if key is not None:
      yield record.Points(key, 'dot', x, one.path_loss)
    curve = record.Curve(one.seed, x, one.path_loss, step=step)
    yield record.Lines(key, 'loss_of_checkpoint', (curve,), 'hidden')


def _by_run(panels: Sequence[_Look]) -> list[list[_Look]]:
  columns = {}
  for panel in panels:
    columns.setdefault(panel.index, []).append(panel)
  return list(columns.values())


def _finite(panels: Sequence[_Look]) -> np.ndarray:
  """Returns all finite losses that are drawn, of grids and ways."""
  losses = [part for p in panels for part in (p.loss.ravel(), p.path_loss)]
  every = np.concatenate(losses)
  return every[np.isfinite(every)]


def _scale(entry: looks.Entry, panels: Sequence[_Look]) -> record.Scale:
  """Returns the scale of all panels: powers where losses span a decade."""
  losses = _finite(panels)
  low, high = (losses.min(), losses.max()) if len(losses) else (0.0, 1.0)
  is_log = bool(0 < _DECADE * low <= high)
  if not high > low:
    low, high = low - 0.5, high + 0.5
  return record.Scale(looks.loss(entry), float(low), float(high), is_log)


def _note(panel: _Look) -> str:
  """Returns the step, and of a way the share that lies in the plane."""
  values = panel.look.values
  if 'variance' not in values:
    return f'step {panel.look.step}'
  return f'step {panel.look.step}, {_percent(values["variance"].sum())}'


def _axis_label(panel: _Look, k: int) -> str:
  """Returns the name of a direction, with what is known of it."""
  name, values = f'd{"₁₂"[k]}', panel.look.values
  if 'variance' in values:
    return f'{name} ({_percent(values["variance"][k])})'
  if 'eigenvalues' in values:
    mark = '' if values['converged'][k] else ', not converged'
    return f'{name} (λ = {values["eigenvalues"][k]:.3g}{mark})'
  return name


def _percent(share: float) -> str:
  return f'{100 * share:.0f} %'


def _caption(
  entry: looks.Entry, panels: Sequence[_Look], scale: record.Scale
) -> str:
  is_plane = panels[0].loss.ndim == 2
  of_way = any('path' in panel.look.values for panel in panels)
  bare = ', without the weight penalty' * (
    entry.condition('penalised') == 'False'
  )
  levels = 'Levels are' if is_plane else 'The axis of the loss is'
  lost = [
    f'{(~np.isfinite(panel.loss)).sum()} of {panel.loss.size} of '
    f'{panel.run.name} at step {panel.look.step}'
    for panel in panels
    if not np.isfinite(panel.loss).all()
  ]
  seeds = sorted({one.seed for one in panels})
  return record.caption(
    f'The training loss at θ + x·d₁{" + y·d₂" * is_plane}, θ all parameters'
    f'{bare}.',
    _directions(entry, is_plane),
    of_way and _way(panels),
    f'{levels} {"logarithmic" if scale.logarithmic else "linear"}'
    f'{", the same in all panels" * (len(panels) > 1)}.',
    lost and f'Hatched: losses that are not finite, {", ".join(lost)}.',
    entry.has_several_seeds
    and f'Of seed {" or ".join(map(str, seeds))} alone; the CSV has all.',
    entry.condition('statistics') != 'batch'
    and 'The averages with which norms compute are those of θ at every point.',
    looks.circumstances(entry),
  )


def _directions(entry: looks.Entry, is_plane: bool) -> str:
  """Returns what d are, where they are alike in all runs."""
  name = entry.condition('directions')
  d = 'd₁ and d₂' if is_plane else 'd₁'
  if name == 'random':
    by = entry.condition('normalise')
    how = {by: f', normalised by {by}', **_NORMALISED}[by]
    vectors = 'normal vectors' if is_plane else 'a normal vector'
    return f'{d}: {vectors}, the same at every step{how}.'
  if name == 'eigenvectors':
    which = 'eigenvectors' if is_plane else 'the eigenvector'
    what = 'largest eigenvalues' if is_plane else 'largest eigenvalue'
    return f'{d}: {which}, of length 1, of the {what} λ of the Hessian.'
  if name == 'trajectory':
    which = 'first two principal components' if is_plane else 'first component'
    return (
      f'{d}: the {which}, of length 1, of the differences between the '
      'checkpoints and the last of them.'
    )
  return f'Directions: {name}.'


def _way(panels: Sequence[_Look]) -> str:
  """Returns what the points are, and how much of the way a panel holds."""
  shares = [
    f'{_percent(panel.look.values["variance"].sum())} ({panel.run.name} to '
    f'step {panel.look.step})'
    for panel in panels
    if 'variance' in panel.look.values
  ]
  is_plane = panels[0].loss.ndim == 2
  return (
    f'Points: the checkpoints{", the last in a circle" * is_plane}, each with '
    'its own loss, which is not that of the point of the surface next to it. '
    f'{"The plane" if is_plane else "The line"} holds '
    f'{", ".join(dict.fromkeys(shares))} of the squares of their distances '
    f'from the last; of a long random walk {90 if is_plane else 81} %.'
  )
