"""The job that a scheduler runs: one command, its signals and its exit code.

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
    ended: the file to write at the end: {"job":, "exit_code":}.
    local: whether it runs on the machine of the launching process. It then
      passes signals on; a cluster sends them to every process of a job.
    visible: CUDA_VISIBLE_DEVICES of the command; None leaves it as it is.
      Without it, submitit's local jobs would see no GPU.
  """

  def __init__(
    self, command: Sequence[str], ended: str, *, local: bool, visible=None
  ):
    self._arguments = (tuple(command), ended, local, visible)
    self._process, self._asked = None, False

  def __call__(self) -> None:
    """Runs the command and exits with its exit code, if that is not 0."""
    import submitit

    command, ended, local, visible = self._arguments
    here = submitit.JobEnvironment()
    environment = dict(os.environ)
    if local:
      del environment['CUDA_VISIBLE_DEVICES']
      signal.signal(signal.SIGTERM, self._pass_on)
    if visible is not None:
      environment['CUDA_VISIBLE_DEVICES'] = visible
    self._process = subprocess.Popen(
      command, env=environment, start_new_session=local, preexec_fn=_signals
    )
    if self._asked:
      self._process.terminate()
    code = self._process.wait()
    if here.global_rank == 0:
      _write(ended, {'job': here.job_id, 'exit_code': code})
    if code:  # negative for a signal, which shells report as 128 + number
      sys.exit(code if code > 0 else 128 - code)

  def checkpoint(self):
    """Stops the command; returns the job to queue again, or None if it is done.

    submitit calls this at the end of the job's time, and when SLURM preempts
    it.
    """
    import submitit

    process = self._process
    process.send_signal(signal.SIGTERM)
    # This runs in a signal handler, perhaps within Popen.wait, which must not
    # be called again. WNOWAIT leaves the exit code to that call.
    end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    command, ended, local, visible = self._arguments
    again = Training(command, ended, local=local, visible=visible)
    # 75 is `errors.Interrupted.exit_code`, which cannot be imported here.
    interrupted = end.si_code == os.CLD_EXITED and end.si_status == 75
    return submitit.helpers.DelayedSubmission(again) if interrupted else None

  def _pass_on(self, number, frame) -> None:
    del frame
    self._asked = True
    if self._process is not None:
      self._process.send_signal(number)


def _signals() -> None:
  """Sets the signals of the command's process before it starts."""
  # SLURM sends submitit's signal to all processes of a job; it would kill
  # train.py.
  signal.signal(signal.SIGUSR2, signal.SIG_IGN)
  signal.signal(signal.SIGINT, signal.SIG_DFL)


def _write(path: str, content: dict) -> None:
  # As `storage.files.write` does, which cannot be imported here.
  file = pathlib.Path(path)
  temporary = file.with_name(f'{file.name}.{os.getpid()}.tmp')
  temporary.write_text(json.dumps(content))
  os.replace(temporary, file)
