"""Tells how other frameworks mean the arguments and statistics of their BN.

The same words stand for different things: momentum is the share of the old
average here and in most of JAX, and that of the new batch in PyTorch, whose
running variance is the unbiased one.
"""

from typing import Any, NamedTuple

from bn_jax import checks, errors

OLD, NEW = 'old', 'new'


class Convention(NamedTuple):
  """The Batch Normalization of one framework.

  Attributes:
    layer: its name there.
    version: at which all of this was compared with it.
    share: whose share `momentum` is, the old average's or the new batch's.
    momentum, epsilon: the names of these arguments.
    default_momentum: None: it has no default.
    default_epsilon: of that argument.
    running_variance: 'biased' or 'unbiased'.
    running_average: the keyword of ours with which averages move as there.
    start: mean and variance before the first batch, in words.
    dtype: of the running statistics, for bfloat16 inputs.
    parameters: the names of scale and bias.
    statistics: the names of mean and variance, and of what else is kept.
    kernel: the axes of a convolution's kernel: height, width, in, out.
  """

  layer: str
  version: str
  share: str
  momentum: str
  default_momentum: float | None
  epsilon: str
  default_epsilon: float
  running_variance: str
  running_average: str
  start: str
  dtype: str
  parameters: tuple[str, str]
  statistics: tuple[str, ...]
  kernel: str


_FLAX = Convention(
  layer='flax.linen.BatchNorm', version='0.12.8', share=OLD,
  momentum='momentum', default_momentum=0.99,
  epsilon='epsilon', default_epsilon=1e-5,
  running_variance='biased', running_average='ema', start='0, 1',
  dtype='float32', parameters=('scale', 'bias'), statistics=('mean', 'var'),
  kernel='HWIO',
)  # fmt: skip
CONVENTIONS = {
  'pytorch': Convention(
    layer='torch.nn.BatchNorm2d', version='2.13.0', share=NEW,
    momentum='momentum', default_momentum=0.1,
    epsilon='eps', default_epsilon=1e-5,
    running_variance='unbiased', running_average='ema', start='0, 1',
    dtype='float32', parameters=('weight', 'bias'),
    statistics=('running_mean', 'running_var', 'num_batches_tracked'),
    kernel='OIHW',
  ),
  'flax': _FLAX,
  'nnx': _FLAX._replace(layer='flax.nnx.BatchNorm'),
  'haiku': Convention(
    layer='haiku.BatchNorm', version='0.0.17', share=OLD,
    momentum='decay_rate', default_momentum=None,
    epsilon='eps', default_epsilon=1e-5,
    running_variance='biased', running_average='corrected_ema',
    start='0, 0, taken out', dtype="the input's",
    parameters=('scale', 'offset'),
    statistics=(
      'mean_ema/average', 'var_ema/average', '*_ema/hidden', '*_ema/counter',
    ),
    kernel='HWIO',
  ),
  'equinox': Convention(
    layer="equinox.nn.BatchNorm(mode='batch')", version='0.13.8', share=OLD,
    momentum='momentum', default_momentum=0.99,
    epsilon='eps', default_epsilon=1e-5,
    running_variance='biased', running_average='corrected_ema',
    start='0, 1, taken out as if 0, 0', dtype="the layer's",
    parameters=('weight', 'bias'),
    statistics=('batch_state_index[0]', 'batch_state_index[1]',
                'batch_counter'),
    kernel='OIHW',
  ),
  'equinox_ema': Convention(
    layer="equinox.nn.BatchNorm(mode='ema')", version='0.13.8', share=OLD,
    momentum='momentum', default_momentum=0.99,
    epsilon='eps', default_epsilon=1e-5,
    running_variance='biased', running_average='ema', start='the first batch',
    dtype="the layer's", parameters=('weight', 'bias'),
    statistics=('ema_state_index[0]', 'ema_state_index[1]',
                'ema_first_time_index'),
    kernel='OIHW',
  ),
  'keras': Convention(
    layer='keras.layers.BatchNormalization', version='3.15.1', share=OLD,
    momentum='momentum', default_momentum=0.99,
    epsilon='epsilon', default_epsilon=1e-3,
    running_variance='biased', running_average='ema', start='0, 1',
    dtype='float32', parameters=('gamma', 'beta'),
    statistics=('moving_mean', 'moving_variance'), kernel='HWIO',
  ),
  'tensorflow': Convention(
    layer='tf.compat.v1.nn.fused_batch_norm', version='2.21.0', share=NEW,
    momentum='exponential_avg_factor', default_momentum=1.0,
    epsilon='epsilon', default_epsilon=1e-3,
    running_variance='unbiased', running_average='ema', start='given',
    dtype='float32', parameters=('scale', 'offset'),
    statistics=('mean', 'variance'), kernel='HWIO',
  ),
  'onnx': Convention(
    layer='BatchNormalization of opset 15', version='1.23.2', share=OLD,
    momentum='momentum', default_momentum=0.9,
    epsilon='epsilon', default_epsilon=1e-5,
    running_variance='biased', running_average='ema', start='given',
    dtype="the given ones'", parameters=('scale', 'B'),
    statistics=('input_mean', 'input_var'), kernel='OIHW',
  ),
}  # fmt: skip


def keywords(framework: str, **arguments: Any) -> dict[str, Any]:
  """Returns the keywords of `norms.make('batch')` for another framework's BN.

    keywords('pytorch', momentum=0.1, eps=1e-3)
    {'momentum': 0.9, 'epsilon': 0.001, 'running_variance': 'unbiased',
     'running_average': 'ema'}

  Args:
    framework: a key of `CONVENTIONS`.
    **arguments: of the layer there, its momentum and epsilon under its names;
      what is not given has the layer's default.

  Raises:
    ValueError: an unknown framework or argument, a momentum out of [0, 1], or
      none where there is no default.
  """
  convention = errors.lookup('framework', CONVENTIONS, framework)
  for name in arguments:
    if name not in (convention.momentum, convention.epsilon):
      raise ValueError(
        f'{convention.layer} has other arguments than {name!r} that matter '
        f'here; allowed: {convention.momentum}, {convention.epsilon}'
      )
  given: dict[str, Any] = {
    convention.momentum: convention.default_momentum,
    convention.epsilon: convention.default_epsilon,
    **arguments,
  }
  momentum, epsilon = (
    given[name] for name in (convention.momentum, convention.epsilon)
  )
  result: dict[str, Any] = {
    'momentum': momentum,
    'epsilon': epsilon,
    'running_variance': convention.running_variance,
    'running_average': convention.running_average,
  }
  if momentum is None and framework == 'pytorch':  # the mean of all batches
    del result['momentum']
    return result | {'running_average': 'cumulative'}
  checks.number(convention.momentum, momentum, least=0, most=1)
  if convention.share == NEW:
    # 1 - 0.1 in binary is not quite 0.9.
    result['momentum'] = float(f'{1 - result["momentum"]:.12g}')
  return result


def table() -> str:
  """Returns `CONVENTIONS` as a table for docs."""
  rows = [
    (
      f'`{name}`: `{one.layer}` {one.version}',
      f'{one.share}, `{one.momentum}`',
      'must be given'
      if one.default_momentum is None
      else f'{one.default_momentum:g}',
      f'`{one.epsilon}` {one.default_epsilon:g}',
      one.running_variance,
      one.start,
      one.dtype,
      ', '.join(map('`{}`'.format, one.parameters)),
      ', '.join(map('`{}`'.format, one.statistics)),
      one.kernel,
    )
    for name, one in CONVENTIONS.items()
  ]
  titles = (
    'framework', 'momentum: share of', 'default', 'epsilon',
    'running variance', 'start of mean, variance', 'dtype of statistics',
    'scale, bias', 'statistics', 'kernel',
  )  # fmt: skip
  lines = [titles, ('---',) * len(titles), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
