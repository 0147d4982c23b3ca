"""Chooses parts of the parameters whose curvature is looked at by itself.

The block of a Hessian that belongs to some parameters is the Hessian of the
loss as a function of these alone. Its eigenvalues lie between the smallest and
the largest of the whole (Cauchy's interlacing theorem).
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from bn_jax import checks, trees
from bn_jax.analysis import by_layer

NAMES = ('all', 'norms', 'others')
# What modules of norms are called: 'norm' is a word of the name (norm1,
# conv1_norm, norm_2a) or its end (BatchNorm_0, layernorm), but not the
# beginning of a word (normal_conv); 'bn' is what torchvision calls them (bn1).
_NORM = re.compile(
  r'(^|_)norms?(_|\d|$)|norm(ali[sz]ation)?(_?\d+)?$|^bn_?\d*$', re.IGNORECASE
)
# Names of one array: how a kernel is scaled (conv1_weight/scale) is no norm.
_SCALE, _OF_A_KERNEL = 'scale', '_weight'
_THRESHOLD = '_unit/tau'  # of the nonlinearity that belongs to a norm
_KERNELS = ('kernel', 'weight')


class Block(NamedTuple):
  """Parameters that are looked at together.

  Attributes:
    name: 'all', 'norms', 'others' or that of a layer.
    paths: '/'-joined paths into the tree of parameters, of whole arrays or of
      what is above them.
  """

  name: str
  paths: tuple[str, ...]

  def key(self, quantity: str) -> str:
    """Returns under which name a record has a quantity of this block."""
    return quantity if self.name == 'all' else f'{self.name}/{quantity}'


def check(names: Any) -> None:
  """Checks the keyword `blocks`; raises checks.Refused."""
  checks.sequence(
    'blocks', names, lambda name: isinstance(name, str) and name in NAMES,
    f'a list or tuple of {", ".join(map(repr, NAMES))}',
  )  # fmt: skip


def of(
  params: Any,
  layers: Sequence[tuple[str, Sequence[str]]] = (),
  names: Sequence[str] = ('all',),
) -> tuple[Block, ...]:
  """Returns the blocks of these names, then one of each layer.

  Args:
    params: any tree of arrays.
    layers: ((name, paths), ...), as `Problem.layers` gives them.
    names: of 'all', 'norms' (scale and shift of norms, told by names alone:
      what lies in a module called as norm1, conv1_norm, BatchNorm_0, layernorm
      or bn1, or beside an array 'scale') and 'others' (everything else). Where
      modules have other names, or indices as in a list of layers, a
      `Block(name, paths)` says which arrays are meant.

  Raises:
    ValueError: an unknown name, a block without parameters, layers as
      `by_layer.checked` refuses them.
  """
  check(names)
  layers = by_layer.checked(params, layers) if layers else ()
  members = _members(params)
  for name in names:
    if not members[name]:
      other = 'norms' if name == 'others' else 'others'
      raise ValueError(
        f'blocks has {name!r}, and by the names of its modules the network has '
        'no such parameters (a norm is called as norm1, conv1_norm, '
        f"BatchNorm_0, bn1, or has an array 'scale'); allowed: 'all', {other!r}"
        ", names of layers, or in Python analysis.Block('norms', paths)"
      )
  of_names = (Block(name, members[name]) for name in dict.fromkeys(names))
  return (*of_names, *(Block(name, paths) for name, paths in layers))


def indices(params: Any, block: Block | None) -> tuple[int, ...]:
  """Returns which of the leaves of params are in a block; None: all of them.

  Raises:
    ValueError: none is, or what is given is no block.
  """
  if not isinstance(block, Block | None):
    raise ValueError(
      f'block is {checks.shown(block)}; allowed: None, for all, or a Block, as '
      "analysis.Block('hidden', ('hidden', 'norm')): a name, and paths"
    )
  if block is None or block.name == 'all':
    return tuple(range(len(jax.tree.leaves(params))))
  paths = trees.paths(params)
  chosen = tuple(
    i for i, path in enumerate(paths) if trees.lies_under(path, block.paths)
  )
  if not chosen:
    raise ValueError(f'block {block.name!r} has no parameters; give some')
  return chosen


def size(params: Any, block: Block | None = None) -> int:
  """Returns the number of parameters of a block; None: of all."""
  leaves = jax.tree.leaves(params)
  return sum(leaves[i].size for i in indices(params, block))


def kernels(
  params: Any, layers: Sequence[tuple[str, Sequence[str]]]
) -> dict[str, Block]:
  """Returns layer -> the block of its kernel; what has none is left out.

  That is an array called kernel, in Equinox and PyTorch weight, of no norm.

  Raises:
    ValueError: no layer has one.
  """
  arrays = [
    path for path in _members(params)['others'] if _array(path) in _KERNELS
  ]
  blocks = {}
  for name, paths in layers:
    own = tuple(path for path in arrays if trees.lies_under(path, paths))
    if own:
      blocks[name] = Block(f'{name}_kernel', own)
  if not blocks:
    raise ValueError(
      f'no kernel in {", ".join(name for name, _ in layers)}; give layers with '
      'an array called kernel or weight'
    )
  return blocks


def squared_norm(params: Any, block: Block) -> float:
  """Returns the squared Euclidean length of a block's parameters."""
  leaves = jax.tree.leaves(params)
  own = [leaves[i] for i in indices(params, block)]
  return float(trees.vdot(own, own))


def _members(params: Any) -> dict[str, tuple[str, ...]]:
  """Returns name -> the paths of a block's arrays."""
  paths = trees.paths(params)
  scaled = {_module(path) for path in paths if _array(path) == _SCALE}
  norms = tuple(path for path in paths if _is_of_norm(path, scaled))
  others = tuple(path for path in paths if path not in set(norms))
  return {'all': paths, 'norms': norms, 'others': others}


def _is_of_norm(path: str, scaled: set[str]) -> bool:
  module = _module(path)
  words = module.split('/')
  if words[-1].endswith(_OF_A_KERNEL):
    return False
  is_threshold = path.endswith(_THRESHOLD)
  return is_threshold or module in scaled or any(map(_NORM.search, words))


def _array(path: str) -> str:
  """Returns the name of an array: in flax's NNX it is above a word 'value'."""
  words = path.removesuffix('/value').split('/')
  return words[-1]


def _module(path: str) -> str:
  """Returns the path of the module that an array is in; '' at the top."""
  return path.removesuffix('/value').rpartition('/')[0]
