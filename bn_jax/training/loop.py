"""Runs the loop of training: write, save, measure, step, and nothing else."""

import functools
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
    look_at_all: the state of several seeds -> the result of each, in their
      order, computed together; None: `look` at one after the other.
  """

  name: str
  look: Callable[[State], dict[str, Any]]
  every_steps: int
  arrays: bool = False
  conditions: Mapping[str, Any] | None = None
  look_at_all: Callable[[State], Sequence[dict[str, Any]]] | None = None


class Outcome(NamedTuple):
  """The end of a run: its status, 'done' or 'diverged', and its step."""

  status: str
  step: int


class Lane(NamedTuple):
  """One of the seeds that are trained together, and where its results go.

  Attributes:
    probes: measures, in the order in which they look; all lanes have the same
      names and times.
    sinks: get the records, except those of probes with `arrays`, in the order
      of steps.
    arrays: gets the records of probes with `arrays`.
    timing: gets seconds, apart from the records, which are reproducible; of
      what is done for several seeds at once, an equal share.
    save: writes a checkpoint of a step, and has copied the state when it
      returns; it does not replace a checkpoint that exists.
    ended: is told once how the seed has ended, when all of it is written.
  """

  probes: Sequence[Probe]
  sinks: Sequence[Sink]
  arrays: Sink
  timing: Sink
  save: Callable[[int, State], None]
  ended: Callable[[Outcome], None] = lambda outcome: None


def due(step: int, every_steps: int, last: int) -> bool:
  """Returns whether a step is a multiple of every_steps, or the last step."""
  return step % every_steps == 0 or step == last


def _until_due(step: int, periods: Sequence[int], last: int) -> int:
  """Returns after how many steps the next of some events is `due`."""
  return min(last - step, *(every - step % every for every in periods))


def run(
  state: State,
  advance: Callable[[State, int], State],
  lanes: Sequence[Lane],
  *,
  steps: int,
  save_every_steps: int,
  part: Callable[[State, int], State] | None = None,
  most: int = 1,
  stopped: Callable[[], bool] = lambda: False,
  unless_stopped: Callable[[Callable[[], Any]], Any] = lambda look: look(),
) -> list[Outcome]:
  """Trains from the step of `state` to `steps`; returns how each lane ended.

  At each step, in this order: the rows of the steps before it are written (if
  a save or look is due, or the ring is full), the state is saved, the probes
  look, the step is taken, and with it up to `most` until the next save or look.
  So a restart from a saved state repeats exactly what came after the save.

  Several lanes need not be at the same step: after a kill, the newest
  checkpoints of some may be older than those of others. One that has ended is
  carried along unchanged or unread until the last one ends.

  Args:
    state: the state to start from; `advance` may consume it. Of several lanes
      it is one state, whose arrays have the lanes as their first axis.
    advance: (state, number) -> the state after so many steps, whose bits do not
      hang on how steps are divided; compiled, and nothing here waits for it.
    lanes: the seeds. The state may have more, which are not looked at.
    steps: the last step, counted from the start of training.
    save_every_steps: steps between two checkpoints; the last step has one too.
    part: (state of several lanes, number of one) -> its state; None: the state
      is that of the only lane, without the axis.
    most: steps in one call of `advance`.
    stopped: is called before each such call and look; True ends the run.
    unless_stopped: calls a look; returns its result, or None if it was ended
      early.

  Raises:
    Interrupted: `stopped` returned True; the states of all lanes are saved.
  """
  group = _Group(state, lanes, part)
  while True:
    probes = {
      seed: [due(seed.now, p.every_steps, steps) for p in seed.lane.probes]
      for seed in group.training
    }
    saves = [s for s in group.training if due(s.now, save_every_steps, steps)]
    looks = any(map(any, probes.values()))
    if saves or looks or not group.until_full():
      group.flush(state)
    for seed in saves:
      if seed in group.training:
        group.save(seed, state)
    for number in range(len(lanes[0].probes)):
      looking = [s for s in group.training if probes[s][number]]
      group.look(number, looking, state, stopped, unless_stopped)
    if group.training and stopped():
      # Rows first: a restart begins at this step and writes none before it.
      group.flush(state)
      group.stop(state)
    for seed in group.training:
      if seed.now >= steps:
        group.end(seed, Outcome('done', seed.now))
    if not group.training:
      return group.outcomes()
    number = min(most, group.until_full())
    for seed in group.training:
      periods = [save_every_steps, *(p.every_steps for p in seed.lane.probes)]
      number = min(number, _until_due(seed.now, periods, steps))
    state = advance(state, number)
    for seed in group.training:
      seed.now += number


class _Seed:
  """Where one lane stands.

  Attributes:
    number: of the lane.
    lane: its measures, and where their results go.
    now: the step that comes next.
    written: the rows of steps before it are written.
    outcome: None while it trains.
  """

  def __init__(self, number: int, lane: Lane, now: int):
    self.number, self.lane = number, lane
    self.now = self.written = now
    self.outcome: Outcome | None = None

  def write(self, record: Record) -> None:
    for sink in self.lane.sinks:
      sink.write(record)


class _Group:
  """Brings rows of metrics and looks from the device to the sinks, timed."""

  def __init__(
    self,
    state: State,
    lanes: Sequence[Lane],
    part: Callable[[State, int], State] | None,
  ):
    self._part = part
    self._ring_size = next(iter(state.ring.values())).shape[-1]
    steps = jax.device_get(state.step)
    self._seeds = [
      _Seed(i, lane, int(steps if part is None else steps[i]))
      for i, lane in enumerate(lanes)
    ]
    self._clock = time.perf_counter()  # the start of what is timed next

  @property
  def training(self) -> list[_Seed]:
    """Returns the seeds that have not ended."""
    return [seed for seed in self._seeds if seed.outcome is None]

  def outcomes(self) -> list[Outcome]:
    return [seed.outcome for seed in self._seeds]

  def until_full(self) -> int:
    """Returns how many steps overwrite no row that is not yet written."""
    rows = [seed.now - seed.written for seed in self.training]
    return self._ring_size - max(rows, default=0)

  def flush(self, state: State) -> None:
    """Writes the rows before now; ends the seeds whose steps were not finite.

    Their states are saved as they were before that step.
    """
    seeds = [seed for seed in self.training if seed.now > seed.written]
    if not seeds:
      return
    of_all = jax.device_get((state.finite, state.step, state.ring))
    frozen = []
    for seed in seeds:
      finite, step, ring = self._values_of(of_all, seed)
      # A frozen state is at the step that was not finite, and has its row.
      end = seed.now if finite else int(step) + 1
      for t in range(seed.written, end):
        row = {name: x[t % self._ring_size] for name, x in ring.items()}
        seed.write(Record(t, 'train', row))
      if not finite:
        frozen.append((seed, int(step)))
    seconds = self._lap() / len(seeds)
    for seed in seeds:
      self._time(seed, 'train', seconds, steps=seed.now - seed.written)
      seed.written = seed.now
    for seed, step in frozen:
      seed.lane.save(step, self._state_of(state, seed))
      self.end(seed, Outcome('diverged', step))

  def look(
    self, number: int, seeds: list[_Seed], state: State, stopped, unless_stopped
  ) -> None:
    """Computes and writes a measure of some seeds, unless ended early."""
    if not seeds:
      return
    look_at_all = seeds[0].lane.probes[number].look_at_all
    if look_at_all is not None and self._part is not None:
      if not stopped():
        self._clock = time.perf_counter()
        results = unless_stopped(lambda: look_at_all(state))
        if results is not None:
          for seed in seeds:
            self._keep(seed, number, results[seed.number])
          self._time_looks(seeds, number)
      return
    for seed in seeds:
      if not stopped():
        self._clock = time.perf_counter()
        look = functools.partial(
          seed.lane.probes[number].look, self._state_of(state, seed)
        )
        values = unless_stopped(look)
        if values is not None:
          self._keep(seed, number, values)
          self._time_looks([seed], number)

  def save(self, seed: _Seed, state: State) -> None:
    """Saves a state, and writes how long that took."""
    self._clock = time.perf_counter()
    seed.lane.save(seed.now, self._state_of(state, seed))
    self._time(seed, 'save', self._lap(), saves=1)

  def stop(self, state: State) -> None:
    """Saves all states; raises Interrupted unless all have ended."""
    seeds = self.training
    for seed in seeds:
      seed.lane.save(seed.now, self._state_of(state, seed))
    if seeds:
      raise errors.Interrupted(f'stopped at step {seeds[0].now}')

  def end(self, seed: _Seed, outcome: Outcome) -> None:
    seed.outcome = outcome
    seed.lane.ended(outcome)

  def _state_of(self, state: State, seed: _Seed) -> State:
    return state if self._part is None else self._part(state, seed.number)

  def _values_of(self, of_all: Any, seed: _Seed) -> Any:
    """Returns what the host has of one seed, from what it has of all."""
    if self._part is None:
      return of_all
    return jax.tree.map(lambda x: x[seed.number], of_all)

  def _keep(self, seed: _Seed, number: int, values: dict[str, Any]) -> None:
    probe = seed.lane.probes[number]
    record = Record(seed.now, probe.name, values, probe.conditions)
    if probe.arrays:
      seed.lane.arrays.write(record)
    else:
      seed.write(record)

  def _time_looks(self, seeds: list[_Seed], number: int) -> None:
    seconds = self._lap() / len(seeds)
    for seed in seeds:
      self._time(seed, seed.lane.probes[number].name, seconds, looks=1)

  def _lap(self) -> float:
    """Returns the seconds since what is timed began, and begins anew."""
    start, self._clock = self._clock, time.perf_counter()
    return self._clock - start

  def _time(self, seed: _Seed, name: str, seconds: float, **counts: int):
    values = {'seconds': seconds, **counts}
    seed.lane.timing.write(Record(seed.now, name, values))
