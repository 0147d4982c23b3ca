"""Defines the config of one run, resolved: checked, complete and frozen."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NoReturn, Self

from bn_jax import errors

# Those of the keys below that name one constructor each, with its keywords.
SECTIONS = ('data', 'loss', 'model', 'norm', 'optimizer', 'schedule')
# Seeds of one experiment: nobody trains more, so that more is a typing error.
MOST_SEEDS = 10_000


class FrozenDict(dict):
  """A frozen dict, such as the name of a constructor with its keywords.

  It is a dict so that JSON, `**section` and messages take it as one.
  """

  @classmethod
  def of(cls, section: Mapping[str, Any]) -> Self:
    """Returns a dict frozen at all depths; lists become tuples."""
    return cls({key: _frozen(value) for key, value in section.items()})

  def _refuse(self, *_, **__) -> NoReturn:
    raise TypeError('a resolved config is frozen; make another with `replace`')

  __setitem__ = __delitem__ = __ior__ = _refuse
  clear = pop = popitem = setdefault = update = _refuse

  def __reduce__(self):  # pickle and copy would set items of an empty one
    return FrozenDict, (dict(self),)

  def __hash__(self):
    return hash(frozenset(self.items()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """The config of one run; `config.defaults` explains each key."""

  data: FrozenDict
  loss: FrozenDict
  model: FrozenDict
  norm: FrozenDict
  optimizer: FrozenDict
  schedule: FrozenDict
  batch_size: int
  evaluation_batch_size: int
  steps: int
  log_every_steps: int
  devices: int
  weight_decay: float
  weight_decay_on: str
  clip_norm: float | None
  adaptive_clip: float | None
  rates: FrozenDict  # globs of paths -> factor of the learning rate
  trainable: str
  ema: float | None
  compute_dtype: str
  matmul_precision: str
  measure_lowering: str
  on_nonfinite: str
  max_skips: int | None
  layout: str
  shard_state: bool
  micro_batch_size: int | None
  remat: bool
  seeds_at_once: int | str
  measures: FrozenDict  # name of an entry -> its section
  checkpoint: FrozenDict  # every_steps, keep
  sinks: tuple[str, ...]  # names of `host.sinks`
  data_dir: str | None
  init_from: str | None
  # These are no keys: manifests have them beside the config, and another value
  # makes no other experiment. Modules of users, see `plugins.files`; and with
  # what lowering the run was begun, see `build.lowerings`.
  modules: FrozenDict = dataclasses.field(default_factory=FrozenDict)
  lowering: str | None = None

  def __post_init__(self):
    for key in (*KEYS, 'modules'):
      object.__setattr__(self, key, _frozen(getattr(self, key)))

  @classmethod
  def of(
    cls,
    config: Mapping[str, Any],
    where: Any = 'config',
    modules: Mapping[str, Any] | None = None,
  ) -> Self:
    """Returns the run of a manifest's config, which `as_json` returned.

    Args:
      where: what the config is of, for messages.
      modules: of users, as the manifest has them.

    Raises:
      ConfigError: a key is missing, since the run is older.
    """
    for key in KEYS:
      if key not in config:
        raise errors.ConfigError(
          f'{where} was trained before config.{key} was a key; train it again'
        )
    return cls(**{key: config[key] for key in KEYS}, modules=modules or {})

  def as_json(self) -> dict[str, Any]:
    """Returns key -> value as JSON holds it, in the order of `KEYS`."""
    config = {key: getattr(self, key) for key in KEYS}
    return json.loads(json.dumps(config))

  def replace(self, **changes: Any) -> Self:
    """Returns the run with other values of some keys."""
    return dataclasses.replace(self, **changes)

  @property
  def examples_at_a_time(self) -> int:
    """Returns how many examples the step takes one gradient of."""
    return self.micro_batch_size or self.batch_size

  def in_groups(self) -> Self:
    """Returns the run, micro-batches as the norm's groups if it has none."""
    if self.micro_batch_size is None or 'group_size' not in self.norm:
      return self
    size = self.norm['group_size'] or self.micro_batch_size
    return self.replace(norm={**self.norm, 'group_size': size})


KEYS = tuple(
  field.name
  for field in dataclasses.fields(RunConfig)
  if field.name not in ('modules', 'lowering')
)
# What a config may say of a run: epochs become steps.
RUN_KEYS = (*KEYS, 'epochs')


def in_other_unit(kind: str, key: str) -> str | None:
  """Returns 'epochs' for 'steps', and so on; None for what is no time."""
  if kind in ('config', 'run'):
    return {'steps': 'epochs', 'epochs': 'steps'}.get(key)
  if kind == 'schedule' and key.endswith('_steps'):
    return f'{key.removesuffix("steps")}epochs'
  if kind == 'schedule' and key.endswith('_epochs'):
    return f'{key.removesuffix("epochs")}steps'
  return None


def _frozen(value: Any) -> Any:
  """Returns a value with frozen dicts, and tuples for lists, at all depths."""
  if isinstance(value, dict):
    return FrozenDict.of(value)
  if isinstance(value, (list, tuple)):
    return tuple(map(_frozen, value))
  return value
