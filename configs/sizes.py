"""Names the sizes of a reproduction: as in the paper, or for two CPU cores."""

SIZES = ('paper', 'small')


def check(size: str) -> None:
  """Raises ValueError unless a size is one of `SIZES`."""
  if size not in SIZES:
    raise ValueError(f'the size is {size!r}; allowed: {", ".join(SIZES)}')


def taken(config, runs: tuple[str, ...], measures: tuple[str, ...]) -> None:
  """Removes all runs and measures from a protocol but those of one figure.

  A run that stays is unchanged: its weights, batches and numbers are those of
  the protocol.
  """
  for name in set(config.runs) - set(runs):
    del config.runs[name]
  for key in set(config.measures) - set(measures):
    del config.measures[key]
  for key in ('expected_divergence', 'recalibrate'):
    config[key] = tuple(name for name in config[key] if name in runs)
