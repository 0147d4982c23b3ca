"""python train.py --config=FILE --plan: what a step costs, and nothing more."""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from bn_jax.config import build, resolve
from bn_jax.experiment import cost, probes


def text(
  config: ml_collections.ConfigDict,
  *,
  overrides: Mapping[str, Any],
  only: str | None,
) -> str:
  """The plan of every run (of one, where `only` names it), for people.

  Each step is compiled for the devices of its run; no data are read and nothing
  is written.

  Raises:
    ConfigError: as a training would.
  """
  resolved = resolve.experiment(config.to_dict(), overrides)
  paragraphs = []
  for name, seeds in resolved.chosen(only).items():
    del seeds  # all of them cost the same
    with resolve.naming(name, resolved.runs):
      paragraphs.append(_of_run(name, resolved.runs[name]))
  return '\n'.join(paragraphs)


def _of_run(name: str, run: dict[str, Any]) -> str:
  made = build.problem(run)
  probes.check(run, made)
  state = jax.eval_shape(made.init, 0)
  with jax.default_matmul_precision(run['matmul_precision']):
    split = build.source(run).shapes(run['batch_size'])
    traced = build.step(run, made).trace(state, split)
  found = cost.of(traced, state.params, run['devices'])
  kind = jax.devices()[0].device_kind
  count = run['devices']
  head = (
    f'{name}: {run["model"]["name"]}, norm {run["norm"]["name"]}, batch '
    f'{run["batch_size"]}, layout {run["layout"]} on {count} '
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


def _collectives(found: tuple[cost.Collective, ...]) -> str:
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
