"""Opens the sinks of a run, and sends them what they get beside records."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bn_jax.host.sinks import (
  about,
  mlflow,
  outside,
  tensorboard,
  trackio,
  wandb,
)  # fmt: skip
from bn_jax.storage import records, run_folder
from bn_jax.storage.records import Record

# Name -> its client; of TensorBoard, whose events are files of the run, that of
# figures.
SINKS: dict[str, Callable[..., Any]] = {
  'tensorboard': tensorboard.Figures,
  'wandb': wandb.Client,
  'mlflow': mlflow.Client,
  'trackio': trackio.Client,
}


class Opened:
  """The sinks of a run with one seed.

  Attributes:
    status: of the run, which they are told when they are closed: 'done',
      'diverged', 'interrupted', or 'failed' as long as nobody says otherwise.
  """

  def __init__(
    self,
    names: Sequence[str],
    folder: run_folder.RunFolder,
    config: Mapping[str, Any],
    first_step: int,
  ):
    """Opens them; each goes on where it was.

    Raises:
      StorageError: one cannot be opened.
    """
    self.status = 'failed'
    self._sinks = []
    run = about.seed(folder, config)
    for name in names:
      if name == 'tensorboard':
        sink = tensorboard.Events(
          folder.events, first_step=first_step, config=run.config
        )
      else:
        sink = outside.Outside(
          name, SINKS[name], run, folder.sinks / f'{name}.json',
          records.read(folder.scalars),
        )  # fmt: skip
      self._sinks.append(sink)

  def write(self, record: Record) -> None:
    for sink in self._sinks:
      sink.write(record)

  def write_arrays(self, record: Record) -> None:
    for sink in self._sinks:
      sink.write_arrays(record)

  def close(self) -> None:
    for sink in self._sinks:
      sink.close(self.status)


def send_figures(names: Sequence[str], workdir: pathlib.Path) -> None:
  """Sends the PNGs of a working directory's page.

  Raises:
    StorageError: a sink does not take them.
  """
  paths = sorted((workdir / 'figures').glob('*.png'))
  step = max((seed.step for seed in run_folder.below(workdir)), default=0)
  home = run_folder.sinks(workdir)
  for name in names:
    outside.send_figures(
      name, SINKS[name], about.figures(workdir), home / f'{name}.json', paths,
      step,
    )  # fmt: skip
