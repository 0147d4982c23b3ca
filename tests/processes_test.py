import contextlib
import threading
import time
from unittest import mock

import numpy as np
import strict  # noqa: F401
from absl.testing import absltest, parameterized

from bn_jax import errors, parallel, peers, processes, tasks

_SLURM = {
  'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'n[1-2]', 'SLURM_PROCID': '1',
  'SLURM_LOCALID': '0', 'SLURM_STEP_NUM_TASKS': '2',
}  # fmt: skip
_NOTHING = tasks.Place()
_BY_HAND = tasks.Place('host:1234', 2, 1)


class TasksTest(parameterized.TestCase):
  @parameterized.parameters(
    (_SLURM, ('SLURM', 2)),
    ({**_SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, None),
    ({'OMPI_COMM_WORLD_SIZE': '3', 'OMPI_COMM_WORLD_RANK': '0'},
     ('Open MPI', 3)),
    ({'OMPI_COMM_WORLD_SIZE': '1', 'OMPI_COMM_WORLD_RANK': '0'}, None),
    ({'KUBERNETES_SERVICE_HOST': 'a', 'JOB_COMPLETION_INDEX': '0'},
     ('Kubernetes', None)),
    ({'KUBERNETES_SERVICE_HOST': 'a'}, None),
    ({'TPU_WORKER_HOSTNAMES': 'a,b,c,d'}, ('TPU pod', 4)),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, None),
    ({'HOME': '/root'}, None),
  )  # fmt: skip
  def test_several_tasks_are_seen(self, environment, found):
    self.assertEqual(tasks.tasks(environment), found)

  def test_a_batch_script_is_no_task(self):
    script = {k: v for k, v in _SLURM.items() if 'STEP' not in k}
    script['SLURM_NTASKS'] = '8'
    self.assertIsNone(tasks.tasks(script))
    self.assertIsNone(tasks.place('auto', _NOTHING, script))


class PlaceTest(parameterized.TestCase):
  @parameterized.parameters(
    ('auto', _NOTHING, {}, None),
    ('off', _BY_HAND, _SLURM, None),
    ('auto', _BY_HAND, {}, _BY_HAND),
    ('auto', _BY_HAND._replace(num_processes=1, process_id=0), {}, None),
    ('auto', _NOTHING, _SLURM, _NOTHING._replace(num_processes=2)),
    ('on', _NOTHING, _SLURM, _NOTHING._replace(num_processes=2)),
    ('on', _NOTHING, {}, _NOTHING),  # jax asks the machine
    ('auto', tasks.Place(None, 2, 1),
     {'JAX_COORDINATOR_ADDRESS': 'host:1234'}, _BY_HAND),
  )  # fmt: skip
  def test_where_to_join(self, mode, given, environment, place):
    self.assertEqual(tasks.place(mode, given, environment), place)

  @parameterized.parameters(
    ('maybe', _NOTHING, "'maybe'; allowed: auto, on, off"),
    ('auto', tasks.Place(None, 2, None),
     '--coordinator_address and --process_id missing'),
    ('on', tasks.Place(None, 2, 0), '--coordinator_address missing'),
    ('auto', tasks.Place('host', 2, 0), "'host'; allowed: HOST:PORT"),
    ('auto', tasks.Place('host:1', 0, 0), '--num_processes: 0; allowed'),
    ('auto', tasks.Place('host:1', 2, 2), '--process_id: 2; allowed: 0 to'),
  )  # fmt: skip
  def test_flags_that_say_too_little(self, mode, given, said):
    with self.assertRaisesRegex(errors.ConfigError, said):
      tasks.place(mode, given, {})

  def test_kubernetes_is_asked_through_its_package(self):
    pod = {'KUBERNETES_SERVICE_HOST': 'a', 'JOB_COMPLETION_INDEX': '0'}
    finds = 'importlib.util.find_spec'
    with mock.patch(finds, return_value=None):
      self.assertIsNone(tasks.place('auto', _NOTHING, pod))
      with self.assertRaisesRegex(errors.ConfigError, 'pip install kubernetes'):
        tasks.place('on', _NOTHING, pod)
    with mock.patch(finds, return_value=object()):
      self.assertEqual(tasks.place('auto', _NOTHING, pod), _NOTHING)


class AloneTest(absltest.TestCase):
  def test_one_process_is_the_first_of_one(self):
    with processes.joined():
      self.assertEqual((processes.index(), processes.count()), (0, 1))
      self.assertTrue(processes.is_first())
      self.assertEqual(processes.agreed(lambda: (1, 2)), (1, 2))
      self.assertEqual(processes.in_turn(lambda: 5), 5)
      tree = {'a': np.ones(3)}
      self.assertIs(processes.broadcast(tree, tree), tree)
      asked = []
      stopping = processes.Stopping(lambda: bool(asked))
      self.assertFalse(stopping())
      asked.append(True)
      self.assertTrue(stopping())
      stopping.check()  # a look of one process is ended by its signal


class Store:
  """The key-value store of jax.distributed, in one process."""

  def __init__(self):
    self._values, self._changed = {}, threading.Condition()

  def key_value_set(self, key, value, allow_overwrite=False):
    with self._changed:
      if key in self._values and not allow_overwrite:
        raise RuntimeError('ALREADY_EXISTS')
      self._values[key] = value
      self._changed.notify_all()

  def blocking_key_value_get(self, key, milliseconds):
    with self._changed:
      there = self._changed.wait_for(
        lambda: key in self._values, milliseconds / 1000
      )
      if not there:
        raise RuntimeError('DEADLINE_EXCEEDED')
      return self._values[key]

  def key_value_dir_get(self, folder):
    with self._changed:
      return [(k, v) for k, v in self._values.items() if k.startswith(folder)]


class _Left(BaseException):
  """In the place of the end of a process."""


def in_threads(*functions):
  """What each gives, all at once."""
  found = [None] * len(functions)

  def run(i):
    found[i] = functions[i]()

  threads = [
    threading.Thread(target=run, args=(i,), daemon=True)
    for i in range(len(functions))
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(10)
    assert not thread.is_alive()
  return found


class PeersTest(parameterized.TestCase):
  """Three processes as threads, with a store in the place of jax's."""

  def setUp(self):
    super().setUp()
    self.gone = []  # (exit code, line) of those that left by themselves

    def leave(code, line=None):
      self.gone.append((code, line))
      raise _Left

    watch = peers.Peers._watch

    def watch_until_it_leaves(one):
      with contextlib.suppress(_Left):
        watch(one)

    for target in (
      mock.patch.object(peers, '_leave', leave),
      mock.patch.object(peers.Peers, '_watch', watch_until_it_leaves),
      mock.patch.object(peers.atexit, 'register'),
      mock.patch.multiple(
        peers, _BEAT=0.02, _TURN=0.02, _SILENCE=0.5, _SUSPECTED=0.2, _HEARD=0.1
      ),
    ):
      target.start()
      self.addCleanup(target.stop)
    self.store = Store()
    self.three = in_threads(
      *(lambda i=i: peers.Peers(self.store, i, 3) for i in range(3))
    )
    for one in self.three:
      self.addCleanup(one.close)

  @parameterized.parameters(
    ((4, None, None),), ((None, None, 9),), ((7, 3, None),), ((1, 1, 1),)
  )
  def test_all_stop_at_the_same_question(self, asked_at):
    def loop(one):
      poll = 1
      while not one.stopping(asked_at[one.index] == poll):
        time.sleep(0.003 * (1 + one.index))
        poll += 1
      # Whoever asks again hears the same.
      return poll, one.stopping(False)

    stops = in_threads(*(lambda one=one: loop(one) for one in self.three))
    self.assertLen({poll for poll, _ in stops}, 1)
    self.assertTrue(all(again for _, again in stops))
    asked = min(poll for poll in asked_at if poll is not None)
    self.assertGreater(stops[0][0], asked)

  def test_who_asks_last_of_all_stops_nobody(self):
    def loop(one):
      stopped = [one.stopping(poll == 4 == one.index + 2) for poll in range(5)]
      return any(stopped)

    # Process 2 is asked at the last question, when the others have answered it.
    for one in self.three[:2]:
      self.assertFalse(loop(one))
    self.assertFalse(loop(self.three[2]))

  def test_all_come_to_their_end_together(self):
    told = in_threads(*(lambda one=one: one.leave(None) for one in self.three))
    self.assertEqual(told, [False] * 3)
    self.assertEmpty(self.gone)

  def test_a_failure_of_all_is_told_once(self):
    def leave(one):
      return one.leave(peers.End(one.index, 2, 'no such key'))

    told = in_threads(*(lambda one=one: leave(one) for one in self.three))
    self.assertEqual(told, [False, True, True])

  def test_another_failure_is_told_too(self):
    lines = ('stopped', 'stopped', 'disk full')

    def leave(one):
      return one.leave(peers.End(one.index, 2, lines[one.index]))

    told = in_threads(*(lambda one=one: leave(one) for one in self.three))
    self.assertEqual(told, [False, True, False])

  @parameterized.parameters(0, 1)
  def test_a_failure_of_one_ends_the_others(self, by):
    end = peers.End(by, 6, 'disk full')
    self.assertEqual(self.three[by].leave(end, seconds=0.1), by > 0)
    time.sleep(0.3)
    line = f'{self.three[0].name(1)}: disk full'
    self.assertCountEqual(
      self.gone,
      [(6, None), (6, None)] if by == 0 else [(6, line), (6, None)],
    )
    self.assertTrue(self.three[by].ended)

  def test_one_that_gives_no_sign_of_life_is_named(self):
    self.three[2].close()
    time.sleep(1.2)
    line = f'{self.three[0].name(2)} is gone; start again to go on'
    self.assertCountEqual(self.gone, [(75, line), (75, None)])
    self.assertRegex(line, r'process 2 of 3 on \S+ \(pid \d+\) is gone')

  def test_after_a_failed_communication_it_is_looked_for_sooner(self):
    self.three[0]._silence = 30.0
    self.three[2].close()
    in_threads(self.three[1].suspect)
    time.sleep(0.5)
    self.assertLen(self.gone, 2)

  def test_nobody_is_gone_while_all_give_signs_of_life(self):
    self.three[0].suspect()
    time.sleep(0.6)
    self.assertEmpty(self.gone)

  def test_process_0_takes_the_store_with_it(self):
    def fails(*unused):
      raise RuntimeError('UNAVAILABLE')

    self.three[1]._client = mock.Mock(
      blocking_key_value_get=fails, key_value_set=fails
    )
    time.sleep(0.4)
    line = f'{self.three[0].name(0)} is gone; start again to go on'
    self.assertIn((75, line), self.gone)


class RowsTest(parameterized.TestCase):
  """Devices of two processes, whose numbers do not follow the processes."""

  DEVICES = tuple(
    mock.Mock(process_index=p, id=i, spec=['process_index', 'id'])
    for p, i in ((1, 0), (0, 3), (1, 1), (0, 2), (0, 4))
  )

  def test_each_process_has_equally_many_in_a_row(self):
    rows = parallel._in_rows(self.DEVICES, 4, 2)
    self.assertEqual(
      [(d.process_index, d.id) for d in rows], [(0, 2), (0, 3), (1, 0), (1, 1)]
    )

  @parameterized.parameters(1, 3, 5, 6)
  def test_no_process_has_more_than_another(self, count):
    with self.assertRaisesRegex(
      ValueError, f'devices is {count}; allowed: a multiple of the 2.*up to 4'
    ):
      parallel._in_rows(self.DEVICES, count, 2)


if __name__ == '__main__':
  absltest.main()
