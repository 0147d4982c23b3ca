"""Takes a measure of bn_jax.analysis at the checkpoints that training has kept.

For each seed it writes, beside the run's own records,

  analysis/NAME/      settings.json, and the results, a record a checkpoint

and builds the page of WORKDIR again, where there is one. After a stop or a kill
the same command goes on, to the same bits. With --measure=NAME, --help shows
the keywords of that measure, too.
"""

import argparse
import functools
import inspect
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bn_jax import commands, errors, modules, plugins
from bn_jax.commands import report
from bn_jax.config import parser as parser_lib

_STEPS = re.compile(r'last|all|\d{1,9}(,\d{1,9})*')


def configure(parser: parser_lib.Parser) -> None:
  """Adds the words and flags of the command, and those of the measure."""
  # Imported late: JAX takes a second.
  from bn_jax.host import environment

  environment.check()
  from bn_jax import analysis

  parser.set_defaults(run=run)
  commands.add_trained(parser)
  # The measure decides which other flags the command has.
  finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  finder.add_argument('--measure', nargs='?')
  name = finder.parse_known_args(parser.words)[0].measure
  is_own = plugins.is_reference(name)
  parser.add_argument(
    '--measure', metavar='NAME',
    choices=None if is_own else sorted(analysis.MEASURES),
    help=f'one of {", ".join(sorted(analysis.MEASURES))}, or your own, '
    'my_module:make',
  )  # fmt: skip
  parser.add_argument(
    '--steps', type=_steps, default='last',
    help='which checkpoints: last, all, or steps such as 500,1000; step 0, if '
    'it was not kept, is computed from the seed',
  )  # fmt: skip
  parser.add_argument(
    '--data',
    help='current_batch (that of the next step), train:N or test:N (the '
    'first N), train, test; default: current_batch, or test for a '
    'measure of any number of batches',
  )
  parser.add_argument(
    '--statistics', choices=('batch', 'running', 'population'),
    help='whose mean and variance norms use: batch, those of the batch; '
    'running, the averages kept in training; population, what recalibrate '
    "estimated; default: the measure's own",
  )  # fmt: skip
  parser.add_argument(
    '--name', help="NAME of the folder analysis/NAME; default: the measure's"
  )
  parser.add_switch('--plan', 'prints evaluations, memory and time, and stops')
  parser.add_switch('--yes', 'goes ahead with what takes more than a day')
  if is_own:
    modules.search('.')
    with modules.bound(_modules(parser.words)):
      _add_keywords(parser, name, analysis.kind_of(name))
  elif name in analysis.MEASURES:
    _add_keywords(parser, name, analysis.kind_of(name))


def run(arguments: argparse.Namespace) -> int:
  """Takes the measure, or prints its cost; returns the exit code."""
  from bn_jax import analysis

  if arguments.measure is None:
    measures = ', '.join(sorted(analysis.MEASURES))
    raise errors.ConfigError(f'--measure is missing; allowed: {measures}')
  with modules.bound(_modules([str(arguments.path)])):
    section = _section(arguments, analysis.kind_of(arguments.measure))
  commands.begin()
  from bn_jax.trained import analyze

  request = analyze.Request(
    section=section,
    statistics=arguments.statistics,
    steps=arguments.steps,
    name=arguments.name or re.sub('[:.]', '-', arguments.measure),
    data_dir=arguments.data_dir,
    yes=arguments.yes,
  )
  code = analyze.done(arguments.path, request, arguments.plan)
  if not arguments.plan:
    report.again(arguments.path)
  return code


def _modules(words: Sequence[str]) -> Mapping[str, Any]:
  """Returns the modules of users in the manifest of a run among the words."""
  from bn_jax.storage import run_folder

  for word in words:
    try:
      manifest = run_folder.find(pathlib.Path(word))[0].manifest
    except (errors.Failure, OSError, ValueError):  # no path, or said later
      continue
    return manifest.get('modules') or {}
  return {}


def _keywords(kind) -> dict[str, inspect.Parameter]:
  """Returns the keywords of a measure, statistics aside."""
  parameters = dict(inspect.signature(kind).parameters)
  parameters.pop('statistics', None)
  return parameters


def _add_keywords(parser: parser_lib.Parser, name: str, kind) -> None:
  """Adds a flag for each keyword, with its text in the measure's docstring."""
  text = inspect.getdoc(kind.make) or ''
  summary = re.split(r'\n(?=Args:|Returns:|Raises:)', text)[0]
  quantities = '\n'.join(
    f'  {quantity:26}{words}' for quantity, words in kind.quantities.items()
  )
  parser.epilog = f'{name}: {summary}'
  if quantities:
    parser.epilog += (
      f'\n\nIts quantities on the page, {kind.title}:\n\n{quantities}'
    )
  group = parser.add_argument_group(f'keywords of {name}')
  for keyword, parameter in _keywords(kind).items():
    match = re.search(rf'^  {keyword}: (.*(\n    .*)*)', text, re.M)
    line = ' '.join(match[1].split()).rstrip('.') if match else keyword
    # A '%' would begin a field of argparse.
    line = line.replace('%', '%%')
    default = parameter.default
    if default is parameter.empty:
      default = 'none, give one'
    if isinstance(default, bool):
      parser.add_switch(f'--{keyword}', line, default, group)
      continue
    if isinstance(default, tuple):
      default = ','.join(map(str, default)) or 'none'
    group.add_argument(
      f'--{keyword}', type=functools.partial(_value, parameter),
      default=argparse.SUPPRESS, help=f'{line}; default: {default}',
    )  # fmt: skip


def _section(arguments: argparse.Namespace, kind) -> dict[str, Any]:
  """Returns the measure's section as a config would have it."""
  data = arguments.data or ('current_batch' if kind.one_batch else 'test')
  section = {'name': arguments.measure, 'data': data}
  for keyword in _keywords(kind):
    if keyword in arguments:
      section[keyword] = vars(arguments)[keyword]
  statistics = arguments.statistics
  has_statistics = 'statistics' in inspect.signature(kind).parameters
  if has_statistics and statistics is not None:
    section['statistics'] = 'batch' if statistics == 'batch' else 'running'
  if statistics is not None and kind.over(section):
    raise errors.ConfigError(
      f'--statistics: {statistics}; {arguments.measure} says its own; allowed: '
      f'--over={",".join(kind.over(section))}'
    )
  if not has_statistics and statistics == 'batch':
    raise errors.ConfigError(
      f'--statistics: batch; allowed for {arguments.measure}: running, '
      'population'
    )
  return section


def _value(keyword: inspect.Parameter, word: str) -> Any:
  """Returns a flag's value, of the type of the keyword's default."""
  default = keyword.default
  if isinstance(default, tuple):
    is_number = 'float' in str(keyword.annotation)  # Sequence[float]
    items = [item.strip() for item in word.split(',')]
    return [_number(item) for item in items] if is_number else items
  if isinstance(default, float):
    return _number(word)
  if keyword.annotation is str:
    return word
  if re.fullmatch(r'-?\d+', word):
    return int(word)
  return None if word == 'None' else word


def _number(word: str) -> float:
  try:
    return float(word)
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{word!r}; allowed: numbers, with commas between'
    ) from None


def _steps(word: str) -> str | tuple[int, ...]:
  if not _STEPS.fullmatch(word):
    raise argparse.ArgumentTypeError(
      f'{word!r}; allowed: last, all, or steps such as 500,1000'
    )
  if word in ('last', 'all'):
    return word
  return tuple(sorted({int(step) for step in word.split(',')}))


if __name__ == '__main__':
  sys.exit(commands.main(sys.modules[__name__], sys.argv))
