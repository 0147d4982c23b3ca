"""What every test of JAX code imports: strict modes, and the repository root.

The root is put on the path so that a test file also runs by itself.
"""

import pathlib
import sys

import jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
  sys.path.insert(0, str(ROOT))

# Broadcasting a [C] against a [N, C] is where normalizations go wrong.
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
# One process can test layouts on 1 to 8 devices; a program for one device is
# not touched by it.
jax.config.update('jax_num_cpu_devices', 8)
