"""Prints all networks, or the layers of one.

Of each network: parameters and multiply-adds (of an image, in the products of
its layers), weight layers, the smallest image, keywords with their defaults.
With NAME, the layers of that network in forward order, named as in measures.
"""

import argparse
import inspect
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bn_jax import commands, errors, modules, plugins
from bn_jax.config import parser as parser_lib
from bn_jax.host import output


class _Size(NamedTuple):
  """Shape of an input of a network, and its number of outputs."""

  shape: tuple[int, ...]
  num_classes: int

  def __str__(self) -> str:
    shape = ' x '.join(map(str, self.shape))
    return f'{shape}, {self.num_classes}'


_CIFAR = _Size((32, 32, 3), 10)
_IMAGENET = _Size((224, 224, 3), 1000)
# Sizes in the papers; networks that are not here have CIFAR's and ImageNet's.
_SIZES = {
  'deep_linear': (_Size((10,), 10),),
  'mlp': (_Size((28, 28, 1), 10),),
  'resnet20': (_CIFAR,),
  'resnet56': (_CIFAR,),
}


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command."""
  parser.set_defaults(run=run)
  parser.add_argument(
    'name', metavar='NAME', nargs='?',
    help='a network, or your own, my_module:make; default: all of ours',
  )  # fmt: skip
  parser.add_argument(
    '--norm', default='batch', metavar='NORM',
    help='the normalization (config.norm.name)',
  )  # fmt: skip
  parser.add_argument(
    '--image', metavar='PIXELS', type=parser_lib.count,
    help='with NAME: the side of an image; default: that of its last size in '
    'the table of all',
  )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
  """Prints a table; returns the exit code."""
  name, norm = arguments.name, arguments.norm
  if arguments.image is not None and name is None:
    raise errors.ConfigError(f'--image={arguments.image}: allowed with a NAME')
  commands.begin()
  # Imported late: a wrong command line needs no JAX.
  from bn_jax import norms

  modules.search('.')
  if norm not in norms.NORMS and not plugins.is_reference(norm):
    raise errors.ConfigError(errors.unknown('norm', norm, norms.NORMS))
  lines = _one(name, norm, arguments.image) if name else _all(norm)
  output.show(f'{line.rstrip()}\n' for line in lines)
  return 0


def _all(norm: str) -> Iterator[str]:
  """Yields the table of all networks."""
  from bn_jax import models

  width = max(map(len, models.MODELS))
  yield f'networks with norm {norm!r}; layers are those with a kernel'
  yield (
    f'{"network":{width}}  {"input, outputs":24}{"parameters":>12}'
    f'{"multiply-adds":>15}{"layers":>8}'
  )
  for name, factory in models.MODELS.items():
    lines = [_cost(name, norm, size) for size in _sizes(name)]
    lines.append(_smallest(models.make(name, num_classes=1, norm=norm)))
    lines += _wrapped(_keywords(factory), 78 - width)
    for first, line in zip([name] + [''] * len(lines), lines):
      yield f'{first:{width}}  {line}'


def _cost(name: str, norm: str, size: _Size) -> str:
  from bn_jax import models

  try:
    layers = models.summarize(_network(name, norm, size), size.shape)
  except ValueError as error:  # this network has no such norm
    return f'{size!s:24}{error}'
  parameters, adds = _sums(layers)
  return f'{size!s:24}{parameters:>12,}{_millions(adds):>15}{len(layers):>8}'


def _sums(layers: Sequence[Any]) -> tuple[int, int]:
  """Returns (parameters, multiply-adds) of all layers."""
  return (
    sum(layer.parameters for layer in layers),
    sum(layer.multiply_adds for layer in layers),
  )


def _one(name: str, norm: str, pixels: int | None) -> Iterator[str]:
  """Yields the table of the layers of one network."""
  from bn_jax import models

  if name not in models.MODELS and not plugins.is_reference(name):
    raise errors.ConfigError(errors.unknown('model', name, models.MODELS))
  size = _sizes(name)[-1]
  if pixels is not None:
    if len(size.shape) != 3:
      raise errors.ConfigError(
        f'--image={pixels}: allowed for networks of images; {name} is none'
      )
    size = size._replace(shape=(pixels, pixels, size.shape[-1]))
  try:
    layers = models.summarize(_network(name, norm, size), size.shape)
  except ValueError as error:
    raise errors.ConfigError(f'{name} with norm {norm!r}: {error}') from error
  width = max(len(layer.name) for layer in layers)
  yield f'{name} with norm {norm!r}, {_shape(size.shape)}'
  yield (
    f'{"layer":{width}}  {"output":16}{"kernel":18}{"parameters":>12}'
    f'{"multiply-adds":>15}'
  )
  for layer in layers:
    yield (
      f'{layer.name:{width}}  {_shape(layer.shape):16}'
      f'{_shape(layer.kernel):18}{layer.parameters:>12,}'
      f'{layer.multiply_adds:>15,}'
    )
  parameters, adds = _sums(layers)
  yield f'{"sum":{width}}  {"":34}{parameters:>12,}{adds:>15,}'


def _network(name: str, norm: str, size: _Size) -> Any:
  from bn_jax import models

  return models.make(name, num_classes=size.num_classes, norm=norm)


def _sizes(name: str) -> tuple[_Size, ...]:
  if name in _SIZES:
    return _SIZES[name]
  return _CIFAR, _IMAGENET


def _smallest(module: Any) -> str:
  if not hasattr(module, 'smallest_image'):
    return 'any input, which is flattened'
  smallest = module.smallest_image()
  return f'images of {smallest} x {smallest} pixels or more'


def _keywords(factory: Any) -> list[str]:
  """Returns the keywords that a config can set, with their defaults."""
  bound = getattr(factory, 'keywords', {})  # of a functools.partial
  return [
    f'{name}={parameter.default!r}'
    for name, parameter in inspect.signature(factory).parameters.items()
    if name not in bound and name not in ('num_classes', 'norm')
  ]


def _wrapped(words: Sequence[str], width: int) -> Iterator[str]:
  """Yields words in lines of at most `width` characters."""
  line = words[0]
  for word in words[1:]:
    if len(line) + len(word) + 3 > width:
      yield f'{line},'
      line = word
    else:
      line = f'{line}, {word}'
  yield line


def _shape(shape: Sequence[int]) -> str:
  return ' x '.join(map(str, shape))


def _millions(count: int) -> str:
  return f'{count / 1e6:,.1f} M' if count >= 1e5 else f'{count:,}'


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
