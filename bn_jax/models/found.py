"""Finds the layers of a network that does not name them, by tracing it.

Modules are listed in the order in which they are called, never in that of a
dict. A layer is a module with a parameter 'kernel', under its path; a norm is
one of flax's or of this package, or a module that has a scale, a bias or
statistics, and no kernel. A norm belongs to the layer whose output it takes, or
else (behind a nonlinearity, a pool or a sum) to the layer called last before
it. What enters a layer's nonlinearity is taken to be the output of its last
norm, or the layer's own where it has none; a last layer without a norm is the
network's output and feeds none. Modules inside nn.scan, nn.RNN or nn.WeightNorm
hand no output out, so that a layer there has parameters, and nothing to read.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import placement, trees
from bn_jax.norms import norm as norm_lib

_OF_FLAX = (
  nn.BatchNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm
)  # fmt: skip
NORMS = (*_OF_FLAX, norm_lib.Layer)
_AFFINE = {'scale', 'bias'}


class Held:
  """Holds a network, which flax would else give a name inside another one.

  Bound to the other's scope, `held.module.clone(parent=self.scope)`, it then
  has its variables where it would have them alone.

  Attributes:
    module: the network.
  """

  def __init__(self, module: nn.Module):
    self.module = module

  def __eq__(self, other: Any) -> bool:
    return isinstance(other, Held) and self.module == other.module

  def __hash__(self) -> int:
    return hash(type(self.module))  # its attributes may be lists

  def __repr__(self) -> str:
    return repr(self.module)


class Seen(NamedTuple):
  """A layer or a norm, as a trace saw it.

  Attributes:
    path: '/'-joined.
    is_layer: whether it has a kernel; otherwise it is a norm, or the unit of
      one.
    is_unit: whether it is a unit: it is no tap.
    owner: of others, the layer that it belongs to; None: no layer is before it.
    group_size: on how many examples an output depends with the batch's
      statistics; 1 where on its own alone, None where on all.
    spread: how it takes batches to lie on devices.
    is_noisy: whether it adds noise.
  """

  path: str
  is_layer: bool
  is_unit: bool
  owner: str | None
  group_size: int | None
  spread: placement.Spread
  is_noisy: bool


class Traits(NamedTuple):
  """What training has to know of a network.

  Attributes:
    group_size: on how many examples an output depends with the batch's
      statistics; 1 where on its own alone, None where on the whole batch.
    noisy: whether its norms add noise after normalizing.
    has_units: whether it calls a norm's own nonlinearity.
  """

  group_size: int | None
  noisy: bool
  has_units: bool = False


class Trace:
  """Lists the layers and norms of the calls made under `interceptor`."""

  def __init__(self):
    self.modules: list[Seen] = []
    self._outputs: dict[str, Any] = {}  # of layers, for their identity
    self._shapes: dict[str, Any] = {}  # of the outputs of layers and norms
    self._readable: set[str] = set()  # paths

  def interceptor(self, call, arguments, keywords, context):
    """Calls a method, and notes the module if it is a layer or a norm."""
    y = call(*arguments, **keywords)
    module, path = context.module, '/'.join(context.module.path)
    arguments, keywords = positional(module, arguments, keywords)
    if context.method_name != '__call__' or not path or not arguments:
      return y
    is_layer = module.has_variable('params', 'kernel')
    is_unit = isinstance(module, norm_lib.Unit)
    is_new = all(seen.path != path for seen in self.modules)
    if is_new and (is_layer or is_unit or is_norm(module)):
      self.modules.append(
        Seen(
          path, is_layer, is_unit, self._owner(arguments[0]),
          group_size(module, arguments, keywords),
          getattr(module, 'spread', placement.ALONE),
          getattr(module, 'is_noisy', False),
        )
      )  # fmt: skip
    if is_new and is_layer:
      self._outputs[path] = y
    self._shapes[path] = getattr(y, 'shape', None)
    return y

  def read(self, intermediates: Mapping[str, Any]) -> None:
    """Notes whose outputs flax hands out, in this collection, as they were."""
    for path, shape in self._shapes.items():
      calls = trees.below(intermediates, path)
      if '__call__' not in calls or shape is None:
        continue
      if getattr(calls['__call__'][-1], 'shape', None) == shape:
        self._readable.add(path)

  def _owner(self, x: Any) -> str | None:
    """Returns the layer whose output x is, or the last so far."""
    for path, y in self._outputs.items():
      if y is x:
        return path
    return next(reversed(self._outputs), None)

  def forget(self) -> None:
    """Drops the arrays of a trace, which end with it."""
    self._outputs.clear()

  def layers(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns ((name, paths of its parameters), ...), in forward order."""
    norms = self._norms_of()
    return tuple((name, (name, *norms[name])) for name in norms)

  def taps(self) -> tuple[tuple[str, str], ...]:
    """Returns ((layer, path of what enters its nonlinearity), ...)."""
    units = {seen.path for seen in self.modules if seen.is_unit}
    pairs = []
    for name, paths in self._norms_of().items():
      norms = [path for path in paths if path not in units]
      pairs.append((name, norms[-1] if norms else name))
    if pairs and len(set(pairs[-1])) == 1:
      pairs.pop()  # the last layer is the network's output
    return tuple(pair for pair in pairs if pair[1] in self._readable)

  def traits(self) -> Traits:
    """Returns what training has to know of the network."""
    sizes = {seen.group_size for seen in self.modules} - {1}
    size = sizes.pop() if len(sizes) == 1 else None if sizes else 1
    return Traits(
      size,
      noisy=any(seen.is_noisy for seen in self.modules),
      has_units=any(seen.is_unit for seen in self.modules),
    )

  def check_spread(self, spread: placement.Spread) -> None:
    """Raises ValueError for a norm that takes a batch to lie otherwise."""
    for seen in self.modules:
      if seen.group_size != 1 and seen.spread != spread:
        raise ValueError(
          f"{seen.path} would have each device's own statistics; allowed: "
          "layout 'jit', or the norm that the config makes"
        )

  def _norms_of(self) -> dict[str, list[str]]:
    """Returns {layer: its norms and units}, both in forward order."""
    norms: dict[str, list[str]] = {
      seen.path: [] for seen in self.modules if seen.is_layer
    }
    for seen in self.modules:
      is_part = trees.lies_under(seen.path, tuple(norms))
      if not is_part and seen.owner is not None:
        norms[seen.owner].append(seen.path)
    return norms


def positional(
  module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
  """Returns the arguments of a module's call, the first of them by position.

  Layers are called as `layer(x)` and as `layer(inputs=x)`.
  """
  if arguments or not keywords:
    return arguments, keywords
  first = next(iter(inspect.signature(module.__call__).parameters), None)
  if first not in keywords:  # it takes any keywords
    first = next(iter(keywords))
  rest = {name: x for name, x in keywords.items() if name != first}
  return (keywords[first],), rest


def is_norm(module: nn.Module) -> bool:
  """Returns whether a module, after its call, is a normalization."""
  if isinstance(module, NORMS):
    return True
  if isinstance(module, nn.SpectralNorm | nn.WeightNorm):
    return False  # they normalise kernels
  own = own_variables(module)
  return set(own.get('params', ())) <= _AFFINE and any(
    own.get(collection) for collection in ('params', 'batch_stats')
  )


def group_size(module: nn.Module, arguments, keywords) -> int | None:
  """Returns on how many examples a module's output depends, in this call."""
  if isinstance(module, nn.BatchNorm):
    return 1 if uses_running(module, arguments, keywords) else None
  if isinstance(module, norm_lib.Layer):
    return module.sees()
  if isinstance(module, (*_OF_FLAX, nn.SpectralNorm)):
    return 1
  # Of a norm that nobody here knows, the worst is taken.
  sees_others = is_norm(module) or own_variables(module).get('batch_stats')
  return None if sees_others else 1


def with_norm(
  traits: Traits, norm: norm_lib.Norm, spread: placement.Spread
) -> Traits:
  """Returns the traits of a user's network that was given a norm.

  One without parameters is not seen in a trace. Of a norm that nobody here
  knows, the worst is taken: an output may depend on the whole batch.

  Raises:
    ValueError: such a norm does not say that it sees the whole batch; the norm
      has a unit, and the network calls none.
  """
  layer = norm.layer('norm')
  if norm.unit and not traits.has_units:
    raise ValueError(without_unit(norm, 'and the network does not call it'))
  if isinstance(layer, NORMS):
    return traits
  if spread.axis_name and getattr(layer, 'spread', placement.ALONE) != spread:
    raise ValueError(
      f"{type(layer).__name__} may have each device's own statistics; allowed: "
      "layout 'jit', or a module with the field spread that its function gets"
    )
  return traits._replace(group_size=None)


def without_unit(norm: norm_lib.Norm, why: str) -> str:
  """Returns a message: a norm's own nonlinearity does not come in."""
  unit = norm.unit and norm.unit('unit')
  return (
    f'{type(norm.layer("norm")).__name__} brings its own nonlinearity, '
    f'{type(unit).__name__}, {why}; allowed: a norm without one, '
    "such as batch, group, layer, or norm.unit in the place of the network's"
  )


def uses_running(module: nn.BatchNorm, arguments, keywords) -> bool:
  """Returns whether a call of flax's layer takes its running averages."""
  argument = keywords.get('use_running_average')
  if len(arguments) > 1:
    argument = arguments[1]
  return bool(
    nn.merge_param('use_running_average', module.use_running_average, argument)
  )


def own_variables(module: nn.Module) -> dict[str, dict[str, Any]]:
  """Returns {collection: {name: value}} of a module without its children's."""
  return {
    collection: {
      name: value
      for name, value in values.items()
      if not isinstance(value, Mapping)
    }
    for collection, values in module.variables.items()
  }


def traced(
  module: nn.Module, shape: tuple[int, ...], axis_name: str | None = None
) -> tuple[Trace, Any]:
  """Returns (the trace of a call in training, the shapes of the variables).

  Args:
    module: called as ours are.
    shape: of one example.
    axis_name: of the programs of which the module's norms see a part each.
  """
  first, trace = Trace(), Trace()

  def init(x):
    with nn.intercept_methods(first.interceptor):
      return module.init(jax.random.key(0), x, statistics='running')

  def call(variables, x):
    key = jax.random.key(0)
    rngs: dict[str, jax.Array] = {'dropout': key, 'noise': key}
    with nn.intercept_methods(trace.interceptor):
      y, new = module.apply(
        variables, x, statistics='batch', rngs=rngs,
        mutable=['batch_stats', 'intermediates'],
        capture_intermediates=lambda _, method: method == '__call__',
      )  # fmt: skip
    trace.read(new.get('intermediates') or {})
    return y

  def examples(count):
    return jax.ShapeDtypeStruct((count, *shape), jnp.float32)

  variables = jax.eval_shape(init, examples(1))
  sizes = (seen.group_size or 1 for seen in first.modules)
  batch = examples(2 * math.lcm(*sizes))
  if axis_name is None:
    jax.eval_shape(call, variables, batch)
  else:  # one program alone has the axis, too
    in_programs = jax.vmap(
      lambda variables, _: call(variables, jnp.zeros(batch.shape)),
      in_axes=(None, 0), axis_name=axis_name,
    )  # fmt: skip
    jax.eval_shape(in_programs, variables, jnp.zeros(1))
  trace.forget()
  return trace, variables
