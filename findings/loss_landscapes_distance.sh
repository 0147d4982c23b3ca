#!/usr/bin/env bash
# In loss-landscapes a larger distance draws a smaller surface.
#
# Versions: loss-landscapes 3.0.6, torch 2.13.0 on the CPU, numpy 2.4.6,
# Python 3.11. random_line scales by the same code.
#
# The documentation of random_plane says of distance: 'maximum distance in
# parameter space from the start point'. The code makes each direction
# |w| / distance long in all, and goes half of it to both sides, so that
# distance=10 ends at a twentieth of |w| and distance=0.1 at five times |w|.
#
# Expected: the distance from the start, or in units of |w|; in any case a
# number that grows with it.
# Why it matters: a flat surface is read as a flat minimum. Whoever asks for a
# wider view of a network and gets a narrower one finds it flatter the wider the
# view, and surfaces of two networks at one distance are of two sizes.
#
# Output seen (loss = |w|^2, |w| = 0.614, a plane of 20 x 20 points):
#   distance   furthest along one direction   furthest / |w|   range of losses
#   0.1                               3.069            5.000            21.290
#   1                                 0.307            0.500             0.816
#   10                                0.031            0.050             0.080
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  loss-landscapes==3.0.6 torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'END'
import loss_landscapes
import torch
from loss_landscapes import metrics


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
size = model.weight.norm().item()
print('distance   furthest along one direction   furthest / |w|', end='')
print('   range of losses')
furthest = {}
for distance in (0.1, 1, 10):
  metric = Squares()
  torch.manual_seed(0)
  surface = loss_landscapes.random_plane(
    model, metric, distance=distance, steps=20, deepcopy_model=True
  )
  # The first row goes 20 steps forth along one direction, from half of it.
  step = (metric.weights[1] - metric.weights[0]).norm().item()
  furthest[distance] = 20 * step / 2
  print(
    f'{distance:<8} {furthest[distance]:30.3f} '
    f'{furthest[distance] / size:16.3f} {surface.max() - surface.min():17.3f}'
  )
if not furthest[0.1] > furthest[1] > furthest[10]:
  raise SystemExit('changed: a larger distance goes further')
if abs(furthest[10] - size / 20) > 1e-3:
  raise SystemExit('changed: the distance is of another unit')
END
