"""Computes the losses that training minimises, example by example."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bn_jax import checks, errors, plugins, trees

_TOP = 5  # ImageNet's second measure is the top-5 error


class Loss(NamedTuple):
  """A data loss.

  Attributes:
    of_examples: (outputs [B, K], targets) -> name -> [B]: 'loss', and of a
      classification 'correct' (0 or 1) and, with more than five classes,
      'correct5': whether the label is among the five largest outputs.
    total: whether a batch's loss is the sum over its examples, not their mean.
    classifies: whether targets are labels, [B] int32; else they are [B, K].
  """

  of_examples: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]
  total: bool
  classifies: bool


def cross_entropy() -> Loss:
  """Returns -log softmax(outputs)[label], the mean over a batch."""
  return Loss(_cross_entropy, total=False, classifies=True)


def squared_error(*, factor: float = 1.0, reduction: str = 'sum') -> Loss:
  """Returns factor * |outputs - target|^2 of each example.

  Santurkar et al. (2018), appendix A, minimise |W_1 ... W_k x - A x|^2. Their
  learning rate fits a sum over the samples, which is the default here; they do
  not say whether there is a factor 1/2.

  Args:
    factor: a positive number; 0.5 halves the square.
    reduction: over a batch, 'sum' or 'mean'.

  Raises:
    ValueError: a keyword out of its range.
  """
  checks.number('factor', factor, above=0)
  checks.one_of('reduction', reduction, ('sum', 'mean'))

  def of_examples(outputs, targets):
    return {'loss': factor * jnp.square(outputs - targets).sum(-1)}

  return Loss(of_examples, total=reduction == 'sum', classifies=False)


LOSSES = {'cross_entropy': cross_entropy, 'squared_error': squared_error}


def make(name: str, **keywords: Any) -> Loss:
  """Returns the loss called `name`; ValueError: a wrong name or keyword."""
  if plugins.is_reference(name):
    return _checked(
      name,
      plugins.made(
        name,
        keywords,
        lambda loss: isinstance(loss, Loss),
        'a bn_jax.losses.Loss',
      ),
    )
  return errors.lookup('loss', LOSSES, name)(**keywords)


def _checked(name: str, loss: Loss) -> Loss:
  """Returns a user's loss, which refuses values that are not per example."""

  def of_examples(outputs, targets):
    values = loss.of_examples(outputs, targets)
    shapes = {key: jnp.shape(value) for key, value in dict(values).items()}
    for key in ('loss', 'correct') if loss.classifies else ('loss',):
      if shapes.setdefault(key) is None:
        raise ValueError(
          f'{name} gives {", ".join(map(repr, values))}, and not {key!r}, a '
          'number an example'
        )
    for key, shape in shapes.items():
      if shape != outputs.shape[:1]:
        raise ValueError(
          f'{name} gives {key!r} of shape {shape}; allowed: '
          f'{outputs.shape[:1]}, a number an example'
        )
    return values

  return loss._replace(of_examples=of_examples)


def sums(
  loss: Loss,
  outputs: jax.Array,
  targets: jax.Array,
  mask: jax.Array | None = None,
) -> dict[str, jax.Array]:
  """Returns sums over the real examples: what `of_examples` gives, and count.

  Padding has no influence, on derivatives neither, whatever it holds.

  Args:
    outputs: [B, K]; sums are in float32 at least.
    targets: see `Loss`.
    mask: [B] bool, False for padding; None if there is none.

  Raises:
    ValueError: outputs that are not floating point; a mask that is not bool or
      of another shape.
  """
  trees.check_floating('outputs', outputs)
  outputs = trees.unpadded(outputs, mask)
  outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
  values = loss.of_examples(outputs, trees.unpadded(targets, mask))
  real_B = jnp.ones(targets.shape[:1], bool) if mask is None else mask
  return {
    **{name: jnp.where(real_B, v_B, 0).sum() for name, v_B in values.items()},
    'count': real_B.sum(dtype=outputs.dtype),
  }


def _cross_entropy(logits, labels):
  loss_B = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  values = {
    'loss': loss_B,
    'correct': (logits.argmax(-1) == labels).astype(logits.dtype),
  }
  if logits.shape[-1] > _TOP:
    label_B1 = jnp.take_along_axis(logits, labels[:, None], -1)
    # The outputs that rank before the label's: larger ones, and equal ones of
    # a lower class, as argmax breaks ties.
    classes = jnp.arange(logits.shape[-1])
    is_before = (logits > label_B1) | (
      (logits == label_B1) & (classes[None] < labels[:, None])
    )
    values['correct5'] = (is_before.sum(-1) < _TOP).astype(logits.dtype)
  return values
