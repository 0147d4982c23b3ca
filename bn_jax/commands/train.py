"""Trains the runs and seeds of an experiment, and writes its page.

--config.KEY=VALUE changes a key of the config, such as
--config.schedule.learning_rate=0.3; bn_jax/config/defaults.py explains every
key.
"""

import argparse
import contextlib
import logging
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from bn_jax import commands, errors
from bn_jax.commands import report
from bn_jax.config import flags
from bn_jax.config import parser as parser_lib
from bn_jax.host import environment, processes, signals

_log = logging.getLogger('bn_jax')


def main(argv: Sequence[str]) -> int:
  """Runs train.py, whose name is argv[0]; returns the exit code."""
  return commands.main(sys.modules[__name__], argv, 'python train.py')


def configure(parser: parser_lib.Parser) -> None:
  """Adds the flags of the command."""
  parser.set_defaults(run=run)
  flags.add_train(parser)


def run(arguments: argparse.Namespace) -> int:
  """Trains, or prints the runs, or what a step costs; returns the exit code."""
  training = flags.training(arguments)
  environment.check()
  if training.show:
    return _show(training)
  if training.plan:
    return _plan(training)
  with processes.joined(
    training.distributed, training.place, training.join_timeout
  ):
    return _train(training, arguments.parser.words)


def _show(training: flags.Training) -> int:
  """Prints the runs, resolved; no data are read."""
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax import modules
  from bn_jax.config import resolve, shown
  from bn_jax.experiment import probes

  experiment = resolve.experiment(training.config.to_dict(), training.overrides)
  for name in experiment.chosen(training.only):
    config = experiment.runs[name]
    with resolve.naming(name, experiment.runs), modules.bound(config.modules):
      probes.check_others(config)
  sys.stdout.write(shown.text(experiment, training.only))
  return 0


def _plan(training: flags.Training) -> int:
  """Prints what a step of every run costs; no data are read."""
  import jax

  devices = training.devices
  if devices > max(1, jax.config.jax_num_cpu_devices):
    jax.config.update('jax_num_cpu_devices', devices)
  # JAX counts its devices once, which must come after this.
  environment.check_devices()
  from bn_jax.config import resolve

  experiment = resolve.experiment(training.config.to_dict(), training.overrides)
  paragraphs = []
  for name in experiment.chosen(training.only):
    with resolve.naming(name, experiment.runs):
      paragraphs.append(_cost(name, experiment.runs[name]))
  sys.stdout.write('\n'.join(paragraphs))
  return 0


def _train(training: flags.Training, words: Sequence[str]) -> int:
  if training.part_of is not None:
    signals.end_with(training.part_of)
  _log_plainly()
  commands.begin()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.config import resolve
  from bn_jax.experiment import experiment

  if processes.count() > 1 and 'devices' not in training.overrides:
    training.overrides['devices'] = _all_devices(training.devices)
  resolved = resolve.experiment(training.config.to_dict(), training.overrides)
  with _first_page(training):
    if training.jobs == 1 or not _side_by_side(training, resolved, words):
      diverged = experiment.run(
        resolved, training.workdir, only=training.only, resume=training.resume
      )
    else:
      diverged = experiment.diverged(resolved, training.workdir, training.only)
  if training.part_of is not None:
    return errors.Diverged.exit_code if diverged else 0
  failure = _recalibrated(training, resolved)
  lines = processes.agreed(lambda: _reported(training.workdir))
  if processes.is_first():
    sys.stderr.write(''.join(f'{line}\n' for line in lines))
    _send_figures(training.workdir, resolved)
  if failure is not None:
    raise failure
  if diverged:
    raise errors.Diverged(f'diverged: {", ".join(diverged)}; see the report')
  return 0


def _first_page(training: flags.Training) -> contextlib.AbstractContextManager:
  """Returns what writes a first page, in the process that writes the last."""
  if training.part_of is not None or not processes.is_first():
    return contextlib.nullcontext()
  return report.first(pathlib.Path(training.workdir))


def _side_by_side(
  training: flags.Training, resolved: Any, words: Sequence[str]
) -> bool:
  """Trains in several processes, if --jobs says so; returns whether it did."""
  # Imported late: a single process does not need it.
  from bn_jax.experiment import experiment
  from bn_jax.launch import jobs

  parts = experiment.parts(
    resolved, training.workdir, only=training.only, resume=training.resume
  )
  number = jobs.number(training.jobs, resolved, parts, processes.count() == 1)
  if number == 1:
    return False
  jobs.train(words, parts, number, lambda line: sys.stderr.write(f'{line}\n'))
  return True


def _recalibrated(
  training: flags.Training, resolved: Any
) -> errors.Failure | None:
  """Recalibrates what the config asks for; returns why it could not.

  What was trained is to be on the page whether that fails or not.
  """
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.storage import run_folder
  from bn_jax.trained import recalibrate

  for name, seeds in resolved.chosen(training.only).items():
    if name not in resolved.recalibrate:
      continue
    folders = [run_folder.at(training.workdir, name, seed) for seed in seeds]
    folders = [
      folder
      for folder in folders
      if folder.status == 'done' and not recalibrate.is_done(folder)
    ]
    if not folders:
      continue
    if processes.count() > 1:
      _log.info(
        '%s is not recalibrated, which one process does: python -m bn_jax '
        'recalibrate %s', name, folders[0].path.parent,
      )  # fmt: skip
      continue
    request = recalibrate.Request(data_dir=resolved.runs[name].data_dir)
    try:
      recalibrate.done(folders, request, _log.info)
    except errors.Failure as failure:
      return failure
  return None


def _reported(workdir: str) -> list[str]:
  """Writes the page; returns a table of its runs, and where it is."""
  # Imported late: training need not wait for matplotlib.
  from bn_jax.papers import verify
  from bn_jax.report import terminal
  from bn_jax.report.results import read

  path = pathlib.Path(workdir)
  runs = verify.refresh(path) or read.runs([path])
  page = commands.draw([path], runs=runs)
  openers = {'darwin': 'open', 'win32': 'start', 'linux': 'xdg-open'}
  lines = [*terminal.table(runs), f'report: {page}']
  if sys.platform in openers:
    opener = openers[sys.platform]
    lines.append(f'open it: {opener} {shlex.quote(str(page))}')
  return lines


def _send_figures(workdir: str, resolved: Any) -> None:
  """Sends the page's figures to the sinks of the runs; warns of a failure."""
  # Imported late: a wrong command line need not wait for TensorBoard.
  from bn_jax.host import sinks
  from bn_jax.host.sinks import opened

  every = dict.fromkeys(
    name for r in resolved.runs.values() for name in r.sinks
  )
  try:
    sinks.check(tuple(every))
    opened.send_figures(tuple(every), pathlib.Path(workdir))
  except errors.Failure as failure:
    sys.stderr.write(f'{failure}\n')


def _all_devices(configured: int) -> int:
  """Returns how many devices several processes use without --devices.

  Starting the processes asks for all; a config's 1 is only the default.
  """
  import jax

  return len(jax.devices()) if configured == 1 else configured


def _log_plainly() -> None:
  """Sends our own messages to stderr, a line each; leaves other loggers alone.

  Of several processes the first one speaks; the others only warn.
  """
  is_first = processes.is_first()
  _log.setLevel(logging.INFO if is_first else logging.WARNING)
  _log.propagate = False
  if not _log.handlers:
    _log.addHandler(logging.StreamHandler())


def _cost(name: str, config: Any) -> str:
  """Returns what a step of a run costs, compiled for the run's devices."""
  import jax

  from bn_jax.config import build
  from bn_jax.experiment import cost, probes

  problem = build.problem(config)
  probes.check(config, problem)
  state = jax.eval_shape(problem.init, 0)
  with jax.default_matmul_precision(config.matmul_precision):
    split = build.source(config).shapes(config.batch_size)
    traced = build.step(config, problem).trace(state, split)
  step_cost = cost.of(traced, state.params, config.devices)
  kind = jax.devices()[0].device_kind
  count = config.devices
  head = (
    f'{name}: {config.model["name"]}, norm {config.norm["name"]}, batch '
    f'{config.batch_size}, layout {config.layout} on {count} '
    f'{kind} device{"s" if count > 1 else ""}'
  )
  memory = ', '.join(f'{k} {_bytes(v)}' for k, v in step_cost.memory.items())
  lines = [
    ('parameters', f'{step_cost.parameters:,}'),
    ('FLOPs a step', f'{step_cost.flops:,} of products on each device'),
    ('memory', f'{memory} on each device'),
    ('collectives', _collectives(step_cost.collectives)),
    ('measures', _measures(config, len(problem.layers(state)))),
  ]
  return '\n'.join([head, *(f'  {k:14}{v}' for k, v in lines)]) + '\n'


def _measures(config: Any, layers: int) -> str:
  """Returns what measures cost in training steps: gradients of a batch."""
  from bn_jax import analysis
  from bn_jax.experiment import probes

  words, total = [], 0.0
  for name, section in config.measures.items():
    cost = analysis.kind_of(section['name']).cost(section, layers)
    looks = 1 - (-config.steps // section['every_steps'])  # and the last step
    each = 'not estimated'
    if not isinstance(cost, str):
      batches = probes.examples(section, config) / config.batch_size
      steps = cost.in_gradients * batches
      each = f'{steps:,.{0 if steps >= 10 else 1}f} steps each'
      total += looks * steps
    words.append(f'{name} {looks:,} times, {each}')
  if not words:
    return 'none'
  return (
    f'{"; ".join(words)}: about {total:,.0f} steps beside the {config.steps:,} '
    'of training'
  )


def _collectives(collectives: Sequence[Any]) -> str:
  if not collectives:
    return 'none'
  words = []
  for kind in sorted({collective.kind for collective in collectives}):
    of_kind = [
      collective for collective in collectives if collective.kind == kind
    ]
    number = sum(collective.times for collective in of_kind)
    size = sum(collective.times * collective.bytes for collective in of_kind)
    words.append(f'{number} {kind}, {_bytes(size)}')
  return '; '.join(words) + ', received by each device a step'


def _bytes(count: int) -> str:
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000 or unit == 'GB':
      return f'{count:.3g} {unit}' if unit != 'B' else f'{count} B'
    count /= 1000
  raise AssertionError('a unit is always found')


if __name__ == '__main__':
  sys.exit(main(sys.argv))
