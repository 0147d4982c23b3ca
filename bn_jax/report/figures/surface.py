"""Draws the surface of a loss around parameters: contours, or curves of lines.

As Li et al. (2018), arXiv:1712.09913, Figures 5 and 9. On it lies the way of
the checkpoints, where it was measured; each has the colour of its own loss, for
the surface is that of a plane in which only the last of them lies.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import cm, colors, patches, ticker
from matplotlib import figure as mpl

from bn_jax.report.drawing import canvas, strokes
from bn_jax.report.results import curves, looks
from bn_jax.storage import records

MEASURE = 'surface'
_MAP = 'viridis'
_LEVELS = 16  # of the loss, between its ends
_DECADE = 10  # of largest by smallest loss: from there on levels are powers
_TIMES = 3  # planes of a run that are drawn: one below the other
_LINES = 7  # lines of a run that are drawn, a colour each
_HATCH = '////'
_BAR = 0.6  # inches that the scale takes below panels
# Normalisation -> what it gives to the normal vectors of the plane.
_NORMALISED = {
  'filter': ', each filter of which has the norm of the same filter of the '
  'weights (Li et al., 2018); biases and norms are not moved',
  'layer': ', each layer of which has the norm of its weights; biases and '
  'norms are not moved',
  'none': '',
}


class Panel(NamedTuple):
  """One look at a run: of its first seed that has looked.

  Attributes:
    index: of the run among all of the page.
  """

  run: curves.Run
  index: int
  look: records.Record

  @property
  def loss(self) -> np.ndarray:
    """Returns the loss over the grid, [P, P], or [P] of a line."""
    return self.look.values['loss']

  @property
  def path_loss(self) -> np.ndarray:
    """Returns the losses of the checkpoints, [T]; [0] without any."""
    values = self.look.values
    return values['path_loss'] if 'path_loss' in values else np.zeros(0)


def figure(
  runs: Sequence[curves.Run], name: str | None = None
) -> canvas.Figure | None:
  """Draws a panel a run and look, all on one scale of the loss."""
  entry = looks.of(runs, MEASURE, name)
  panels = [] if entry is None else _panels(entry)
  if not panels:
    return None
  planes = [panel for panel in panels if panel.loss.ndim == 2]
  lines = [panel for panel in panels if panel.loss.ndim == 1]
  return canvas.Figure(
    name=f'surface{entry.suffix}',
    title=f'Surface of the loss{entry.note}',
    caption=_caption(entry, panels),
    alt=f'{"Contours" if planes else "Curves"} of the loss around the '
    'parameters, a panel a run. ' + '; '.join(map(_words, panels)),
    draw=lambda narrow: (
      _drawn_planes(planes, narrow) if planes else _drawn_lines(lines, narrow)
    ),
    table=_table(entry),
  )


def _panels(entry: looks.Entry) -> list[Panel]:
  """Returns the looks that are drawn, run by run, evenly over its steps."""
  panels = []
  for index, run in entry.indexed:
    every = next(
      (looks_T for seed in run.seeds if (looks_T := _looks(seed, entry.name))),
      [],
    )
    if every:
      most = _TIMES if every[0].values['loss'].ndim == 2 else _LINES
      count = min(len(every), most)
      chosen = np.linspace(len(every) - 1, 0, count).round().astype(int)
      panels += [Panel(run, index, every[i]) for i in sorted(chosen)]
  # Runs of both kinds under one name: planes tell more.
  dimensions = max((panel.loss.ndim for panel in panels), default=0)
  return [panel for panel in panels if panel.loss.ndim == dimensions]


def _looks(seed: curves.Seed, name: str) -> list[records.Record]:
  return [look for look in seed.arrays.get(name, ()) if 'loss' in look.values]


def _drawn_planes(panels: Sequence[Panel], narrow: bool) -> mpl.Figure:
  columns = _by_run(panels)
  if len(columns) == 1:  # one look beside the other
    columns = [[panel] for panel in panels]
  rows = max(map(len, columns))
  drawing, axes = canvas.panels(rows, len(columns), narrow, shared=False)
  levels, norm = _scale(panels)
  names = set()
  for of_run, axes_R in zip(columns, axes.T):
    for axis, panel in itertools.zip_longest(axes_R, of_run):
      if panel is None:
        axis.set_visible(False)
        continue
      _draw_plane(axis, panel, levels, norm)
      name = panel.run.name
      canvas.label_top(axis, name if name not in names else '', _note(panel))
      names.add(name)
  if narrow:
    drawing.set_figheight(drawing.get_figheight() + _BAR)
  bar = drawing.colorbar(
    cm.ScalarMappable(norm, _MAP),
    ax=[axis for axis in axes.flat if axis.get_visible()],
    label=_label(panels),
    # Beside panels of a telephone it would take a third of their width.
    location='bottom' if narrow else 'right',
  )
  bar.outline.set_visible(False)
  if isinstance(norm, colors.LogNorm):
    scale = bar.ax.xaxis if narrow else bar.ax.yaxis
    scale.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    scale.set_major_formatter(ticker.FuncFormatter('{0:g}'.format))
    scale.set_minor_formatter(ticker.NullFormatter())
  return drawing


def _draw_plane(axis, panel: Panel, levels, norm) -> None:
  """Draws contours with the way on them; what is not finite is hatched."""
  values = panel.look.values
  x, y = values['x'], values['y']
  loss = np.ma.masked_invalid(panel.loss.T)
  axis.set_xlim(x.min(), x.max())
  axis.set_ylim(y.min(), y.max())
  axis.grid(visible=False)
  if loss.mask.any():
    corner, *size = (0, 0), 1, 1
    axis.add_patch(
      patches.Rectangle(
        corner, *size, transform=axis.transAxes, zorder=0, linewidth=0,
        facecolor='white', edgecolor='#7F7F7F', hatch=_HATCH,
      )
    )  # fmt: skip
  if not loss.mask.all():
    axis.contourf(x, y, loss, levels, norm=norm, cmap=_MAP, extend='both')
    axis.contour(x, y, loss, levels, colors='black', linewidths=0.4, alpha=0.5)
  axis.set_xlabel(_axis_label(panel, 0))
  axis.set_ylabel(_axis_label(panel, 1))
  if 'path' in values:
    _draw_path(axis, *values['path'].T, panel.path_loss, norm)
  elif x.min() <= 0 <= x.max() and y.min() <= 0 <= y.max():
    axis.plot(0, 0, marker='+', color='white', markersize=9)


def _draw_path(axis, x_T, y_T, loss_T, norm) -> None:
  """Draws checkpoints, in the colours of their own losses, and the last."""
  axis.plot(x_T, y_T, color='white', linewidth=1.0, zorder=3)
  finite_T = np.isfinite(loss_T)
  axis.scatter(
    x_T[finite_T], y_T[finite_T], c=loss_T[finite_T], norm=norm, cmap=_MAP,
    s=22, edgecolors='white', linewidths=0.8, zorder=4,
  )  # fmt: skip
  axis.scatter(
    x_T[~finite_T], y_T[~finite_T], s=22, color='white', marker='x', zorder=4
  )
  axis.scatter(
    x_T[-1:], y_T[-1:], s=70, facecolors='none', edgecolors='white',
    linewidths=1.2, zorder=5,
  )  # fmt: skip


def _drawn_lines(panels: Sequence[Panel], narrow: bool) -> mpl.Figure:
  columns = _by_run(panels)
  drawing, axes = canvas.panels(1, len(columns), narrow)
  for axis, of_run in zip(axes[0], columns):
    canvas.label_top(axis, of_run[0].run.name)
    canvas.label_left(axis, _label(panels))
    axis.set_xlabel(_axis_label(of_run[0], 0))
    for number, panel in enumerate(of_run):
      _draw_line(axis, panel, number)
  if _is_logarithmic(panels):
    canvas.scale_logarithmically(axes[0, 0])
  steps = [f'step {panel.look.step}' for panel in max(columns, key=len)]
  if len(steps) > 1:
    strokes.legend(drawing, list(enumerate(steps)))
  return drawing


def _draw_line(axis, panel: Panel, number: int) -> None:
  """Draws the loss along a line; spans that are not finite are hatched."""
  values = panel.look.values
  order = np.argsort(values['x'])
  x, loss = values['x'][order], panel.loss[order]
  strokes.line(axis, x, loss, number)
  edges = canvas.cell_edges(x)
  for i in np.flatnonzero(~np.isfinite(loss)):
    axis.axvspan(
      edges[i], edges[i + 1], facecolor='none', edgecolor='#BBBBBB',
      hatch=_HATCH, linewidth=0,
    )  # fmt: skip
  if 'path' in values:
    axis.plot(
      values['path'][:, 0], panel.path_loss, linestyle='none', marker='o',
      markersize=4, color=strokes.colour(number),
    )  # fmt: skip


def _by_run(panels: Sequence[Panel]) -> list[list[Panel]]:
  columns = {}
  for panel in panels:
    columns.setdefault(panel.index, []).append(panel)
  return list(columns.values())


def _finite(panels: Sequence[Panel]) -> np.ndarray:
  """Returns all finite losses that are drawn, of grids and ways."""
  losses = [part for p in panels for part in (p.loss.ravel(), p.path_loss)]
  every = np.concatenate(losses)
  return every[np.isfinite(every)]


def _is_logarithmic(panels: Sequence[Panel]) -> bool:
  losses = _finite(panels)
  return bool(len(losses) and 0 < _DECADE * losses.min() <= losses.max())


def _scale(panels: Sequence[Panel]):
  """Returns (levels, norm) of all panels: powers where losses span a decade."""
  losses = _finite(panels)
  low, high = (losses.min(), losses.max()) if len(losses) else (0.0, 1.0)
  if not high > low:
    low, high = low - 0.5, high + 0.5
  if _is_logarithmic(panels):
    levels = np.geomspace(low, high, _LEVELS + 2)
    return levels, colors.LogNorm(low, high)
  return np.linspace(low, high, _LEVELS + 2), colors.Normalize(low, high)


def _label(panels: Sequence[Panel]) -> str:
  in_nats = not any(curves.is_regression(panel.run) for panel in panels)
  return 'Loss (nats)' if in_nats else 'Loss'


def _note(panel: Panel) -> str:
  """Returns the step, and of a way the share that lies in the plane."""
  values = panel.look.values
  if 'variance' not in values:
    return f'step {panel.look.step}'
  return f'step {panel.look.step}, {_percent(values["variance"].sum())}'


def _axis_label(panel: Panel, k: int) -> str:
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


def _caption(entry: looks.Entry, panels: Sequence[Panel]) -> str:
  is_plane = panels[0].loss.ndim == 2
  of_way = any('path' in panel.look.values for panel in panels)
  where = 'θ + x·d₁ + y·d₂' if is_plane else 'θ + x·d₁'
  scale = 'Levels' if is_plane else 'The axis of the loss'
  scale += ' are' if is_plane else ' is'
  scale += ' logarithmic' if _is_logarithmic(panels) else ' linear'
  return ' '.join(
    filter(
      None,
      (
        f'The training loss at {where}, θ all parameters{_penalty(entry)}.',
        _directions(entry, is_plane),
        _way(panels) if of_way else '',
        f'{scale}{", the same in all panels" * (len(panels) > 1)}.',
        _not_finite(panels),
        _one_seed(entry, panels),
        _kept_statistics(entry),
        looks.circumstances(entry),
      ),
    )
  )


def _penalty(entry: looks.Entry) -> str:
  is_bare = entry.condition('penalised') == 'False'
  return ', without the weight penalty' if is_bare else ''


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


def _way(panels: Sequence[Panel]) -> str:
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


def _not_finite(panels: Sequence[Panel]) -> str:
  counts = [
    f'{(~np.isfinite(panel.loss)).sum()} of {panel.loss.size} of '
    f'{panel.run.name} at step {panel.look.step}'
    for panel in panels
    if not np.isfinite(panel.loss).all()
  ]
  return f'Hatched: losses that are not finite, {", ".join(counts)}.' * bool(
    counts
  )


def _one_seed(entry: looks.Entry, panels: Sequence[Panel]) -> str:
  """Returns of which seeds the panels are, where there are several."""
  if max(len(run.seeds) for run in entry.runs) == 1:
    return ''
  seeds = {
    next(s.seed for s in panel.run.seeds if _looks(s, entry.name))
    for panel in panels
  }
  words = ' or '.join(map(str, sorted(seeds)))
  return f'Of seed {words} alone; the CSV has all.'


def _kept_statistics(entry: looks.Entry) -> str:
  names = entry.condition('statistics')
  if names == 'batch':
    return ''
  return 'The averages with which norms compute are those of θ at every point.'


def _words(panel: Panel) -> str:
  losses = _finite([panel])
  if not len(losses):
    return f'{panel.run.name} has no finite loss'
  ends = f'{losses.min():.3g} to {losses.max():.3g}'
  return f'{panel.run.name} at step {panel.look.step}: {ends}'


def _table(entry: looks.Entry) -> list[Sequence]:
  """Returns every point of every grid, and every checkpoint of every way."""

  def rows(seed: curves.Seed) -> Iterator[Sequence]:
    for look in _looks(seed, entry.name):
      values = look.values
      axes = [values[name] for name in 'xy' if name in values]
      for cell in np.ndindex(values['loss'].shape):
        where = [axis[i] for axis, i in zip(axes, cell)]
        yield look.step, 'grid', '', *_cells(where, values['loss'][cell])
      if 'path' in values:
        for step, where, loss in zip(
          values['path_steps'], values['path'], values['path_loss']
        ):
          yield look.step, 'checkpoint', step, *_cells(where, loss)

  columns = ('point', 'checkpoint', 'x', 'y', 'loss')
  return canvas.table(entry.runs, columns, rows)


def _cells(where: Sequence[float], loss: float) -> list[str]:
  """Returns x, y (empty on a line) and loss."""
  no_y = [''] * (2 - len(where))
  return [*canvas.digits(where), *no_y, *canvas.digits([loss])]
