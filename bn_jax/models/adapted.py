"""Adapts networks of linen that are called as flax's own examples are.

  module.apply(variables, x, train=True, mutable=['batch_stats'])

becomes a network with the call of this package, `module(x, statistics=...,
mask=None, first=0)`, whose parameters stay where they are:

  statistics  'batch' is training, 'running' is not.
  dropout     of flax acts if and only if the rng 'dropout' is passed, as in
              the networks here, and what is dropped of an example depends on
              its index alone, so that neither devices nor micro-batches matter.
  mask        leaves padding out of the statistics of flax's BatchNorm and of
              norms of this package. Another layer that keeps batch_stats may
              let padding in, so with it a mask is refused with 'batch'.
  moments     of a batch are returned for flax's BatchNorm too, so that the
              statistics of the population can be estimated.

Layers are found as `found` says.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import jax
from flax import errors as flax_errors
from flax import linen as nn
from flax.core import scope as scope_lib
from jax import lax

from bn_jax import checks, errors, placement
from bn_jax.models import found, parts
from bn_jax.norms import norm as norm_lib
from bn_jax.norms import transform

# Keywords of a network's call that say whether it trains; and whether not.
TRAIN_KEYWORDS = ('train', 'training', 'is_training')
NEGATED = ('deterministic', 'use_running_average')
_COLLECTIONS = ('params', 'batch_stats')
_STREAMS = ('dropout', 'noise')  # random streams that training passes


class Adapted(nn.Module):
  """A network of somebody else's, called as those here; see `adapt`.

  Attributes:
    network: as it was, with its own call.
    train_keyword: of that call; None: it has none.
    train_value: the keyword's value in training.
    shape: of one example; None: not known yet, and neither are the layers.
    group_size: on how many examples an output depends; 'auto': as traced.
  """

  network: found.Held
  train_keyword: str | None = 'train'
  train_value: bool = True
  shape: tuple[int, ...] | None = None
  group_size: int | str | None = 'auto'

  @norm_lib.checked_call
  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Returns the network's output for x; see `bn_jax.models.make`."""
    parts.check_batch(x, mask)
    network = self.network.module.clone(parent=self.scope)
    adapter = functools.partial(
      _adapted_call, statistics, mask, first, len(x), self.group_size
    )
    try:
      with nn.intercept_methods(adapter):
        y = network(x, **self._keywords(statistics, mask, first))
    except flax_errors.FlaxError as error:
      raise ValueError(_line(_name_of(self), error)) from error
    if not isinstance(y, jax.Array) or y.shape[:1] != x.shape[:1]:
      shape = list(y.shape) if isinstance(y, jax.Array) else type(y).__name__
      raise ValueError(
        f'{_name_of(self)} returns {shape} for {len(x)} examples; allowed: one '
        'array, [N, K]'
      )
    return y

  @nn.nowrap
  def apply(self, variables, *arguments, mutable=False, **keywords):
    """Applies the network as flax does; batch_stats need not be mutable.

    flax's BatchNorm writes them in training, whether they are or not.
    """
    if keywords.get('statistics') != 'batch' or scope_lib.in_filter(
      mutable, 'batch_stats'
    ):
      return super().apply(variables, *arguments, mutable=mutable, **keywords)
    y, new = super().apply(
      variables,
      *arguments,
      mutable=scope_lib.union_filters(mutable, 'batch_stats'),
      **keywords,
    )
    if mutable is False:
      return y
    return y, {key: x for key, x in new.items() if key != 'batch_stats'}

  @nn.nowrap
  def layer_paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns (name, paths of its parameters) of each layer, in order."""
    return _trace(self, self.shape).layers()  # pyright: ignore[reportArgumentType]  # flax gives modules a hash

  @nn.nowrap
  def tap_paths(self) -> tuple[tuple[str, str], ...]:
    """Returns (layer, path of the module) of what enters nonlinearities."""
    return _trace(self, self.shape).taps()  # pyright: ignore[reportArgumentType]  # flax gives modules a hash

  @nn.nowrap
  def _keywords(self, statistics, mask, first) -> dict[str, Any]:
    """Returns the keywords of the network's own call."""
    if self.train_keyword is None:
      return {}
    if self.train_keyword != 'statistics':
      is_training = statistics == 'batch'
      value = self.train_value if is_training else not self.train_value
      return {self.train_keyword: value}
    examples = {'mask': mask, 'first': first}
    allowed = keywords_of(self.network.module)
    return {'statistics': statistics} | {
      name: x for name, x in examples.items() if name in allowed
    }


def adapt(
  module: nn.Module,
  train_keyword: str | None = 'train',
  *,
  train_value: bool | None = None,
  shape: Sequence[int] | None = None,
  group_size: int | str | None = 'auto',
) -> nn.Module:
  """Returns a network of linen with the call that networks have here.

  Args:
    module: called as `module(x, train=...)`; its variables are params and
      batch_stats. One with the call of this package stays as it is.
    train_keyword: the keyword's name; None: the call has none. 'statistics':
      the call takes 'batch' or 'running' itself.
    train_value: the keyword's value in training; None: False for `NEGATED`,
      else True.
    shape: of one example, (height, width, channels) or (D,), by which layers
      are found; not needed in a config, which has data.
    group_size: on how many examples, itself included, an output depends in
      training: 1, or None for the whole batch. 'auto': the whole batch if there
      is a BatchNorm or a norm that is neither flax's nor of this package; the
      groups of norms of this package; else 1. A network that mixes examples
      without such a module has to say so.

  Raises:
    ValueError: no module, or one whose call lacks the keyword.
  """
  if is_ours(module):
    return module
  check_module(module)
  check_keyword(module, train_keyword)
  checks.flag('train_value', train_value, also=(None,))
  checks.count('group_size', group_size, also=(None, 'auto'))
  if shape is not None:
    checks.sizes('shape', shape)
    shape = tuple(shape)
  if hasattr(module, 'is_adapted'):  # its norms are replaced
    module = module.clone(is_adapted=True)
  if train_value is None:
    train_value = train_keyword not in NEGATED
  return Adapted(
    found.Held(module), train_keyword, train_value, shape, group_size
  )


def for_shape(module: nn.Module, shape: Sequence[int] | None) -> nn.Module:
  """Returns a network that knows the shape of an example, and so its layers.

  One that is called otherwise than those here is adapted, by the keyword of its
  call that is one of `TRAIN_KEYWORDS` or `NEGATED`, or by none.

  Raises:
    ValueError: what `adapt` refuses.
  """
  if is_ours(module):
    return module
  if not isinstance(module, Adapted):
    check_module(module)
    module = adapt(module, train_keyword_of(module))
  if shape is not None:
    module = module.clone(shape=tuple(shape))
  return module


def traits(
  module: nn.Module,
  shape: Sequence[int],
  spread: placement.Spread = placement.ALONE,
) -> found.Traits:
  """Returns what training has to know of a network, from a trace of it.

  Args:
    shape: of one example.
    spread: how batches lie on devices.

  Raises:
    ValueError: a norm that would not see the whole batch on these devices.
  """
  trace = _trace(for_shape(module, shape), tuple(shape), spread.axis_name)
  if spread.axis_name:
    trace.check_spread(spread)
  if isinstance(module, Adapted) and module.group_size != 'auto':
    return trace.traits()._replace(group_size=module.group_size)
  return trace.traits()


def is_ours(module: Any) -> bool:
  """Returns whether a network names its layers and has the call of ours."""
  names = hasattr(module, 'layer_paths') and hasattr(module, 'tap_paths')
  if not names or isinstance(module, Adapted):
    return False
  allowed = keywords_of(module)
  return '**' in allowed or {'statistics', 'mask', 'first'} <= set(allowed)


def train_keyword_of(module: nn.Module) -> str | None:
  """Returns the keyword of a network's call that says whether it trains."""
  allowed = keywords_of(module)
  for keyword in ('statistics', *TRAIN_KEYWORDS, *NEGATED):
    if keyword in allowed:
      return keyword
  return None


def keywords_of(module: nn.Module) -> tuple[str, ...]:
  """Returns the arguments of a network's call after x, '**' if it has any."""
  call = getattr(module, 'call_signature', None)
  parameters = (
    call() if call else inspect.signature(module.__call__)
  ).parameters.values()
  kinds = inspect.Parameter
  names = [
    '**' if one.kind is kinds.VAR_KEYWORD else one.name for one in parameters
  ]
  return tuple(names[1:])


def check_module(module: Any) -> None:
  """Raises ValueError unless a network is an instance of linen's Module."""
  if isinstance(module, nn.Module):
    return
  if isinstance(module, type):
    raise ValueError(
      f'the network is the class {module.__name__}; allowed: an instance, such '
      f'as {module.__name__}(...)'
    )
  raise checks.Refused('the network', module, 'a module of flax.linen')


def check_keyword(module: nn.Module, keyword: str | None) -> None:
  """Raises ValueError unless a network's call has the keyword."""
  allowed = keywords_of(module)
  if keyword is None or keyword in allowed or '**' in allowed:
    return
  if not isinstance(keyword, str):
    raise checks.Refused('train_keyword', keyword, 'a name, None')
  other = train_keyword_of(module)
  raise ValueError(
    f'train_keyword is {keyword!r}, and the call of {type(module).__name__} '
    f'takes x{"".join(f", {name}" for name in allowed)}; give '
    f'train_keyword={other!r}'
  )


def check_call(name: str, module: nn.Module) -> None:
  """Raises ValueError for a call that does not say how it is told to train."""
  others = [name for name in keywords_of(module) if name != '**']
  if others and train_keyword_of(module) is None:
    raise ValueError(
      f'{name} returned {type(module).__name__}, whose call takes x, '
      f'{", ".join(others)}; allowed: train=..., or what '
      f'models.adapt(module, {others[0]!r}) returns'
    )


@functools.lru_cache
def _trace(
  module: nn.Module,
  shape: tuple[int, ...] | None,
  axis_name: str | None = None,
) -> found.Trace:
  """Returns the trace of a network with our call.

  Raises:
    ValueError: no shape, or other collections than params and batch_stats.
  """
  if shape is None:
    raise ValueError(
      f'the layers of {_name_of(module)} are found by the shape of an example; '
      'give models.adapt(..., shape=(height, width, channels))'
    )
  trace, variables = found.traced(module, shape, axis_name)
  others = sorted(set(variables) - set(_COLLECTIONS))
  if others:
    raise ValueError(
      f'{_name_of(module)} keeps the collection {others[0]!r}; allowed: '
      f'{", ".join(_COLLECTIONS)}'
    )
  return trace


def _line(name: str, error: flax_errors.FlaxError) -> str:
  """Returns what flax says of a network called `name`, on one line."""
  said = errors.first_line(error).split(' (http')[0]
  if isinstance(error, flax_errors.InvalidRngError):
    said += f'; allowed: {" and ".join(_STREAMS)}, which training passes'
  return f'{name}: {said}'


def _name_of(module: nn.Module) -> str:
  """Returns the name of a network's class: of the innermost."""
  while isinstance(held := getattr(module, 'network', None), found.Held):
    module = held.module
  return type(module).__name__


def _adapted_call(
  statistics, mask, first, size, group_size, call, args, keywords, context
):
  """Calls a module inside a network, with what its own call cannot say."""
  module = context.module
  if context.method_name != '__call__' or not (args or keywords):
    return call(*args, **keywords)
  ours = (norm_lib.Layer, norm_lib.Unit)
  if isinstance(module, (*ours, nn.BatchNorm, nn.Dropout)):
    args, keywords = found.positional(module, args, keywords)
  if isinstance(module, ours):
    # A network may name their statistics alone, or not even these. Each example
    # may have several rows, in which noise is counted.
    first = first * max(1, len(args[0]) // size)
    keywords = {
      'statistics': statistics, 'mask': mask, 'first': first, **keywords
    }  # fmt: skip
    return call(*args, **keywords)
  if isinstance(module, nn.BatchNorm):
    return _batch_norm(module, mask, size, call, args, keywords)
  if isinstance(module, nn.Dropout):
    return _dropout(module, first, size, call, args, keywords)
  is_attention = isinstance(module, nn.MultiHeadDotProductAttention)
  if is_attention and module.dropout_rate and not module.has_rng('dropout'):
    without = module.clone(parent=module.scope, dropout_rate=0.0)
    return without(*args, **keywords)
  y = call(*args, **keywords)
  if mask is None or statistics == 'running' or group_size == 1:
    return y
  if found.group_size(module, args, keywords) != 1:
    raise _no_mask(type(module).__name__)
  return y


def _batch_norm(module, mask, size, call, args, keywords):
  """Calls flax's BatchNorm with the mask; sows the batch's moments."""
  if module.axis_name is not None and not _is_bound(module.axis_name):
    # It asks for the whole batch on all devices, which is what is seen here.
    whole = module.clone(parent=module.scope, axis_name=None)
    return whole(*args, **keywords)
  x = args[0]
  is_running = found.uses_running(module, args, keywords)
  if mask is not None and not is_running and keywords.get('mask') is None:
    if x.shape[0] != size:
      raise _no_mask(f'a BatchNorm of {x.shape[0]} rows for {size} examples')
    wide_mask = mask.reshape(-1, *(1,) * (x.ndim - 1))
    keywords = {**keywords, 'mask': wide_mask}
  y = call(*args, **keywords)
  if module.is_mutable_collection('moments') and not module.is_initializing():
    moments = transform.moments(x, axis=module.axis, mask=mask)
    value = {**moments._asdict()}
    module.sow(
      'moments', 'batch', value,
      init_fn=lambda: None, reduce_fn=lambda _, new: new,
    )  # fmt: skip
  return y


def _is_bound(axis_name: str) -> bool:
  """Returns whether this is inside pmap or shard_map over an axis."""
  try:
    lax.axis_size(axis_name)
  except NameError:
    return False
  return True


def _dropout(module, first, size, call, args, keywords):
  """Calls flax's Dropout: if it has its rng, and by the examples' indices."""
  argument = keywords.get('deterministic')
  if len(args) > 1:
    argument = args[1]
  is_off = nn.merge_param('deterministic', module.deterministic, argument)
  if is_off or keywords.get('rng') is not None or not 0 < module.rate < 1:
    return call(*args, **keywords)
  x, stream = args[0], module.rng_collection
  if stream in _STREAMS and not module.has_rng(stream):
    return x
  shared = {axis % x.ndim for axis in module.broadcast_dims}
  # flax refuses a stream that training does not pass; and what is the same in
  # all examples may be drawn as flax does.
  if stream not in _STREAMS or 0 in shared:
    return call(*args, **keywords)
  if not x.ndim or x.shape[0] % size:
    raise ValueError(
      f'{"/".join(module.path)} drops of {list(x.shape)} for {size} examples, '
      'and cannot tell which are whose; allowed: the examples, or as many rows '
      'for each, along the first axis'
    )
  # Rows of one example lie side by side, as a reshape leaves them.
  x_N = x.reshape(size, x.shape[0] // size, *x.shape[1:])
  key = module.make_rng(stream)
  y_N = parts.dropped(
    x_N, module.rate, key, first=first, shared=[axis + 1 for axis in shared]
  )
  return y_N.reshape(x.shape)


def _no_mask(what: str) -> ValueError:
  return ValueError(
    f"{what} cannot leave padding out of the batch's statistics; allowed: "
    "whole batches, or statistics='running'"
  )
