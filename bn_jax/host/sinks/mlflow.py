"""Tells MLflow of a run; without a server, in a database in the workdir."""

import contextlib
import logging
import math
import os
import pathlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bn_jax import errors
from bn_jax.host.sinks import about
from bn_jax.storage import lock

# Of one request, by MLflow's API.
_MOST_METRICS, _MOST_PARAMS = 1000, 100
_MOST_CHARACTERS = 6000  # of a param's value
_FOREIGN = re.compile(r'[^\w\-. :/]')  # what no key may have, such as a '*'
_STATUS = {
  'done': 'FINISHED', 'diverged': 'FAILED', 'interrupted': 'KILLED',
  'failed': 'FAILED',
}  # fmt: skip


class Client:
  """A run of MLflow, in the experiment of the working directory."""

  def __init__(self, run: about.Run, old_id: str | None):
    # It would report each start to its makers; whoever wants that sets it.
    os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')
    import mlflow
    from mlflow import entities

    logging.getLogger('mlflow.store.db.utils').setLevel(logging.WARNING)
    self._entities = entities
    uri, place = os.environ.get('MLFLOW_TRACKING_URI'), None
    if not uri:
      run.home.mkdir(parents=True, exist_ok=True)
      uri = f'sqlite:///{run.home}/mlflow.db'
      place = (run.home / 'mlflow').as_uri()  # else below the current folder
    with _alone(run.home) if place else contextlib.nullcontext():
      self._client = mlflow.MlflowClient(tracking_uri=uri)
    if old_id is None:
      name = os.environ.get('MLFLOW_EXPERIMENT_NAME') or run.project
      experiment = self._experiment(name, place)
      made = self._client.create_run(experiment, run_name=run.name)
      self.id = made.info.run_id
    else:
      self.id = old_id
      self._client.update_run(old_id, status='RUNNING')
    self._describe(run)

  def _experiment(self, name: str, place: str | None) -> str:
    """Returns the id of an experiment, which another process may just make."""
    for _ in range(2):
      if found := self._client.get_experiment_by_name(name):
        return found.experiment_id
      try:
        return self._client.create_experiment(name, artifact_location=place)
      except Exception as error:
        failure = error
    raise failure

  def _describe(self, run: about.Run) -> None:
    """Writes the config as params, which can never change; then as tags."""
    params = {
      _FOREIGN.sub('_', key): str(value)[:_MOST_CHARACTERS]
      for key, value in about.flat(run.config).items()
    }
    old = self._client.get_run(self.id).data.params
    new = [
      self._entities.Param(k, v) for k, v in params.items() if k not in old
    ]
    for part in _parts(new, _MOST_PARAMS):
      self._client.log_batch(self.id, params=part)
    for key, value in params.items():
      if key in old and old[key] != value:
        self._client.set_tag(self.id, f'now.{key}', value)
    for key in ('run', 'seed') if run.config else ():
      self._client.set_tag(self.id, key, str(run.config[key]))

  def send(self, rows: Sequence[tuple[int, dict[str, float]]]) -> None:
    now = int(1000 * time.time())
    metrics = [
      self._entities.Metric(_FOREIGN.sub('_', tag), _stored(number), now, step)
      for step, numbers in rows
      for tag, number in numbers.items()
    ]
    for part in _parts(metrics, _MOST_METRICS):
      self._client.log_batch(self.id, metrics=part)

  def send_images(self, paths: Sequence[pathlib.Path], step: int) -> None:
    for path in paths:
      self._client.log_artifact(self.id, str(path), 'figures')

  def finish(self, status: str) -> None:
    self._client.set_tag(self.id, 'status', status)
    self._client.set_terminated(self.id, _STATUS[status])


@contextlib.contextmanager
def _alone(home: pathlib.Path) -> Iterator[None]:
  """Waits for other processes: two that make one database at once ruin it."""
  with contextlib.ExitStack() as stack:
    while True:
      try:
        stack.enter_context(lock.held(home, 'mlflow.lock'))
        break
      except errors.ConfigError:  # another one has it, some seconds long
        time.sleep(0.2)
    yield


def _stored(number: float) -> float:
  """Returns nan for an infinity, of which MLflow makes 1.8e308."""
  return math.nan if math.isinf(number) else number


def _parts(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
  for start in range(0, len(items), most):
    yield items[start : start + most]
