"""Runs benchmarks: all of them, or one by its name.

  python -m benchmarks                        all; writes their results
  python -m benchmarks --write NAME [flags]   one; writes its results
  python -m benchmarks NAME [flags]           one
  python -m benchmarks --table                the newest results, as in README

Each is a script of this folder, and can be run as a file, too; its flags are
told by `python -m benchmarks NAME --help`. Those that compare with PyTorch and
its libraries need `pip install -r requirements-bench.txt`. Results go into
benchmarks/results/DEVICE-DATE.json, which keeps those of the other benchmarks
of that day.
"""

import datetime
import json
import pathlib
import runpy
import shlex
import subprocess
import sys
import tempfile

# Scripts import each other by their names.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import results

_FOLDER = pathlib.Path(__file__).resolve().parent
# Name, which is that of the script -> what is compared with what.
BENCHMARKS = {
  'analysis': "measures of the 2018 paper: PyTorch's values and times",
  'batches': 'batches from memory and their augmentation: the step',
  'curvature': 'eigenvalues, densities, surfaces: five peers, values first',
  'input': 'streams of images: bare decoding; folders: an array_record',
  'loops': 'gradients inside a loop of the program: outside',
  'norm_layer': "one BN layer, forward and backward: flax's and PyTorch's",
  'probes': "looks of the quickstart's measures: its training",
  'rounding': 'each lowering in float32: float64',
  'saves': 'how long a save delays training',
  'second_start': 'a start with compiled programs kept: the first start',
  'train_step': "training steps of four networks: PyTorch's, stock flax's",
}
_MACHINE = """
import importlib.metadata, json, os, platform, jax
device = jax.devices()[0]
kind = device.device_kind
if device.platform == 'cpu':
  kind = f'{os.cpu_count()} CPU cores'
versions = {'python': platform.python_version()}
for name in ('jax', 'flax', 'torch'):
  try:
    versions[name] = importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    pass
print(json.dumps({'device': kind, 'versions': versions}))
"""


def main() -> None:
  words = sys.argv[1:]
  if words[:1] in (['-h'], ['--help']):
    print(__doc__)
    for benchmark, what in BENCHMARKS.items():
      print(f'  {benchmark:14s}{what}')
  elif words == ['--table']:
    print(results.table())
  elif not words or words == ['--write']:
    _write({name: [] for name in BENCHMARKS})
  elif words[0] == '--write':
    _write({_known(words[1]): words[2:]})
  else:
    name, *flags = words
    script = str(_FOLDER / f'{_known(name)}.py')
    sys.argv = [script, *flags]
    runpy.run_path(script, run_name='__main__')


def _known(name: str) -> str:
  if name not in BENCHMARKS:
    raise SystemExit(
      f'error: there is no benchmark {name!r}; allowed: {", ".join(BENCHMARKS)}'
    )
  return name


def _write(commands: dict[str, list[str]]) -> None:
  """Runs benchmarks one after the other, and keeps the rows of each."""
  machine = json.loads(
    subprocess.run(
      [sys.executable, '-c', _MACHINE],
      check=True,
      stdout=subprocess.PIPE,
      text=True,
    ).stdout
  )
  date = datetime.date.today()
  path = results.path(machine['device'], date)
  failed = []
  for name, flags in commands.items():
    command = ['-m', 'benchmarks', name, *flags]
    print(f'== python {shlex.join(command)}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
      kept = pathlib.Path(folder) / 'rows.jsonl'
      code = subprocess.run(
        [sys.executable, *command],
        cwd=_FOLDER.parent,
        env=results.environment(kept),
      ).returncode
      benchmark = {
        'command': shlex.join(['python', *command]),
        'exit': code,
        'rows': results.rows(kept),
      }
    results.write(path, name, benchmark, {**machine, 'date': str(date)})
    failed += [name] if code else []
  print(f'results: {path.relative_to(_FOLDER.parent)}')
  if failed:
    raise SystemExit(f'error: these ended with an error: {", ".join(failed)}')


if __name__ == '__main__':
  main()
