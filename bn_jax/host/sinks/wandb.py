"""Tells Weights & Biases of a run; without a login, on this machine alone."""

import functools
import logging
import os
import pathlib
import secrets
from collections.abc import Sequence

from bn_jax.host.sinks import about

_log = logging.getLogger('bn_jax')


class Client:
  """A run of wandb, one of several that this process may have."""

  def __init__(self, run: about.Run, old_id: str | None):
    import wandb

    self._wandb = wandb
    self.id = old_id or secrets.token_hex(4)
    mode = _mode(wandb)
    if mode == 'offline':
      _say_where(run.home)
    run.home.mkdir(parents=True, exist_ok=True)
    self._run = wandb.init(
      project=os.environ.get('WANDB_PROJECT') or run.project,
      name=run.name,
      group=run.group or 'figures',
      id=self.id,
      resume='allow',
      config=run.config,
      dir=os.environ.get('WANDB_DIR') or str(run.home),
      mode=mode,
      reinit='create_new',  # seeds are trained side by side
      # What is printed here is no business of the service.
      settings=wandb.Settings(console='off', silent=True),
    )

  def send(self, rows: Sequence[tuple[int, dict[str, float]]]) -> None:
    for step, numbers in rows:
      self._run.log(numbers, step=step)

  def send_images(self, paths: Sequence[pathlib.Path], step: int) -> None:
    images = {f'figures/{p.stem}': self._wandb.Image(str(p)) for p in paths}
    self._run.log(images)  # of one step it would keep the first alone

  def finish(self, status: str) -> None:
    self._run.summary['status'] = status
    self._run.finish(exit_code=0 if status == 'done' else 1)


@functools.cache  # once, and not of each seed
def _say_where(home: pathlib.Path) -> None:
  _log.info(
    'wandb writes to %s alone; to send that: wandb sync %s/offline-run-*',
    home / 'wandb', home / 'wandb',
  )  # fmt: skip


def _mode(wandb) -> str:
  """Returns 'online' or 'offline'; wandb itself would ask for a login."""
  if mode := os.environ.get('WANDB_MODE'):
    return mode
  has_login = wandb.login(prompt=False, verify=False)
  return 'online' if has_login else 'offline'
