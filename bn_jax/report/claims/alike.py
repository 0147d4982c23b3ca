"""Judges runs that differ in the norm alone, by the claims of norms.json.

These claims name norms in place of runs, and leave open what only the runs can
tell: an accuracy that they reach, which entry has a measure, at which layers it
looks. Filled in, each is a claim like those of a figure.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bn_jax.report.claims import judging, reading
from bn_jax.report.claims import rows as rows_lib
from bn_jax.report.results import curves, looks
from bn_jax.storage import files

FILE = reading.FOLDER / 'norms.json'
PLAIN = 'none'  # the norm of the network that the others are compared with


class Group(NamedTuple):
  """Runs that differ in the norm alone, and the verdicts on them."""

  runs: Mapping[str, curves.Run]  # norm -> the run that has it
  rows: tuple[rows_lib.Row, ...]  # a claim each, see `rows`

  @property
  def plain(self) -> curves.Run:
    """Returns the run without a norm."""
    return self.runs[PLAIN]


def groups(runs: Sequence[curves.Run]) -> list[Group]:
  """Judges each run without a norm together with those like it.

  Of each norm the first run counts, one of the same working directory before
  others. Claims about a norm that no run has are left out.
  """
  content = files.read_json(FILE)
  norms = {name for claim in content['claims'] for name in claim['runs']}
  all_groups = []
  for plain in runs:
    if plain.config['norm']['name'] != PLAIN:
      continue
    alike = {PLAIN: plain}
    for run in sorted(runs, key=lambda run: run.workdir != plain.workdir):
      norm = run.config['norm']['name']
      if norm in norms and _without_norm(run) == _without_norm(plain):
        alike.setdefault(norm, run)
    rows = tuple(_rows(content, alike))
    if rows:
      all_groups.append(Group(alike, rows))
  return all_groups


def _rows(content: Mapping, runs: Mapping[str, curves.Run]) -> Iterator:
  """Yields the rows of the claims about norms that are all among the runs."""
  seeds_of = {
    norm: {s.seed: s for s in run.seeds} for norm, run in runs.items()
  }
  evidence = judging.Evidence(seeds_of, {})
  claims = [
    section
    for claim in content['claims']
    if set(claim['runs']) <= set(runs)
    for section in _filled(claim, runs)
  ]
  figure = reading.parse(FILE.name, {**content, 'claims': claims})
  for claim in figure.claims:
    yield rows_lib.of(figure, judging.verdict(claim, 'paper', evidence))


def _filled(claim: Mapping, runs: Mapping[str, curves.Run]) -> Iterator[dict]:
  """Yields a claim with what it leaves open filled in.

  "accuracy": "reached" becomes a level, see `_level`; "measure" the `name` of
  the first entry of training with this measure; "layer": "each" makes a claim
  for each layer of that entry. Nothing is claimed about the accuracy of a
  regression, nor without such an entry.
  """
  plain, keywords = runs[PLAIN], dict(claim['paper']['keywords'])
  words = {'accuracy': '', 'layer': ''}
  if 'accuracy' in keywords:
    if any(map(curves.is_regression, runs.values())):
      return
    keywords['accuracy'] = _level(runs)
    words['accuracy'] = f'{100 * keywords["accuracy"]:.0f} %'
  layers = ['']
  if 'measure' in keywords:
    names = curves.training_measures(plain, keywords.pop('measure'))
    if not names:
      return
    keywords = {'name': names[0], **keywords}
    if 'layer' in keywords:
      layers = looks.activation_layers(plain, names[0])
  for layer in layers:
    words['layer'] = layer
    filled = {**keywords, 'layer': layer} if layer else keywords
    yield {
      **claim,
      'id': claim['id'].format(**words),
      'statement': claim['statement'].format(**words),
      'paper': {**claim['paper'], 'keywords': filled},
    }


def _level(runs: Mapping[str, curves.Run]) -> float:
  """Returns the highest level that every run reaches in all seeds that ended.

  If there is none, the highest that all but the plain run reach, for then it
  needs more steps than they. Else the first of `curves.LEVELS`.
  """
  normalized = [run for norm, run in runs.items() if norm != PLAIN]
  for subset in (list(runs.values()), normalized):
    steps = [
      [curves.steps_to(seed, level) for level in curves.LEVELS]
      for run in subset
      for seed in run.seeds
      if curves.has_ended(seed)
    ]
    for level, of_seeds in zip(curves.LEVELS, zip(*steps)):
      if all(map(math.isfinite, of_seeds)):
        return level
  return curves.LEVELS[0]


def _without_norm(run: curves.Run) -> dict[str, Any]:
  """Returns what a run was trained with, without what was measured later."""
  every = run.config['measures'].items()
  measures = {name: of for name, of in every if not curves.is_analysis(name)}
  return {**run.config, 'measures': measures, 'norm': None}
