"""Damages any file that a number or a restart is read from.

A number, or a run that goes on, is either the same as without the damage, or
refused in one line: what was damaged is never used.
"""

import contextlib
import os
import random
import re
import shutil
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import absltest

from bn_jax import errors
from bn_jax.config import files, resolve
from bn_jax.data.disk import prepare
from bn_jax.experiment import experiment, saved
from bn_jax.experiment import run as run_lib
from bn_jax.report.results import read
from bn_jax.storage import array_files, records, run_folder
from bn_jax.trained import analyze
from tests.fixtures import commanded, scratch, strict, trained
from tests.fixtures.bad_inputs import chained

# Files that are built anew, or that nothing but a time is read from.
_IGNORED = re.compile(r'timing\.jsonl|events\..*|(.*\.)?lock')
_STEPS = 10  # of which 8 are trained before the damage
_LABEL = 'slow/seed0'


def command(words):
  """(exit code, stdout, stderr) of python -m bn_jax WORDS."""
  return commanded.run(*words)


def bits(tree):
  """The leaves of a tree, or of what a page is drawn from, as bytes."""
  return [
    leaf if isinstance(leaf, str) else (str(np.asarray(leaf).dtype),
                                        np.asarray(leaf).tobytes())
    for leaf in jax.tree.leaves(tree)
  ]  # fmt: skip


def flipped(path, generator):
  content = bytearray(path.read_bytes())
  content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
  path.write_bytes(content)


def shortened(path, generator):
  content = path.read_bytes()
  path.write_bytes(content[: generator.randrange(len(content))])


def emptied(path, generator):
  path.write_bytes(b'')


def removed(path, generator):
  path.unlink()


def lengthened(path, generator):
  content = path.read_bytes()
  place = generator.randrange(len(content))
  path.write_bytes(content[:place] + content[place:][:9] + content[place:])


def doubled(path, generator):
  """A line, or what stands between two line breaks, twice."""
  lines = path.read_bytes().splitlines(keepends=True)
  place = generator.randrange(len(lines))
  path.write_bytes(b''.join([*lines[: place + 1], *lines[place:]]))


def replaced(path, generator):
  """Another file that has the same suffix, from anywhere."""
  others = [
    other
    for other in sorted(path.parents[3].rglob(f'*{path.suffix}'))
    if other.is_file() and other.read_bytes() != path.read_bytes()
  ]
  shutil.copy(generator.choice(others), path)


DAMAGES = (
  flipped, flipped, shortened, emptied, removed, lengthened, doubled, replaced,
)  # fmt: skip


class DamageTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = scratch.folder(cls)
    cls.enterClassContext(contextlib.chdir(strict.ROOT))
    prepare.prepare('digits', data_dir=cls.folder / 'tfds')
    variables = {'TFDS_DATA_DIR': str(cls.folder / 'tfds')}
    cls.enterClassContext(mock.patch.dict(os.environ, variables))
    cls.whole = chained.made(cls.folder / 'whole', command)
    config = files.load(str(strict.FIXTURES / 'chained_config.py'))
    config.steps = _STEPS
    cls.resolved = resolve.experiment(config.to_dict(), {})
    cls.programs = {}
    cls.enterClassContext(
      mock.patch.object(run_lib, 'program', cls.compiled_once(run_lib.program))
    )
    cls.wanted = {
      name: function(cls.copied('wanted'))
      for name, function in cls.readers().items()
    }

  @classmethod
  def compiled_once(cls, program):
    def cached(config, problem, dataset, check_stop=lambda: None):
      if config not in cls.programs:
        cls.programs[config] = program(config, problem, dataset, check_stop)
      return cls.programs[config]

    return cached

  @classmethod
  def copied(cls, name):
    place = cls.folder / name
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(cls.whole, place)

  @classmethod
  def readers(cls):
    """What reads a run: name -> workdir -> what it reads, comparable."""
    return {
      'report': cls.read_by_report,
      'evaluate': cls.read_by_evaluate,
      'population': cls.read_by_population,
      'lines': lambda workdir: cls.read_by_analyze(workdir, 'loss'),
      'arrays': lambda workdir: cls.read_by_analyze(workdir, 'units'),
      'train': cls.gone_on,  # the last: it writes
    }

  @classmethod
  def read_by_report(cls, workdir):
    (seed,) = [
      seed
      for run in read.runs([workdir])
      for seed in run.seeds
      if (run.name, seed.seed) == ('slow', 0)
    ]
    # What could not be read is left out, and said.
    kept = seed.series.keys() | seed.arrays.keys()
    return {
      **{f'series {name}': bits(seed.series.get(name)) for name in kept},
      **{
        f'arrays {name}': bits([r.values for r in seed.arrays.get(name, ())])
        for name in kept
      },
      'manifest': bits(
        {k: v for k, v in seed.manifest.items() if k != 'measures'}
        | {'config': None}
      ),
      **({'population': seed.population} if seed.population else {}),
      'said': bool(seed.left_out),
    }

  @classmethod
  def read_by_evaluate(cls, workdir):
    return bits(trained.newest(workdir / _LABEL)[-1])

  @classmethod
  def read_by_population(cls, workdir):
    folder, config, problem, state = trained.newest(workdir / _LABEL)
    return bits(saved.population(folder, config, problem, state))

  @classmethod
  def read_by_analyze(cls, workdir, name):
    measure, data = {
      'loss': ('evaluation', 'test:100'), 'units': ('activations', 'test:16'),
    }[name]  # fmt: skip
    section = {'name': measure, 'data': data}
    request = analyze.Request(section, None, 'all', name, None)
    (folder,) = run_folder.find(workdir / _LABEL)
    job = analyze._job(folder, request, {})
    missing = analyze.missing_steps(job)  # measured again
    results = job.results
    found = [
      *records.read(results.scalars), *array_files.read(results.arrays, name)
    ]  # fmt: skip
    return {r.step: bits(r.values) for r in found if r.step not in missing}

  @classmethod
  def gone_on(cls, workdir):
    experiment.run(cls.resolved, str(workdir), only=_LABEL)
    place = workdir / _LABEL
    state = trained.newest(place)[-1]
    return [
      bits(state), (place / 'scalars.jsonl').read_bytes(),
      *(path.read_bytes() for path in sorted((place / 'arrays').iterdir())),
    ]  # fmt: skip

  def targets(self):
    """The files that are damaged: of the experiment, and of one seed."""
    place = self.whole / _LABEL
    paths = [self.whole / 'experiment.json', *place.rglob('*')]
    return [
      path.relative_to(self.whole)
      for path in sorted(paths)
      if path.is_file() and not _IGNORED.fullmatch(path.name)
    ]

  def sweep(self, count, seed):
    generator = random.Random(seed)
    targets = self.targets()
    generator.shuffle(targets)
    outcomes = {'same': 0, 'refused': 0, 'left out': 0}
    for number in range(count):
      # Each file is damaged, before one is a second time.
      target = targets[number % len(targets)]
      damage = generator.choice(DAMAGES)
      workdir = self.copied('damaged')
      before = (workdir / target).read_bytes()
      damage(workdir / target, generator)
      path = workdir / target
      if path.exists() and path.read_bytes() == before:
        continue
      for name, function in self.readers().items():
        with self.subTest(target=str(target), damage=damage.__name__, by=name):
          outcomes[self.outcome(name, function, workdir)] += 1
    return outcomes

  def outcome(self, name, function, workdir):
    """'same', 'refused' or 'left out'; fails where a change was used."""
    try:
      found = function(workdir)
    except errors.Failure as failure:
      self.assertIn(failure.exit_code, (2, 4, 6), failure)
      self.assertNotIn('\n', str(failure))
      return 'refused'
    wanted = self.wanted[name]
    if found == wanted:
      return 'same'
    if name == 'report':
      self.assertTrue(found['said'], 'something is missing, and nothing said')
      for key in found.keys() - {'said'}:
        self.assertEqual(found[key], wanted[key], key)
      return 'left out'
    if name in ('lines', 'arrays'):  # what is missing is measured again
      for step in found:
        self.assertEqual(found[step], wanted[step], step)
      return 'left out'
    # The state of an older checkpoint that is whole, said by a warning.
    if name == 'evaluate':
      self.assertEqual(found, self.older())
      return 'left out'
    self.fail(f'{name} used what was damaged')

  def older(self):
    """What is read where the newest checkpoint is lost."""
    if not hasattr(self, '_older'):
      workdir = self.copied('older')
      shutil.rmtree(workdir / _LABEL / 'checkpoints' / '8')
      self._older = self.read_by_evaluate(workdir)
    return self._older

  @pytest.mark.slow
  def test_300(self):
    outcomes = self.sweep(300, seed=1)
    print(outcomes)  # that of the docs
    self.assertGreater(outcomes['refused'], 200, outcomes)


if __name__ == '__main__':
  absltest.main()
