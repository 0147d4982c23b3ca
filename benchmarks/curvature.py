"""Measures curvature and surfaces against five peers: values first, then times.

Both sides have the same weights, statistics and batch, and run in one process,
in turns. Networks, after 20 steps of training: an MLP with Batch Normalization
on digits (1,090 parameters), VGG-11 at CIFAR's shape on random images. Modes:
the statistics of the batch, against hessian-eigenthings 1.0.0a5 (curvlinops
raises there); running statistics, against curvlinops 3.0.1 with scipy's eigsh.

values: of the MLP in float64 they must agree to 1e-6, or the program exits with
1: the largest eigenvalue with an exact Hessian and with the peers, Lanczos'
matrix from one start vector, and loss-landscapes' surface, where its cells are
put where they were computed. VGG-11 in float32 is only shown.

speed: the largest eigenvalue at a residual of 1e-3 of it, each round from
another start vector, hessian-eigenthings with the smallest number of steps that
is enough; a density of as many products; a surface of 21 x 21 filter-normalised
points against loss-landscapes 3.0.6; and matfree 0.6.3 with our loss, as many
steps as we needed, and a product for the residual that it does not tell, all of
it one program. Everything is compiled first. What PyTorch's product says of our
vector is printed beside our residual. --lowering is of our VGG-11's
convolutions: with 'winograd' they round more, and a product takes longer.

  python -m benchmarks curvature [--quick] [--only=values|speed]
    [--networks=mlp,vgg11] [--parts=largest,density,surface,matfree]

It needs `pip install -r requirements-bench.txt`.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import itertools
import os
import pathlib
import platform
import statistics
import sys

import jax
import jax.numpy as jnp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import curvature_cases
import turns

from bn_jax import analysis, models, trees

_PEERS = (
  'torch', 'hessian-eigenthings', 'curvlinops-for-pytorch',
  'loss-landscapes', 'matfree',
)  # fmt: skip
_PARTS = ('largest', 'density', 'surface', 'matfree')
_TOLERANCE = 1e-3
_MOST_STEPS = 60
# How many times as fast as the peer, at least.
_LIMITS = {
  ('largest', 'mlp'): 5.0, ('largest', 'vgg11'): 1.5,
  ('density', 'mlp'): 5.0, ('density', 'vgg11'): 1.5,
  ('surface', 'mlp'): 10.0, ('surface', 'vgg11'): 1.5,
  ('matfree', 'mlp'): 1.0, ('matfree', 'vgg11'): 1.0,
}  # fmt: skip
_DENSITY = {'mlp': (4, 60), 'vgg11': (2, 15)}  # probes, steps of each


def main() -> None:
  options = _options()
  if importlib.util.find_spec('torch') is None:
    raise SystemExit(
      'PyTorch and the peers are not installed here: pip install -r '
      'requirements-bench.txt, in an environment of its own'
    )
  jax.config.update('jax_default_matmul_precision', 'highest')
  _print_machine(options)
  if options.only != 'speed':
    import curvature_values

    print('Values, and their largest relative difference.')
    if not curvature_values.compare(_case, options):
      raise SystemExit(1)
  if options.only != 'values':
    for name in options.networks:
      _speed(_case(name, jnp.float32, options), options)


def _options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch_size', type=int, default=128, help='of VGG-11')
  parser.add_argument('--examples', type=int, default=512, help='of the MLP')
  parser.add_argument('--width', type=float, default=0.5, help='of VGG-11')
  parser.add_argument('--lowering', default='product', choices=models.LOWERINGS)
  parser.add_argument('--pairs', type=int, default=5, help='rounds')
  parser.add_argument('--points', type=int, default=21, help='of a side')
  parser.add_argument('--networks', default='mlp,vgg11')
  parser.add_argument('--parts', default=','.join(_PARTS))
  parser.add_argument('--only', choices=('values', 'speed'), default=None)
  parser.add_argument(
    '--quick', action='store_true',
    help='a narrow VGG-11, small surfaces and one round: that it runs at all',
  )  # fmt: skip
  options = parser.parse_args()
  options.networks = options.networks.split(',')
  options.parts = options.parts.split(',')
  if options.quick:
    options.batch_size, options.width = 16, 0.125
    options.pairs, options.points = 1, 5
  return options


def _case(name, dtype, options) -> curvature_cases.Case:
  if name == 'mlp':
    return curvature_cases.mlp(dtype, options.examples)
  return curvature_cases.vgg11(
    dtype, options.batch_size, options.width, options.lowering
  )


def _speed(case: curvature_cases.Case, options: argparse.Namespace) -> None:
  size = sum(x.size for x in jax.tree.leaves(case.state.params))
  print(
    f'\n{case.name}: {size:,} parameters, {len(case.batch.labels)} examples, '
    'float32; ratios are the time of the peer / ours',
    flush=True,
  )
  parts = {
    'largest': _largest,
    'density': _density,
    'surface': _surface,
    'matfree': _matfree,
  }
  for part in options.parts:
    for mode in curvature_cases.STATISTICS:
      parts[part](case, mode, options)


def _largest(case, mode: str, options) -> None:
  """Times the largest eigenvalue at one residual, start after start."""
  import curvature_torch

  own, loss = case.peer(mode), case.loss(mode)
  rounds = options.pairs
  if mode == 'batch':
    peer = 'hessian-eigenthings'
    steps = [
      curvature_torch.steps_needed(own, _TOLERANCE, seed, _MOST_STEPS)
      for seed in range(rounds)
    ]
    theirs = [
      functools.partial(
        curvature_torch.largest_by_eigenthings, own, _TOLERANCE, seed,
        needed or _MOST_STEPS,
      )
      for seed, needed in enumerate(steps)
    ]  # fmt: skip
  else:
    peer = 'curvlinops with eigsh'
    theirs = [
      functools.partial(
        curvature_torch.largest_by_curvlinops, own, _TOLERANCE, seed
      )
      for seed in range(rounds)
    ]
  ours = [
    functools.partial(_top, loss, case.state.params, jax.random.key(seed))
    for seed in range(rounds)
  ]
  ours[0]()  # compiles it
  pairs = {'ours': [], peer: []}
  times, _ = turns.alternating(
    rounds, _keeping(ours, pairs['ours']), _keeping(theirs, pairs[peer])
  )
  for name, results, seconds in zip(pairs, pairs.values(), times):
    products = [result.products for result in results]
    each = [1e3 * s / p for s, p in zip(seconds, products)]
    residuals = (
      [curvature_torch.residual(own, result) for result in results]
      if name != 'ours'
      else [r.residual / r.value for r in results]
    )
    print(
      f'  {name}: {results[0].value:.5g}, residual at most '
      f'{max(residuals):.1e} of it, {_range(products)} products, '
      f'{statistics.median(seconds):.3f} s, {statistics.median(each):.2f} ms '
      'a product'
    )
  ours = _top(loss, case.state.params, jax.random.key(0), own.module)
  print(
    f"  our first vector by PyTorch's product: residual "
    f'{curvature_torch.residual(own, ours):.1e} of it'
  )
  turns.say(
    f'  largest eigenvalue, {mode}, {peer}', *times, at_least=True,
    limit=_LIMITS['largest', case.name],
  )  # fmt: skip


def _top(loss, params, key, model=None):
  """Returns our largest pair; with PyTorch's network also its vector."""
  import curvature_torch

  top = analysis.top_eigenvalues(
    loss, params, tolerance=_TOLERANCE, key=key,
    eigenvectors=model is not None,
  )  # fmt: skip
  vector = model and curvature_torch.flat(model, top['eigenvectors'][0])
  return curvature_torch.Pair(
    float(top['eigenvalues'][0]), float(top['residuals'][0]),
    int(top['products']), vector,
  )  # fmt: skip


def _density(case, mode: str, options) -> None:
  """Times a density of as many products, in probes of as many steps."""
  import curvature_torch

  samples, steps = _DENSITY[case.name]
  own, loss = case.peer(mode), case.loss(mode)
  keys = map(jax.random.key, itertools.count())

  def ours():
    return analysis.spectral_density(
      loss, case.state.params, order=steps, samples=samples, key=next(keys)
    )

  look = ours()  # compiles it
  ends = float(look['smallest']), float(look['largest'])
  if mode == 'batch':
    peer = 'hessian-eigenthings'
    theirs = functools.partial(
      curvature_torch.density_by_eigenthings, own, samples, steps
    )
  else:
    peer = 'curvlinops'
    theirs = functools.partial(
      curvature_torch.density_by_curvlinops, own, samples, steps, ends
    )
  times, (look, _) = turns.alternating(options.pairs, ours, theirs)
  print(
    f'  density, {mode}: {samples} x {steps} products (ours '
    f'{int(look["products"])}), {ends[0]:.4g} to {ends[1]:.4g}; seconds ours '
    f'{statistics.median(times[0]):.3f}, {peer} '
    f'{statistics.median(times[1]):.3f}'
  )
  turns.say(
    f'  density, {mode}, {peer}', *times, at_least=True,
    limit=_LIMITS['density', case.name],
  )  # fmt: skip


def _surface(case, mode: str, options) -> None:
  """Times a plane of filter-normalised random directions, these included."""
  import curvature_torch

  own, loss = case.peer(mode), case.loss(mode)
  params, points = case.state.params, options.points
  ticks = jnp.linspace(-0.5, 0.5, points)
  keys = map(jax.random.key, itertools.count())

  def ours():
    directions = analysis.random_directions(params, 2, next(keys))
    return analysis.surface(loss, params, directions, [ticks, ticks])

  ours()  # compiles it
  times, _ = turns.alternating(
    options.pairs, ours, functools.partial(curvature_torch.surface, own, points)
  )
  print(
    f'  surface, {mode}: {points} x {points} points; seconds ours '
    f'{statistics.median(times[0]):.3f}, loss-landscapes '
    f'{statistics.median(times[1]):.3f}'
  )
  turns.say(
    f'  surface, {mode}, loss-landscapes', *times, at_least=True,
    limit=_LIMITS['surface', case.name],
  )  # fmt: skip


def _matfree(case, mode: str, options) -> None:
  """Times matfree's Lanczos on our loss, told how many steps are enough.

  Its `eigh_partial` gives no residual, which a product more is for.
  """
  from matfree import decomp, eig

  loss, params = case.loss(mode), case.state.params
  key = jax.random.key(0)
  needed = _top(loss, params, key)

  @jax.jit
  def largest(loss, params, start):
    def product(v):
      return jax.jvp(jax.grad(loss), (params,), (v,))[1]

    tridiagonal = decomp.tridiag_sym(needed.products, reortho='full')
    values, vectors = eig.eigh_partial(tridiagonal)(product, start)
    value, vector = values[-1], jax.tree.map(lambda x: x[-1], vectors)
    rest = trees.add_scaled(product(vector), -value, vector)
    return value, trees.norm(rest) / value, vector

  start = jax.tree.map(
    lambda x: jax.random.normal(key, x.shape, x.dtype), params
  )

  def theirs():
    return jax.block_until_ready(largest(loss, params, start))

  theirs()  # compiles it
  times, (top, (value, residual, _)) = turns.alternating(
    options.pairs, functools.partial(_top, loss, params, key), theirs
  )
  print(
    f'  matfree, {mode}: {float(value):.5g}, residual {float(residual):.1e} of '
    f'it, {needed.products} + 1 products (ours {top.value:.5g}, '
    f'{top.residual / top.value:.1e}, {top.products}); ms ours '
    f'{1e3 * statistics.median(times[0]):.2f}, matfree '
    f'{1e3 * statistics.median(times[1]):.2f}'
  )
  turns.say(
    f'  largest eigenvalue, {mode}, matfree', *times, at_least=True,
    limit=_LIMITS['matfree', case.name],
  )  # fmt: skip


def _keeping(ways, results):
  """Returns a function that calls the next way, and keeps what it returns."""
  turn = iter(ways)

  def way():
    results.append(next(turn)())

  return way


def _range(numbers: list[int]) -> str:
  low, high = min(numbers), max(numbers)
  return str(low) if low == high else f'{low} to {high}'


def _print_machine(options) -> None:
  device = jax.devices()[0]
  versions = [f'{name} {importlib.metadata.version(name)}' for name in _PEERS]
  print(
    f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax '
    f'{jax.__version__}, Python {platform.python_version()}, '
    f'{", ".join(versions)}; VGG-11 of width {options.width}, batch '
    f'{options.batch_size}, lowering {options.lowering}\n',
    flush=True,
  )


if __name__ == '__main__':
  main()
