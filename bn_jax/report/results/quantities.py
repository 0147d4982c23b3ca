"""Reads what any measure recorded, without knowing the measure.

For measures that have no figure of their own: their quantities, by layer or
not, one number a look or several, from records with numbers or with arrays.
"""

import collections
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bn_jax.report.results import curves, looks


class Curve(NamedTuple):
  """A quantity at the looks of a seed."""

  step: np.ndarray  # [T]
  # [T] each, the smallest and the largest of its finite numbers; the same
  # where it is one number a look, nan where none is finite.
  low: np.ndarray
  high: np.ndarray


_ANY = (-math.inf, math.inf)


class Quantity(NamedTuple):
  """One quantity of a measure."""

  name: str  # as it is recorded, after the slash where it has layers
  label: str  # of an axis, with its unit
  # In forward order; none where it is one of the whole network.
  layers: tuple[str, ...]
  several: bool  # whether it is more than one number a look (and layer)
  within: tuple[float, float] = _ANY  # the least and the largest that it can be

  def recorded_as(self, layer: str = '') -> str:
    """Returns its name among the values of a record."""
    return f'{layer}/{self.name}' if layer else self.name


def title(entry: looks.Entry) -> str:
  """Returns what the page calls the measure of an entry."""
  return _page(entry)['title']


def caption(entry: looks.Entry) -> str:
  """Returns what the measure says of its quantities; '' of older records."""
  return _page(entry).get('caption') or ''


def of(entry: looks.Entry) -> list[Quantity]:
  """Returns all quantities that some seed has recorded, in order."""
  layers_of, several = {}, collections.defaultdict(bool)
  for seed in entry.seeds:
    for name, value in _first(seed, entry.name).items():
      layer, _, quantity = name.rpartition('/')
      layers_of.setdefault(quantity, {})[layer] = None
      several[quantity] |= np.size(value) > 1
  page = _page(entry)
  words, ranges = page['quantities'], page.get('ranges') or {}
  return [
    Quantity(
      name,
      words[name] if name in words else name.replace('_', ' '),
      tuple(layer for layer in layers if layer),
      several[name],
      tuple(
        limit if end is None else end
        for end, limit in zip({name: _ANY, **ranges}[name], _ANY)
      ),
    )
    for name, layers in layers_of.items()
  ]


def curve(seed: curves.Seed, entry: str, name: str) -> Curve:
  """Returns what an entry recorded under a name; of length 0 for nothing."""
  if found := curves.values(seed, entry, name, list):
    return Curve(found[0], *_ends(found[1]))
  looks_T = [look for look in seed.arrays.get(entry, ()) if name in look.values]
  step_T = np.array([look.step for look in looks_T], int)
  return Curve(step_T, *_ends([look.values[name] for look in looks_T]))


def last(seed: curves.Seed, entry: str, quantity: Quantity) -> float:
  """Returns the largest number at the last look; of layers, their median."""
  numbers = [
    curve(seed, entry, quantity.recorded_as(layer)).high[-1:]
    for layer in quantity.layers or ('',)
  ]
  values = np.concatenate(numbers)
  values = values[np.isfinite(values)]
  return float(np.median(values)) if len(values) else math.nan


def _page(entry: looks.Entry) -> dict:
  """Returns title and labels: of the last seed that has them, or by name."""
  for seed in reversed(entry.seeds):
    words = (seed.manifest.get('measures') or {}).get(entry.measure)
    if words is not None:
      return words
  heading = entry.measure.replace('_', ' ').capitalize()
  return {'title': heading, 'quantities': {}}


def _first(seed: curves.Seed, entry: str) -> dict:
  """Returns name -> its value at one look, of all that were recorded."""
  series = seed.series.get(entry)
  if series is not None:
    return {name: values[0] for name, values in series.values.items()}
  looks_T = seed.arrays.get(entry, ())
  return {name: v for look in looks_T for name, v in look.values.items()}


def _ends(values: Sequence) -> tuple[np.ndarray, np.ndarray]:
  """Returns smallest and largest finite number of each value, [T] each."""
  finite = [np.asarray(value, float)[np.isfinite(value)] for value in values]
  array = functools.partial(np.array, dtype=float)
  return (
    array([part.min() if part.size else math.nan for part in finite]),
    array([part.max() if part.size else math.nan for part in finite]),
  )
