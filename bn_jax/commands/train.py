"""python train.py --config=FILE [--workdir=DIR] [--only=RUN[/seedK]] ..."""

import gc
import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from bn_jax import commands, errors
from bn_jax.config import flags
from bn_jax.host import processes

_USAGE = """\
usage: python train.py --config=FILE [options]

  --config=FILE         the experiment; configs/default.py explains every key
  --config.KEY=VALUE    changes a key: --config.schedule.learning_rate=0.3
  --workdir=DIR         where it is written; default: runs/ and the path of the
                        config below configs/: runs/santurkar2018/figure10-small
  --only=RUN[/seedK]    trains one run, or one seed of it
  --data_dir=DIR        of tensorflow-datasets; default: TFDS_DATA_DIR, or
                        ~/tensorflow_datasets
  --devices=N           the same as --config.devices=N
  --resume=auto         goes on where it stopped, or begins; must: only goes on;
                        never: only begins
  --distributed=auto    joins other processes where SLURM, Open MPI, Kubernetes,
                        a TPU pod or the next flags show several; on; off
  --coordinator_address=HOST:PORT --num_processes=N --process_id=K
                        of processes that are started by hand; process 0 is HOST
  --join_timeout=300    seconds in which all must be there
  --plan                prints what a step costs (parameters, FLOPs, memory,
                        what devices tell each other) and stops; a CPU stands in
                        for as many devices as are asked for
"""
_GARBAGE = (100_000, 50, 50)  # allocations between two collections


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  if any(word in ('-h', '--help') for word in argv[1:]):
    sys.stdout.write(_USAGE)
    return 0
  return commands.run(lambda: _run(flags.train(argv)))


def _run(given: flags.Given) -> int:
  if given.plan:
    return _plan(given)
  with processes.joined(given.distributed, given.place, given.join_timeout):
    return _train(given)


def _plan(given: flags.Given) -> int:
  """Prints what a step of every run costs; no data are read."""
  import jax

  devices = given.config.devices
  if devices > max(1, jax.config.jax_num_cpu_devices):
    jax.config.update('jax_num_cpu_devices', devices)
  # Imported late: devices are counted once, and not before.
  from bn_jax.config import resolve

  resolved = resolve.experiment(given.config.to_dict(), given.overrides)
  paragraphs = []
  for name in resolved.chosen(given.only):
    with resolve.naming(name, resolved.runs):
      paragraphs.append(_cost(name, resolved.runs[name]))
  sys.stdout.write('\n'.join(paragraphs))
  return 0


def _train(given: flags.Given) -> int:
  _log_plainly()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.config import resolve
  from bn_jax.experiment import experiment
  from bn_jax.host import compilation_cache

  compilation_cache.keep()
  # Tracing makes objects that live, by the million: looking through them after
  # every 700 was a tenth of a second start.
  gc.set_threshold(*_GARBAGE)

  if processes.count() > 1 and 'devices' not in given.overrides:
    given.config.devices = _all_devices(given.config.devices)
  diverged = experiment.run(
    resolve.experiment(given.config.to_dict(), given.overrides),
    given.workdir,
    only=given.only,
    resume=given.resume,
  )
  report = processes.agreed(lambda: _reported(given.workdir))
  if processes.is_first():
    sys.stderr.write(f'report: {report}\n')
  if diverged:
    raise errors.Diverged(f'diverged: {", ".join(diverged)}; see the report')
  return 0


def _reported(workdir: str) -> str:
  # Imported late: training need not wait for matplotlib.
  from bn_jax.papers import verify
  from bn_jax.report import page

  place = pathlib.Path(workdir)
  return str(page.write([place], runs=verify.refresh(place)))


def _all_devices(configured: int) -> int:
  """How many devices several processes use, where nobody has said it.

  They are asked for by starting the processes; a config's 1 is the default.
  """
  import jax

  return len(jax.devices()) if configured == 1 else configured


def _log_plainly() -> None:
  """Our own messages on stderr, a line each; other loggers stay as they are.

  Of several processes the first one speaks; the others only warn.
  """
  logger = logging.getLogger('bn_jax')
  first = processes.is_first()
  logger.setLevel(logging.INFO if first else logging.WARNING)
  logger.propagate = False
  if not logger.handlers:
    logger.addHandler(logging.StreamHandler())


def _cost(name: str, config: Any) -> str:
  """Says what a step of a run costs, compiled for the run's devices."""
  import jax

  from bn_jax.config import build
  from bn_jax.experiment import cost, probes

  made = build.problem(config)
  probes.check(config, made)
  state = jax.eval_shape(made.init, 0)
  with jax.default_matmul_precision(config.matmul_precision):
    split = build.source(config).shapes(config.batch_size)
    traced = build.step(config, made).trace(state, split)
  found = cost.of(traced, state.params, config.devices)
  kind = jax.devices()[0].device_kind
  count = config.devices
  head = (
    f'{name}: {config.model["name"]}, norm {config.norm["name"]}, batch '
    f'{config.batch_size}, layout {config.layout} on {count} '
    f'{kind} device{"s" if count > 1 else ""}'
  )
  memory = ', '.join(f'{k} {_bytes(v)}' for k, v in found.memory.items())
  lines = [
    ('parameters', f'{found.parameters:,}'),
    ('FLOPs a step', f'{found.flops:,} of products on each device'),
    ('memory', f'{memory} on each device'),
    ('collectives', _collectives(found.collectives)),
  ]
  return '\n'.join([head, *(f'  {k:14}{v}' for k, v in lines)]) + '\n'


def _collectives(found: Sequence[Any]) -> str:
  if not found:
    return 'none'
  words = []
  for kind in sorted({one.kind for one in found}):
    same = [one for one in found if one.kind == kind]
    number = sum(one.times for one in same)
    size = sum(one.times * one.bytes for one in same)
    words.append(f'{number} {kind}, {_bytes(size)}')
  return '; '.join(words) + ', received by each device a step'


def _bytes(count: int) -> str:
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000 or unit == 'GB':
      return f'{count:.3g} {unit}' if unit != 'B' else f'{count} B'
    count /= 1000
  raise AssertionError('a unit is always found')
