"""Runs benchmarks: all of them, or one by its name.

  python -m benchmarks                        all; writes their results
  python -m benchmarks --write NAME [flags]   one; writes its results
  python -m benchmarks NAME [flags]           one
  python -m benchmarks --table                the newest, as in docs/speed.md

Each is a script of this folder, and can be run as a file, too; its flags are
told by `python -m benchmarks NAME --help`. Those that compare with PyTorch and
its libraries need `pip install -r requirements-bench.txt`. Results go into
benchmarks/results/DEVICE-DATE.json, which keeps those of the other benchmarks
of that day.
"""

import pathlib
import runpy
import sys

# Scripts import each other by their names.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import results

_FOLDER = pathlib.Path(__file__).resolve().parent
# Name, which is that of the script -> what is compared with what.
BENCHMARKS = {
  'accelerator': 'what a GPU or a TPU should measure, in some minutes',
  'analysis': "measures of the 2018 paper: PyTorch's values and times",
  'batches': 'batches from memory and their augmentation: the step',
  'compiled': 'steps compiled for an H200 or a v5e that is not there',
  'curvature': 'eigenvalues, densities, surfaces: five peers, values first',
  'input': 'streams of images: bare decoding; folders: an array_record',
  'loops': 'gradients inside a loop of the program: outside',
  'norm_layer': "one BN layer, forward and backward: flax's and PyTorch's",
  'probes': "looks of the quickstart's measures: its training",
  'rounding': 'each lowering in float32: float64',
  'saves': 'how long a save delays training',
  'seeds': 'seeds in one program: one after the other',
  'second_start': 'a start with compiled programs kept: the first start',
  'train_step': "training steps of four networks: PyTorch's, stock flax's",
}


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
  machine = results.machine()
  path = results.path(machine['device'], machine['date'])
  failed = [
    name
    for name, flags in commands.items()
    if results.measure(path, name, ('-m', 'benchmarks', name, *flags), machine)
  ]
  print(f'results: {path.relative_to(_FOLDER.parent)}')
  if failed:
    raise SystemExit(f'error: these ended with an error: {", ".join(failed)}')


if __name__ == '__main__':
  main()
