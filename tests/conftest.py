"""Lets absltest's temporary directories work, and compiles each program once.

All processes of one call of pytest, and those that tests start, share the
programs that they compile. The folder is new at each call and gone after it, so
that every program is compiled once by the code under test.
"""

import os
import shutil
import tempfile

import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()
_FOLDER = 'JAX_COMPILATION_CACHE_DIR'
_made = []


def pytest_configure(config: pytest.Config) -> None:
  # Here JAX is not imported yet. A worker has it from whoever started it.
  if _FOLDER in os.environ or hasattr(config, 'workerinput'):
    return
  _made.append(tempfile.mkdtemp(prefix='bn_jax_programs_'))
  os.environ[_FOLDER] = _made[0]
  # Keeping what is compiled sooner takes as long as compiling it.
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'


def pytest_unconfigure() -> None:
  for folder in _made:
    shutil.rmtree(folder, ignore_errors=True)
