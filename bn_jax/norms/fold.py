"""Folds normalizations into the layers beside them, for inference.

With fixed statistics a normalization is one affine map a channel. A convolution
or a dense layer beside it can take that map up (Ioffe and Szegedy, 2015,
section 3.1, after Algorithm 2):

  factor (W u + b) + shift = (factor W) u + (factor b + shift)
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from bn_jax.norms import norm as norm_lib

# Largest difference allowed, as a share of the largest output. It is far above
# float32's rounding in a deep network, and far below what a wrong fold gives.
_TOLERANCE = 1e-3


class _Call(NamedTuple):
  """One call of a module: what went in, what came out, with which weights."""

  path: tuple[str, ...]
  module: nn.Module
  x: Any
  y: Any
  kernel: np.ndarray | None
  bias: np.ndarray | None
  affine: tuple[np.ndarray, np.ndarray] | None

  @property
  def name(self) -> str:
    return '/'.join(self.path)


def fold(
  module: nn.Module, variables: Mapping[str, Any], x: jax.Array
) -> tuple[nn.Module, dict[str, Any]]:
  """Returns the network without norms, and its variables, for 'running'.

  Normalised kernels ('weight', 'spectral', ...) are replaced by their values.
  In the end the outputs of both networks are compared on x.

  Args:
    module: a network of `bn_jax.models`, or one like them: its norms come from
      its attribute `norm` alone, and layers before a norm have a bias where
      `norm.bias_before`. If its attribute `bias` is False, it becomes True
      where a bias is needed.
    variables: the collections of the module.
    x: inputs to compare the networks on, [N, ...].

  Returns:
    (module, variables); `module.apply(variables, x, statistics='running')`
    equals the output of the network with norms, up to rounding.

  Raises:
    ValueError: a module without `norm`; a norm that cannot be folded, by name;
      a layer that can have no bias; outputs that differ by more than rounding.
  """
  if not hasattr(module, 'norm'):
    raise ValueError(
      f'{type(module).__name__} has no attribute norm that could be replaced'
    )
  calls, y = _traced(module, variables, x)
  weights = {call.path: (call.kernel, call.bias) for call in _linear(calls)}
  for call in calls:
    if call.affine is not None:
      layer, layer_weights = _folded(call, call.affine, calls, weights)
      weights[layer.path] = layer_weights
  folded_module = module.clone(norm=norm_lib.none(), **_biases(module, weights))
  folded_variables = {
    'params': _params(folded_module, variables['params'], x, weights)
  }
  with jax.default_matmul_precision('highest'):
    apply = jax.jit(folded_module.apply, static_argnames='statistics')
    folded_y = apply(folded_variables, x, statistics='running')
  _compare(folded_y, y)
  return folded_module, folded_variables


def _biases(module: nn.Module, weights: Mapping) -> dict[str, Any]:
  """Returns the attribute that gives a network biases, if it now needs them."""
  needs_bias = any(bias.any() for _, bias in weights.values())
  has_none = getattr(module, 'bias', None) is False
  return {'bias': True} if needs_bias and has_none else {}


def _traced(module, variables, x) -> tuple[list[_Call], jax.Array]:
  """Returns all modules' calls with 'running', in order, and the output."""
  calls: list[_Call] = []
  with (
    jax.default_matmul_precision('highest'),
    nn.intercept_methods(_recorder(calls)),
  ):
    y = module.apply(variables, x, statistics='running')
  return calls, y


def _recorder(calls: list[_Call]):
  """Returns an interceptor of methods that appends to `calls`."""
  open_paths: list[tuple[str, ...]] = []

  @contextlib.contextmanager
  def entered(path):
    open_paths.append(path)
    try:
      yield
    finally:
      open_paths.pop()

  def record(call_next, args, keywords, context):
    module = context.module
    # A class that calls its parent's __call__ is still one call.
    if context.method_name != '__call__' or module.path in open_paths:
      return call_next(*args, **keywords)
    with entered(module.path):
      y = call_next(*args, **keywords)
    calls.append(
      _Call(module.path, module, args[0], y, *_weights(module), _affine(module))
    )
    return y

  return record


def _weights(module) -> tuple[np.ndarray | None, np.ndarray | None]:
  """Returns (kernel, bias) of a convolution or dense layer, in float64."""
  if not hasattr(module, 'features') or not module.has_variable(
    'params', 'kernel'
  ):
    return None, None
  kernel = np.asarray(module.get_variable('params', 'kernel'), np.float64)
  if not module.has_variable('params', 'bias'):
    return kernel, np.zeros(kernel.shape[-1])
  return kernel, np.asarray(module.get_variable('params', 'bias'), np.float64)


def _affine(module) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns the (factor, shift) of a norm, see `norm.Layer`, in float64."""
  if not isinstance(module, norm_lib.Layer):
    return None
  try:
    fixed_map = module.fixed_map()
  except ValueError as error:
    name = '/'.join(module.path)
    raise ValueError(f'{name} {error}, so it is no fixed map') from error
  if fixed_map is None:
    return None
  factor, shift_C = fixed_map
  return np.asarray(factor, np.float64), np.asarray(shift_C, np.float64)


def _linear(calls: list[_Call]) -> Iterator[_Call]:
  return (call for call in calls if call.kernel is not None)


def _folded(
  norm: _Call,
  affine: tuple[np.ndarray, np.ndarray],
  calls: list[_Call],
  weights: Mapping,
) -> tuple[_Call, Any]:
  """Returns the layer that a norm goes into, with its new kernel and bias."""
  factor, shift_C = affine
  if norm.module.axis not in (-1, norm.x.ndim - 1):
    raise ValueError(
      f'{norm.name} has its channels along axis {norm.module.axis}; allowed: '
      'the last'
    )
  layers_before = [call for call in _linear(calls) if call.y is norm.x]
  if layers_before:
    layer = _alone(layers_before[0], calls, norm.x, norm)
    kernel, bias = weights[layer.path]
    return layer, (
      _times(kernel, factor), _times(bias, factor) + shift_C
    )  # fmt: skip
  # A mean over positions passes a scale and shift a channel on as they are.
  means = [call.y for call in calls if call.x is norm.y and _is_mean(call)]
  ends = (norm.y, *means)
  layers_after = [
    call for call in _linear(calls) if any(call.x is end for end in ends)
  ]
  if not layers_after:
    raise ValueError(
      f'{norm.name} is no neighbour of a convolution or dense layer: something '
      'stands between: a nonlinearity, a pool, a sum, or a reshape that gives '
      'each activation statistics of its own'
    )
  layer = _alone(layers_after[0], calls, layers_after[0].x, norm)
  if _pads(layer):
    raise ValueError(
      f'{norm.name} stands before {layer.name}, which pads with zeros: its '
      'shift would be missing at the border'
    )
  kernel, bias = weights[layer.path]
  kernel_sum = kernel.reshape(-1, *kernel.shape[-2:]).sum(axis=0)  # [in, out]
  kernel = factor @ kernel if factor.ndim == 2 else kernel * factor[:, None]
  return layer, (kernel, bias + shift_C @ kernel_sum)


def _times(x: np.ndarray, factor: np.ndarray) -> np.ndarray:
  """Returns x with its last axis times a number a channel, or a matrix."""
  return x @ factor if factor.ndim == 2 else x * factor


def _alone(
  layer: _Call, calls: list[_Call], between: Any, norm: _Call
) -> _Call:
  """Returns the layer; ValueError if others use it, or what lies between.

  Args:
    between: the activations on their way from the layer to the norm, or back.
  """
  if sum(call.path == layer.path for call in calls) > 1:
    raise ValueError(
      f'{norm.name} cannot be folded: {layer.name} is applied more than once'
    )
  for call in calls:
    if call.x is between and call.path not in (layer.path, norm.path):
      raise ValueError(
        f'{norm.name} cannot be folded: what is between it and {layer.name} '
        f'goes to {call.name} too'
      )
  return layer


def _is_mean(call: _Call) -> bool:
  return getattr(call.module, 'is_mean', False)


def _pads(layer: _Call) -> bool:
  padding = getattr(layer.module, 'padding', 'VALID')
  shape = () if layer.kernel is None else layer.kernel.shape
  return padding != 'VALID' and any(size > 1 for size in shape[:-2])


def _params(module, params, x, weights) -> dict[str, Any]:
  """Returns the parameters of the folded network."""
  shapes = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, statistics='running'), x
  )['params']
  params = traverse_util.flatten_dict(params)
  folded = {}
  flat: dict[Any, Any] = traverse_util.flatten_dict(shapes)
  for path, shape in flat.items():
    *layer, name = path
    if tuple(layer) in weights and name in ('kernel', 'bias'):
      kernel, bias = weights[tuple(layer)]
      value = kernel if name == 'kernel' else bias
      folded[path] = jnp.asarray(value, shape.dtype)
    else:
      folded[path] = params[path]
  for layer, (_, bias) in weights.items():
    if (*layer, 'bias') not in folded and bias.any():
      raise ValueError(
        f'{"/".join(layer)} has no bias in the network without norms, which '
        'would have to take up a shift'
      )
  return traverse_util.unflatten_dict(folded)


def _compare(folded_y: jax.Array, y: jax.Array) -> None:
  """Raises ValueError if the outputs of the two networks differ."""
  got, want = np.asarray(folded_y, np.float64), np.asarray(y, np.float64)
  # 1e-30 stands in for an output that is zero everywhere.
  error = np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
  if not error <= _TOLERANCE:
    raise ValueError(
      f'the folded network differs by {error:.1e} of its largest output; '
      f'allowed: {_TOLERANCE}; a norm stands where it cannot be folded, such '
      'as beside a shortcut'
    )
