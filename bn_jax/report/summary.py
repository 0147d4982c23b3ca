"""Makes the summary of the page: a row a run, and how runs differ by pairs.

The page's script may sort the tables: a heading says by `data-sort` whether its
column holds numbers or texts, and by `data-better` which end is the better one,
where that is known; a cell's `data-value` is what it is sorted by, '' for none.
"""

import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bn_jax.report import reached
from bn_jax.report.claims import markup
from bn_jax.report.results import conditions, curves, flat, pairs

# Of a config, in this order before all others, by the names of the page.
_LABELS = {
  'norm.name': 'Norm', 'model.name': 'Network', 'model.width': 'Width',
  'data.name': 'Data', 'optimizer.name': 'Optimizer',
  'schedule.learning_rate': 'Learning rate', 'batch_size': 'Batch size',
  'weight_decay': 'Weight decay', 'parameters': 'Parameters',
}  # fmt: skip
# Of runs that do not differ.
_USUAL = ('norm.name', 'schedule.learning_rate')
_RUN = markup.heading('Run', 'text')
# Runs up to which the page compares with each: the cells grow with the square.
_MOST_BASES = 10


class Column(NamedTuple):
  """A column of the summary."""

  label: str  # its heading
  texts: list[str]  # of each run its cell
  # Of each run what its cell is sorted by: a number, nan where there is none,
  # or a text.
  keys: list[Any]
  # Of each run seed -> its number; empty of a column of texts.
  numbers: list[Mapping[int, float]]
  # What of the runs it is, if they are compared by it.
  quantity: reached.Quantity | None = None
  # The runs whose cells are marked, by their places.
  best: frozenset[int] = frozenset()
  # Whether the page folds it away: all columns beside each other would be wider
  # than a page.
  is_further: bool = False

  @property
  def has_texts(self) -> bool:
    """Returns whether its cells are sorted as texts."""
    return any(isinstance(key, str) for key in self.keys)


def columns(runs: Sequence[curves.Run]) -> list[Column]:
  """Returns the columns of the summary behind that of the runs' names."""
  trained = lambda seed: seed.seconds.get('train', 0.0)
  return [
    *_settings(runs),
    _steps(runs),
    _seeds(runs),
    *(_reached(runs, quantity) for quantity in reached.quantities(runs)),
    _time(runs, 'Training time', trained)._replace(is_further=True),
    _time(runs, 'Total time', lambda seed: sum(seed.seconds.values())),
  ]


def numbers(
  runs: Sequence[curves.Run], every: Sequence[Column]
) -> list[flat.Row]:
  """Returns the numbers of these columns, a row a run, seed and quantity.

  Of each seed, done or not; inf is what it never reached, nan not measured.
  """
  place = {run.name: place for place, run in enumerate(runs)}

  def of(run, seed):
    for column in every:
      of_run = column.numbers[place[run.name]]
      if seed.seed in of_run:
        yield column.label, of_run[seed.seed]

  return flat.table(runs, of)


def section(runs: Sequence[curves.Run], every: Sequence[Column]) -> str:
  """Returns section `summary` of the page, of `columns` of these runs."""
  first = [column for column in every if not column.is_further]
  further = [column for column in every if column.is_further]
  folded = ''
  if further:
    folded = f"""<details><summary>{len(further)} further numbers</summary>
{_summary(runs, further, 'Further numbers, a row a run')}
</details>
"""
  return f"""<section id="summary">
<h2>Summary</h2>
{_summary(runs, first, 'Summary, a row a run')}
{folded}{_differences(runs, every)}</section>"""


def _summary(runs, shown: Sequence[Column], name: str) -> str:
  rows = (
    markup.row(run.name, (_cell(column, place) for column in shown))
    for place, run in enumerate(runs)
  )
  head = [
    markup.heading(
      column.label,
      'text' if column.has_texts else 'number',
      column.quantity.better if column.quantity else '',
    )
    for column in shown
  ]
  return markup.table('summary', name, [_RUN, *head], rows)


def _by_seed(runs, read: Callable[[curves.Seed], Any]) -> list[dict[int, Any]]:
  """Returns of each run seed -> what is read of it."""
  return [{seed.seed: read(seed) for seed in run.seeds} for run in runs]


def _settings(runs) -> Iterator[Column]:
  """Yields what runs were trained with, as far as they differ in it."""
  varied = conditions.varied(runs) or _USUAL
  labels = {key: label for key, label in _LABELS.items() if key in varied}
  labels |= {key: key for key in varied if key not in labels}
  for key, label in labels.items():
    # Where something else differs, the number of parameters follows from it.
    is_further = key == 'parameters' and len(labels) > 1
    yield _setting(runs, key, label)._replace(is_further=is_further)


def _setting(runs, key: str, label: str) -> Column:
  """Returns the column of a key: of numbers, if all of its values are."""
  values = [
    {seed: of_seed[key] for seed, of_seed in of.items() if key in of_seed}
    for of in _by_seed(runs, conditions.settings)
  ]
  show = '{:,}'.format if key == 'parameters' else conditions.shown
  texts = [' or '.join(dict.fromkeys(map(show, of.values()))) for of in values]
  numbers = [{k: v for k, v in of.items() if v is not None} for of in values]
  if {type(v) for of in numbers for v in of.values()} <= {int, float}:
    return Column(label, texts, [_mean(of.values()) for of in numbers], numbers)
  return Column(label, texts, texts, [{} for _ in runs])


def _steps(runs) -> Column:
  """Returns how far each run is: its steps, and what was not done."""
  numbers = _by_seed(runs, curves.reached)
  states = _by_seed(
    runs,
    lambda seed: f'{seed.manifest["status"]} at {curves.reached(seed)}',
  )
  texts = [
    ', '.join(dict.fromkeys(t.removeprefix('done at ') for t in of.values()))
    for of in states
  ]
  keys = [min(of.values()) for of in numbers]
  return Column('Steps', texts, keys, numbers)


def _seeds(runs) -> Column:
  """Returns how many seeds a run has; of equal numbers the page says it too."""
  counts = [len(run.seeds) for run in runs]
  return Column(
    'Seeds', list(map(str, counts)), counts, [{} for _ in runs],
    is_further=len(set(counts)) == 1,
  )  # fmt: skip


def _time(runs, label: str, read: Callable[[curves.Seed], float]) -> Column:
  numbers = _by_seed(runs, read)
  means = [_mean(of.values()) for of in numbers]
  return Column(label, [f'{mean:.0f} s' for mean in means], means, numbers)


def _reached(runs, quantity: reached.Quantity) -> Column:
  """Returns the means of a quantity over seeds, the best of them marked."""
  numbers = _by_seed(runs, quantity.read)
  tell = _steps_in_words if quantity.is_steps else _in_words
  cells = [tell(run, of, quantity) for run, of in zip(runs, numbers)]
  texts, keys = (list(part) for part in zip(*cells))
  best = _best(runs, numbers, keys, quantity)
  is_further = quantity.is_further or not quantity.better
  return Column(
    quantity.label, texts, keys, numbers, quantity, best, is_further
  )


def _counted(run, numbers: Mapping[int, float]) -> dict[int, float]:
  """Returns the numbers of those seeds that are done.

  If none is done, of all: the column of steps says so.
  """
  return _done(run, numbers) or dict(numbers)


def _done(run, numbers: Mapping[int, float]) -> dict[int, float]:
  done = {s.seed for s in run.seeds if s.manifest['status'] == 'done'}
  return {seed: value for seed, value in numbers.items() if seed in done}


def _in_words(run, numbers, quantity) -> tuple[str, float]:
  """Returns the mean over seeds ± half of its 95 % interval, and the mean."""
  values = list(_counted(run, numbers).values())
  text = curves.in_words(values, quantity.show)
  count = sum(not math.isnan(value) for value in values)
  if 0 < count < len(run.seeds):
    text += f' ({count} of {len(run.seeds)} seeds)'
  return text, _mean(values)


def _mean(values: Iterable[float]) -> float:
  """Returns the mean of what is not nan; nan if nothing else is there."""
  values = [value for value in values if not math.isnan(value)]
  return float(np.mean(values)) if values else math.nan


def _steps_in_words(run, numbers, quantity) -> tuple[str, float]:
  """Returns the same of steps, of all seeds; inf if one never got there."""
  values = list(numbers.values())
  if any(map(math.isnan, values)):
    return 'not measured', math.nan
  missed = sum(map(math.isinf, values))
  if missed:
    ended = all(map(curves.has_ended, run.seeds))
    word = 'never' if ended else 'not yet'
    of = f' in {missed} of {len(values)} seeds' if missed < len(values) else ''
    return word + of, math.inf
  return curves.in_words(values, quantity.show), _mean(values)


def _best(runs, numbers, keys, quantity) -> frozenset[int]:
  """Returns the runs with the best mean, as it is shown.

  Only among runs that are done and have a number of every seed: a few seeds,
  or a part of the steps, may flatter. None where all of these look the same.
  """
  if not quantity.better:
    return frozenset()
  whole = [
    place
    for place, (run, of, key) in enumerate(zip(runs, numbers, keys))
    if len(_done(run, of)) == len(run.seeds)
    and math.isfinite(key)
    and not any(map(math.isnan, of.values()))
  ]
  if not whole:
    return frozenset()
  choose = max if quantity.better == reached.HIGH else min
  best = quantity.show(choose(keys[place] for place in whole))
  marked = [place for place in whole if quantity.show(keys[place]) == best]
  return frozenset(marked if len(marked) < len(whole) else ())


def _differences(runs, every: Sequence[Column]) -> str:
  """Returns how runs differ from each of them; '' without common seeds."""
  bases = runs if len(runs) <= _MOST_BASES else runs[:1]
  tables = [_against(runs, place, every) for place in range(len(bases))]
  folded = ''.join(
    f"""<details name="against"{' open' * (not place)}>
<summary>Against {html.escape(run.name)}</summary>
{table}
</details>
"""
    for place, (run, table) in enumerate(zip(bases, tables))
    if table
  )
  if not folded:
    return ''
  return f"""<h3>Differences by pairs of seeds</h3>
<p>Two runs with one seed are a pair: they begin with the same weights and see
the same batches. Each cell is a mean over the pairs that are done, with its
95 % interval (Student's): of differences, ± half of it (in points, of
percentages); of what figures draw on logarithmic axes, of ratios (×).</p>
{folded}"""


def _against(runs, base: int, every: Sequence[Column]) -> str:
  """Returns the table of one base; '' if no run shares two seeds with it."""
  cells = {
    column.label: _differing(runs, base, column)
    for column in every
    if column.quantity is not None
  }
  cells = {k: of for k, of in cells.items() if any(text for text, _ in of)}
  if not cells:
    return ''
  rows = (
    markup.row(run.name, (_number(*of[place]) for of in cells.values()))
    for place, run in enumerate(runs)
    if place != base
  )
  head = _RUN, *(markup.heading(label, 'number') for label in cells)
  name = f'Differences from {runs[base].name}'
  return markup.table('differences', name, head, rows)


def _differing(runs, base: int, column: Column) -> list[tuple[str, float]]:
  """Returns (text, number) of each run; ('', nan) where there is nothing."""
  of_done = list(map(_done, runs, column.numbers))
  values = [v for of in of_done for v in of.values() if not math.isnan(v)]
  ratio = column.quantity.logarithmic and min(values, default=0) > 0
  cells = []
  for place, (run, of_run) in enumerate(zip(runs, of_done)):
    compared = pairs.compared(of_run, of_done[base], ratio)
    if compared is None or place == base:
      cells.append(('', math.nan))
      continue
    interval, count = compared
    text = _difference(interval, ratio, column.quantity.show)
    if count < len(run.seeds):
      text += f' ({count} of {len(run.seeds)} seeds)'
    cells.append((text, interval.mean))
  return cells


def _difference(interval: pairs.Interval, ratio: bool, show) -> str:
  if ratio:
    mean, low, high = (f'{end:.3g}' for end in interval)
    return f'× {mean} ({low} to {high})'
  sign = '−' if interval.mean < 0 else '+' if interval.mean > 0 else ''
  half = interval.high - interval.mean
  return f'{sign}{show(abs(interval.mean))} ± {show(half)}'


def _cell(column: Column, place: int) -> str:
  text, key = column.texts[place], column.keys[place]
  if not column.has_texts:
    return _number(text, key, place in column.best)
  shown = html.escape(text) or '–'
  return f'<td data-value="{html.escape(key)}">{shown}</td>'


def _number(text: str, number: float, is_best: bool = False) -> str:
  # As JavaScript reads numbers.
  value = repr(float(number)).replace('inf', 'Infinity').replace('nan', '')
  shown = html.escape(text)
  if is_best:
    shown = f'<strong>{shown}</strong><span class="unseen"> (best)</span>'
  return f'<td class="number" data-value="{value}">{shown or "–"}</td>'
