"""Runs one command as a job of a scheduler: its signals and its exit code.

This module is pickled by value, so it runs where bn_jax cannot be imported.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence


class Training:
  """One command of train.py as a job of submitit.

  Args:
    command: the command line, split into words.
    ended: paths of files to write at the end, of each run and seed that the
      command trains: {"job": ..., "exit_code": ...}.
    local: whether the job runs on the machine that launches it. It then passes
      signals on to the command; a cluster signals every process of a job.
    visible: CUDA_VISIBLE_DEVICES of the command; without it, submitit's local
      jobs would see no GPU. None unsets it if `local`, else leaves it.
  """

  def __init__(
    self,
    command: Sequence[str],
    ended: Sequence[str],
    *,
    local: bool,
    visible=None,
  ):
    self._arguments = (tuple(command), tuple(ended), local, visible)
    self._process, self._has_signal = None, False

  def __call__(self) -> None:
    """Runs the command and exits with its exit code, if that is not 0."""
    import submitit

    command, ended, local, visible = self._arguments
    job_environment = submitit.JobEnvironment()
    environment = dict(os.environ)
    if local:
      del environment['CUDA_VISIBLE_DEVICES']
      signal.signal(signal.SIGTERM, self._pass_on)
    if visible is not None:
      environment['CUDA_VISIBLE_DEVICES'] = visible
    self._process = subprocess.Popen(
      command, env=environment, start_new_session=local, preexec_fn=_signals
    )
    if self._has_signal:
      self._process.terminate()
    code = self._process.wait()
    if job_environment.global_rank == 0:
      for path in ended:
        _write(path, {'job': job_environment.job_id, 'exit_code': code})
    if code:  # negative for a signal, which shells report as 128 + number
      sys.exit(code if code > 0 else 128 - code)

  def checkpoint(self):
    """Stops the command; returns the job to queue again if it was interrupted.

    submitit calls this at the end of the job's time, and when SLURM preempts
    the job. None, after any other end of the command, queues nothing.
    """
    import submitit

    process = self._process
    process.send_signal(signal.SIGTERM)
    # This runs in a signal handler, perhaps within Popen.wait, which must not
    # be called again. WNOWAIT leaves the exit code to that call.
    end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    command, ended, local, visible = self._arguments
    job = Training(command, ended, local=local, visible=visible)
    # 75 is `errors.Interrupted.exit_code`, which cannot be imported here.
    is_interrupted = end.si_code == os.CLD_EXITED and end.si_status == 75
    return submitit.helpers.DelayedSubmission(job) if is_interrupted else None

  def _pass_on(self, number, frame) -> None:
    del frame
    self._has_signal = True
    if self._process is not None:
      self._process.send_signal(number)


def _signals() -> None:
  """Sets the signals of the command's process before it starts."""
  # SLURM sends the signal that is meant for submitit to all processes of a job;
  # it would kill train.py.
  signal.signal(signal.SIGUSR2, signal.SIG_IGN)
  signal.signal(signal.SIGINT, signal.SIG_DFL)


def _write(path: str, content: dict) -> None:
  # As `storage.files.write` does, which cannot be imported here.
  file = pathlib.Path(path)
  temporary = file.with_name(f'{file.name}.{os.getpid()}.tmp')
  temporary.write_text(json.dumps(content))
  os.replace(temporary, file)
