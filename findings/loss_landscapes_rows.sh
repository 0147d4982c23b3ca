#!/usr/bin/env bash
# Every second row of loss-landscapes' surfaces is shifted by one cell.
#
# Versions: loss-landscapes 3.0.6, torch 2.13.0 on the CPU, numpy 2.4.6,
# Python 3.11. planar_interpolation goes over its grid by the same code.
#
# random_plane goes forth in even rows and back in odd ones, and steps before
# each value. The last step forth is not undone, so that an even row holds the
# losses at 1, ..., n steps of the second direction, and an odd row, turned
# round, those at 0, ..., n - 1. No value is wrong; half of them are in the cell
# beside their own. Nor is the start the middle of the grid, for an even row or
# an odd one. The model is left half a plane from where it was, without
# requires_grad, unless deepcopy_model=True is given, which is not the default.
#
# Expected: the cell [i, j] holds the loss at i and j steps.
# Why it matters: contours get teeth, a valley becomes two, and the roughness of
# a surface, of which such pictures are to tell, is made by the program. Small
# steps on a smooth surface hide it.
#
# Output seen (loss = |w|^2; steps of the second direction at each cell):
#   row 0: 1 2 3 4 5 6
#   row 1: 0 1 2 3 4 5
#   row 2: 1 2 3 4 5 6
#   row 3: 0 1 2 3 4 5
#   row 4: 1 2 3 4 5 6
#   row 5: 0 1 2 3 4 5
#   a column: 0.651 0.786 0.620 0.797 0.673 0.891
#   the same, by hand: 0.651 0.625 0.620 0.636 0.673 0.730
#   the model afterwards: 0.71 |w| from where it was, requires_grad False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  loss-landscapes==3.0.6 torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'END'
import loss_landscapes
import numpy as np
import torch
from loss_landscapes import metrics

_STEPS = 6


class Squares(metrics.Metric):
  """The loss |w|^2; keeps the weights at which it was asked for."""

  def __init__(self):
    super().__init__()
    self.weights = []

  def __call__(self, wrapper):
    weights = wrapper.get_module_parameters()[0].detach().clone().flatten()
    self.weights.append(weights)
    return (weights**2).sum().item()


torch.manual_seed(0)
model = torch.nn.Linear(4, 1, bias=False)
before = model.weight.detach().clone()
torch.manual_seed(0)
metric = Squares()
surface = loss_landscapes.random_plane(model, metric, distance=1, steps=_STEPS)

weights = torch.stack(metric.weights)
along = weights[1] - weights[0]  # one step of the second direction
across = weights[2 * _STEPS] - weights[0]  # two steps of the first one
origin = weights[0] - along
pair = torch.stack([across / 2, along], dim=1)
steps = torch.linalg.lstsq(pair, (weights - origin).T).solution.round().int()
losses = {
  tuple(map(int, s)): (w**2).sum().item() for s, w in zip(steps.T, weights)
}
# Where each cell's value was computed: the one point with this loss.
cells = np.array(
  [
    [min(losses, key=lambda s: abs(losses[s] - value))[1] for value in row]
    for row in surface
  ]
)
for i, row in enumerate(cells):
  print(f'row {i}:', *row)
column = [
  ((origin + i * across / 2 + along) ** 2).sum().item() for i in range(_STEPS)
]
print('a column:', *(f'{value:.3f}' for value in surface[:, 0]))
print('the same, by hand:', *(f'{value:.3f}' for value in column))
moved = ((model.weight - before).norm() / before.norm()).item()
print(
  f'the model afterwards: {moved:.2f} |w| from where it was, requires_grad '
  f'{model.weight.requires_grad}'
)
if not (cells[0::2] == cells[0]).all() or not (cells[1::2] == cells[1]).all():
  raise SystemExit('changed: the rows are not of two kinds')
if not (cells[0] == cells[1] + 1).all():
  raise SystemExit('changed: even and odd rows are at the same steps')
END
