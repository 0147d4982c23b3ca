"""Opens the files that grow with a run, and its progress bar."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bn_jax.config.run_config import RunConfig
from bn_jax.experiment import divergence
from bn_jax.host import compilation_cache, processes, progress
from bn_jax.host.sinks import opened as sinks
from bn_jax.storage import array_files, records, run_folder
from bn_jax.training import loop

_log = logging.getLogger('bn_jax')


class _Nowhere:
  """A sink that drops records, which process 0 writes to a file."""

  def write(self, record: records.Record) -> None:
    """Drops the record."""


class Outputs(NamedTuple):
  """Where the records of a run go; those of process 0 go to its files.

  Attributes:
    last: the sink that keeps the newest record of training.
    sinks: of all records, in the order of steps, arrays excepted.
    arrays: of results too large for a line.
    timing: of seconds.
    opened: the sinks of the config among them, which want to know the end.
    recorded: returns the digests of the records before a step, or of all, as
      `chain.on_disk`, once they are on the disk.
  """

  last: divergence.LastRow
  sinks: tuple[loop.Sink, ...]
  arrays: loop.Sink
  timing: loop.Sink
  opened: sinks.Opened
  recorded: Callable[..., dict[str, Any]]


@contextlib.contextmanager
def shown(
  label: str, *, first_step: int, steps: int, program: str
) -> Iterator[Callable[[], contextlib.AbstractContextManager[loop.Sink]]]:
  """Shows the progress of seeds; returns `Progress.of_seed`.

  Args:
    program: of `compilation_cache.begin`.
  """
  if not processes.is_first():
    yield lambda: contextlib.nullcontext(_Nowhere())
    return
  compiling, compiled = compilation_cache.begin(program)
  with progress.Progress(
    label, first_step=first_step, steps=steps, say=_log.info,
    compiling=compiling, compiled=compiled,
  ) as bar:  # fmt: skip
    yield bar.of_seed


class _Both(NamedTuple):
  """A sink of arrays: their files, then what makes histograms of them."""

  arrays: array_files.Arrays
  opened: sinks.Opened

  def write(self, record: records.Record) -> None:
    self.arrays.write(record)
    self.opened.write_arrays(record)


@contextlib.contextmanager
def opened(
  folder: run_folder.RunFolder, config: RunConfig, *, first_step: int
) -> Iterator[Outputs]:
  """Opens the files that grow with a run.

  Raises:
    StorageError: they cannot be written.
  """
  last = divergence.LastRow()
  if not processes.is_first():
    nowhere, nothing = _Nowhere(), sinks.Opened((), folder, {}, first_step)
    yield Outputs(
      last, (last,), nowhere, nowhere, nothing, lambda step=None: {}
    )
    return
  with contextlib.ExitStack() as stack:
    scalars, timing = (
      records.Lines(folder.scalars),
      records.Lines(folder.timing),
    )
    outside = sinks.Opened(config.sinks, folder, config.as_json(), first_step)
    for file in (scalars, timing, outside):
      stack.callback(file.close)
    arrays = array_files.Arrays(folder.arrays)

    def recorded(step=None):
      scalars.sync()
      return {
        'scalars': scalars.digest(step),
        'arrays': arrays.digests(step),
      }

    yield Outputs(
      last,
      sinks=(scalars, outside, last),
      arrays=_Both(arrays, outside),
      timing=timing,
      opened=outside,
      recorded=recorded,
    )
