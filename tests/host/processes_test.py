import contextlib
import os
import signal
import socket
import threading
import time
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from jax._src import distributed as jax_distributed

from bn_jax import errors
from bn_jax.host import cluster, distributed, processes
from bn_jax.host import watch as watch_lib
from bn_jax.training import devices
from tests.fixtures import strict  # noqa: F401

_SLURM = {
  'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'n[1-2]', 'SLURM_PROCID': '1',
  'SLURM_LOCALID': '0', 'SLURM_STEP_NUM_TASKS': '2',
}  # fmt: skip
_NOTHING = cluster.Place()
_BY_HAND = cluster.Place('host:1234', 2, 1)
_POD = {'KUBERNETES_SERVICE_HOST': 'a', 'JOB_COMPLETION_INDEX': '0'}


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
    self.assertEqual(cluster.tasks(environment), found)

  def test_a_batch_script_is_no_task(self):
    script = {k: v for k, v in _SLURM.items() if 'STEP' not in k}
    script['SLURM_NTASKS'] = '8'
    self.assertIsNone(cluster.tasks(script))
    self.assertIsNone(cluster.place('auto', _NOTHING, script))


class PlaceTest(parameterized.TestCase):
  @parameterized.parameters(
    ('auto', _NOTHING, {}, None),
    ('off', _BY_HAND, _SLURM, None),
    ('auto', _BY_HAND, {}, _BY_HAND),
    ('auto', _BY_HAND._replace(num_processes=1, process_id=0), {}, None),
    ('auto', _NOTHING, _SLURM, _NOTHING._replace(num_processes=2)),
    ('on', _NOTHING, _SLURM, _NOTHING._replace(num_processes=2)),
    # 24.9: Open MPI 5 tells jax nothing more.
    ('auto', _NOTHING,
     {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '1',
      'JAX_COORDINATOR_ADDRESS': 'a:1'}, cluster.Place('a:1', 2, 1)),
    ('on', _NOTHING, {}, _NOTHING),  # jax asks the machine
    ('auto', cluster.Place(None, 2, 1),
     {'JAX_COORDINATOR_ADDRESS': 'host:1234'}, _BY_HAND),
    ('auto', _NOTHING, {'JAX_COORDINATOR_ADDRESS': 'host'}, None),
  )  # fmt: skip
  def test_where_to_join(self, mode, given, environment, place):
    self.assertEqual(cluster.place(mode, given, environment), place)

  @parameterized.parameters(
    ('maybe', _NOTHING, "'maybe'; allowed: auto, on, off"),
    ('auto', cluster.Place(None, 2, None),
     '--coordinator_address and --process_id missing'),
    ('on', cluster.Place(None, 2, 0), '--coordinator_address missing'),
    ('auto', cluster.Place('host:1', None, None),
     '--num_processes and --process_id missing'),
    ('auto', cluster.Place('host', 2, 0), "'host'; allowed: HOST:PORT"),
    ('auto', cluster.Place(':23478', 2, 0), "':23478'; allowed: HOST:PORT"),
    ('auto', cluster.Place('host:65536', 2, 0), "'host:65536'; allowed"),
    ('auto', cluster.Place('host:1', 0, 0), '--num_processes: 0; allowed'),
    ('auto', cluster.Place('host:1', 2, 2), '--process_id: 2; allowed: 0 to'),
    ('auto', cluster.Place('host', None, None), "'host'; allowed", _SLURM),
    ('auto', cluster.Place(None, 0, None), '--num_processes: 0', _SLURM),
  )  # fmt: skip
  def test_flags_that_say_too_little(self, mode, given, said, seen=()):
    with self.assertRaisesRegex(errors.ConfigError, said):
      cluster.place(mode, given, dict(seen))

  def test_kubernetes_is_asked_through_its_package(self):
    finds = 'importlib.util.find_spec'
    with mock.patch(finds, return_value=None):
      with self.assertLogs('bn_jax', 'WARNING') as said:
        self.assertIsNone(cluster.place('auto', _NOTHING, _POD))
      self.assertRegex(said.output[0], 'trains alone.*pip install kubernetes')
      few = cluster.Place('host:1', None, None)
      for mode, given in (('on', _NOTHING), ('auto', few)):
        with self.assertRaisesRegex(errors.ConfigError, 'pip install kuber'):
          cluster.place(mode, given, _POD)
      self.assertEqual(cluster.place('auto', _BY_HAND, _POD), _BY_HAND)
    with mock.patch(finds, return_value=object()):
      self.assertEqual(cluster.place('auto', _NOTHING, _POD), _NOTHING)


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


class RuntimeTest(parameterized.TestCase):
  def test_a_signal_ends_the_waiting_from_a_thread(self):
    left = []

    def leave():
      left.append(threading.current_thread())

    fds = [signal.set_wakeup_fd(-1)]
    signal.set_wakeup_fd(fds[0])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
      old = signal.signal(number, lambda *unused: None)
      self.addCleanup(signal.signal, number, old)
    with distributed.ended_by_signals(leave):
      for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    # Its end waits for the thread, which has read all by then.
    self.assertLen(left, 2)
    self.assertNotIn(threading.main_thread(), left)
    fds.append(signal.set_wakeup_fd(fds[0]))
    self.assertEqual(fds[0], fds[1])

  @parameterized.parameters(
    (KeyboardInterrupt(), KeyboardInterrupt, ''),
    (errors.ConfigError('port 1 is in use'), errors.ConfigError, '^port 1'),
    (
      ValueError('no number'),
      errors.ConfigError,
      r'which this is \(no number\); give --coordinator_address=HOST:PORT',
    ),
    (RuntimeError('DEADLINE'), errors.Interrupted, 'in 7 s .DEADLINE.; see'),
  )
  def test_a_meeting_in_vain_leaves_nothing_to_wait_for(self, why, kind, said):
    state = jax_distributed.global_state
    with (
      mock.patch.dict(os.environ),
      mock.patch.object(jax.config, 'update'),
      mock.patch.object(jax.distributed, 'initialize', side_effect=why),
      mock.patch.multiple(state, client='a client', service='a service'),
    ):
      with self.assertRaisesRegex(kind, said):
        distributed.join(_BY_HAND, 7, lambda: None)
      self.assertIsNone(state.client)
      self.assertIsNone(state.service)

  @parameterized.parameters('127.0.0.1', '')
  def test_a_port_that_is_taken_is_named(self, host):
    with socket.socket() as other:
      other.bind((host, 0))
      port = other.getsockname()[1]
      other.listen()
      said = f'--coordinator_address: port {port} is in use'
      for at in ('[::]', '127.0.0.1'):
        with self.assertRaisesRegex(errors.ConfigError, said):
          distributed._check_free(f'{at}:{port}')
    for at in ('[::]', '127.0.0.1'):
      distributed._check_free(f'{at}:{port}')

  def test_where_there_is_no_ipv6_a_port_is_looked_at_too(self):
    make = socket.socket

    def without(family=socket.AF_INET, *arguments):
      if family == socket.AF_INET6:
        raise OSError(97, 'not supported')
      return make(family, *arguments)

    with make() as other, mock.patch.object(socket, 'socket', without):
      other.bind(('', 0))
      other.listen()
      with self.assertRaisesRegex(errors.ConfigError, 'is in use'):
        distributed._check_free(f'[::]:{other.getsockname()[1]}')


class LeaveTest(absltest.TestCase):
  def test_nobody_who_listens_is_no_reason_to_stay(self):
    class Gone(Exception):
      pass

    gone, out = mock.Mock(), mock.Mock()
    gone.write.side_effect = gone.flush.side_effect = BrokenPipeError
    with (
      mock.patch.object(watch_lib.sys, 'stderr', gone),
      mock.patch.object(watch_lib.sys, 'stdout', out),
      mock.patch.object(watch_lib, '_last_words', threading.Lock()),
      mock.patch.object(watch_lib.os, '_exit', side_effect=Gone) as left,
      self.assertRaises(Gone),
    ):
      watch_lib.leave_at_once(75, 'a line')
    left.assert_called_once_with(75)
    out.flush.assert_called_once_with()


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

    watch = watch_lib.Peers._watch

    def watch_until_it_leaves(one):
      with contextlib.suppress(_Left):
        watch(one)

    for target in (
      mock.patch.object(watch_lib, 'leave_at_once', leave),
      mock.patch.object(watch_lib.Peers, '_watch', watch_until_it_leaves),
      mock.patch.object(watch_lib.atexit, 'register'),
      mock.patch.multiple(
        watch_lib,
        _BEAT=0.02,
        _TURN=0.02,
        _SILENCE=0.5,
        _SUSPECTED=0.2,
        _HEARD=0.1,
      ),
    ):
      target.start()
      self.addCleanup(target.stop)
    self.store = Store()
    self.three = in_threads(
      *(lambda i=i: watch_lib.Peers(self.store, i, 3) for i in range(3))
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
      return one.leave(watch_lib.End(one.index, 2, 'no such key'))

    told = in_threads(*(lambda one=one: leave(one) for one in self.three))
    self.assertEqual(told, [False, True, True])

  def test_another_failure_is_told_too(self):
    lines = ('stopped', 'stopped', 'disk full')

    def leave(one):
      return one.leave(watch_lib.End(one.index, 2, lines[one.index]))

    told = in_threads(*(lambda one=one: leave(one) for one in self.three))
    self.assertEqual(told, [False, True, False])

  @parameterized.parameters(0, 1)
  def test_a_failure_of_one_ends_the_others(self, by):
    end = watch_lib.End(by, 6, 'disk full')
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

  def test_in_process_0_the_runtime_ends_by_itself(self):
    with self.assertRaises(_Left):
      self.three[0].lost()
    line = 'the runtime of jax ended without a reason'
    self.assertEqual(self.gone, [(1, line)])

  def test_a_slow_store_is_not_a_lost_one(self):
    told = []

    def taken(key, value, **unused):
      told.append((key, value))
      if len(told) == 1:
        raise RuntimeError('ALREADY_EXISTS')

    def slow(key, milliseconds):
      if milliseconds < 1000:
        raise RuntimeError('DEADLINE_EXCEEDED')
      return '{}'

    one = self.three[1]
    one.close()
    one._client = mock.Mock(key_value_set=taken, blocking_key_value_get=slow)
    one._tell({'stop': 1})
    self.assertEqual(
      told,
      [(f'bn_jax/event/{place}', '{"stop": 1}') for place in (0, 1)],
    )

  def test_one_that_never_says_who_it_is_ends_the_meeting(self):
    said = 'process 1 has not introduced itself within 0.1 s; start again'
    with (
      mock.patch.object(watch_lib, '_MEETING', 0.1),
      self.assertRaisesRegex(errors.Interrupted, said),
    ):
      watch_lib.Peers(Store(), 0, 2)
    watch_lib.atexit.register.assert_called_once_with(
      watch_lib.leave_at_once, 75
    )

  def test_process_0_may_go_in_the_midst_of_the_meeting(self):
    fails = mock.Mock(side_effect=RuntimeError('UNAVAILABLE'))
    store = mock.Mock(key_value_set=fails)
    with self.assertRaisesRegex(errors.Interrupted, 'process 0 is gone'):
      watch_lib.Peers(store, 1, 2)
    with self.assertRaisesRegex(RuntimeError, 'UNAVAILABLE'):
      watch_lib.Peers(store, 0, 2)

  def test_the_runtime_that_ends_before_the_meeting_does(self):
    with (
      mock.patch.object(processes, '_PATIENCE', 0.0),
      self.assertRaises(_Left),
    ):
      processes._lost()
    line = 'process 0 is gone; start again to go on'
    self.assertEqual(self.gone, [(75, line)])


class RowsTest(parameterized.TestCase):
  """Devices of two processes, whose numbers do not follow the processes."""

  DEVICES = tuple(
    mock.Mock(process_index=p, id=i, spec=['process_index', 'id'])
    for p, i in ((1, 0), (0, 3), (1, 1), (0, 2), (0, 4))
  )

  def test_each_process_has_equally_many_in_a_row(self):
    rows = devices._in_rows(self.DEVICES, 4, 2)
    self.assertEqual(
      [(d.process_index, d.id) for d in rows], [(0, 2), (0, 3), (1, 0), (1, 1)]
    )

  @parameterized.parameters(1, 3, 5, 6)
  def test_no_process_has_more_than_another(self, count):
    with self.assertRaisesRegex(
      ValueError, f'devices is {count}; allowed: a multiple of the 2.*up to 4'
    ):
      devices._in_rows(self.DEVICES, count, 2)


if __name__ == '__main__':
  absltest.main()
