"""Defines the types that the parts of the project exchange."""

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np


class Purpose(enum.IntEnum):
  """The purpose of a random key, folded into the key of a seed or step."""

  # Other numbers would give other results.
  PARAMETERS = 0
  ORDER = 1
  NOISE = 2
  DROPOUT = 3
  MEASURE = 4
  AUGMENTATION = 5


class Split(NamedTuple):
  """One split of a dataset, resident on the device.

  Attributes:
    images: [N, H, W, C] in grey levels 0..255, uint8, or float32 where they
      are no bytes on disk; [N, D] float32 where inputs are vectors.
    labels: [N] int32, in [0, num_classes); [N, K] float32 where targets are
      vectors.
    mean: [C] float32, of the training split, in grey levels 0..255.
    std: [C] float32, likewise.
  """

  images: jax.Array
  labels: jax.Array
  mean: jax.Array
  std: jax.Array


class Batch(NamedTuple):
  """Examples that go through a network together.

  Attributes:
    images: [B, H, W, C] float32, normalised per channel; or vectors, [B, D].
    labels: [B] int32; or vectors, [B, K].
    mask: [B] bool, False for padding; None means that all are real.
  """

  images: jax.Array
  labels: jax.Array
  mask: jax.Array | None = None


class EpochOrder(NamedTuple):
  """Where training stands in the concatenated epoch permutations.

  Attributes:
    permutation: [N] int32, the order of this epoch.
    epoch: [] int32.
    offset: [] int32, how many of this epoch's examples are used.
  """

  permutation: jax.Array
  epoch: jax.Array
  offset: jax.Array


class Sampler(NamedTuple):
  """Draws batch t of a seed from a split.

  Attributes:
    init: key -> EpochOrder before the first step.
    draw: (EpochOrder, key) -> (examples of the batch, [B] int32, EpochOrder
      after it).
    take: (Split, examples, key=None, first=0) -> Batch of these, changed at
      random where a key is given; first is the index of the first of them in
      the batch.
  """

  init: Callable[[jax.Array], EpochOrder]
  draw: Callable[[EpochOrder, jax.Array], tuple[jax.Array, EpochOrder]]
  take: Callable[..., Batch]


class Optimizer(NamedTuple):
  """An optax transformation that can say which rate it will use.

  Attributes:
    init: params -> opt_state, the learning rate in it.
    update: (gradients, opt_state, params) -> (updates, opt_state).
    learning_rate: (opt_state, step) -> the rate of that step, [].
    factors: params -> the factor of the rate of each array, a tree of numbers,
      where updates are rate * factor * a sum of gradients; None where they are
      not, as Adam's, and a rate alone says little of a step.
    ascent: (params, gradient) -> where `update` wants the gradient; None: where
      it is, at params.
    extra: whether `update` takes the keywords value, grad and value_fn too: the
      objective, its gradient and params -> objective.
  """

  init: Callable[[Any], Any]
  update: Callable[..., tuple[Any, Any]]
  learning_rate: Callable[[Any, jax.Array], jax.Array]
  factors: Callable[[Any], Any] | None = None
  ascent: Callable[[Any, Any], Any] | None = None
  extra: bool = False


class Average(NamedTuple):
  """The mean of a network over the updates of training: `optim.average`.

  Attributes:
    weight: [] of all updates in units of the last one's; 0 before the first.
    params, batch_stats: the means; before the first update, those of init.
  """

  weight: jax.Array
  params: Any
  batch_stats: Any


class SplitLoss(NamedTuple):
  """A loss as a convex function of a network's outputs, and the rest.

    loss(params) = convex(outputs(params)) + rest(params)

  It can be called like any loss. Its Gauss-Newton matrix is J' C J, plus the
  Hessian of the rest, with J the Jacobian of the outputs by the parameters and
  C the Hessian of `convex`, which has no negative eigenvalue.

  Attributes:
    outputs: params -> an array, such as [B, K].
    convex: that array -> a real scalar.
    rest: params -> a real scalar, such as a penalty; None is no such term.

  A field that is a `jax.tree_util.Partial` of one function is compiled once for
  all batches that are bound to it.
  """

  outputs: Callable[[Any], jax.Array]
  convex: Callable[[jax.Array], jax.Array]
  rest: Callable[[Any], jax.Array] | None = None

  def __call__(self, params: Any) -> jax.Array:
    loss = self.convex(self.outputs(params))
    return loss if self.rest is None else loss + self.rest(params)


class TrainState(NamedTuple):
  """All that training is at one step, and nothing but arrays.

  Attributes:
    step: [] int32, batches seen so far: updates made, and left out.
    params: the network's parameters.
    batch_stats: the network's running statistics; {} where it has none.
    opt_state: the optimizer's state, hyperparameters included.
    key: [2] uint32, data of the seed's key.
    order: where training stands in its epoch.
    ring: name -> [K] float32; row t % K holds the metrics of step t.
    finite: [] bool; False freezes everything at the last good values.
    skipped: [] int32, updates left out so far, as they were not finite.
    average: of parameters and statistics, if the run keeps one; else ().
    numbers: path in the config -> [], of a state in a program that trains runs
      of several numbers; else (). No checkpoint has them.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  key: jax.Array
  order: EpochOrder
  ring: dict[str, jax.Array]
  finite: jax.Array
  skipped: jax.Array | int = 0
  average: Average | tuple[()] = ()
  numbers: Mapping[str, jax.Array] | tuple[()] = ()

  def averaged(self) -> 'TrainState':
    """Returns the state with the averages for its parameters and statistics."""
    return self._replace(
      params=self.average.params, batch_stats=self.average.batch_stats
    )


class Problem(NamedTuple):
  """A network with its objective and optimizer, as pure functions.

  Attributes:
    init: seed -> TrainState.
    objective: (params, batch_stats, batch, key, first=0) -> (objective, aux),
      with batch statistics; aux holds data_loss, penalty, batch_stats and, of
      a classifier, accuracy; first is the index of the first example, where the
      batch is a part of one.
    loss: (state, batch, statistics, penalised=True, first=0, share=1.0) -> the
      objective as a function of params alone, a `jax.tree_util.Partial`;
      statistics is 'batch' or 'running'; penalised=False leaves the data loss.
      Where the batch is a part of one, first is the index of its first example
      and share its fraction of the examples: the sum over the parts of share
      * loss is then the loss of the whole.
    scores: (the same) -> params -> {'loss': that objective, and of a classifier
      'accuracy'}, of one forward pass.
    split: (the same) -> that objective as a `SplitLoss`: the network's outputs,
      the data loss as a function of them, and the penalty as the rest.
    group_size: examples that see each other with batch statistics: 1 where none
      do, None where all of a batch do.
    batch: (state, split) -> the batch that the next step will use.
    following: state -> where training stands in its epoch after that batch.
    step: (state, split) -> state after one update.
    updates: (state, gradient, look=None) -> what the optimizer adds to the
      parameters; look: params -> (objective, its gradient), on the batch of
      this gradient, of which some optimizers want more.
    evaluate: (state, batch, statistics='running') -> sums over the real
      examples, without noise: loss, count and, of a classifier, correct and
      correct5.
    keeps_statistics: state -> whether the network keeps statistics that
      `population` can estimate.
    population: (state, inputs, **keywords) -> what has batch_stats, the
      statistics of the population, in place of the state's; inputs are batches,
      each images or (images, mask): `norms.population_statistics`, whose
      keywords it takes.
    outputs: (state, batch, statistics) -> the network's outputs, [B, K].
    adapted: (state, batch, size) -> the outputs if norms mix what they keep,
      which counts as `size` examples, with the same of the batch:
      `norms.adapted`.
    learning_rate: state -> the rate of the next step, [].
    rate_factors: params -> the factor of the rate of each array, a tree of
      numbers; None where updates are no sums of gradients: `Optimizer.factors`.
    layers: state -> ((name, paths), ...) in forward order.
    taps: names of the layers that feed a nonlinearity, in forward order.
    activations: (state, batch, statistics, names) -> name -> the input to the
      nonlinearity after that layer, [N, ..., C].
    perturbed: (state, batch, statistics) -> (params, perturbations) -> (the
      data loss, activations), a `jax.tree_util.Partial`; perturbations, by the
      names of layers, are added to what enters their nonlinearities.
    affine: state -> name -> (scale, bias), [C] each, of the layers with a norm
      before their nonlinearity, of a kind that keeps running statistics.
    between: (state, batch, values, statistics, source, target) -> (xhat, zhat),
      the outputs of the norms of two layers before scale and bias; `values`
      replace xhat unless they are None.
  """

  init: Callable[[int], TrainState]
  objective: Callable[..., tuple[jax.Array, dict[str, Any]]]
  loss: Callable[..., Callable[[Any], jax.Array]]
  scores: Callable[..., Callable[[Any], dict[str, jax.Array]]]
  split: Callable[..., SplitLoss]
  group_size: int | None
  batch: Callable[[TrainState, Split], Batch]
  following: Callable[[TrainState], EpochOrder]
  step: Callable[[TrainState, Split], TrainState]
  updates: Callable[..., Any]
  evaluate: Callable[..., dict[str, jax.Array]]
  keeps_statistics: Callable[[TrainState], bool]
  population: Callable[..., Any]
  outputs: Callable[..., jax.Array]
  adapted: Callable[..., jax.Array]
  learning_rate: Callable[[TrainState], jax.Array]
  rate_factors: Callable[[Any], Any] | None
  layers: Callable[[TrainState], tuple[tuple[str, tuple[str, ...]], ...]]
  taps: tuple[str, ...]
  activations: Callable[..., dict[str, jax.Array]]
  perturbed: Callable[..., Callable[..., tuple[jax.Array, dict]]]
  affine: Callable[[TrainState], dict[str, tuple[jax.Array, jax.Array]]]
  between: Callable[..., tuple[jax.Array, jax.Array]]


class Journal(Protocol):
  """Keeps what has been computed, so that it need not be computed again."""

  def kept(self, name: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays kept under a name, or None."""

  def keep(self, name: str, arrays: Mapping[str, Any]) -> None:
    """Keeps arrays under a name, replacing what it held."""

  def drop(self, name: str) -> None:
    """Forgets a name."""


class States(Protocol):
  """Gives a measure the states of other checkpoints than its own."""

  def at(self, reference: str) -> TrainState:
    """Returns the state that a reference names: `Kind.others`."""

  def steps(self) -> tuple[int, ...]:
    """Returns the steps of this run of which there are states, in order."""


# (problem, state, batches, journal=None) -> name -> array; a measure that looks
# at other checkpoints takes states=None too, a `States`. It gets no writer and
# no config.
Measure = Callable[..., dict[str, Any]]
