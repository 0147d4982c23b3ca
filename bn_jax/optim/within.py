"""Changes what any optimizer does: clipping, rates by path, what is trained."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bn_jax import checks, types
from bn_jax.optim import by_path


def within(
  optimizer: types.Optimizer,
  *,
  clip_norm: float | None = None,
  adaptive_clip: float | None = None,
  rates: Mapping[str, float] | None = None,
  trainable: str = 'all',
) -> types.Optimizer:
  """Returns the optimizer, changed in this order.

  Args:
    clip_norm: gradients longer than this, over all that is trained, are scaled
      to it; None: none are. Pascanu et al. (2013), arXiv:1211.5063.
    adaptive_clip: a unit's gradient is scaled to this times the norm of its
      weights, 0.001 at least, if it is longer; before `clip_norm`. A unit is an
      output of a kernel (all axes but the last), or a bias or scale as a whole.
      Brock et al. (2021), arXiv:2102.06171, who leave out the last layer.
    rates: globs of paths -> factor of the learning rate, decoupled decay with
      it; of several that name one array, the product. None: all are 1.
    trainable: globs of what is trained. The optimizer sees and keeps nothing of
      the rest, which stays as it is, bit for bit.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('clip_norm', clip_norm, above=0, also=(None,))
  checks.number('adaptive_clip', adaptive_clip, above=0, also=(None,))
  rates = {} if rates is None else rates
  _check_rates(rates)
  by_path.check('trainable', trainable)
  clips = []
  if adaptive_clip is not None:
    clips.append(_adaptive_clip(adaptive_clip))
  if clip_norm is not None:
    clips.append(optax.clip_by_global_norm(clip_norm))
  if clips:
    optimizer = _clipped(optimizer, optax.chain(*clips))
  if rates:
    optimizer = _at_rates(optimizer, dict(rates))
  if trainable not in ('all', '*'):
    optimizer = _trained(optimizer, trainable)
  return optimizer


def check_found(
  params: Any, *, rates: Mapping[str, float], globs: Mapping[str, str]
) -> None:
  """Raises ValueError for a glob that names no parameter.

  Args:
    globs: name of a keyword -> its globs.
  """
  for keyed in rates:
    by_path.check_found('rates', params, keyed)
  for name, value in globs.items():
    by_path.check_found(name, params, value)


def _check_rates(rates: Any) -> None:
  if not isinstance(rates, Mapping):
    raise checks.Refused('rates', rates, 'a dict, globs of paths -> factor')
  for globs, factor in rates.items():
    by_path.check('rates', globs)
    checks.number(f'rates[{globs!r}]', factor, least=0)


def _adaptive_clip(factor: float) -> optax.GradientTransformation:
  """Returns optax's clipping by units, whose axes are said for each array.

  By itself it takes a kernel of one input, [1, O], as one unit, and of a kernel
  of three axes, [W, I, O], the first one alone as inputs.
  """

  def update(gradient, state, params):
    def clipped(g, w):
      axes = tuple(range(w.ndim - 1)) or None  # None: the whole of a vector
      clip = optax.adaptive_grad_clip(factor, axis=axes)
      return clip.update(g, state, w)[0]

    return jax.tree.map(clipped, gradient, params), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _clipped(
  optimizer: types.Optimizer, clip: optax.GradientTransformation
) -> types.Optimizer:
  def update(gradient, opt_state, params, **extra):
    # Clipping keeps nothing.
    gradient, _ = clip.update(gradient, clip.init(params), params)
    return optimizer.update(gradient, opt_state, params, **extra)

  # How much of a gradient an update has is another thing at each step.
  return optimizer._replace(update=update, factors=None)


def _at_rates(
  optimizer: types.Optimizer, rates: Mapping[str, float]
) -> types.Optimizer:
  def update(gradient, opt_state, params, **extra):
    updates, opt_state = optimizer.update(gradient, opt_state, params, **extra)
    factors = by_path.factors(updates, rates)
    return jax.tree.map(jnp.multiply, updates, factors), opt_state

  return optimizer._replace(
    update=update,
    factors=_times(
      optimizer.factors, lambda params: by_path.factors(params, rates)
    ),
  )


def _trained(optimizer: types.Optimizer, trainable: str) -> types.Optimizer:
  masked = optax.masked(
    optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update),
    lambda params: by_path.chosen(params, trainable),
  )

  def only(tree):
    return jax.tree.map(
      lambda is_trained, x: x if is_trained else jnp.zeros_like(x),
      by_path.chosen(tree, trainable),
      tree,
    )

  def update(gradient, opt_state, params, **extra):
    updates, opt_state = masked.update(gradient, opt_state, params, **extra)
    return only(updates), opt_state

  ascent = optimizer.ascent
  return optimizer._replace(
    init=masked.init,
    update=update,
    factors=_times(
      optimizer.factors,
      lambda params: jax.tree.map(float, by_path.chosen(params, trainable)),
    ),
    ascent=ascent and (lambda params, g: ascent(params, only(g))),
  )


def _times(
  factors: Callable[[Any], Any] | None, others: Callable[[Any], Any]
) -> Callable[[Any], Any] | None:
  """Returns the products of two trees of factors; None where one is None."""
  if factors is None:
    return None
  return lambda params: jax.tree.map(
    lambda a, b: a * b, factors(params), others(params)
  )
