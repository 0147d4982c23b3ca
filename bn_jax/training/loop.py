"""Runs the loop of training: write, save, measure, step, and nothing else."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax

from bn_jax import errors, types
from bn_jax.storage.records import Record

State = types.TrainState


class Sink(Protocol):
  """A destination of records: a file, TensorBoard, a progress bar."""

  def write(self, record: Record) -> None: ...


class Probe(NamedTuple):
  """A measure, bound to its data and its times.

  Attributes:
    name: the name of its records.
    look: state -> name -> array; it must not keep the state.
    every_steps: the look is at steps 0, every_steps, ... and at the last.
    arrays: whether its result is too large for a line of records.
    conditions: of the measurement, such as statistics; part of its records.
  """

  name: str
  look: Callable[[State], dict[str, Any]]
  every_steps: int
  arrays: bool = False
  conditions: Mapping[str, Any] | None = None


class Outcome(NamedTuple):
  """The end of a run: its status, 'done' or 'diverged', and its step."""

  status: str
  step: int


def due(step: int, every_steps: int, last: int) -> bool:
  """Returns whether a step is a multiple of every_steps, or the last step."""
  return step % every_steps == 0 or step == last


def run(
  state: State,
  step: Callable[[State], State],
  *,
  steps: int,
  probes: Sequence[Probe],
  sinks: Sequence[Sink],
  arrays: Sink,
  timing: Sink,
  save: Callable[[int, State], None],
  save_every_steps: int,
  stopped: Callable[[], bool] = lambda: False,
  unless_stopped: Callable[[Callable[[], Any]], Any] = lambda look: look(),
) -> Outcome:
  """Trains from the step of `state` to `steps`.

  At each step, in this order: the rows of the steps before it are written (if
  a save or look is due, or the ring is full), the state is saved, the probes
  look, the step is taken. So a restart from a saved state repeats exactly what
  came after the save.

  Args:
    state: the state to start from; the step may consume it.
    step: one update, compiled; nothing here waits for it.
    steps: the last step, counted from the start of training.
    probes: measures, in the order in which they look.
    sinks: get the records, except those of probes with `arrays`, in the order
      of steps.
    arrays: gets the records of probes with `arrays`.
    timing: gets seconds, apart from the records, which are reproducible.
    save: writes a checkpoint of a step, and has copied the state when it
      returns; it does not replace a checkpoint that exists.
    save_every_steps: steps between two checkpoints; the last step has one too.
    stopped: is called before each step and each look; True ends the run.
    unless_stopped: calls a look; returns its result, or None if it was ended
      early.

  Raises:
    Interrupted: `stopped` returned True; the state is saved.
  """
  ring = _Ring(state, sinks, timing)
  now = int(state.step)
  while True:
    due_probes = [p for p in probes if due(now, p.every_steps, steps)]
    save_is_due = due(now, save_every_steps, steps)
    flush_is_due = due_probes or save_is_due or ring.is_full(now)
    if flush_is_due and not ring.flush(now, state):
      save(int(state.step), state)
      return Outcome('diverged', int(state.step))
    if save_is_due:
      ring.save(now, state, save)
    for probe in due_probes:
      if not stopped():
        ring.look(now, probe, state, arrays, unless_stopped)
    if stopped():
      # Rows first: a restart begins at this step and writes none before it.
      ring.flush(now, state)
      save(int(state.step), state)
      raise errors.Interrupted(f'stopped at step {int(state.step)}')
    if now >= steps:
      return Outcome('done', now)
    state = step(state)
    now += 1


class _Ring:
  """Brings the rows of metrics from the device to the sinks, with times."""

  def __init__(self, state: State, sinks: Sequence[Sink], timing: Sink):
    self._size = next(iter(state.ring.values())).shape[0]
    self._written = int(state.step)  # the rows of steps before it are written
    self._sinks = sinks
    self._timing = timing
    self._clock = time.perf_counter()  # the start of what is timed next

  def is_full(self, now: int) -> bool:
    """Returns whether another step would overwrite a row not yet written."""
    return now - self._written >= self._size

  def flush(self, now: int, state: State) -> bool:
    """Writes the rows before `now`; returns whether their steps were finite."""
    if now == self._written:
      return True
    finite, step, ring = jax.device_get((state.finite, state.step, state.ring))
    # A frozen state is at the step that was not finite, and has its row.
    end = now if finite else int(step) + 1
    for t in range(self._written, end):
      row = {name: values[t % self._size] for name, values in ring.items()}
      self._write(Record(t, 'train', row))
    self._time(now, 'train', steps=now - self._written)
    self._written = now
    return bool(finite)

  def look(
    self, now: int, probe: Probe, state: State, arrays: Sink, unless_stopped
  ) -> None:
    """Computes and writes one measure, unless it was ended early."""
    self._clock = time.perf_counter()
    values = unless_stopped(lambda: probe.look(state))
    if values is None:
      return
    record = Record(now, probe.name, values, probe.conditions)
    if probe.arrays:
      arrays.write(record)
    else:
      self._write(record)
    self._time(now, probe.name, looks=1)

  def save(self, now: int, state: State, save) -> None:
    """Saves a state, and writes how long that took."""
    self._clock = time.perf_counter()
    save(now, state)
    self._time(now, 'save', saves=1)

  def _write(self, record: Record) -> None:
    for sink in self._sinks:
      sink.write(record)

  def _time(self, now: int, name: str, **counts: int) -> None:
    seconds = time.perf_counter() - self._clock
    self._timing.write(Record(now, name, {'seconds': seconds, **counts}))
    self._clock = time.perf_counter()
