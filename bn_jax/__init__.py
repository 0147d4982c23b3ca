"""A laboratory for normalization layers."""

import os
import re
import sys
from typing import Any


def _refuse_module() -> None:
  """Ends `python -m bn_jax.some.module`, which would do nothing, in silence.

  Python sets argv[0] to '-m' while it looks for the module that it is to run.
  """
  if sys.argv[:1] != ['-m']:
    return
  module = re.sub('^-[^m]*m', '', sys.orig_argv[-len(sys.argv)])
  if re.match(r'bn_jax\.(?!__main__$|commands\.)', module):
    line = f'error: {module} is no command; see python -m bn_jax --help'
    print(line, file=sys.stderr)  # which is None where it is closed
    raise SystemExit(2)


def load(
  path: str | os.PathLike,
  *,
  step: int | None = None,
  statistics: str = 'running',
  averaged: bool = False,
) -> Any:
  """Loads the network that one seed of a run has trained, ready for inference.

    trained = bn_jax.load('runs/quickstart/batchnorm/seed0')
    trained.predict(images)  # bytes [N, H, W, C]

  Returns:
    a `bn_jax.trained.load.Trained`; see there, and its `load` for the keywords.
  """
  # Imported late: `import bn_jax` takes no JAX.
  from bn_jax.trained import load as load_lib

  return load_lib.load(
    path, step=step, statistics=statistics, averaged=averaged
  )


def plot(result: Any, **keywords: Any) -> Any:
  """Draws what a function of `bn_jax.analysis` returned, in the page's style.

    figure = bn_jax.plot(analysis.along_gradient(loss, params, sizes))
    bn_jax.plot({'batch': of_batch, 'none': of_none})  # a colour each

  Returns:
    a Matplotlib figure; see `bn_jax.report.plot.plot`, also for the keywords
    `layers` and `coordinates`.
  """
  from bn_jax.report import plot as plot_lib

  return plot_lib.plot(result, **keywords)


def frame(*workdirs: str | os.PathLike) -> Any:
  """Returns everything recorded in numbers as a DataFrame of pandas.

    df = bn_jax.frame('runs/quickstart')
    df['test/accuracy'].dropna().groupby('run').last()

  Its index is run, seed and step, its columns 'ENTRY/VALUE': 'train/data_loss',
  'landscape/beta_0', 'analysis/NAME/VALUE'. A value of several numbers a look
  becomes two columns, their smallest, 'landscape/beta/min', and their largest;
  of what lies in files of arrays, only what is one number is there. nan is what
  was not recorded at a step. Several working directories stand in front of the
  names of their runs, as on a page of them.

  Raises:
    ConfigError: pandas is not installed.
    StorageError: a directory without records, or files that were changed.
  """
  # Imported late: as above.
  from bn_jax.report.results import flat

  return flat.frame(*workdirs)


_refuse_module()
