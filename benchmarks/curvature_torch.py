"""Measures curvature and surfaces with the peers, all of them on PyTorch.

The networks share no code with bn_jax: VGG-11 is that of `analysis_torch`, the
MLP, of dense layers with Batch Normalization and ReLU, is written here.
Parameters and statistics are copied from ours. What differs between modes is
the module's own: `train()` takes the batch's statistics, `eval()` running ones.
"""

import collections
import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import analysis_torch
import numpy as np
import torch
from torch import nn
from torch.nn import functional

Arrays = Mapping[str, Mapping[str, np.ndarray]]


class Pair(NamedTuple):
  """The largest eigenvalue that a peer gives.

  Attributes:
    value: the eigenvalue.
    residual: |H v - value v| / |value|.
    products: of the Hessian and a vector.
    vector: [n], v, in the peer's order; ours is left out.
  """

  value: float
  residual: float
  products: int
  vector: torch.Tensor | None = None


class Network(NamedTuple):
  """A network and its batch, as PyTorch's tools take them.

  Attributes:
    module: in the mode that is measured.
    images: [B, ...] as the module takes them.
    labels: [B].
  """

  module: nn.Module
  images: torch.Tensor
  labels: torch.Tensor

  def loss(self) -> torch.Tensor:
    """Returns the mean cross-entropy of the batch."""
    return functional.cross_entropy(self.module(self.images), self.labels)


class MLP(nn.Sequential):
  """Dense layers with Batch Normalization and ReLU, then logits."""

  def __init__(self, inputs: int, hidden: tuple[int, ...]):
    modules = collections.OrderedDict()
    for i, features in enumerate(hidden, start=1):
      modules[f'dense{i}'] = nn.Linear(inputs, features, bias=False)
      modules[f'dense{i}_norm'] = nn.BatchNorm1d(features)
      modules[f'relu{i}'] = nn.ReLU()
      inputs = features
    modules['logits'] = nn.Linear(inputs, 10)
    super().__init__(modules)


def vgg11(width: float) -> nn.Module:
  """Returns VGG-11 whose norms keep running statistics."""
  model = analysis_torch.VGG11(batch_norm=True, width=width)
  for name, module in list(model.named_children()):
    if isinstance(module, nn.BatchNorm2d):
      setattr(model, name, nn.BatchNorm2d(module.num_features))
    elif isinstance(module, nn.ReLU):
      setattr(model, name, nn.ReLU())
  return model


def network(
  model: nn.Module,
  params: Arrays,
  batch_stats: Arrays,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  statistics: str,
  dtype: torch.dtype,
) -> Network:
  """Returns a network with our parameters, statistics and batch.

  Args:
    images: [B, H, W, C], or [B, D] for an MLP.
    statistics: 'batch' or 'running'.
  """
  model = analysis_torch.load(copy.deepcopy(model).to(dtype), params)
  for name, arrays in batch_stats.items():
    norm = getattr(model, name)
    norm.running_mean.copy_(torch.tensor(np.asarray(arrays['mean'])))
    norm.running_var.copy_(torch.tensor(np.asarray(arrays['var'])))
  images = torch.tensor(np.asarray(images), dtype=dtype)
  if images.ndim == 4:
    images = images.permute(0, 3, 1, 2).contiguous()
  labels = torch.tensor(np.asarray(labels), dtype=torch.long)
  return Network(model.train(statistics == 'batch'), images, labels)


def flat(model: nn.Module, tree: Arrays) -> torch.Tensor:
  """Returns a tree like bn_jax's parameters as a vector in PyTorch's order."""
  return torch.cat([t.reshape(-1) for t in analysis_torch.tensors(model, tree)])


def eigenthings(own: Network) -> Any:
  """Returns hessian-eigenthings' Hessian of the loss."""
  from hessian_eigenthings import HessianOperator

  return HessianOperator(
    own.module,
    [(own.images, own.labels)],
    lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
  )


def steps_needed(
  own: Network, tolerance: float, seed: int, most: int
) -> int | None:
  """Returns how many steps hessian-eigenthings' Lanczos needs, at least.

  It does as many as it is told and then says whether they were enough. Here it
  is told the smallest number that is: what nobody knows before, in its favour.
  """
  from hessian_eigenthings.algorithms.lanczos import lanczos_tridiagonal

  operator = eigenthings(own)
  generator = torch.Generator().manual_seed(seed)
  start = torch.randn(operator.size, dtype=operator.dtype, generator=generator)
  matrix = lanczos_tridiagonal(operator, start, most)
  for steps in range(2, matrix.iterations):
    alphas, betas = matrix.alphas[:steps], matrix.betas[: steps - 1]
    values, vectors = torch.linalg.eigh(
      torch.diag(alphas) + torch.diag(betas, 1) + torch.diag(betas, -1)
    )
    residual = matrix.betas[steps - 1] * vectors[-1, -1].abs()
    if residual < tolerance * values[-1].abs():
      return steps
  return None


def largest_by_eigenthings(
  own: Network, tolerance: float, seed: int, steps: int
) -> Pair:
  """Returns the largest eigenvalue by hessian-eigenthings' Lanczos."""
  from hessian_eigenthings import lanczos

  result = lanczos(
    eigenthings(own), k=1, max_iter=steps, tol=tolerance, which='LA', seed=seed
  )
  value = result.eigenvalues[0].item()
  residual = result.residuals[0].item() / abs(value)
  return Pair(value, residual, result.iterations, result.eigenvectors[0])


def largest_by_curvlinops(own: Network, tolerance: float, seed: int) -> Pair:
  """Returns it by curvlinops' Hessian and scipy's eigsh, as its manual does."""
  from scipy.sparse import linalg

  matrix, count = _counted(curvlinops_hessian(own).to_scipy())
  start = np.random.default_rng(seed).normal(size=matrix.shape[0])
  values, vectors = linalg.eigsh(
    matrix, k=1, which='LA', tol=tolerance, v0=start.astype(matrix.dtype)
  )
  vector = torch.tensor(vectors[:, 0])
  return Pair(float(values[0]), float('nan'), count(), vector)


def residual(own: Network, pair: Pair) -> float:
  """Returns |H v - value v| / |value| by one product of PyTorch's."""
  image = eigenthings(own).matvec(pair.vector)
  return float((image - pair.value * pair.vector).norm() / abs(pair.value))


def curvlinops_hessian(own: Network) -> Any:
  """Returns curvlinops' Hessian of the loss; in batch mode it raises."""
  from curvlinops import HessianLinearOperator

  return HessianLinearOperator(
    own.module, nn.CrossEntropyLoss(), list(own.module.parameters()),
    [(own.images, own.labels)], check_deterministic=False,
  )  # fmt: skip


def _counted(matrix: Any) -> tuple[Any, Callable[[], int]]:
  """Returns (the same operator, how many products it was asked for)."""
  from scipy.sparse import linalg

  products = []

  def product(vector):
    products.append(1)
    return matrix.matvec(vector)

  counted = linalg.LinearOperator(matrix.shape, product, dtype=matrix.dtype)
  return counted, lambda: len(products)


def density_by_eigenthings(own: Network, samples: int, steps: int) -> Any:
  """Returns hessian-eigenthings' density, of samples * steps products."""
  from hessian_eigenthings import spectral_density

  return spectral_density(
    eigenthings(own), num_runs=samples, lanczos_steps=steps, seed=0
  )


def density_by_curvlinops(own: Network, samples: int, steps: int, ends) -> Any:
  """Returns curvlinops' density of as many products, without orthogonalisation.

  Args:
    ends: (smallest, largest) eigenvalue, which it else needs products for.
  """
  from curvlinops.papyan2020traces import spectrum

  return spectrum.lanczos_approximate_spectrum(
    curvlinops_hessian(own), steps, num_repeats=samples, boundaries=ends
  )


def tridiagonal_by_eigenthings(
  own: Network, start: torch.Tensor, steps: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (diagonal [m], beside it [m - 1]) of Lanczos' matrix."""
  from hessian_eigenthings.algorithms.lanczos import lanczos_tridiagonal

  matrix = lanczos_tridiagonal(eigenthings(own), start, steps)
  return matrix.alphas.numpy(), matrix.betas.numpy()


class Plane(NamedTuple):
  """A surface of loss-landscapes, with where its cells were computed.

  Attributes:
    losses: [n, n] as it returns them.
    origin: the parameters from which steps are counted, a list of arrays.
    steps: one step along each direction, two lists of arrays.
  """

  losses: np.ndarray
  origin: list[torch.Tensor]
  steps: tuple[list[torch.Tensor], list[torch.Tensor]]


def surface(own: Network, points: int) -> np.ndarray:
  """Returns the losses of a filter-normalised random plane, [n, n]."""
  return _random_plane(own, _metric(own), points)


def plane(own: Network, points: int) -> Plane:
  """Returns a random plane and where it lies."""
  metric = _metric(own)
  visited = []

  def watched(wrapper):
    # The places of three cells give both directions.
    if len(visited) <= 2 * points:
      parameters = wrapper.get_module_parameters().parameters
      visited.append([p.detach().clone() for p in parameters])
    return metric(wrapper)

  losses = _random_plane(own, watched, points)
  first, after, two_on = visited[0], visited[1], visited[2 * points]
  along = [b - a for a, b in zip(first, after)]
  across = [(b - a) / 2 for a, b in zip(first, two_on)]
  origin = [a - d for a, d in zip(first, along)]
  return Plane(losses, origin, (across, along))


def _metric(own: Network):
  from loss_landscapes import metrics

  return metrics.Loss(functional.cross_entropy, own.images, own.labels)


def _random_plane(own: Network, metric, points: int) -> np.ndarray:
  import loss_landscapes

  torch.manual_seed(0)
  with torch.no_grad():
    return loss_landscapes.random_plane(
      own.module, metric, distance=1, steps=points, normalization='filter',
      deepcopy_model=True,
    )  # fmt: skip


def tree_of(model: nn.Module, arrays: list[torch.Tensor], like: Arrays) -> dict:
  """Returns a list in the order of the network as a tree like bn_jax's."""
  tree = {module: {} for module in like}
  for (name, _), array in zip(model.named_parameters(), arrays):
    module, kind = name.split('.')
    weight = 'scale' if module.endswith('_norm') else 'kernel'
    array = array.numpy()
    if array.ndim == 4:
      array = array.transpose(2, 3, 1, 0)
    elif array.ndim == 2:
      array = array.T
    tree[module]['bias' if kind == 'bias' else weight] = array
  return tree
