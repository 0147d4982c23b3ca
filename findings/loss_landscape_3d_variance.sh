#!/usr/bin/env bash
# loss-landscape-3d moves the running variance too, below zero: the loss is NaN.
#
# Versions: loss-landscape-3d 0.1.3, torch 2.13.0 on the CPU, numpy 2.4.6,
# Python 3.11.
#
# generate_random_directions draws a normal number for every array of the state
# that is of floating point, which includes running_mean and running_var, and
# LossLandscapeCalculator adds the direction to them. Where a variance gets
# negative its root is NaN, and so is the loss; where it stays positive, it is
# the loss of a network whose layers are scaled by chance.
#
# Expected: directions of the parameters; statistics are no parameters.
# Why it matters: at distances usual for filter-normalised surfaces, up to 1,
# most of the surface is missing. Near the middle nothing is missing, and the picture
# is of another function: below, the loss falls along a line where, with the
# statistics left as they are, it has a minimum.
#
# Output seen (one convolution with Batch Normalization, 11 x 11 points):
#   NaN of 121 points, up to 1.0: 85; without directions of statistics: 0
#   the middle row, up to 0.1:
#     as it comes          2.2707 2.2703 2.2699 2.2695 ... 2.2683 2.2682
#     parameters alone     2.2696 2.2694 2.2692 2.2691 ... 2.2691 2.2692
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  loss-landscape-3d==0.1.3 torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'END'
import numpy as np
import torch
from loss_landscape_3d import (
  LossLandscapeCalculator,
  generate_random_directions,
)
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(
  nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
  nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
)  # fmt: skip
images, labels = torch.randn(128, 3, 16, 16), torch.randint(10, (128,))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(20):
  optimizer.zero_grad()
  criterion(model(images), labels).backward()
  optimizer.step()
model.eval()

directions = generate_random_directions(model)
names = [name for name, _ in model.named_parameters()]
of_parameters = [{name: d[name] for name in names} for d in directions]
calculator = LossLandscapeCalculator(model, [(images, labels)], criterion)
center = {name: value.clone() for name, value in model.state_dict().items()}


def surface(extent, directions):
  points = np.linspace(-extent, extent, 11)
  return calculator.calculate(points, points, *directions, center)


missing, right = (
  int(np.isnan(surface(1.0, pair)).sum())
  for pair in (directions, of_parameters)
)
print(
  f'NaN of 121 points, up to 1.0: {missing}; without directions of '
  f'statistics: {right}'
)
print('the middle row, up to 0.1:')
rows = {
  'as it comes': surface(0.1, directions)[5],
  'parameters alone': surface(0.1, of_parameters)[5],
}
for name, row in rows.items():
  start, end = (
    ' '.join(f'{value:.4f}' for value in part) for part in (row[:4], row[-2:])
  )
  print(f'  {name:20} {start} ... {end}')
if not missing or right:
  raise SystemExit('changed: no point is missing, or one is without them')
falls = [row[0] - row[-1] for row in rows.values()]
if falls[0] < 2 * falls[1]:
  raise SystemExit('changed: near the middle, the statistics hardly matter')
END
