"""Lists shipped configs, and for about how long each trains here."""

import functools
import itertools
import pathlib
import textwrap
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from bn_jax import analysis, errors, models
from bn_jax.config import build, shipped
from bn_jax.config.run_config import FrozenDict, RunConfig
from bn_jax.data import datasets
from bn_jax.experiment import cost, probes
from bn_jax.papers import figures as figures_lib
from bn_jax.papers import matching
from bn_jax.report.claims import verifying
from bn_jax.report.results import conditions
from bn_jax.storage import run_folder

_FOOTER = """\
Train one:  python train.py --config=configs/{example}.py[:small]
Judge it:   python -m bn_jax papers verify WORKDIR...
{time}
"""
_CONFIGS_FOOTER = """\

Train one:  bn_jax train --config=NAME, or NAME:small where it has that size
{time}"""
_TIME = (
  'Time: all runs and seeds one after another on this machine{of_runs} '
  'from the products of the networks, at {share:.0%} of the rate of a large '
  'one here ({rate:.0f} GFLOP/s) and {least:.0f} ms a step: it may be wrong '
  'by a factor of three. ?: its data are not prepared, or what it computes '
  'is not known.'
)
_OF_RUNS = '. *: from the seconds of the runs found; else'
# The share of a large matrix product's rate that training reaches, and the time
# of a step of the smallest network. Round numbers, chosen and not fitted: small
# products reach less and large ones more, so the estimate may be wrong by a
# factor of three. A run that is done replaces it by its own seconds.
_EFFICIENCY = 0.5
_SECONDS_A_STEP = 1e-3
_SIDE = 1024  # of the matrices, large enough to reach the full rate
_TIMES = 3  # the fastest counts: others share the machine
_UNITS = ((86_400, 'days'), (3_600, 'h'), (60, 'min'), (1, 's'))


def text(papers: tuple[str, ...], folder: pathlib.Path) -> str:
  """Returns the list of figures, paper by paper, a line a size.

  Runs are looked for in `folder` and below it; it need not exist.
  """
  figures = figures_lib.every(papers)
  runs, damage = matching.below(folder)
  product_rate = rate()
  lines = []
  for name, sizes in itertools.groupby(figures, lambda figure: figure.figure):
    sizes = list(sizes)
    lines += [name, f'  {sizes[0].title}']
    lines += [_size(figure, runs, product_rate) for figure in sizes]
  footer = _FOOTER.format(
    example=figures[0].figure, time=_time(product_rate, _OF_RUNS)
  )
  lines += ['', *(f'Left out: {message}' for message in damage)]
  return ''.join(f'{line}\n' for line in lines) + footer


def configs(names: Sequence[str]) -> Iterator[str]:
  """Yields the lines of shipped configs, and of what their times mean.

  Raises:
    ConfigError: a config fails.
  """
  product_rate = rate()
  for name in names:
    sizes = figures_lib.of(name, shipped.folder() / f'{name}.py')
    yield f'{name}\n  {sizes[0].title}'
    for size in sizes:
      yield _line(size, product_rate, None)
  yield _CONFIGS_FOOTER.format(time=_time(product_rate))


def _size(
  figure: figures_lib.Reproduction,
  runs: matching.Begun,
  product_rate: float,
) -> str:
  match = matching.match(figure, runs)
  seconds = measured(figure, match)
  spent = f'{duration(seconds)}*' if seconds is not None else None
  return f'{_line(figure, product_rate, spent)}   {state(figure, match)}'


def _line(
  figure: figures_lib.Reproduction, product_rate: float, spent: str | None
) -> str:
  """Returns the line of a config at a size; None is a time to be estimated."""
  steps = sorted({config.steps for config in figure.runs.values()})
  shape = (
    f'{conditions.counted(len(figure.runs), "run")} x '
    f'{conditions.counted(len(figure.seeds), "seed")}'
    f' x {" or ".join(f"{n:,}" for n in steps)} steps'
  )
  if spent is None:
    seconds = estimated(figure, product_rate)
    spent = '?' if seconds is None else duration(seconds)
  return f'    {figure.size:6} {shape:36} {spent:>10}'


def _time(product_rate: float, of_runs: str = ',') -> str:
  """Returns what the times of a list are made of, in lines of a terminal."""
  text = _TIME.format(
    of_runs=of_runs,
    share=_EFFICIENCY,
    rate=product_rate / 1e9,
    least=1000 * _SECONDS_A_STEP,
  )
  return textwrap.fill(text, 80)


def state(figure: figures_lib.Reproduction, match: verifying.Standing) -> str:
  """Returns '6 of 10 done', of the config's seeds and others with runs."""
  folders = {
    (name, seed): folder
    for name, seeds in match.folders.items()
    for seed, folder in seeds.items()
  }
  if not folders:
    return 'not started'
  expected = set(itertools.product(figure.runs, figure.seeds))
  ended = sum(folder.has_ended for folder in folders.values())
  progress = f'{ended} of {len(expected | set(folders))} done'
  unfinished = len(folders) - ended
  return f'{progress}, {unfinished} begun' if unfinished else progress


def rate() -> float:
  """Measures the floating-point operations of a matrix product a second."""
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
  """Returns the seconds of all runs and seeds, from those done; None without.

  Only the figure's measures count: a run may have taken more.
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
  figure: figures_lib.Reproduction, product_rate: float
) -> float | None:
  """Returns the seconds of all runs and seeds, from what they compute.

  None where that cannot be told, as without the data.

  Args:
    figure: one of which no run is done.
    product_rate: FLOPs a second, see `rate`.
  """
  try:
    run_seconds = [
      operations(config) / (_EFFICIENCY * product_rate)
      + _SECONDS_A_STEP * config.steps
      for config in figure.runs.values()
    ]
  except errors.Failure:
    return None
  return len(figure.seeds) * sum(run_seconds)


def operations(config: RunConfig) -> float:
  """Counts the FLOPs of the products of a whole run, measures included.

  A gradient is three passes through the network; all but products is left out.
  """
  example_flops = 3 * _forward(config.data, config.model, config.data_dir)
  gradients = config.steps * config.batch_size
  for section in config.measures.values():
    # 3 layers: no measure looks at more by default.
    look_cost = analysis.kind_of(section['name']).cost(section, 3)
    if isinstance(look_cost, str):
      continue
    looks = config.steps // section['every_steps'] + 1
    examples = probes.examples(section, config)
    gradients += looks * examples * look_cost.in_gradients
  return example_flops * gradients


def duration(seconds: float) -> str:
  """Returns seconds in the largest unit that gives 2 or more: '25 min'."""
  for size, unit in _UNITS:
    if seconds >= 2 * size or unit == 's':
      return f'{seconds / size:.0f} {unit}'
  raise AssertionError('a unit is always found')


@functools.cache
def _forward(data: FrozenDict, model: FrozenDict, data_dir: str | None) -> int:
  """Counts the FLOPs of the products of a forward pass of one example.

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
  """Returns part of training -> its seconds; {} if they cannot be read."""
  try:
    return folder.seconds()
  except errors.StorageError:
    return {}
