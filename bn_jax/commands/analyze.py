"""python -m bn_jax analyze WORKDIR/run: measures of trained networks."""

import inspect
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from bn_jax import commands, errors

_USAGE = """\
usage: python -m bn_jax analyze WORKDIR/run[/seedK] --measure=NAME [options]

Takes a measure of bn_jax.analysis of the checkpoints that training has kept.
For each seed it writes, beside the run's own records,

  analysis/NAME/      settings.json, and what was found, a record a checkpoint

and `python -m bn_jax report WORKDIR` shows it. What was stopped or killed goes
on with the same command, to the same bits.

  --measure=NAME        {measures}
  --steps=last          which checkpoints: last, all, or steps such as 500,1000;
                        step 0, if it was not kept, is made from the seed
  --data=DATA           current_batch (that of the step to come), train:N or
                        test:N (the first so many), train, test
  --statistics=KIND     what norms use: those of the batch, the running averages
                        of training, or those of recalibrate (population)
  --KEYWORD=VALUE       of that measure, such as --layers=conv2,conv5; see
                        --measure=NAME --help
  --name=NAME           of the folder; default: the measure's name
  --data_dir=DIR        of tensorflow-datasets; default: where training found it
  --plan                prints evaluations, memory and time, and stops
"""
_STEPS = re.compile(r'last|all|\d{1,9}(,\d{1,9})*')
_STATISTICS = ('batch', 'running', 'population')


def main(argv: Sequence[str]) -> int:
  """Runs the command; argv[0] is its name. Returns the exit code."""
  return commands.run(lambda: _analyze(argv))


def _analyze(argv: Sequence[str]) -> int:
  wants_help = any(word in ('-h', '--help') for word in argv[1:])
  name = _measure_of(argv)
  # Imported late: JAX takes a second.
  from bn_jax import analysis

  if wants_help:
    known = ', '.join(sorted(analysis.MEASURES))
    sys.stdout.write(_USAGE.format(measures=_wrapped(known)))
    if name in analysis.MEASURES:
      sys.stdout.write(_keywords_of(name))
    return 0
  if name is None:
    known = ', '.join(sorted(analysis.MEASURES))
    raise errors.ConfigError(f'--measure is missing; allowed: {known}')
  if name not in analysis.MEASURES:
    said = errors.unknown('measure', name, analysis.MEASURES)
    raise errors.ConfigError(f'--measure: {said}')
  values = _flags(name, analysis.MEASURES[name])
  words = _parsed(values, argv)
  section, statistics = _section(name, values)
  from bn_jax.host import compilation_cache
  from bn_jax.trained import analyze

  compilation_cache.keep()

  request = analyze.Request(
    section=section,
    statistics=statistics,
    steps=_steps(values.steps),
    name=values.name or name,
    data_dir=values.data_dir,
  )
  return analyze.done(pathlib.Path(words[0]), request, values.plan)


def _measure_of(argv: Sequence[str]) -> str | None:
  """The value of --measure: it decides which other flags there are."""
  words, name = iter(argv[1:]), None
  for word in words:
    match = re.fullmatch(r'--?measure(?:=(.*))?', word)
    if match:  # of two, flags take the last
      name = match[1] if match[1] is not None else next(words, None)
  return name


def _keywords(factory) -> dict[str, inspect.Parameter]:
  """The keywords of a measure, statistics aside."""
  return {
    name: parameter
    for name, parameter in inspect.signature(factory).parameters.items()
    if name != 'statistics'
  }


def _keywords_of(name: str) -> str:
  """The keywords of a measure with their defaults, for people."""
  from bn_jax import analysis

  kind = analysis.MEASURES[name]
  text = inspect.getdoc(kind.make) or ''
  gives = '\n'.join(
    f'  {quantity:26}{words}' for quantity, words in kind.quantities.items()
  )
  listed = '\n'.join(
    f'  --{keyword}={_written(parameter.default)}'
    for keyword, parameter in _keywords(kind).items()
  )
  return (
    f'\n{name}: {text}\n\nIts quantities on the page, {kind.title}:\n{gives}\n'
    f'\nKeywords and defaults:\n{listed}\n'
  )


def _written(value: Any) -> str:
  if isinstance(value, tuple):
    return ','.join(map(str, value))
  return f'{value}'


def _flags(name: str, factory) -> flags.FlagValues:
  """The flags of the command, with the keywords of a measure among them."""
  values = flags.FlagValues()
  for flag in ('measure', 'name', 'data_dir', 'data'):
    flags.DEFINE_string(flag, None, '', flag_values=values)
  flags.DEFINE_string('steps', 'last', '', flag_values=values)
  flags.DEFINE_bool('plan', False, '', flag_values=values)
  flags.DEFINE_enum('statistics', None, _STATISTICS, '', flag_values=values)
  for keyword, parameter in _keywords(factory).items():
    default = parameter.default
    if isinstance(default, bool):
      flags.DEFINE_bool(keyword, default, '', flag_values=values)
    elif isinstance(default, tuple):
      flags.DEFINE_list(keyword, None, '', flag_values=values)
    else:
      flags.DEFINE_string(keyword, None, '', flag_values=values)
  return values


def _parsed(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
  try:
    words = values(argv)[1:]
  except flags.Error as error:
    raise errors.ConfigError(str(error)) from error
  if len(words) != 1:
    raise errors.ConfigError(
      f'{len(words)} directories given; give one, WORKDIR/run or '
      'WORKDIR/run/seedK'
    )
  return words


def _section(name: str, values) -> tuple[dict[str, Any], str | None]:
  """(the measure's section as a config would have it, which statistics)."""
  from bn_jax import analysis

  factory = analysis.MEASURES[name]
  section = {'name': name, 'data': values.data or _default_data(name)}
  for keyword, parameter in _keywords(factory).items():
    given = values[keyword].value
    if given is not None:
      section[keyword] = _value(parameter, given)
  has = 'statistics' in inspect.signature(factory).parameters
  statistics = values.statistics
  if has and statistics is not None:
    section['statistics'] = 'batch' if statistics == 'batch' else 'running'
  if not has and statistics == 'batch':
    raise errors.ConfigError(
      f'--statistics: batch; allowed for {name}: running, population'
    )
  return section, statistics


def _default_data(name: str) -> str:
  from bn_jax import analysis

  return 'current_batch' if analysis.MEASURES[name].one_batch else 'test'


def _value(keyword: inspect.Parameter, given: Any) -> Any:
  """What a flag says, in the type of the keyword: of its default, or items."""
  default = keyword.default
  if isinstance(default, bool):
    return given
  if isinstance(default, tuple):
    if not given:
      raise errors.ConfigError(
        f'--{keyword.name} is empty; leave it out for the default, or give some'
      )
    numbers = 'float' in str(keyword.annotation)  # Sequence[float]
    return [_number(keyword.name, word) if numbers else word for word in given]
  if isinstance(default, float):
    return _number(keyword.name, given)
  if re.fullmatch(r'-?\d+', given):
    return int(given)
  return None if given == 'None' else given


def _number(keyword: str, word: str) -> float:
  try:
    return float(word)
  except ValueError:
    raise errors.ConfigError(
      f'--{keyword}: {word!r}; allowed: numbers, with commas between'
    ) from None


def _steps(given: str) -> str | tuple[int, ...]:
  if not _STEPS.fullmatch(given):
    raise errors.ConfigError(
      f'--steps: {given!r}; allowed: last, all, or steps such as 500,1000'
    )
  if given in ('last', 'all'):
    return given
  return tuple(sorted({int(step) for step in given.split(',')}))


def _wrapped(text: str) -> str:
  """A long list of names in lines that stand below each other."""
  rows = ['']
  for word in text.split(' '):
    if rows[-1] and len(rows[-1]) + len(word) > 54:
      rows.append('')
    rows[-1] += f'{" " if rows[-1] else ""}{word}'
  return f'\n{" " * 24}'.join(rows)
