"""Opens the files that grow with a run, and its progress bar."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bn_jax.experiment import divergence
from bn_jax.host import compilation_cache, processes, progress, tensorboard
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
    recorded: returns the digests of the records before a step, or of all, as
      `chain.on_disk`, once they are on the disk.
  """

  last: divergence.LastRow
  sinks: tuple[loop.Sink, ...]
  arrays: loop.Sink
  timing: loop.Sink
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


@contextlib.contextmanager
def opened(
  folder: run_folder.RunFolder, *, first_step: int
) -> Iterator[Outputs]:
  """Opens the files that grow with a run.

  Raises:
    StorageError: they cannot be written.
  """
  last = divergence.LastRow()
  if not processes.is_first():
    yield Outputs(last, (last,), _Nowhere(), _Nowhere(), lambda step=None: {})
    return
  with contextlib.ExitStack() as stack:
    scalars, timing, events = files = (
      records.Lines(folder.scalars),
      records.Lines(folder.timing),
      tensorboard.Events(folder.events, first_step=first_step),
    )
    for file in files:
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
      sinks=(scalars, events, last),
      arrays=arrays,
      timing=timing,
      recorded=recorded,
    )
