"""Makes a run of weights that others have trained, and a file of a run's.

A file of safetensors becomes a run folder, as training leaves it: manifest,
checkpoint and digests, with the keywords that make our network the same
function as theirs. `bn_jax.load`, `config.init_from` and every command for
trained networks take it. Nothing is written before names and shapes agree.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from bn_jax import errors, types
from bn_jax.config import build, defaults, differences, resolve
from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import manifest as manifest_lib
from bn_jax.experiment import run as run_lib
from bn_jax.experiment import saved, together
from bn_jax.models import foreign as foreign_lib
from bn_jax.norms import conventions
from bn_jax.storage import chain, files, records, run_folder, tensors

OWN = 'bn_jax'  # our names, and the config in the file
_FEW = 5  # differences that a message lists
_IMAGENET = 1000  # classes, for which the images need not be named
_PIXELS = 224  # of a side, at which the networks of others were trained
# Keywords of a network that change no output, or that its arrays tell.
_FREE = ('width', 'head', 'flatten', 'dropout')


class Wishes(NamedTuple):
  """What a user may say of weights beyond their file.

  Attributes:
    data: name of the images; None: ImageNet with 1,000 classes, else 'absent'.
    resolution: pixels of a side of an image.
    mean, std: by which inputs are normalised, in grey levels; (): the source's.
    momentum: PyTorch's, the share of the new in the running average, None for
      its mean of all batches; 'usual': the source's.
  """

  data: str | None = None
  resolution: int = _PIXELS
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()
  momentum: float | str | None = 'usual'


def read(
  path: pathlib.Path,
  source: str,
  target: pathlib.Path,
  wishes: Wishes | None = None,
) -> str:
  """Makes the run `target` of the weights in a file; returns a line about it.

  Args:
    source: a key of `foreign.names()`, or `OWN`.
    target: WORKDIR/RUN, in which the weights are RUN/seed0.

  Raises:
    ConfigError: an unknown source, or a target that exists or is no name.
    DataError: no file of safetensors, or weights of another network.
    StorageError: the run cannot be written.
  """
  wishes = wishes or Wishes()
  if source != OWN:
    _known(source)
  _check_target(target)
  header = tensors.header(path)
  weights = (
    _own(path, header, wishes)
    if source == OWN
    else _of_others(source, header, wishes)
  )
  config = weights.config
  problem = build.problem(config)
  shapes = jax.eval_shape(problem.init, 0)
  rows = list(weights.rows(_flat(shapes)))
  _check_same(path, source, header, rows, weights.may_lack)
  state = _state(problem, shapes, _arrays(path, rows), weights.step)
  facts = {
    'from': source, 'file': path.name, 'sha256': _digest(path),
  }  # fmt: skip
  _write(target, weights, problem, state, facts)
  return _told(target, config, state)


def write(path: pathlib.Path, target: pathlib.Path, name: str) -> str:
  """Writes the newest state of a run as a file; returns a line about it.

  Args:
    path: of one run with one seed.
    name: a key of `foreign.names()` of PyTorch, or `OWN`.

  Raises:
    ConfigError: a file that exists, several runs, a network that the other
      framework's class cannot be.
    CheckpointError, StorageError: no checkpoint, or a damaged one.
  """
  foreign = None if name == OWN else _known(name)
  if os.path.lexists(target):
    raise errors.ConfigError(f'--to: {target} exists; give another name')
  folder, config, state = _newest(path)
  arrays = {path: np.asarray(x) for path, x in _flat(state).items()}
  metadata = {'format': 'pt'}
  if foreign is None:
    metadata = {OWN: json.dumps(_facts(folder, config, state))}
  else:
    arrays = _theirs(foreign, config, arrays, int(state.step))
  files.make_folder(target.absolute().parent, 'give another --to')
  tensors.write(target, arrays, metadata)
  return (
    f'{folder.label}, step {int(state.step)}: wrote {len(arrays)} arrays, '
    f'{target.stat().st_size:,} bytes, as {name} to {target}'
  )


class _Weights(NamedTuple):
  """What a file holds, in terms of ours.

  Attributes:
    config: of a run with its network.
    moments: (mean, std) that inputs are normalised by.
    foreign: the network; None: ours.
    step: of training.
  """

  config: RunConfig
  moments: tuple[Any, Any]
  foreign: foreign_lib.Foreign | None = None
  step: int = 0

  def rows(self, shapes: Mapping[str, Any]) -> Iterator[foreign_lib.Tensor]:
    """Yields the arrays; `shapes` has path -> an array or its shape."""
    sizes = {path: tuple(x.shape) for path, x in shapes.items()}
    if self.foreign is not None:
      yield from foreign_lib.tensors(self.foreign, sizes)
      return
    for path, shape in sizes.items():
      yield foreign_lib.Tensor(path, path, shape)

  @property
  def may_lack(self) -> set[str]:
    return foreign_lib.uncounted(self.foreign) if self.foreign else set()


def _known(name: str) -> foreign_lib.Foreign:
  try:
    return foreign_lib.network(name)
  except ValueError:
    known = [*foreign_lib.names(), OWN]
    raise errors.ConfigError(errors.unknown('network', name, known)) from None


def _check_target(target: pathlib.Path) -> None:
  """Raises ConfigError unless a run can be made there."""
  if os.path.lexists(target):
    raise errors.ConfigError(f'--to: {target} exists; give another folder')
  if not records.NAME.fullmatch(target.name):
    raise errors.ConfigError(
      f'--to: {target.name!r} is no name for a run; allowed: WORKDIR/RUN, of '
      'letters, digits, "_", "-"'
    )
  experiment = run_folder.read_experiment(target.parent)
  if experiment and target.name in experiment['runs']:
    raise errors.ConfigError(
      f'--to: {target.parent} is of an experiment that has a run '
      f'{target.name!r}; give another folder'
    )


def _of_others(source: str, header: tensors.Header, wishes: Wishes) -> _Weights:
  """Returns the config of a network whose widths are those of a file."""
  foreign = foreign_lib.network(source)
  *head, num_classes = foreign_lib.outputs(foreign, header.shapes)
  model = {**foreign.model, 'width': foreign_lib.width(foreign, header.shapes)}
  if head and None not in head:
    model['head'] = tuple(head)
  norm = dict(foreign.norm)
  if wishes.momentum != 'usual':
    norm |= _momentum(source, norm, wishes.momentum)
  first = foreign.layers[0]
  kernel = header.shapes.get(first.theirs + foreign.names.kernel)
  axis = 1 if first.layout.outputs_first else 2
  channels = kernel[axis] if kernel and len(kernel) == 4 else 3
  num_classes = num_classes or _IMAGENET
  data = _data(wishes, foreign, channels, num_classes)
  config = _config({'model': model, 'norm': norm, 'data': data})
  _check_classes(config, num_classes)
  return _Weights(config, (data['mean'], data['std']), foreign)


def _momentum(source: str, norm: dict, momentum: float | None) -> dict:
  if norm['name'] != 'batch':
    raise errors.ConfigError(f'--momentum: {source} has no running averages')
  ours = conventions.keywords('pytorch', momentum=momentum)
  return {
    key: ours[key] for key in ('momentum', 'running_average') if key in ours
  }


def _data(
  wishes: Wishes, foreign: foreign_lib.Foreign, channels: int, num_classes: int
) -> dict[str, Any]:
  """Returns the section `data`: whose images, and how they are normalised."""
  mean, std = wishes.mean or foreign.mean, wishes.std or foreign.std
  if len(mean) != channels:
    raise errors.ConfigError(
      f'the network takes {channels} channels, and the mean of {foreign.name} '
      f'has {len(mean)}; give --mean and --std of each, in grey levels'
    )
  moments = {'mean': mean, 'std': std}
  name = wishes.data
  if name is None:
    name = 'imagenet2012' if num_classes == _IMAGENET else 'absent'
  if name == 'absent':
    shape = (wishes.resolution, wishes.resolution, channels)
    return {'name': name, 'shape': shape, 'num_classes': num_classes, **moments}
  return {'name': name, 'resolution': wishes.resolution, **moments}


def _own(
  path: pathlib.Path, header: tensors.Header, wishes: Wishes
) -> _Weights:
  """Returns what a file of ours says of itself."""
  try:
    facts = json.loads(header.metadata[OWN])
    run, step = differences.filled(facts['config']), int(facts['step'])
    moments = facts['input']['mean'], facts['input']['std']
    if wishes.data == 'absent':
      run['data'] = {'name': 'absent', **facts['input']}
    elif wishes.data is not None:
      run['data'] = {**run['data'], 'name': wishes.data}
    config = RunConfig.of(run, path, facts['modules'])
  except (ValueError, KeyError, TypeError) as error:
    raise errors.DataError(
      f'{path} is no file that convert --as={OWN} wrote; give --from=NAME of '
      'the network that it is'
    ) from error
  return _Weights(config, moments, None, step)


def _config(sections: dict[str, Any]) -> RunConfig:
  """Returns the config of a run that has these sections and never trains."""
  usual = defaults.get_config().to_dict()
  usual |= {
    'runs': {'converted': {}}, 'steps': 1, 'log_every_steps': 1, 'measures': {},
    'checkpoint': {'every_steps': 1, 'keep': 1}, 'seeds_at_once': 1,
    'batch_size': 32, 'evaluation_batch_size': 32, 'sinks': (),
  }  # fmt: skip
  return resolve.experiment({**usual, **sections}, {}).runs['converted']


def _check_classes(config: RunConfig, num_classes: int) -> None:
  """Refuses images of another number of classes than a network has outputs."""
  count = build.source(config).facts.num_classes
  if count != num_classes:
    raise errors.ConfigError(
      f'--data: {config.data["name"]} has {count} classes, and the weights '
      f'{num_classes} outputs; give --data=absent, or other images'
    )


def _flat(state: types.TrainState) -> dict[str, Any]:
  """Returns path -> array of a network: 'params/conv1/kernel'."""
  both = {'params': state.params, 'batch_stats': state.batch_stats}
  return traverse_util.flatten_dict(both, sep='/')


def _check_same(path, source, header, rows, may_lack) -> None:
  """Refuses a file that has other arrays than a network, or others' shapes."""
  wanted = {row.theirs: row.their_shape for row in rows}
  shapes = header.shapes
  lines = [
    f'{name} is missing' for name in wanted
    if name not in shapes
  ]  # fmt: skip
  lines += [
    f'{name} is not expected' for name in shapes
    if name not in wanted and name not in may_lack
  ]  # fmt: skip
  lines += [
    f'{name} is {list(shapes[name])}, expected {list(shape)}'
    for name, shape in wanted.items()
    if name in shapes and shapes[name] != shape
  ]
  if lines:
    more = len(lines) - _FEW
    tail = [f'and {more} more'] if more > 0 else []
    raise errors.DataError(
      f'{path} is not {source}: {"; ".join([*lines[:_FEW], *tail])}; nothing '
      'was written'
    )


def _arrays(
  path: pathlib.Path, rows: list[foreign_lib.Tensor]
) -> dict[str, np.ndarray]:
  """Reads the arrays of a network: path -> array, contiguous, ours."""
  arrays = {}
  for row in rows:
    is_count = row.path.endswith('/count')
    array = np.empty(row.shape, np.int32 if is_count else np.float32)

    def put(rows_of, part, row=row, array=array):
      if not row.shape:
        array[...] = part
      elif row.layout.outputs_first:
        array[..., rows_of] = foreign_lib.to_ours(row, part)
      else:
        array[rows_of] = foreign_lib.to_ours(row, part)

    length = row.their_shape[0] if row.shape else 0
    tensors.read(path, row.theirs, length, put)
    arrays[row.path] = array
  return arrays


def _state(problem, shapes, arrays, step: int) -> types.TrainState:
  """Returns the state of a run: these arrays, and the rest as at its start."""
  # What is drawn for the parameters is not computed: nothing returns it.
  start = jax.jit(
    lambda: problem.init(0)._replace(params={}, batch_stats={}, ring={})
  )()
  both = traverse_util.unflatten_dict(arrays, sep='/')
  return start._replace(
    step=np.asarray(step, shapes.step.dtype),
    params=both['params'],
    batch_stats=both.get('batch_stats') or {},
  )


def _write(target, weights, problem, state, facts) -> None:
  """Writes a run: under another name first, which is then renamed.

  Raises:
    StorageError: it cannot be written; nothing is left.
  """
  parent, config = target.absolute().parent, weights.config
  files.make_folder(parent, 'give another --to')
  new = parent / f'{target.name}.{os.getpid()}.new'
  folder = run_folder.RunFolder(new / run_folder.seed_name(0), target.name, 0)
  try:
    files.make_folder(folder.path)
    digests = chain.on_disk(folder)
    checkpoints = run_lib.checkpoints_of(config, folder)
    try:
      checkpoints.save(
        int(state.step), state, {'records': digests}, copied=False
      )
      checkpoints.wait()
    finally:
      checkpoints.close()
    manifest = manifest_lib.facts(
      config,
      [layer for layer, _ in problem.layers(state)],
      state,
      weights.moments,
      together.Group([folder]),
    )
    manifest_lib.Manifest(folder, manifest).write(
      'done', int(state.step), records=digests, converted=facts
    )
    if os.path.lexists(target):
      raise errors.StorageError(f'{target} was made meanwhile')
    new.rename(target)
  finally:
    shutil.rmtree(new, ignore_errors=True)


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _told(target, config, state) -> str:
  """Returns a line about a run, and the flags of one that begins with it."""
  count = sum(x.size for x in jax.tree.leaves(state.params))
  moments = {k: x for k, x in config.data.items() if k in ('mean', 'std')}
  sections = {'model': config.model, 'norm': config.norm, 'data': moments}
  flags = [
    f'--config.{section}.{key}={_word(value)}'
    for section, keywords in sections.items()
    for key, value in keywords.items()
    if value is not None and key != 'lowering'
  ]
  return (
    f'wrote {target}/seed0: {config.model["name"]} with norm '
    f'{config.norm["name"]}, {count:,} parameters\n'
    f'fine-tune: --config.init_from={target}/seed0 {" ".join(flags)}'
  )


def _word(value: Any) -> str:
  return (
    str(list(value)).replace(' ', '')
    if isinstance(value, tuple)
    else (str(value))
  )


def _newest(path) -> tuple[run_folder.RunFolder, RunConfig, types.TrainState]:
  folders = run_folder.find(path)
  if len(folders) > 1:
    labels = ', '.join(folder.label for folder in folders[:8])
    raise errors.ConfigError(
      f'{path} holds {len(folders)} trained networks; give one: {labels}'
    )
  (folder,) = folders
  config = saved.config_of(folder)
  return folder, config, saved.newest(folder, config, build.problem(config))


def _facts(folder, config: RunConfig, state) -> dict[str, Any]:
  """Returns what a file of ours says of itself."""
  sizes = build.source(config).facts
  return {
    'config': config.replace(ema=None, measures={}).as_json(),
    'modules': folder.manifest.get('modules') or {},
    'step': int(state.step),
    'input': {
      'shape': sizes.shape,
      'num_classes': sizes.num_classes,
      **(folder.manifest.get('input') or {}),
    },
  }


def _theirs(foreign, config, arrays, step: int) -> dict[str, np.ndarray]:
  """Returns name there -> array there, of a network that is the same one."""
  _check_function(foreign, config)
  shapes = {path: x.shape for path, x in arrays.items()}
  pool = foreign.model.get('head_pool')
  reordered = pool and config.model['flatten'] != foreign.model['flatten']
  theirs = {}
  for row in foreign_lib.tensors(foreign, shapes):
    array = arrays.pop(row.path)
    if reordered and row.path == 'params/dense1/kernel':
      array = foreign_lib.channels_first(array, pool)
    if row.path.endswith('/count'):
      array = array.astype(np.int64)
    theirs[row.theirs] = foreign_lib.to_theirs(row, array)
  if arrays:
    raise errors.ConfigError(
      f'--as: {foreign.name} has no place for {", ".join(list(arrays)[:_FEW])}'
      f'; allowed: --as={OWN}'
    )
  for name in foreign_lib.uncounted(foreign):
    theirs.setdefault(name, np.asarray(step, np.int64))
  for layer in foreign.layers:
    # A norm takes the mean away: no bias is one of 0.
    kernel, bias = (
      layer.theirs + suffix for suffix in foreign.names[:2]
    )  # fmt: skip
    if layer.norm is None or foreign.norm.get('bias_before'):
      theirs.setdefault(bias, np.zeros(len(theirs[kernel]), np.float32))
  return theirs


def _check_function(foreign: foreign_lib.Foreign, config: RunConfig) -> None:
  """Refuses a run whose network is another function than theirs."""
  if foreign.reversed_colours:
    raise errors.ConfigError(
      f'--as: {foreign.name}; allowed: those of PyTorch, torchvision and timm, '
      f'and {OWN}'
    )
  wanted = [
    ('model', {k: x for k, x in foreign.model.items() if k not in _FREE}),
    ('norm', {k: foreign.norm[k] for k in ('name', 'epsilon')
              if k in foreign.norm}),
  ]  # fmt: skip
  lines = [
    f'config.{section}.{key} is {getattr(config, section).get(key)!r}, there '
    f'{value!r}'
    for section, keywords in wanted
    for key, value in keywords.items()
    if getattr(config, section).get(key) != value
  ]
  heads = (len(x.get('head') or ()) for x in (config.model, foreign.model))
  if not lines and len(set(heads)) > 1:
    lines = ['config.model.head has another length than 2']
  if lines:
    raise errors.ConfigError(
      f'--as: {foreign.name} is another function: {"; ".join(lines[:_FEW])}; '
      f'allowed: --as={OWN}'
    )
