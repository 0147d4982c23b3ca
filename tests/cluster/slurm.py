"""A SLURM of one node on this machine, for tests: Debian's, and nothing of it
stays.

Its daemons have ports, keys and folders of their own, so a SLURM that runs
here already is not touched.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

_PACKAGES = ('slurm-wlm', 'munge')
_PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'srun', 'sbatch', 'squeue')
_CPUS = 2
_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
"""


def why_not() -> str | None:
  """Why there can be no SLURM here; None if there can. Installs it."""
  if _missing() and (os.geteuid() or shutil.which('apt-get') is None):
    return f'needs root and apt-get, to install {" and ".join(_PACKAGES)}'
  if os.geteuid():
    return 'slurmd needs root'
  if _missing():
    environment = dict(os.environ, DEBIAN_FRONTEND='noninteractive')
    for words in (('update',), ('install', '-y', *_PACKAGES)):
      done = subprocess.run(
        ['apt-get', '-q', *words], env=environment, capture_output=True,
        text=True, timeout=600,
      )  # fmt: skip
      if done.returncode:
        return f'apt-get {words[0]}: {done.stderr.strip()[-200:]}'
  return f'there is no {", ".join(_missing())}' if _missing() else None


def _missing() -> list[str]:
  return [name for name in _PROGRAMS if shutil.which(name) is None]


@contextlib.contextmanager
def cluster(folder: pathlib.Path) -> Iterator[dict[str, str]]:
  """The environment in which srun, sbatch, ... reach a SLURM of two CPUs.

  Args:
    folder: an empty one, for its state and logs, below none that are closed to
      others: munged asks for that.
  """
  host = socket.gethostname().partition('.')[0]
  conf = folder / 'slurm.conf'
  conf.write_text(
    _CONF.format(host=host, folder=folder, ports=_free_ports(), cpus=_CPUS)
  )
  for name in ('state', 'spool'):
    (folder / name).mkdir()
  environment = dict(os.environ, SLURM_CONF=str(conf))
  key = folder / 'munge.key'
  key.write_bytes(os.urandom(128))
  key.chmod(0o400)
  folder.chmod(0o755)
  munge = [f'--{k}={folder}/munge.{v}' for k, v in (
    ('socket', 'socket'), ('key-file', 'key'), ('log-file', 'log'),
    ('pid-file', 'pid'), ('seed-file', 'seed'),
  )]  # fmt: skip
  daemons = []
  try:
    for command in (
      ['munged', '--foreground', *munge],
      ['slurmctld', '-D', '-c'],
      ['slurmd', '-D', '-N', host],
    ):
      daemons.append(_start(command, folder, environment))
      time.sleep(0.5)
    _wait_until_idle(environment)
    yield environment
  finally:
    _stop(daemons, environment)


def _start(command, folder, environment) -> subprocess.Popen:
  log = (folder / f'{command[0]}.out').open('w')
  with log:
    return subprocess.Popen(
      command, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def _wait_until_idle(environment) -> None:
  end = time.monotonic() + 60
  while time.monotonic() < end:
    done = _run(['sinfo', '--noheader', '--format=%T'], environment)
    if done.stdout.strip() == 'idle':
      return
    time.sleep(0.5)
  folder = pathlib.Path(environment['SLURM_CONF']).parent
  logs = [
    f'{path.name}: {path.read_text()[-1000:]}'
    for suffix in ('out', 'log')
    for path in sorted(folder.glob(f'*.{suffix}'))
  ]
  raise RuntimeError('the node does not come up:\n' + '\n'.join(logs))


def _stop(daemons, environment) -> None:
  """Ends the jobs, then the daemons, then whatever is left of either."""
  with contextlib.suppress(subprocess.TimeoutExpired):
    _run(['scancel', '--signal=KILL', '--user=root'], environment)
    _run(['scancel', '--user=root'], environment)
  for daemon in reversed(daemons):
    daemon.terminate()
    try:
      daemon.wait(timeout=20)
    except subprocess.TimeoutExpired:
      daemon.kill()
      daemon.wait()
  for process in _ours(environment['SLURM_CONF']):
    with contextlib.suppress(ProcessLookupError):
      os.kill(process, signal.SIGKILL)


def _ours(conf: str) -> list[int]:
  """The processes that were started with this very configuration."""
  wanted = f'SLURM_CONF={conf}'.encode()
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
    with contextlib.suppress(OSError):
      if wanted in path.read_bytes().split(b'\0'):
        found.append(int(path.parent.name))
  return [process for process in found if process != os.getpid()]


def _run(command, environment) -> subprocess.CompletedProcess:
  return subprocess.run(
    command, env=environment, capture_output=True, text=True, timeout=30
  )


def _free_ports() -> list[int]:
  with contextlib.ExitStack() as stack:
    made = [stack.enter_context(socket.socket()) for _ in range(2)]
    for one in made:
      one.bind(('127.0.0.1', 0))
    return [one.getsockname()[1] for one in made]
