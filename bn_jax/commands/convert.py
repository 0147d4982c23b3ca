"""Makes a run of weights that others have trained, or a file of a run.

  convert FILE.safetensors --from=torchvision:vgg16_bn --to=WORKDIR/RUN
  convert WORKDIR/RUN --as=torchvision:vgg16_bn --to=FILE.safetensors

What the first writes is a trained run: bn_jax.load, config.init_from, evaluate
and the other commands take it. Files of PyTorch (.pth) hold a pickle and are
not read; the refusal has the line that converts them.
"""

import argparse
import sys

from bn_jax import commands, errors
from bn_jax.config import parser as parser_lib


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command."""
  parser.set_defaults(run=run)
  parser.add_argument(
    'path', metavar='PATH', type=parser_lib.path_object,
    help='a file of weights, with --from; or a trained run, or one seed of it, '
    'with --as',
  )  # fmt: skip
  parser.add_argument(
    '--from', metavar='NAME', dest='source',
    help='the network of the file: torchvision:, timm: or keras: and its name '
    'there, such as torchvision:vgg16_bn, timm:resnet50, keras:resnet50; or '
    'bn_jax, for a file that this command wrote',
  )  # fmt: skip
  parser.add_argument(
    '--as', metavar='NAME', dest='names',
    help='whose names the file gets: those of torchvision: or timm:, or bn_jax',
  )  # fmt: skip
  parser.add_argument(
    '--to', metavar='PATH', required=True, type=parser_lib.path_object,
    help='the run, WORKDIR/RUN, or the file; it must not exist',
  )  # fmt: skip
  parser.add_argument(
    '--data', metavar='NAME',
    help='with --from: the images that evaluate and other commands read '
    '(config.data.name); default: imagenet2012 of 1,000 classes, else absent, '
    'which has none',
  )  # fmt: skip
  parser.add_argument(
    '--resolution', metavar='PIXELS', type=parser_lib.count, default=224,
    help='with --from: the side of an image',
  )  # fmt: skip
  for flag, what in (('--mean', 'mean'), ('--std', 'deviation')):
    parser.add_argument(
      flag, metavar='R,G,B', type=_numbers, default=(),
      help=f'with --from: the {what} that inputs were normalised by, in grey '
      'levels, 0 to 255; default: as usual for the weights of that source',
    )  # fmt: skip
  parser.add_argument(
    '--momentum', metavar='SHARE', type=_momentum, default='usual',
    help="with --from: PyTorch's momentum of the running averages, the share "
    'of the new, or none for the mean of all batches; usual is 0.1, in Keras '
    '0.01',
  )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
  """Converts, and says what was written; returns the exit code."""
  if (arguments.source is None) == (arguments.names is None):
    raise errors.ConfigError(
      'give --from=NAME to read a file, or --as=NAME to write one'
    )
  wishes = {
    flag: getattr(arguments, flag)
    for flag in ('data', 'resolution', 'mean', 'std', 'momentum')
  }
  usual = dict(data=None, resolution=224, mean=(), std=(), momentum='usual')
  for flag, value in wishes.items():
    if arguments.names is not None and value != usual[flag]:
      raise errors.ConfigError(f'--{flag}: allowed with --from')
  commands.begin()
  # Imported late: a wrong command line need not wait for JAX.
  from bn_jax.trained import convert

  if arguments.source is None:
    said = convert.write(arguments.path, arguments.to, arguments.names)
  else:
    said = convert.read(
      arguments.path, arguments.source, arguments.to, convert.Wishes(**wishes)
    )
  sys.stdout.write(f'{said}\n')
  return 0


def _numbers(word: str) -> tuple[float, ...]:
  """Reads numbers with commas between them."""
  try:
    return tuple(map(float, word.split(',')))
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{word!r}; allowed: numbers with commas between them'
    ) from None


def _momentum(word: str) -> float | str | None:
  """Reads a share above 0 to 1, none, or usual."""
  if word == 'usual':
    return word
  try:
    value = None if word.lower() == 'none' else float(word)
  except ValueError:
    value = 0.0
  if value is not None and not 0 < value <= 1:
    raise argparse.ArgumentTypeError(
      f'{word!r}; allowed: above 0 to 1, or none'
    )
  return value


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
