"""Defines the config that a file changes: its last line counts."""

from typing import Any

import ml_collections

from bn_jax import errors
from bn_jax.config.run_config import SECTIONS, in_other_unit

NAMED = (*SECTIONS, 'measure')  # kinds of sections that have a name


class Config(ml_collections.ConfigDict):
  """A ConfigDict in which a new name drops the keywords of the old one.

  `config.model.name = 'mlp'` drops what the network before it has and an mlp
  lacks, at once: what is set after it stays, and is refused if an mlp lacks it.
  `config.model = 'mlp'` says the same. `config.epochs = 10` takes the place of
  the steps that were set before, and the other way round. Whatever else is a
  ConfigDict may be put into it, and stays one without this.
  """

  def __init__(
    self, initial_dictionary: Any = None, *settings, kind: str = '', **keywords
  ):
    """Takes the arguments of a ConfigDict, and what it is a section of.

    Args:
      kind: see `kind_below`; '' until it is put into one that says so.
    """
    # ConfigDict would make a key of it.
    object.__setattr__(self, '_kind', kind)
    super().__init__(None, *settings, **keywords)
    is_config = isinstance(initial_dictionary, ml_collections.ConfigDict)
    keep_unset = {'preserve_field_references': True} if is_config else {}
    for key, value in (initial_dictionary or {}).items(**keep_unset):
      self._put(key, value)

  def __setitem__(self, key: Any, value: Any) -> None:
    self._put(key, value)
    other = in_other_unit(self._kind, key)
    # Of a placeholder the value counts.
    if not other or self[key] is None or self.get(other) is None:
      return
    if self._kind == 'config':
      self[other] = None
    else:
      del self[other]

  def _put(self, key: Any, value: Any) -> None:
    kind, section = kind_below(self._kind, key), self._fields.get(key)
    if kind in NAMED and isinstance(value, str):
      if isinstance(section, ml_collections.ConfigDict):
        section['name'] = value
        return
      value = {'name': value}
    if self._kind == 'measures' and value is None and key not in self:
      raise ValueError(errors.unknown('measure', key, self))
    if isinstance(value, dict):
      # Runs keep the order in which columns and colours come.
      value = Config(
        value, self.is_type_safe, kind=kind, sort_keys=kind != 'runs'
      )
    elif isinstance(value, Config):
      value._become(kind)
    if key == 'name' and self._kind in NAMED and section not in (None, value):
      self._drop_foreign(value)
    if key == 'seeds' or isinstance(value, ml_collections.ConfigDict):
      # Seeds may be a range; a ConfigDict of the user's is as good as one of
      # ours, but not of its type.
      with self.ignore_type():
        super().__setitem__(key, value)
    else:
      super().__setitem__(key, value)

  def __setstate__(self, state: dict[str, Any]) -> None:
    super().__setstate__(state)
    self._take_after(state['_sort_keys'], state['_kind'])

  def copy_and_resolve_references(self, visit_map: Any = None) -> 'Config':
    """Returns a copy with values for references, as a ConfigDict does."""
    copied = super().copy_and_resolve_references(visit_map)
    copied._take_after(self._sort_keys, self._kind)
    return copied

  def _take_after(self, sort_keys: bool, kind: str) -> None:
    # The copy of a ConfigDict would sort runs.
    object.__setattr__(self, '_sort_keys', sort_keys)
    self._become(kind)

  def _become(self, kind: str) -> None:
    """Says what this is a section of, and so what its sections are."""
    object.__setattr__(self, '_kind', kind)
    for key, value in self._fields.items():
      if isinstance(value, Config):
        value._become(kind_below(kind, key))

  def _drop_foreign(self, name: Any) -> None:
    # Imported late: a config that names nothing new need not wait for JAX.
    from bn_jax.config import schema

    section = schema.of(self._kind)
    new, old = schema.allowed(section, name), schema.allowed(section, self.name)
    # What neither has is a typing error, and is kept to be refused.
    for key in set(old or ()) & set(self) - set(new or old or ()):
      del self[key]


def kind_below(kind: str, key: Any) -> str:
  """Returns what a key of a section holds, '' for what is no section.

  Args:
    kind: of the section: 'config', the whole; 'runs', all runs; 'run', what one
      run changes; 'measures', all; 'own_measures', those that a run changes;
      'measure', one; or one of `SECTIONS`.
  """
  if kind == 'runs':
    return 'run'
  if kind in ('measures', 'own_measures'):
    return 'measure'
  if kind == 'run' and key == 'measures':
    return 'own_measures'
  if kind == 'config' and key in ('runs', 'measures'):
    return key
  is_section = kind in ('config', 'run') and key in (*SECTIONS, 'checkpoint')
  return key if is_section else ''
