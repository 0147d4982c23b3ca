"""Runs a benchmark by its name: python -m benchmarks NAME [flags].

Each is a script of this folder, and can be run as a file, too; its flags are
told by `python -m benchmarks NAME --help`. Those that compare with PyTorch and
its libraries need `pip install -r requirements-bench.txt`.
"""

import pathlib
import runpy
import sys

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
  'train_step': "a training step of VGG-11: stock flax's",
}


def main() -> None:
  name, *flags = sys.argv[1:] or ['--help']
  if name in ('-h', '--help'):
    print(__doc__)
    for benchmark, what in BENCHMARKS.items():
      print(f'  {benchmark:14s}{what}')
    return
  if name not in BENCHMARKS:
    raise SystemExit(
      f'error: there is no benchmark {name!r}; allowed: {", ".join(BENCHMARKS)}'
    )
  script = str(_FOLDER / f'{name}.py')
  sys.argv = [script, *flags]
  sys.path.insert(0, str(_FOLDER))  # scripts import each other by their names
  runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
  main()
