"""Reads the curves of Santurkar et al. (2018) as they are in its figures.

`_PANELS` says which figure shows what, of which network and in which unit.
paper/*.csv has the numbers, and its README their source and accuracy.
"""

import csv
import functools
import math
import pathlib
from typing import NamedTuple

import numpy as np

_FOLDER = pathlib.Path(__file__).with_name('paper')
STEPS = {'vgg': 15_000, 'linear': 10_000}  # of a run in its figures


class Curve(NamedTuple):
  """One curve of the paper."""

  name: str  # of its figure, such as '1(a)'
  # Of its column: 'NORM/RATE', or 'NORM/RATE/LAYER' if it is of a layer.
  label: str
  step: np.ndarray  # [T]
  # [T] each, the edges of a band; of a line they are the same.
  low: np.ndarray
  high: np.ndarray


class _Panel(NamedTuple):
  """A panel of a figure."""

  file: str  # below paper/, without .csv
  name: str  # of the figure, such as '1(a)'
  network: str  # 'vgg' or 'linear'
  quantity: str  # as it is called in our records, or 'test accuracy'
  # What its numbers are multiplied by to be in the unit of our records.
  unit: float = 1.0


# Where two panels show the same run, `find` takes the first.
_PANELS = (
  _Panel('figure1a', '1(a)', 'vgg', 'accuracy', 0.01),
  _Panel('figure2', '2', 'vgg', 'accuracy', 0.01),
  _Panel('figure3a_accuracy', '3(a)', 'vgg', 'accuracy', 0.01),
  _Panel('figure5a', '5(a)', 'vgg', 'accuracy', 0.01),
  _Panel('figure1b', '1(b)', 'vgg', 'test accuracy', 0.01),
  _Panel('figure3a_l2', '3(a)', 'vgg', 'l2'),
  _Panel('figure3a_cosine', '3(a)', 'vgg', 'cosine'),
  _Panel('figure3b_l2', '3(b)', 'linear', 'l2'),
  _Panel('figure3b_cosine', '3(b)', 'linear', 'cosine'),
  _Panel('figure4a', '4(a)', 'vgg', 'loss'),
  _Panel('figure4b', '4(b)', 'vgg', 'gradient_change'),
  _Panel('figure4c', '4(c)', 'vgg', 'beta'),
  _Panel('figure12b', '12(b)', 'vgg', 'loss'),
  _Panel('figure12c', '12(c)', 'vgg', 'gradient_change'),
  _Panel('figure12d', '12(d)', 'vgg', 'beta'),
  _Panel('figure5b', '5(b)', 'linear', 'data_loss'),
  _Panel('figure10a', '10(a)', 'linear', 'loss'),
  _Panel('figure10b', '10(b)', 'linear', 'gradient_change'),
  _Panel('figure10c', '10(c)', 'linear', 'beta'),
  _Panel('figure13d', '13(d)', 'linear', 'beta'),
)
NAMES = tuple(dict.fromkeys(panel.name for panel in _PANELS))


def find(
  network: str, norm: str, rate: float, quantity: str, layer: int | None = None
) -> Curve | None:
  """Returns the curve of one run, in the units of our records, or None.

  Args:
    network: 'vgg' or 'linear', as in `_PANELS`.
    norm: a key of `bn_jax.norms.NORMS`.
    rate: the learning rate, which may differ by rounding.
    quantity: that of a panel of `_PANELS`.
    layer: its number in the paper, where the quantity is one of layers.
  """
  wanted_layer = [] if layer is None else [str(layer)]
  for panel in _PANELS:
    if (panel.network, panel.quantity) != (network, quantity):
      continue
    for label, (step_T, *edges) in _columns(panel.file).items():
      curve_norm, curve_rate, *curve_layer = label.split('/')
      same_rate = math.isclose(float(curve_rate), rate, rel_tol=1e-6)
      if (curve_norm, curve_layer) == (norm, wanted_layer) and same_rate:
        low_T, high_T = (panel.unit * edge_T for edge_T in edges)
        return Curve(panel.name, label, step_T, low_T, high_T)
  return None


@functools.cache
def _columns(file: str) -> dict[str, tuple[np.ndarray, ...]]:
  """Reads label -> (steps, lower edge, upper edge), without empty cells."""
  path = _FOLDER / f'{file}.csv'
  header, *rows = csv.reader(path.read_text(encoding='utf-8').splitlines())
  columns = {name: cells for name, *cells in zip(header, *rows)}
  step_T = np.array(columns.pop('step'), int)
  bands = {}
  for name, cells in columns.items():
    label = name.removesuffix('/low').removesuffix('/high')
    has_T = np.array([cell != '' for cell in cells])
    value_T = np.array([float(cell) for cell in cells if cell])
    # Of a band the column of its lower edge comes first.
    low_T = bands[label][1] if name.endswith('/high') else value_T
    bands[label] = step_T[has_T], low_T, value_T
  return bands
