"""Makes optimizers from plain keywords; the updates are optax's.

Keywords have optax's names. The learning rate lives in the state. Other numbers
do so in `sgd` alone: in float32, Adam's 1 - b2 would be off by 5e-5.

`weight_decay` is decoupled: each update takes rate * weight_decay * W besides,
W what `weight_decay_on` names. Loshchilov and Hutter (2019), arXiv:1711.05101,
take their schedule's factor in place of the rate.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from bn_jax import checks, trees, types
from bn_jax.optim import by_path
from bn_jax.optim.schedules import Schedule

_Factory = Callable[[Any], optax.GradientTransformation]


def sgd(
  schedule: Schedule, *, momentum: float = 0.0, nesterov: bool = False
) -> types.Optimizer:
  """Returns stochastic gradient descent; by default plain, as in the paper.

  Args:
    schedule: the learning rate at each step.
    momentum: in [0, 1): trace = momentum * trace + gradient.
    nesterov: whether the update looks ahead by one step of the trace.

  Raises:
    ValueError: a keyword out of its range.
  """
  _check_momentum(momentum, nesterov)
  transformation = optax.inject_hyperparams(
    optax.sgd, static_args=('nesterov',)
  )(learning_rate=schedule, momentum=momentum or None, nesterov=nesterov)
  return of(transformation, schedule)._replace(
    factors=lambda params: jax.tree.map(lambda _: 1.0, params)
  )


def adam(
  schedule: Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  nesterov: bool = False,
) -> types.Optimizer:
  """Returns Adam: Kingma and Ba (2015), arXiv:1412.6980.

  Args:
    schedule: the learning rate at each step.
    b1: the share that the mean of gradients keeps at a step.
    b2: the share that the mean of their squares keeps.
    eps: is added to the root of that mean.
    nesterov: whether the mean looks ahead by one step.

  Raises:
    ValueError: a keyword out of its range.
  """
  _check_adam(b1, b2, eps, nesterov)
  keywords = dict(b1=b1, b2=b2, eps=eps, nesterov=nesterov)
  return _made(schedule, lambda rate: optax.adam(rate, **keywords))


def adamw(
  schedule: Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 1e-4,
  nesterov: bool = False,
  weight_decay_on: str = 'kernels',
) -> types.Optimizer:
  """Returns Adam with decoupled decay: arXiv:1711.05101; keywords of `adam`.

  Args:
    weight_decay: decoupled; its factor is the rate.
    weight_decay_on: what decays, as in `by_path.weight_decay`.

  Raises:
    ValueError: a keyword out of its range.
  """
  _check_adam(b1, b2, eps, nesterov)
  keywords = dict(b1=b1, b2=b2, eps=eps, nesterov=nesterov)
  keywords |= _decay(weight_decay, weight_decay_on)
  return _made(schedule, lambda rate: optax.adamw(rate, **keywords))


def lion(
  schedule: Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.99,
  weight_decay: float = 1e-3,
  weight_decay_on: str = 'kernels',
) -> types.Optimizer:
  """Returns Lion, steps of the sign: Chen et al. (2023), arXiv:2302.06675.

  Args:
    schedule: the learning rate at each step, 3 to 10 times below Adam's.
    b1: the share of the mean of gradients whose sign is taken.
    b2: the share that this mean keeps at a step.
    weight_decay: decoupled; its factor is the rate.
    weight_decay_on: what decays, as in `by_path.weight_decay`.

  Raises:
    ValueError: a keyword out of its range.
  """
  for name, share in (('b1', b1), ('b2', b2)):
    checks.number(name, share, least=0, below=1)
  keywords = dict(b1=b1, b2=b2, **_decay(weight_decay, weight_decay_on))
  return _made(schedule, lambda rate: optax.lion(rate, **keywords))


def lamb(
  schedule: Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-6,
  weight_decay: float = 0.0,
  weight_decay_on: str = 'kernels',
) -> types.Optimizer:
  """Returns LAMB, Adam of length rate * |W|: You et al., arXiv:1904.00962.

  The length is that of each array, such as a kernel; an array of zeros, such as
  a bias at first, takes Adam's step. Keywords are those of `adam` and `adamw`.

  Raises:
    ValueError: a keyword out of its range.
  """
  _check_adam(b1, b2, eps)
  keywords = dict(b1=b1, b2=b2, eps=eps)
  keywords |= _decay(weight_decay, weight_decay_on)
  return _made(schedule, lambda rate: optax.lamb(rate, **keywords))


def muon(
  schedule: Schedule,
  *,
  beta: float = 0.95,
  ns_steps: int = 5,
  nesterov: bool = True,
  adam_b1: float = 0.9,
  adam_b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  weight_decay_on: str = 'kernels',
) -> types.Optimizer:
  """Returns Muon, orthogonalised momentum of kernels, and AdamW of the rest.

  Jordan et al. (2024), https://github.com/KellerJordan/Muon. A kernel of a
  convolution, [H, W, I, O], is taken as the matrix [H * W * I, O]; each step is
  scaled by sqrt(max(1, outputs / inputs)). Kernels of any network are so
  trained, the first and the last too. Biases and scales, and whatever is called
  neither, are AdamW's, with the same rate: see `within` for another.

  Args:
    schedule: the learning rate at each step.
    beta: the share that the mean of gradients keeps at a step.
    ns_steps: iterations of Newton and Schulz.
    nesterov: whether both means of gradients look ahead by one step.
    adam_b1, adam_b2: of AdamW, as in `adam`.
    eps: is added to what both divide by.
    weight_decay: decoupled; its factor is the rate.
    weight_decay_on: what decays, as in `by_path.weight_decay`.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('beta', beta, least=0, below=1)
  checks.count('ns_steps', ns_steps)
  _check_adam(adam_b1, adam_b2, eps, nesterov, prefix='adam_')
  decay, mask = _decay(weight_decay, weight_decay_on).values()
  of_kernels = dict(
    beta=beta, ns_steps=ns_steps, nesterov=nesterov, eps=eps,
    weight_decay=decay, weight_decay_mask=mask,
    muon_weight_dimension_numbers=_as_matrices,
  )  # fmt: skip
  of_rest = dict(
    b1=adam_b1, b2=adam_b2, eps=eps, nesterov=nesterov, weight_decay=decay,
    mask=mask,
  )  # fmt: skip

  # contrib.muon's own AdamW has no mask of what decays.
  def factory(rate):
    return optax.partition(
      {
        True: contrib.muon(rate, **of_kernels),
        False: optax.adamw(rate, **of_rest),
      },
      _are_matrices,
    )

  return _made(schedule, factory)


def rmsprop(
  schedule: Schedule,
  *,
  decay: float = 0.9,
  eps: float = 1e-8,
  initial_scale: float = 0.0,
  eps_in_sqrt: bool = True,
  centered: bool = False,
  momentum: float = 0.0,
  nesterov: bool = False,
) -> types.Optimizer:
  """Returns RMSProp, in optax's form; see `optax.rmsprop` for PyTorch's.

  Args:
    schedule: the learning rate at each step.
    decay: the share that the mean of squares keeps at a step; no weight decay.
    eps: is added to the mean, or to its root.
    initial_scale: the mean before the first step; 0 in PyTorch, 1 in TensorFlow
      1.
    eps_in_sqrt: whether eps is added below the root; False in PyTorch.
    centered: whether the variance takes the place of the mean of squares.
    momentum: in [0, 1): trace = momentum * trace + step.
    nesterov: whether the update looks ahead by one step of the trace.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('decay', decay, least=0, below=1)
  checks.number('eps', eps, least=0)
  checks.number('initial_scale', initial_scale, least=0)
  checks.flag('eps_in_sqrt', eps_in_sqrt)
  checks.flag('centered', centered)
  _check_momentum(momentum, nesterov)
  keywords = dict(
    decay=decay, eps=eps, initial_scale=initial_scale, eps_in_sqrt=eps_in_sqrt,
    centered=centered, momentum=momentum or None, nesterov=nesterov,
  )  # fmt: skip
  return _made(schedule, lambda rate: optax.rmsprop(rate, **keywords))


def sam(
  schedule: Schedule,
  *,
  rho: float = 0.05,
  perturb: str = 'all',
  momentum: float = 0.0,
  nesterov: bool = False,
) -> types.Optimizer:
  """Returns SGD by sharpness-aware gradients: Foret et al., arXiv:2010.01412.

  The gradient of a step is that at params + rho * g / |g|, g the gradient at
  params, of the same batch, augmentation and noise. See `sharpness_aware` for
  other optimizers than `sgd`.

  Args:
    rho: the length of the step up.
    perturb: globs of what steps up: '*norm*' is SAM-ON, arXiv:2306.04226.
    schedule, momentum, nesterov: as in `sgd`.

  Raises:
    ValueError: a keyword out of its range.
  """
  optimizer = sgd(schedule, momentum=momentum, nesterov=nesterov)
  return sharpness_aware(optimizer, rho=rho, perturb=perturb)


def sharpness_aware(
  optimizer: types.Optimizer, *, rho: float = 0.05, perturb: str = 'all'
) -> types.Optimizer:
  """Returns the optimizer with gradients taken at the point of `sam`."""
  checks.number('rho', rho, least=0)
  by_path.check('perturb', perturb)

  def ascent(params, gradient):
    steps_up = by_path.chosen(params, perturb)
    gradient = jax.tree.map(
      lambda is_up, g: g if is_up else jnp.zeros_like(g), steps_up, gradient
    )
    norm = trees.norm(gradient)
    length = jnp.where(norm > 0, rho / jnp.where(norm > 0, norm, 1), 0)
    return trees.add_scaled(params, length, gradient)

  return optimizer._replace(factors=None, ascent=ascent)


OPTIMIZERS = {
  'adam': adam,
  'adamw': adamw,
  'lamb': lamb,
  'lion': lion,
  'muon': muon,
  'rmsprop': rmsprop,
  'sam': sam,
  'sgd': sgd,
}


def of(
  transformation: optax.GradientTransformation, schedule: Schedule
) -> types.Optimizer:
  """Returns an optimizer of an optax transformation.

  Args:
    schedule: the rates that the transformation has been given.
  """
  return types.Optimizer(
    init=transformation.init,
    update=transformation.update,
    learning_rate=lambda opt_state, step: jnp.asarray(
      schedule(step), jnp.float32
    ),
  )


def _made(schedule: Schedule, factory: _Factory) -> types.Optimizer:
  """Returns an optimizer whose state has the rate that `factory` takes."""
  injected = optax.inject_hyperparams(
    lambda learning_rate: factory(learning_rate)
  )
  return of(injected(learning_rate=schedule), schedule)


def _decay(weight_decay: float, weight_decay_on: str) -> dict[str, Any]:
  """Returns optax's keywords for decoupled decay: the factor and its mask."""
  checks.number('weight_decay', weight_decay, least=0)
  by_path.check('weight_decay_on', weight_decay_on)
  return {
    'weight_decay': weight_decay,
    'mask': lambda params: by_path.chosen(params, weight_decay_on),
  }


def _are_matrices(params: Any) -> Any:
  """Returns which arrays are kernels of two axes or more."""
  return jax.tree.map(
    lambda is_kernel, x: is_kernel and x.ndim >= 2,
    by_path.chosen(params, 'kernels'),
    params,
  )


def _as_matrices(params: Any) -> Any:
  """Returns the axes by which kernels are matrices: the last, and the rest."""
  return jax.tree.map(
    lambda x: contrib.MuonDimensionNumbers(
      tuple(range(x.ndim - 1)), x.ndim - 1
    ),
    params,
  )


def _check_momentum(momentum: float, nesterov: bool) -> None:
  checks.number('momentum', momentum, least=0, below=1)
  checks.flag('nesterov', nesterov)
  if nesterov and not momentum:
    raise ValueError('nesterov is True, momentum is 0; allowed: above 0')


def _check_adam(
  b1: float, b2: float, eps: float, nesterov: bool = False, *, prefix: str = ''
) -> None:
  checks.number(f'{prefix}b1', b1, least=0, below=1)
  checks.number(f'{prefix}b2', b2, least=0, below=1)
  checks.number('eps', eps, least=0)
  checks.flag('nesterov', nesterov)
