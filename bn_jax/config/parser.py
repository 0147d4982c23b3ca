"""Reads command lines, and names what is near to a wrong flag or key."""

import argparse
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

from bn_jax import checks, errors

_WIDTH = 80  # columns of a help text, the same on every terminal
_FEW = 4  # messages in a line that is still read
DEFAULTS = 'bn_jax/config/defaults.py'  # explains every key

# Keys of `DEFAULTS` -> words that may mean them.
_SYNONYMS_OF = {
  'batch_size': 'batch batchsize bs',
  'checkpoint.every_steps': 'save_every',
  'clip_norm': 'clip clip_grad_norm grad_clip gradient_clip max_grad_norm',
  'compute_dtype': 'dtype',
  'data.name': 'dataset',
  'devices': 'gpus num_devices',
  'ema': 'ema_decay polyak swa',
  'epochs': 'max_epochs num_epochs passes',
  'evaluation_batch_size': 'eval_batch_size',
  'init_from': 'pretrained',
  'log_every_steps': 'log_every',
  'matmul_precision': 'precision',
  'micro_batch_size': 'accumulation',
  'model.name': 'arch architecture model net network',
  'norm.epsilon': 'eps',
  'norm.name': 'bn norm normalization',
  'optimizer.momentum': 'momentum',
  'optimizer.name': 'optim optimizer',
  'schedule.learning_rate': 'eta learning_rate lr',
  'schedule.name': 'schedule scheduler',
  'seeds': 'seed',
  'steps': 'iterations iters max_steps num_steps updates',
  'trainable': 'freeze frozen',
  'weight_decay': 'l2 wd weightdecay',
}
SYNONYMS = {
  word: path for path, words in _SYNONYMS_OF.items() for word in words.split()
}


class Parser(argparse.ArgumentParser):
  """Parses as argparse does, and says in one line what is wrong.

  Flags may stand before, between and after other words, and are written out in
  full. The namespace has the parser itself, as `parser`.

  Attributes:
    words: to be parsed; `configure` of a command may add flags by them.
    keeps_rest: whether unknown words are kept, as `rest` of the namespace,
      rather than refused.
  """

  def __init__(self, *, words: Sequence[str] = (), **keywords):
    # An abbreviation could change its meaning when a flag is added.
    super().__init__(allow_abbrev=False, formatter_class=_Help, **keywords)
    self.words, self.keeps_rest = tuple(words), False
    # True while argparse's own mixed parsing calls parse_known_args again.
    self._is_mixing = False
    self.set_defaults(parser=self)

  def add_switch(
    self, flag: str, help: str, default: bool = False, group=None
  ) -> None:
    """Adds --flag and --noflag, which take no value; --flag=false works too."""
    name = flag.removeprefix('--')
    opposite = f'--no{name}'
    group = group or self
    if default:
      help = f'{help}; {opposite} turns it off'
    group.add_argument(flag, action='store_true', default=default, help=help)
    group.add_argument(
      opposite,
      action='store_false',
      dest=name,
      default=default,
      help=argparse.SUPPRESS,
    )

  def flags(self) -> list[str]:
    """Returns all flags that its help shows."""
    return [
      flag
      for flag, action in self._option_string_actions.items()
      if action.help != argparse.SUPPRESS and flag.startswith('--')
    ]

  def unknown_flag(
    self, flag: str, flags: Sequence[str] = (), also: Sequence[str] = ()
  ) -> str:
    """Returns the message for a flag that neither this parser nor `flags` has.

    Args:
      flag: as it was typed, without its value.
      flags: further ones that are allowed.
      also: words that the flag may mean although they are spelled otherwise.
    """
    flags = [*self.flags(), *flags]
    longer = [name for name in flags if name.startswith(flag)]
    return errors.unknown(
      'flag',
      flag,
      flags,
      also=[*also, *longer],
      see=f'{self.prog} --help',
    )

  def run(self, words: Sequence[str]) -> int:
    """Does what the words ask for; returns the exit code.

    Raises:
      Failure: words that are wrong, or whatever the command raises.
    """
    try:
      arguments = self.parse_args(words)
    except SystemExit as end:  # after --help, --version
      return end.code
    return arguments.run(arguments)

  def parse_known_args(self, args=None, namespace=None):
    """Parses words with flags anywhere among them; refuses unknown flags.

    A word or a value that is empty is refused, too: most likely it is a shell's
    variable that is not set, and the default would be taken for it.
    """
    if self._is_mixing:
      return super().parse_known_args(args, namespace)
    has_commands = self._subparsers is not None
    words = [self._bare(word) for word in args]
    own_words = words
    if has_commands:  # words behind a command are for its parser
      own_words = itertools.takewhile(is_flag, words)
    for word in itertools.takewhile(lambda word: word != '--', own_words):
      flag = word.partition('=')[0]
      is_known = flag in self._option_string_actions
      if is_flag(word) and not is_known and not self.keeps_rest:
        raise errors.ConfigError(self.unknown_flag(flag))
      is_given = '=' in word or not is_known
      value = word.partition('=')[2] if is_known else word
      if is_given and not value.strip():
        raise errors.ConfigError(
          f'{flag if is_known else "a word"} is empty; give a value, or leave '
          'it out for its default'
        )
    if has_commands:
      arguments, rest = super().parse_known_args(words, namespace)
    else:
      self._is_mixing = True
      try:
        arguments, rest = self.parse_known_intermixed_args(words, namespace)
      finally:
        self._is_mixing = False
    rest = [word for word in rest if word != '--']
    if self.keeps_rest:
      arguments.rest = rest
    elif rest and is_flag(rest[0]):
      raise errors.ConfigError(self.unknown_flag(rest[0].partition('=')[0]))
    elif rest:
      self.error(f'{rest[0]!r} is one word too many')
    return arguments, []

  def error(self, message: str) -> NoReturn:
    """Raises ConfigError with the message of argparse, or of this class."""
    message = message.removeprefix('argument ')
    message = re.sub(
      'the following arguments are required: (.*)', r'\1 is missing', message
    )
    # What names the allowed values needs no pointer to the help.
    if 'allowed:' not in message:
      message = f'{message}; see {self.prog} --help'
    raise errors.ConfigError(message)

  def _check_value(self, action, value):
    if action.choices is not None and value not in action.choices:
      flag = '/'.join(action.option_strings)
      kind = 'value' if flag else action.metavar.lower()
      message = errors.unknown(kind, value, action.choices)
      raise errors.ConfigError(f'{flag}: {message}' if flag else message)

  def _bare(self, word: str) -> str:
    """Writes --plan=false as --noplan: a switch of argparse takes no value."""
    flag, equals, value = word.partition('=')
    opposite = f'--no{flag[2:]}'
    if not equals or opposite not in self._option_string_actions:
      return word
    if value.lower() not in ('true', 'false', '1', '0'):
      raise errors.ConfigError(f'{flag}: {value!r}; allowed: true, false')
    return flag if value.lower() in ('true', '1') else opposite


class _Help(argparse.HelpFormatter):
  """Writes defaults beside their flags, values after '=', and paragraphs."""

  def __init__(self, prog: str):
    super().__init__(prog, width=_WIDTH)

  def _get_help_string(self, action):
    default = action.default
    if not default or default == argparse.SUPPRESS:
      return action.help
    return f'{action.help}; default: %(default)s'

  def _fill_text(self, text, width, indent):
    # What is indented is a table, and stays as it is.
    return '\n\n'.join(
      part
      if part.startswith(' ')
      else super(_Help, self)._fill_text(part, width, indent)
      for part in text.strip('\n').split('\n\n')
    )

  def _format_usage(self, *arguments):
    return _with_equals(super()._format_usage(*arguments))

  def _format_action_invocation(self, action):
    return _with_equals(super()._format_action_invocation(action))


def _with_equals(text: str) -> str:
  """Writes --flag VALUE as --flag=VALUE, unless the value has a '=' itself."""
  return re.sub(r'(--\w+) (?=[A-Z{][^\s=]*(\s|$))', r'\1=', text)


def is_flag(word: str) -> bool:
  """Returns whether a word is a flag, not a value, negative number or path."""
  return re.match('--?[a-zA-Z]', word) is not None


def path(word: str) -> str:
  """Reads the path of a file or folder, in which ~ is the home folder."""
  try:
    checks.path('', word)
  except checks.Refused as refusal:
    raise argparse.ArgumentTypeError(
      f'{word!r} is an address; allowed: {refusal.allowed}'
    ) from None
  expanded = os.path.expanduser(word)
  if expanded.startswith('~'):
    raise argparse.ArgumentTypeError(
      f'{word!r}: there is no such home folder; allowed: a path; ./{word} is '
      'in this folder'
    )
  return expanded


def path_object(word: str) -> pathlib.Path:
  """Reads a path as `path` does."""
  return pathlib.Path(path(word))


def whole(word: str) -> int:
  """Reads a whole number."""
  try:
    return int(word)
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{checks.shown(word)}; allowed: whole numbers'
    ) from None


def count(word: str) -> int:
  """Reads 1, 2, 3, ..."""
  try:
    # As text, 3.0 and 1_0 are numbers of Python, but no count.
    checks.count('', int(word) if word.isdecimal() else word)
  except ValueError as error:  # int() reads no more than 4300 digits
    allowed = getattr(error, 'allowed', '1, 2, 3, ...')
    raise argparse.ArgumentTypeError(
      f'{checks.shown(word)}; allowed: {allowed}'
    ) from None
  return int(word)


def listed(messages: Sequence[str]) -> str:
  """Returns several messages as one line, the first few of many."""
  more = len(messages) - _FEW
  parts = [*messages[:_FEW], *([f'and {more} more'] if more > 0 else [])]
  return '; '.join(parts)


def unknown_key(key: str, keys: Iterable[str]) -> str:
  """Returns the message for an unknown key, with the keys that it may mean."""
  keys = tuple(keys)
  return errors.unknown('key', key, keys, also=meant(key, keys), see=DEFAULTS)


def meant(key: str, keys: Sequence[str]) -> list[str]:
  """Returns the keys that a wrong one may mean: by its last name, or SYNONYMS.

  Args:
    key: a name, 'lr', or a path, 'optimizer.lr'.
    keys: the allowed ones: all, as paths; or those of one section, or level.
  """
  word = key.rpartition('.')[2].lower()
  candidates = [path for path in keys if path.rpartition('.')[2] == word]
  if word in SYNONYMS:
    path = SYNONYMS[word]
    section, leaf = path.partition('.')[0], path.rpartition('.')[2]
    if path not in keys and leaf in keys and leaf != word:
      candidates.insert(0, leaf)
    elif path in keys or section in keys or leaf != word:
      candidates.insert(0, path)
  return list(dict.fromkeys(candidates))
