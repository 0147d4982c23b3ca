"""How curves of the paper are drawn behind ours, and what is said of them."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colors, lines
from matplotlib import figure as mpl

from bn_jax.report.drawing import names, paper_curves, paper_runs, strokes

LABEL = "the paper's curve; our reading of its network"
_GREY = '#8C8C8C'
_SHARE = 0.45  # of grey in a run's colour
_BESIDE = 60  # points of a legend beside its text
_LINE = {'linestyle': (0, (2.5, 1.2)), 'linewidth': 0.9}

Matches = Sequence[paper_runs.Match]


def draw(axis, matches: Iterable[paper_runs.Match]) -> None:
  """Lines and bands below ours, in a run's colour mixed with grey.

  The edges of a band lie above: ours would hide them.
  """
  for match in matches:
    curve, look = match.curve, {'color': _tint(match.index), **_LINE}
    if np.array_equal(curve.low, curve.high):
      axis.plot(curve.step, curve.low, zorder=1.8, **look)
      continue
    axis.fill_between(
      curve.step, curve.low, curve.high, color=look['color'], alpha=0.2,
      linewidth=0, zorder=0.8,
    )  # fmt: skip
    for edge_T in (curve.low, curve.high):
      axis.plot(curve.step, edge_T, zorder=2.5, **look)


def legend(drawing: mpl.Figure, matches: Matches) -> None:
  """Says once, above all axes, what these lines are; the drawing grows."""
  if not matches:
    return
  times = _times(matches)
  text = LABEL + (f' (its steps × {times})' if times else '')
  made = drawing.legend(
    [lines.Line2D([], [], color=_GREY, **_LINE)],
    [_wrapped(text, 72 * drawing.get_figwidth() - _BESIDE)],
    loc='outside upper center',
  )
  height = made.get_window_extent().height / drawing.dpi
  drawing.set_figheight(drawing.get_figheight() + height)


def sentence(matches: Matches, *notes: str) -> str:
  """What a caption says of them, with a space in front; '' for none.

  Args:
    matches: all that the figure shows.
    *notes: further sentences.
  """
  if not matches:
    return ''
  shown = sorted({match.curve.name for match in matches}, key=_in_order)
  plural = 's' if len(shown) > 1 else ''
  said = [
    f'Thin, dashed and greyed: {LABEL} (Santurkar et al., 2018, '
    f'Figure{plural} {_listed(shown)}), read off its vector figures to within '
    '1 % of a linear axis and a few percent of a value on a logarithmic one.'
  ]
  if times := _times(matches):
    said.append(
      "Our network is smaller than the paper's and trains for fewer steps: the "
      f"paper's steps are multiplied by {times}, so that both end together."
    )
  if any(match.values_times != 1 for match in matches):
    said.append(
      'Its losses are multiplied so that its first is ours: the paper does not '
      'tell the scale of its task.'
    )
  shared = dict.fromkeys(match.runs for match in matches)
  said += [
    f'For {_listed(runs)} it has one curve, in the colour of the first.'
    for runs in shared
    if len(runs) > 1
  ]
  return ' '.join(['', *said, *filter(None, notes)])


def words(matches: Matches) -> str:
  """What the text that stands for a figure says of them; '' for none."""
  if not matches:
    return ''
  return f". Behind them, {len(matches)} of the paper's curves"


def _tint(index: int) -> tuple[float, ...]:
  of_run, grey = (
    np.array(colors.to_rgb(colour)) for colour in (strokes.colour(index), _GREY)
  )
  return tuple((1 - _SHARE) * of_run + _SHARE * grey)


def _wrapped(text: str, points: float) -> str:
  """In lines of so many points, broken between words."""
  rows = ['']
  for word in text.split():
    longer = f'{rows[-1]} {word}'.lstrip()
    if rows[-1] and names.width(longer) > points:
      rows.append(word)
    else:
      rows[-1] = longer
  return '\n'.join(rows)


def _times(matches: Matches) -> str:
  """'0.08', by what steps were multiplied; '' where they were not."""
  found = sorted({match.steps_times for match in matches} - {1.0})
  return ' or '.join(f'{times:.3g}' for times in found)


def _in_order(name: str) -> int:
  return paper_curves.NAMES.index(name)


def _listed(said: Sequence[str]) -> str:
  *first, last = said
  return f'{", ".join(first)} and {last}' if first else last
