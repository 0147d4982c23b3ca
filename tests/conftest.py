"""Lets absltest's temporary directories work, and saves compilation.

All processes of one call of pytest, and those that tests start, share the
programs that they compile. The folder is new at each call and gone after it, so
that every program is compiled once by the code under test.

The fast suite compiles in ways of XLA that take less time; with the slow tests
(`make test-all`) programs are compiled as they are outside of tests, except in
modules that leave optimizations out themselves.
"""

import importlib.metadata
import os
import shutil
import sys
import tempfile

import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()
_FOLDER = 'JAX_COMPILATION_CACHE_DIR'
# Of XLA: the fusions of a program are one module of LLVM. Up to 0.10 its older
# way from fusions to LLVM, without MLIR, takes half the time; newer versions
# have it no more, and end at a flag that they do not know.
_XLA_FLAGS = '--xla_cpu_parallel_codegen_split_count=1'
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  _XLA_FLAGS += ' --xla_cpu_use_fusion_emitters=false'
_made = []


def pytest_configure(config: pytest.Config) -> None:
  # Here JAX is not imported yet. A worker has it from whoever started it.
  if _FOLDER in os.environ or hasattr(config, 'workerinput'):
    return
  _made.append(tempfile.mkdtemp(prefix='bn_jax_programs_'))
  os.environ[_FOLDER] = _made[0]
  # Keeping what is compiled sooner takes as long as compiling it.
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
  if _is_fast(config):
    given = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{_XLA_FLAGS} {given}'


@pytest.fixture(autouse=True, scope='module')
def _compile_sooner(request: pytest.FixtureRequest) -> None:
  """Leaves most optimizations out; a module may ask for them again."""
  if 'jax' in sys.modules and _is_fast(request.config):
    import jax

    jax.config.update('jax_disable_most_optimizations', True)


def _is_fast(config: pytest.Config) -> bool:
  return config.option.markexpr == 'not slow'


def pytest_unconfigure() -> None:
  for folder in _made:
    shutil.rmtree(folder, ignore_errors=True)
