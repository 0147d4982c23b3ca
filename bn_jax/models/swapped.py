"""Replaces the norms of a network, whatever its code says.

  models.replace_norms(network, 'group', where='conv*')

The network is called as before, and so are its other modules. A norm (see
`found`) whose path matches is not called; the new one takes its place: its
parameters and statistics lie under the same path, and the old one's do not
exist. Of the old norm its place stays, and that its scale begins at 0, as the
last one of a residual block may; momentum, epsilon and whether it has a scale
and a bias are the new one's. What a layer has before its norm stays: a
convolution that was made without a bias, for Batch Normalization, gets none.
"""

import fnmatch
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from bn_jax import checks, norms
from bn_jax.models import adapted, found
from bn_jax.norms import norm as norm_lib
from bn_jax.norms import running


class Swap(NamedTuple):
  """Which norms go, and what comes in their place.

  Attributes:
    where: a pattern of paths, such as 'conv*'.
    layer: makes the new norm; its keyword `parent` is where that lies.
    zeroed: the same with a scale that begins at 0; None: it has no scale.
  """

  where: str
  layer: Callable[..., nn.Module]
  zeroed: Callable[..., nn.Module] | None = None


class Swapped(nn.Module):
  """A network with other norms; see `replace_norms`.

  Attributes:
    network: as it was.
    swaps: the later before the earlier.
    train_keyword: of the network's call; None: the call has none.
    train_value: the keyword's value in training.
    is_adapted: whether an adapter around it tells norms their statistics.
  """

  network: found.Held
  swaps: tuple[Swap, ...]
  train_keyword: str | None = None
  train_value: bool = True
  is_adapted: bool = False

  @nn.compact
  def __call__(self, *arguments: Any, **keywords: Any) -> Any:
    """Calls the network, with the new norms in it."""
    network = self.network.module.clone(parent=self.scope)
    swaps = _Swaps(self, self._statistics(arguments, keywords))
    with nn.intercept_methods(swaps.interceptor):
      y = network(*arguments, **keywords)
    swaps.check()
    return y

  @nn.nowrap
  def call_signature(self) -> inspect.Signature:
    """Returns the signature of the network's call."""
    return inspect.signature(self.network.module.__call__)

  @nn.nowrap
  def _statistics(self, arguments, keywords) -> str | None:
    """Returns the statistics that a call asks for; None: it does not say."""
    binding = self.call_signature().bind(*arguments, **keywords)
    binding.apply_defaults()
    values: dict[Any, Any] = {**binding.kwargs, **binding.arguments}
    value = values.get(self.train_keyword)
    if self.train_keyword == 'statistics' or value is None:
      return value
    return 'batch' if value == self.train_value else 'running'


class SwappedOfOurs(Swapped):
  """A network of this package with other norms: it names its layers."""

  @nn.nowrap
  def layer_paths(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns (name, paths of its parameters) of each layer, in order."""
    return self.network.module.layer_paths()

  @nn.nowrap
  def tap_paths(self) -> tuple[tuple[str, str], ...]:
    """Returns (layer, path of the module) of what enters nonlinearities."""
    return self.network.module.tap_paths()

  @nn.nowrap
  def smallest_image(self) -> int:
    """Returns the smallest side of an image, in pixels."""
    return self.network.module.smallest_image()


class _Swaps:
  """One call of a network, in which norms are replaced."""

  def __init__(self, swapped: Swapped, statistics: str | None):
    self._swapped, self._statistics = swapped, statistics
    self._is_inside = False  # a norm may call another one, in the same place
    self._paths: dict[str, None] = {}  # of all norms, in order
    self._unused = {swap.where for swap in swapped.swaps}

  def interceptor(self, call, arguments, keywords, context):
    """Calls a method, or the new norm in place of one that is to go."""
    module, path = context.module, '/'.join(context.module.path)
    is_call = context.method_name == '__call__' and path and not self._is_inside
    if is_call and isinstance(module, found.NORMS):
      arguments, keywords = found.positional(module, arguments, keywords)
      self._paths[path] = None
      matching = [
        swap
        for swap in self._swapped.swaps
        if fnmatch.fnmatchcase(path, swap.where)
      ]
      self._unused -= {swap.where for swap in matching}
      if matching:
        return self._replaced(matching[0], module, arguments, keywords)
    return call(*arguments, **keywords)

  def check(self) -> None:
    """Raises ValueError if a pattern was the path of no norm."""
    for where in self._unused:
      raise ValueError(
        f'where is {where!r}, the path of no norm of '
        f'{type(self._swapped.network.module).__name__}; its norms: '
        f'{", ".join(self._paths) or "none"}'
      )

  def _replaced(self, swap, module, arguments, keywords) -> jax.Array:
    """Returns the output of a new norm, in the place of a module."""
    make = swap.layer
    if swap.zeroed and module.is_initializing() and _begins_at_zero(module):
      make = swap.zeroed
    layer = make(parent=module.scope)
    keywords = self._keywords(layer, module, arguments, keywords)
    self._is_inside = True
    try:
      return layer(arguments[0], **keywords)
    finally:
      self._is_inside = False

  def _keywords(self, layer, module, arguments, keywords) -> dict[str, Any]:
    """Returns the keywords of the new norm's call."""
    if isinstance(module, norm_lib.Layer):
      return keywords
    statistics = self._statistics
    if isinstance(module, nn.BatchNorm):
      is_running = found.uses_running(module, arguments, keywords)
      statistics = 'running' if is_running else 'batch'
    if statistics is None and not isinstance(layer, running.RunningNorm):
      statistics = 'running'  # the same in both
    if statistics is None and not self._swapped.is_adapted:
      raise ValueError(
        f'the call of {type(self._swapped.network.module).__name__} does not '
        'say whether it trains, which the new norm has to know; give '
        'train_keyword, a keyword of its call, or models.adapt the network'
      )
    return {} if statistics is None else {'statistics': statistics}


def _begins_at_zero(module: nn.Module) -> bool:
  """Returns whether the scale of a norm begins at 0."""
  scale_init = getattr(module, 'scale_init', None)
  if not callable(scale_init):  # of one of ours
    return scale_init == 0
  with jax.ensure_compile_time_eval():
    scale = cast(jax.Array, scale_init(jax.random.key(0), (1,), jnp.float32))
    return not scale.any()


def replace_norms(
  module: nn.Module,
  norm: str | norm_lib.Norm,
  where: str = '*',
  *,
  train_keyword: str | None = None,
) -> nn.Module:
  """Returns a network with other norms, called as it was.

  A scale that began at 0 does so in the new norm; otherwise its own keywords
  say how it begins, and what it has.

  Args:
    module: any network of linen, adapted or not, or one of this package.
    norm: the new one: a key of `norms.NORMS`, or what `norms.make` returns.
    where: a pattern of the paths of the norms that go, words joined by '/'; '*'
      is any text, as in a shell.
    train_keyword: of the network's call; None: the one of
      those in `adapted` that it takes.

  Raises:
    ValueError: a norm of kernels, or with a nonlinearity of its own, or no
      module; the call raises it where no norm has such a path.
  """
  norm = norms.make(norm) if isinstance(norm, str) else norm
  if not isinstance(norm, norm_lib.Norm):
    raise checks.Refused('norm', norm, 'a name, or what norms.make returns')
  if norm.weighted is not norm_lib.plainly:
    raise ValueError(
      'the norm acts on kernels, and a norm of activations is to be replaced; '
      'allowed: batch, group, layer, ..., none'
    )
  if norm.unit:
    raise ValueError(
      found.without_unit(norm, "which the network's own would follow")
    )
  if not isinstance(where, str) or not where:
    raise checks.Refused('where', where, "a pattern of paths, such as 'conv*'")
  if isinstance(module, adapted.Adapted):
    inner = replace_norms(
      module.network.module, norm, where, train_keyword=module.train_keyword
    )
    inner = inner.clone(train_value=module.train_value, is_adapted=True)
    return module.clone(network=found.Held(inner))
  adapted.check_module(module)
  zeroed = norm.zeroed and norm.zeroed(None).clone
  swap = Swap(where, norm.layer(None).clone, zeroed)
  if isinstance(module, Swapped):
    return module.clone(swaps=(swap, *module.swaps))
  keyword = train_keyword or adapted.train_keyword_of(module)
  adapted.check_keyword(module, keyword)
  kind = SwappedOfOurs if adapted.is_ours(module) else Swapped
  value = keyword not in adapted.NEGATED
  return kind(found.Held(module), (swap,), keyword, value)
