"""What can be trained of the papers: a table for people."""

import itertools
import pathlib
from collections.abc import Iterator

from bn_jax.papers import figures as figures_lib
from bn_jax.papers import matching, papers_time

_FOOTER = """\
Train one:  python train.py --config=configs/{example}.py[:small]
Judge it:   python -m bn_jax papers verify WORKDIR...
Time: all runs and seeds one after another on this machine. *: from the seconds
of the runs found; else from the products of the networks, at {share:.0%} of the
rate of a matrix product here ({rate:.0f} GFLOP/s) and {least:.0f} ms a step: it
may be wrong by a factor of three. ?: what it computes is not known.
"""
_UNITS = ((86_400, 'days'), (3_600, 'h'), (60, 'min'), (1, 's'))


def text(papers: tuple[str, ...], folder: pathlib.Path) -> str:
  """Paper by paper and figure by figure, a line a size.

  Args:
    papers: of `figures.PAPERS`.
    folder: below which runs are looked for; it need not be there.
  """
  figures = figures_lib.every(papers)
  found = matching.below(folder)
  rate = papers_time.rate()
  lines = []
  for name, sizes in itertools.groupby(figures, lambda one: one.figure):
    sizes = list(sizes)
    lines += [name, f'  {sizes[0].title}']
    lines += [_size(figure, found, rate) for figure in sizes]
  lines += ['', *_footer(figures, rate)]
  return ''.join(f'{line}\n' for line in lines)


def _footer(figures, rate: float) -> Iterator[str]:
  yield from _FOOTER.format(
    example=figures[0].figure,
    share=papers_time.EFFICIENCY,
    rate=rate / 1e9,
    least=1000 * papers_time.SECONDS_A_STEP,
  ).splitlines()


def _size(
  figure: figures_lib.Reproduction, found: list[matching.Cell], rate: float
) -> str:
  match = matching.match(figure, found)
  steps = sorted({run['steps'] for run in figure.runs.values()})
  shape = (
    f'{_count(len(figure.runs), "run")} x {_count(len(figure.seeds), "seed")}'
    f' x {" or ".join(f"{n:,}" for n in steps)} steps'
  )
  seconds = papers_time.measured(figure, match)
  mark = '*' if seconds is not None else ''
  if seconds is None:
    seconds = papers_time.estimated(figure, rate)
  time = '?' if seconds is None else duration(seconds) + mark
  return f'    {figure.size:6} {shape:36} {time:>10}   {state(figure, match)}'


def state(figure: figures_lib.Reproduction, match: matching.Match) -> str:
  """'6 of 10 done', of the seeds of the config and of those found."""
  begun = {
    (name, seed): cell
    for name, seeds in match.cells.items()
    for seed, cell in seeds.items()
  }
  if not begun:
    return 'not started'
  wanted = set(itertools.product(figure.runs, figure.seeds))
  done = sum(cell.has_ended for cell in begun.values())
  said = f'{done} of {len(wanted | set(begun))} done'
  going = len(begun) - done
  return f'{said}, {going} begun' if going else said


def duration(seconds: float) -> str:
  """In the largest unit of which it is two or more: '90 s', '25 min'."""
  for size, unit in _UNITS:
    if seconds >= 2 * size or unit == 's':
      return f'{seconds / size:.0f} {unit}'
  raise AssertionError('a unit is always found')


def _count(number: int, what: str) -> str:
  return f'{number} {what}{"" if number == 1 else "s"}'
