"""Defines what a model takes as its norm, and the norm that does nothing."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike

from bn_jax import checks, placement, trees
from bn_jax.norms import transform

# Those of the batch; or those in batch_stats: running averages, or the
# population's in their place.
STATISTICS = ('batch', 'running')


def checked_call(call: Callable[..., Any]) -> Callable[..., Any]:
  """Wraps the call of a layer or network: x, statistics and mask are checked.

  In the call, x is 0 in what a mask leaves out: whatever x holds there, it then
  reaches no value and no gradient, and gets the gradient 0. In this version
  `mode`, the old name of `statistics`, works too, with a warning.

  Raises:
    ValueError: x that is not floating point; statistics other than 'batch' or
      'running'; a mask that is not bool or of another shape.
  """
  signature = inspect.signature(call)

  @functools.wraps(call)
  def checked(*arguments, statistics=None, mode=None, **keywords):
    if mode is not None and statistics is not None:
      raise ValueError(
        f'statistics={statistics!r} and mode={mode!r} are given; mode is the '
        'old name of statistics: give statistics alone'
      )
    if mode is not None:
      warnings.warn(
        f'mode={mode!r} is called statistics={mode!r}; the old name goes with '
        'the next version',
        FutureWarning,
        stacklevel=2,
      )
      statistics = mode
    if statistics not in STATISTICS:
      raise ValueError(
        f'statistics is {statistics!r}; allowed: '
        f'{", ".join(map(repr, STATISTICS))}'
      )
    binding = signature.bind(*arguments, statistics=statistics, **keywords)
    values = binding.arguments
    trees.check_floating('x', values['x'])
    # What has its channels along another axis than the last says so.
    axis = getattr(values.get('self'), 'axis', -1)
    values['x'] = _unpadded(values['x'], values.get('mask'), axis)
    return call(*binding.args, **binding.kwargs)

  return checked


def _unpadded(x: jax.Array, mask: jax.Array | None, axis: int) -> jax.Array:
  """Returns x with 0 where the mask is False; `axis` of x has the channels."""
  if mask is None or axis == -1:
    return trees.unpadded(x, mask)
  x_last = trees.unpadded(transform.channels_last(x, axis), mask)
  return jnp.moveaxis(x_last, -1, axis)


def plainly(layer: nn.Module, name: str) -> Callable[..., jax.Array]:
  """Returns a call of the layer that leaves its kernel as it is."""
  del name

  @checked_call
  def apply(x: jax.Array, *, statistics: str) -> jax.Array:
    del statistics  # a plain kernel has none
    return layer(x)

  return apply


class Norm(NamedTuple):
  """A normalization, as a model takes it.

  Attributes:
    layer: name -> the module that acts on activations, before the
      nonlinearity: `layer(name)(x, statistics=..., mask=..., first=...)`. It is
      a module even if it does nothing, so that the input to the nonlinearity
      has the same path in every network.
    bias_before: whether the layer before the norm has a bias. Where the norm
      subtracts a mean, a bias would have no effect.
    weighted: (layer with a parameter 'kernel', name) -> the same layer with its
      kernel normalised: `weighted(conv, name)(x, statistics=...)`.
    zeroed: name -> what stands before a sum, `linear` or `layer`, with a scale
      that begins at 0; None: it has no scale that is learned.
    product: `dot_general` of the dense layers before it; None: flax's.
    frozen: whether scale, bias and statistics stay as they are: the gradients
      of scale and bias are zero, and no batch changes the statistics. Weight
      decay would still change scale and bias; who adds it leaves them out.
    unit: name -> the module that stands in the place of the network's own
      nonlinearity where that follows the norm directly, called as `layer` is:
      a `Unit`; None: the network's own. After a sum the network's own stands.
    linear: name -> the module that stands where no nonlinearity follows
      directly: before a sum, in a projection, in a linear network; None:
      `layer`.
  """

  layer: Callable[[str | None], nn.Module]
  bias_before: bool
  weighted: Callable[[nn.Module, str], Callable[..., jax.Array]] = plainly
  frozen: bool = False
  zeroed: Callable[[str | None], nn.Module] | None = None
  product: Callable[..., jax.Array] | None = None
  unit: Callable[[str | None], nn.Module] | None = None
  linear: Callable[[str | None], nn.Module] | None = None


def check_scale_init(value: Any) -> None:
  """Raises ValueError unless a scale can begin at the value."""
  checks.number('scale_init', value, least=0, also=('uniform',))


def scale_initializer(value: float | str) -> nn.initializers.Initializer:
  """Returns how a scale is drawn: all of them `value`, or uniform on [0, 1).

  Frankle, Schwab and Morcos (2020), "Training BatchNorm and Only BatchNorm",
  arXiv:2003.00152, draw it so (their section 3).
  """
  if value == 'uniform':
    return nn.initializers.uniform(1.0)
  return nn.initializers.constant(cast(float, value))


def scale_and_bias(
  layer: nn.Module, channels: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the parameters of a layer that has scale_init, [C] each."""
  initializer = scale_initializer(layer.scale_init)
  return (
    layer.param('scale', initializer, (channels,)),
    layer.param('bias', nn.initializers.zeros_init(), (channels,)),
  )


class Layer(nn.Module):
  """The base of all layers that act on activations; a network finds them by it.

  Their call is `layer(x, statistics=..., mask=None, first=0)`. The class
  attribute `is_noisy` is whether they add noise.
  """

  is_noisy = False

  @nn.nowrap
  def sees(self) -> int | None:
    """Returns on how many examples an output depends in training.

    1: on its own alone; None: on the whole batch.
    """
    return 1

  def fixed_map(self) -> tuple[ArrayLike, ArrayLike] | None:
    """Returns (factor, shift) of 'running', by which `fold` replaces the layer.

    y = factor x + shift, [C] each, or y = x @ factor + shift with factor
    [C, C]; None where y is x.

    Raises:
      ValueError: why it is no such map, in words that go on after its name.
    """
    raise ValueError('normalises each example by its own statistics')


class ExampleNorm(Layer):
  """The base of layers of ours that normalise each example by itself.

  Attributes:
    axis: the axis of x that has the channels.
    epsilon: added to what is divided by, as the layer's formula says.
    scale_init: where scale begins, see `scale_initializer`.
  """

  axis: int = -1
  epsilon: float = 1e-5
  scale_init: float | str = 1.0

  def __post_init__(self):
    checks.axis(self.axis)
    transform.check_epsilon(self.epsilon)
    check_scale_init(self.scale_init)
    super().__post_init__()


class Unit(nn.Module):
  """The identity where a nonlinearity would stand; the base of other units.

  Attributes:
    axis: the axis of x that has the channels.
  """

  axis: int = -1

  def __post_init__(self):
    checks.axis(self.axis)
    super().__post_init__()

  @checked_call
  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Returns x; where it is padding, 0."""
    del statistics, mask, first
    return x


class Identity(Layer):
  """The identity as a module, without parameters and statistics."""

  def fixed_map(self) -> None:
    """Returns None: y is x."""
    return None

  @checked_call
  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    statistics: str,
    mask: jax.Array | None = None,
    first: jax.Array | int = 0,
  ) -> jax.Array:
    """Returns x; where it is padding, 0."""
    del statistics, mask, first
    return x


def as_norm(
  layer: Callable[..., Layer], *, bias_before: bool, **fields: Any
) -> Norm:
  """Returns a layer as a model takes it.

  Args:
    layer: name -> the layer, a constructor with its keywords; of these it has
      scale_init.
    bias_before: see `Norm`.
    **fields: others of `Norm`.

  Raises:
    ValueError: a keyword out of its range.
  """
  # Made once, so that its checks come before a network is built. Without a
  # parent, or it would become a layer of the module that calls this.
  made = layer(parent=None)

  def zeroed(name):
    return layer(name=name, scale_init=0.0)

  is_learned = getattr(made, 'affine', True)
  return Norm(
    layer=lambda name: layer(name=name),
    bias_before=bias_before,
    frozen=getattr(made, 'frozen', False),
    **{'zeroed': zeroed if is_learned else None, **fields},
  )


def none(*, spread: placement.Spread = placement.ALONE) -> Norm:
  """Returns the norm that does nothing: the 2018 paper's standard network."""
  del spread  # nothing is computed over examples
  return Norm(layer=lambda name: Identity(name=name), bias_before=True)
