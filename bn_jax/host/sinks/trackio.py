"""Tells trackio of a run; its database lies in the workdir unless asked."""

import contextlib
import contextvars
import io
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence

from bn_jax.host.sinks import about

_quiet = threading.Lock()


class Client:
  """A run of trackio, one of several that this process may have."""

  def __init__(self, run: about.Run, old_id: str | None):
    # It is read when trackio is imported, and not again.
    os.environ.setdefault('TRACKIO_DIR', str(run.home / 'trackio'))
    import trackio

    self._trackio = trackio
    with _silent():
      # In a context of its own: `init` ends the run of the one it is called in.
      self._run = contextvars.Context().run(
        trackio.init,
        project=run.project,
        name=run.name,
        group=run.group,
        config=run.config,
        # It knows runs by their names: a new one may have that of an old one.
        resume='allow' if old_id else 'never',
        embed=False,
        auto_log_cpu=False,
        auto_log_gpu=False,
      )
    self.id, self._step = self._run.id, None

  def send(self, rows: Sequence[tuple[int, dict[str, float]]]) -> None:
    for step, numbers in rows:
      self._run.log(numbers, step=step)
      self._step = step

  def send_images(self, paths: Sequence[pathlib.Path], step: int) -> None:
    images = {f'figures/{p.stem}': self._trackio.Image(p) for p in paths}
    self._run.log(images, step=step)
    self._step = step

  def finish(self, status: str) -> None:
    # It knows no status; a text beside the last numbers is kept.
    self._run.log({'status': status}, step=self._step)
    with _silent():
      self._run.finish()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Drops what trackio prints; one thread at a time, to give stdout back."""
  with _quiet, contextlib.redirect_stdout(io.StringIO()):
    yield
