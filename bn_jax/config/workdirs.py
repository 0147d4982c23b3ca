"""Where an experiment is written that nobody said a place for."""

import os
import pathlib
import re


def default(config: str) -> str:
  """runs/PATH[-ARGUMENT] of a config FILE or FILE:ARGUMENT.

  PATH is that of the file below configs/, without .py; a file elsewhere has
  its name alone. What is no letter, digit, '.', '_' or '-' in the argument
  becomes '-'.
  """
  name, _, argument = config.partition(':')
  *folders, stem = pathlib.Path(os.path.normpath(name)).with_suffix('').parts
  below = []
  if 'configs' in folders:
    below = folders[len(folders) - folders[::-1].index('configs') :]
  suffix = re.sub(r'[^A-Za-z0-9._-]', '-', argument)
  path = pathlib.Path('runs', *below, stem)
  return f'{path}-{suffix}' if suffix else str(path)
