"""What can be trained of the papers, and about how long it takes here."""

import functools
import itertools
import pathlib
import time

import jax
import jax.numpy as jnp

from bn_jax import analysis, errors, models
from bn_jax.config import build
from bn_jax.config.run_config import RunConfig, Section
from bn_jax.data import datasets
from bn_jax.experiment import cost, probes
from bn_jax.papers import figures as figures_lib
from bn_jax.papers import matching
from bn_jax.report.claims import verifying
from bn_jax.storage import run_folder

_FOOTER = """\
Train one:  python train.py --config=configs/{example}.py[:small]
Judge it:   python -m bn_jax papers verify WORKDIR...
Time: all runs and seeds one after another on this machine. *: from the seconds
of the runs found; else from the products of the networks, at {share:.0%} of the
rate of a matrix product here ({rate:.0f} GFLOP/s) and {least:.0f} ms a step: it
may be wrong by a factor of three. ?: what it computes is not known.
"""
# Of the rate of a large matrix product that training reaches, and what a step
# takes however small the network: for an estimate that is right within a
# factor of about three.
_EFFICIENCY = 0.5
_SECONDS_A_STEP = 1e-3
_SIDE = 1024  # of the matrices that are multiplied
_TIMES = 3  # of which the fastest counts
_UNITS = ((86_400, 'days'), (3_600, 'h'), (60, 'min'), (1, 's'))


def text(papers: tuple[str, ...], folder: pathlib.Path) -> str:
  """Paper by paper and figure by figure, a line a size.

  Args:
    papers: of `figures.PAPERS`.
    folder: below which runs are looked for; it need not be there.
  """
  figures = figures_lib.every(papers)
  found = matching.below(folder)
  of_products = rate()
  lines = []
  for name, sizes in itertools.groupby(figures, lambda one: one.figure):
    sizes = list(sizes)
    lines += [name, f'  {sizes[0].title}']
    lines += [_size(figure, found, of_products) for figure in sizes]
  footer = _FOOTER.format(
    example=figures[0].figure,
    share=_EFFICIENCY,
    rate=of_products / 1e9,
    least=1000 * _SECONDS_A_STEP,
  )
  return ''.join(f'{line}\n' for line in (*lines, '')) + footer


def _size(
  figure: figures_lib.Reproduction,
  found: matching.Begun,
  of_products: float,
) -> str:
  match = matching.match(figure, found)
  steps = sorted({config.steps for config in figure.runs.values()})
  shape = (
    f'{_count(len(figure.runs), "run")} x {_count(len(figure.seeds), "seed")}'
    f' x {" or ".join(f"{n:,}" for n in steps)} steps'
  )
  seconds, mark = measured(figure, match), '*'
  if seconds is None:
    seconds, mark = estimated(figure, of_products), ''
  spent = '?' if seconds is None else duration(seconds) + mark
  return f'    {figure.size:6} {shape:36} {spent:>10}   {state(figure, match)}'


def state(figure: figures_lib.Reproduction, match: verifying.Standing) -> str:
  """'6 of 10 done', of the seeds of the config and of those found."""
  begun = {
    (name, seed): folder
    for name, seeds in match.folders.items()
    for seed, folder in seeds.items()
  }
  if not begun:
    return 'not started'
  wanted = set(itertools.product(figure.runs, figure.seeds))
  done = sum(folder.has_ended for folder in begun.values())
  said = f'{done} of {len(wanted | set(begun))} done'
  going = len(begun) - done
  return f'{said}, {going} begun' if going else said


def rate() -> float:
  """Measures the floating-point operations a second of a matrix product."""
  matrix = jnp.ones((_SIDE, _SIDE), jnp.float32)
  product = jax.jit(lambda a, b: a @ b)
  product(matrix, matrix).block_until_ready()  # compiles it
  seconds = []
  for _ in range(_TIMES):
    start = time.perf_counter()
    product(matrix, matrix).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * _SIDE**3 / min(seconds)


def measured(
  figure: figures_lib.Reproduction, match: verifying.Standing
) -> float | None:
  """Returns the seconds of all runs and seeds, from those that are done.

  Only what the figure needs counts: a run may have measured more. None where
  none is done.
  """
  means = []
  for name, seeds in match.folders.items():
    parts = ('train', 'save', *figure.runs[name].measures)
    spent = [
      sum(v for part, v in _spent(folder).items() if part in parts)
      for folder in seeds.values()
      if folder.status == 'done'
    ]
    means += [sum(spent) / len(spent)] if spent else []
  if not means:
    return None
  return len(figure.runs) * len(figure.seeds) * sum(means) / len(means)


def estimated(
  figure: figures_lib.Reproduction, of_products: float
) -> float | None:
  """Returns the seconds of all runs and seeds, from what they compute.

  None where that cannot be said, say of data that are not there.

  Args:
    figure: of which no run is done.
    of_products: FLOPs a second, see `rate`.
  """
  try:
    each = [
      operations(config) / (_EFFICIENCY * of_products)
      + _SECONDS_A_STEP * config.steps
      for config in figure.runs.values()
    ]
  except errors.Failure:
    return None
  return len(figure.seeds) * sum(each)


def operations(config: RunConfig) -> float:
  """FLOPs of the products of a whole run, measures included.

  A gradient is three passes through the network; norms and whatever is no
  product are left out.
  """
  of_example = 3 * _forward(config.data, config.model, config.data_dir)
  gradients = config.steps * config.batch_size
  for section in config.measures.values():
    # Layers that are looked at by default are no more than three.
    cost_of_look = analysis.MEASURES[section['name']].cost(section, 3)
    if isinstance(cost_of_look, str):
      continue
    looks = config.steps // section['every_steps'] + 1
    examples = probes.examples(section, config)
    gradients += looks * examples * cost_of_look.in_gradients
  return of_example * gradients


def duration(seconds: float) -> str:
  """In the largest unit of which it is two or more: '90 s', '25 min'."""
  for size, unit in _UNITS:
    if seconds >= 2 * size or unit == 's':
      return f'{seconds / size:.0f} {unit}'
  raise AssertionError('a unit is always found')


def _count(number: int, what: str) -> str:
  return f'{number} {what}{"" if number == 1 else "s"}'


@functools.cache
def _forward(data: Section, model: Section, data_dir: str | None) -> int:
  """FLOPs of the products of one pass of one example.

  The network is traced on shapes, without a norm and as the library computes
  it: neither changes its products by much.
  """
  with build.blaming('config.data'):
    facts = datasets.make(**data, data_dir=data_dir).facts
  lowering = {'lowering': 'library'} if 'lowering' in model else {}
  network = models.make(
    **{**model, **lowering}, num_classes=facts.num_classes, norm='none'
  )
  x = jax.ShapeDtypeStruct((1, *facts.shape), jnp.float32)
  variables = jax.eval_shape(
    functools.partial(network.init, statistics='running'), jax.random.key(0), x
  )
  traced = jax.make_jaxpr(
    functools.partial(network.apply, statistics='running')
  )
  return cost.flops_of_products(traced(variables, x).jaxpr)


@functools.cache
def _spent(folder: run_folder.RunFolder) -> dict[str, float]:
  """Name -> seconds of a run; nothing where they cannot be read."""
  try:
    return folder.seconds()
  except errors.StorageError:
    return {}
