"""Computes two measures of Santurkar et al. (2018) with PyTorch.

They are written from the papers and share no code with bn_jax: VGG-11 (Simonyan
and Zisserman, 2015, arXiv:1409.1556, Table 1, column A, with one dense layer
and, if wanted, Batch Normalization before each ReLU), the landscape along a
direction (Santurkar et al., arXiv:1805.11604, section 3.1), and internal
covariate shift (Definition 2.1 there). Parameters are copied, moved without a
graph, and evaluated again on the same batch with its statistics; there are no
running ones. Inputs and outputs are NumPy arrays with bn_jax's names and
layouts: kernels HWIO, images NHWC.
"""

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))

Arrays = Mapping[str, Mapping[str, np.ndarray]]


class VGG11(nn.Sequential):
  """VGG-11 for images of 32 x 32: conv1, norm1, relu1, ..., flatten, logits."""

  def __init__(self, *, batch_norm: bool, width: float = 1.0):
    modules = collections.OrderedDict()
    channels, index = 3, 0
    for block, block_features in enumerate(_BLOCKS, start=1):
      for features in block_features:
        index += 1
        features = max(1, round(width * features))
        modules[f'conv{index}'] = nn.Conv2d(
          channels, features, 3, padding=1, bias=not batch_norm
        )
        if batch_norm:
          modules[f'conv{index}_norm'] = nn.BatchNorm2d(
            features, track_running_stats=False
          )
        modules[f'relu{index}'] = nn.ReLU(inplace=True)
        channels = features
      modules[f'pool{block}'] = nn.MaxPool2d(2)
    modules['flatten'] = nn.Flatten()
    modules['logits'] = nn.Linear(channels, 10)
    super().__init__(modules)
    self.train()


class Objective:
  """The mean cross-entropy of one batch and, if wanted, a weight decay."""

  def __init__(
    self,
    images: np.ndarray,
    labels: np.ndarray,
    like: nn.Module,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    weight_decay: float = 0.0,
  ):
    """Converts images, [N, H, W, C], and labels, [N], to dtype of `like`."""
    dtype = next(like.parameters()).dtype
    images = torch.tensor(np.asarray(images), dtype=dtype).permute(0, 3, 1, 2)
    self._images = images.contiguous(memory_format=memory_format)
    self._labels = torch.tensor(np.asarray(labels), dtype=torch.long)
    self._weight_decay = weight_decay

  def __call__(self, model: nn.Module) -> torch.Tensor:
    """Returns the data loss plus weight_decay / 2 * |kernels|^2."""
    loss = functional.cross_entropy(model(self._images), self._labels)
    if self._weight_decay:
      kernels = [p for p in model.parameters() if p.ndim > 1]
      squares = sum(p.square().sum() for p in kernels)
      loss = loss + 0.5 * self._weight_decay * squares
    return loss


def load(model: nn.Module, params: Arrays) -> nn.Module:
  """Copies parameters into the network, and returns it."""
  with torch.no_grad():
    for parameter, new in zip(model.parameters(), tensors(model, params)):
      parameter.copy_(new)
  return model


def tensors(model: nn.Module, params: Arrays) -> list[torch.Tensor]:
  """Converts a tree like bn_jax's parameters, in the order of the network."""
  converted = []
  for name, parameter in model.named_parameters():
    module, kind = name.split('.')
    weight = 'scale' if module.endswith('_norm') else 'kernel'
    array = np.asarray(params[module]['bias' if kind == 'bias' else weight])
    if array.ndim == 4:
      array = array.transpose(3, 2, 0, 1)  # HWIO -> OIHW
    elif array.ndim == 2:
      array = array.T
    tensor = torch.tensor(array, dtype=parameter.dtype)
    assert tensor.shape == parameter.shape, name
    converted.append(tensor)
  return converted


def train(
  model: nn.Module, objectives: Sequence[Objective], rate: float
) -> None:
  """Takes one step of SGD with momentum 0.9 on each objective."""
  optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
  for objective in objectives:
    optimizer.zero_grad()
    objective(model).backward()
    optimizer.step()


def along_direction(
  model: nn.Module,
  objective: Objective,
  step_sizes: Sequence[float],
  direction: Arrays | None = None,
  *,
  per_layer: bool = False,
  curvature: bool = False,
) -> dict[str, np.ndarray]:
  """Evaluates loss and gradient at params - e * direction, for each size e.

  Direction None is the gradient. The quantities are those of all parameters
  together and, with per_layer, of each layer; with curvature, d'H d / |d|^2 and
  |H d| / |d| too, by backpropagating twice.
  """
  params = list(model.parameters())
  start = [p.detach().clone() for p in params]
  loss = objective(model)
  gradient = torch.autograd.grad(loss, params, create_graph=curvature)
  along = [g.detach() for g in gradient]
  if direction is not None:
    along = tensors(model, direction)
  results = {}
  if curvature:
    product = torch.autograd.grad(_dot(gradient, along), params)
    square = _dot(along, along)
    results['curvature'] = (_dot(along, product) / square).item()
    results['beta_0'] = (_norm(product) / square.sqrt()).item()
  loss_0, gradient_0 = loss.item(), [g.detach() for g in gradient]
  del loss, gradient
  slices = _slices_of_layers(model) if per_layer else {}
  lengths = [_norm(gradient_0), _norm(along)]
  rows = []
  for size in step_sizes:
    _move(params, start, along, -size)
    loss = objective(model)
    gradient = torch.autograd.grad(loss, params)
    row = {'loss': loss.item()}
    row |= _row(gradient, gradient_0, *lengths, size)
    row['lipschitz'] = abs(row['loss'] - loss_0) / (size * lengths[1].item())
    for part in slices.values():
      g, g_0 = gradient[part], gradient_0[part]
      row_of_layer = _row(g, g_0, _norm(g_0), _norm(along[part]), size)
      for name, value in row_of_layer.items():
        row.setdefault(f'layer_{name}', []).append(value)
    rows.append(row)
  _move(params, start)
  results |= {'loss_0': loss_0, 'gradient_norm_0': lengths[0].item()}
  if per_layer:
    results['layer_gradient_norm_0'] = [
      _norm(gradient_0[part]).item() for part in slices.values()
    ]
  results |= {name: [row[name] for row in rows] for name in rows[0]}
  return {name: np.array(value) for name, value in results.items()}


def covariate_shift(
  model: nn.Module, objective: Objective, new_params: Arrays, at: Sequence[str]
) -> dict[str, np.ndarray]:
  """Returns the change of each layer's gradient by the step of those before."""
  params = list(model.parameters())
  start = [p.detach().clone() for p in params]
  new = tensors(model, new_params)
  slices = _slices_of_layers(model)
  gradient = torch.autograd.grad(objective(model), params)
  rows, num_moved = [], 0
  for name, part in slices.items():
    if name not in at:
      continue
    with torch.no_grad():
      for i in range(num_moved, part.start):
        params[i].copy_(new[i])
    num_moved = part.start
    # With respect to this layer alone: no gradient is taken below it.
    g_0 = gradient[part]
    g = torch.autograd.grad(objective(model), params[part])
    change = distance(g, g_0)
    rows.append(
      {
        'l2': change.item(),
        'relative_l2': (change / _norm(g_0)).item(),
        'cosine': (_dot(g_0, g) / (_norm(g_0) * _norm(g))).item(),
      }
    )
  _move(params, start)
  return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def distance(
  x: Sequence[torch.Tensor], y: Sequence[torch.Tensor]
) -> torch.Tensor:
  """Returns |x - y| over all tensors, keeping one difference at a time."""
  parts = [torch.linalg.vector_norm(a - b) for a, b in zip(x, y)]
  return torch.linalg.vector_norm(torch.stack(parts))


def _row(g, g_0, norm_0, norm_d, size) -> dict[str, float]:
  """Returns the quantities at one point, of all parameters or of one layer."""
  norm, change = _norm(g), distance(g, g_0)
  return {
    'gradient_norm': norm.item(),
    'gradient_change': change.item(),
    'gradient_cosine': (_dot(g, g_0) / (norm * norm_0)).item(),
    'beta': (change / (size * norm_d)).item(),
  }


@torch.no_grad()
def _move(params, start, direction=None, size=0.0) -> None:
  """Sets params to start + size * direction."""
  for i, p in enumerate(params):
    p.copy_(start[i])
    if direction is not None:
      p.add_(direction[i], alpha=size)


def _slices_of_layers(model: nn.Module) -> dict[str, slice]:
  """Returns layer -> slice of the network's parameters, its norm included."""
  slices = {}
  for i, (name, _) in enumerate(model.named_parameters()):
    layer = name.split('.')[0].replace('norm', 'conv')
    first = slices[layer].start if layer in slices else i
    slices[layer] = slice(first, i + 1)
  return slices


def _dot(x: Sequence[torch.Tensor], y: Sequence[torch.Tensor]) -> torch.Tensor:
  return sum((a * b).sum() for a, b in zip(x, y))


def _norm(x: Sequence[torch.Tensor]) -> torch.Tensor:
  # As in torch.nn.utils.clip_grad_norm_, which copies nothing into one vector.
  return torch.nn.utils.get_total_norm(x)
