"""What a scheduler runs: one command, with signals and its exit code noted.

It is pickled as code, so it needs nothing of bn_jax where it runs.
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
    command: its words.
    ended: the file to write at the end: {"job":, "exit_code":}.
    local: whether it runs below the process that started it. Then signals are
      passed on; a cluster sends them to every process of a job by itself.
    visible: CUDA_VISIBLE_DEVICES of the command; None leaves it as it is.
      submitit's local jobs would see no GPU.
  """

  def __init__(
    self, command: Sequence[str], ended: str, *, local: bool, visible=None
  ):
    self._given = (tuple(command), ended, local, visible)
    self._process, self._asked = None, False

  def __call__(self) -> None:
    """Runs the command to its end; a failure is the exit code of the job."""
    import submitit

    command, ended, local, visible = self._given
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
    if code:
      sys.exit(code if code > 0 else 128 - code)

  def checkpoint(self):
    """submitit asks at the end of the job's time, or when it must make room.

    Returns:
      The same job, to be queued again; None if the command needs that no more.
    """
    import submitit

    process = self._process
    process.send_signal(signal.SIGTERM)
    # Whoever is interrupted here may be within Popen.wait, which is not to be
    # called twice: this one looks without taking the exit code away.
    end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    command, ended, local, visible = self._given
    again = Training(command, ended, local=local, visible=visible)
    interrupted = end.si_code == os.CLD_EXITED and end.si_status == 75
    return submitit.helpers.DelayedSubmission(again) if interrupted else None

  def _pass_on(self, number, frame) -> None:
    del frame
    self._asked = True
    if self._process is not None:
      self._process.send_signal(number)


def _signals() -> None:
  """In the command's process: no signals but those that are meant for it."""
  # A cluster sends it to all of a job, and it would end train.py.
  signal.signal(signal.SIGUSR2, signal.SIG_IGN)
  signal.signal(signal.SIGINT, signal.SIG_DFL)


def _write(path: str, content: dict) -> None:
  # As `storage.files` does, which is not there: this module travels to the job
  # by value, where bn_jax need not be found.
  file = pathlib.Path(path)
  temporary = file.with_name(f'{file.name}.{os.getpid()}.tmp')
  temporary.write_text(json.dumps(content))
  os.replace(temporary, file)
