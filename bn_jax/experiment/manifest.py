"""Writes manifest.json: what a run is, on what it ran, and how far it is."""

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bn_jax import analysis, errors, types
from bn_jax.config import build, resolve
from bn_jax.config.run_config import RunConfig
from bn_jax.data.disk import identity
from bn_jax.experiment import probes, together
from bn_jax.host import code, environment, processes
from bn_jax.storage import files, run_folder

_PACKAGES = (
  'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy',
  'tensorflow-datasets', 'array_record', 'grain', 'Pillow', 'simplejpeg',
)  # fmt: skip


class Manifest:
  """manifest.json of a run's folder; process 0 writes it."""

  def __init__(self, folder: run_folder.RunFolder, facts: dict[str, Any]):
    """Takes the `facts` of a run, which stay true while it trains."""
    self._file = folder.manifest_file
    self._facts = {'run': folder.run, 'seed': folder.seed, **facts}

  def write(
    self,
    status: str,
    step: int | None,
    **more: Any,
  ) -> None:
    """Writes the file whole.

    Args:
      status: 'running', 'done', 'interrupted' or 'diverged'.
      step: how many were taken; None if no checkpoint tells.
      more: `records` once training has stopped, see `chain.on_disk`, and
        `divergence`, see `divergence.facts`.
    """
    if not processes.is_first():
      return
    content = {'status': status, 'step': step, **self._facts, **more}
    files.write_json(self._file, content, digest=True)


def facts(
  config: RunConfig,
  layers: Sequence[str],
  state: types.TrainState,
  moments: tuple[Any, Any],
  group: together.Group,
) -> dict[str, Any]:
  """Returns what is known of a run before it begins, as JSON values.

  Args:
    layers: names, in forward order.
    moments: (mean, standard deviation) that inputs are normalised by, [C].
    group: with which the seed is trained.
  """
  sizes = [leaf.size for leaf in jax.tree.leaves(state.params)]
  device = jax.devices()[0]
  is_cpu = device.platform == 'cpu'
  return {
    'config': config.as_json(),
    'modules': json.loads(json.dumps(config.modules)),
    **_data(config),
    **_norm(config),
    'input': {
      name: np.asarray(x).tolist() for name, x in zip(('mean', 'std'), moments)
    },
    'measures': {
      section['name']: analysis.kind_of(section['name']).page()
      for section in config.measures.values()
    },
    'parameters': sum(sizes),
    'layers': list(layers),
    'layout': config.layout,
    'seeds_at_once': group.at_once,
    # Of the config, data of the program: it rounds otherwise than without.
    'numbers': list(group.numbers),
    **build.lowerings(config),
    'device': {
      'platform': device.platform,
      'kind': device.device_kind,
      'count': config.devices,
      # How many compute a product changes its last digits.
      **({'threads': environment.threads()} if is_cpu else {}),
    },
    'processor': environment.processor(),
    'precision': {
      'dtype': config.compute_dtype,
      'training': config.matmul_precision,
      'measures': probes.PRECISION,
    },
    'versions': {
      'bn_jax': code.version(),
      'python': platform.python_version(),
      **{package: importlib.metadata.version(package) for package in _PACKAGES},
    },
    'git_commit': code.commit(),
    'command': code.command(),
    'written': datetime.datetime.now(datetime.UTC).isoformat(
      timespec='seconds'
    ),
  }


def _data(config: RunConfig) -> dict[str, Any]:
  """Returns what is said of a user's own data; {} of a set of TFDS."""
  record = build.source(config).record
  return {'data': record} if record else {}


def _norm(config: RunConfig) -> dict[str, Any]:
  """Returns what is said of the norm of a network that gets none; else {}."""
  is_own = not resolve.takes_norm(config.model)
  return {'normalization': "the network's own"} if is_own else {}


def change_of_data(
  folder: run_folder.RunFolder, config: RunConfig
) -> str | None:
  """Returns a sentence on data that have changed since a seed was trained."""
  old = (folder.manifest or {}).get('data') or {}
  return identity.change(old, build.source(config).record)


def check_data(folder: run_folder.RunFolder, config: RunConfig) -> None:
  """Refuses to go on with more or fewer examples: its order would not fit.

  Raises:
    DataError: the data have changed so.
  """
  if change := change_of_data(folder, config):
    old, new = folder.manifest['data'], build.source(config).record
    if old['splits']['train'] != new['splits']['train']:
      raise errors.DataError(
        f'{folder.label}: {change}; put them back, or give another --workdir'
      )
