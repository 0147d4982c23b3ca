"""Runs that differ in numbers alone are trained in one program."""

import pathlib
import shutil
from unittest import mock

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import optim
from bn_jax.config import build, files, numbers, resolve
from bn_jax.experiment import experiment, together
from bn_jax.experiment import run as run_lib
from bn_jax.storage import checkpoint, records, run_folder
from bn_jax.storage import files as files_lib
from bn_jax.training import devices, seeds
from tests.fixtures import layouts, same_bits, scratch, strict

_CONFIG = strict.ROOT / 'tests' / 'fixtures' / 'regression_config.py'
_FAST = dict(learning_rate=2e-3)
_NOISY = dict(name='noisy', n_mu=0.5, n_sigma=1.25)
# One number of each kind, and both at once.
_RUNS = {
  'usual': dict(norm=_NOISY),
  'fast': dict(norm=_NOISY, schedule=_FAST),
  'calm': dict(norm=dict(_NOISY, n_mu=0.1, r_sigma=0.0)),
  'decayed': dict(
    norm=_NOISY, weight_decay=0.1, schedule=dict(learning_rate=5e-4)
  ),
}
_NUMBERS = (
  'weight_decay', 'schedule.learning_rate', 'norm.n_mu', 'norm.r_sigma'
)  # fmt: skip


def resolved(runs=None, **overrides):
  config = files.load(str(_CONFIG)).to_dict()
  config['runs'] = runs or _RUNS
  return resolve.experiment(config, {'seeds': [0, 1], **overrides})


def folder_of(workdir, run, seed):
  return run_folder.at(pathlib.Path(workdir), run, seed)


class FamiliesTest(parameterized.TestCase):
  def families(self, **runs):
    return [tuple(one) for one in numbers.families(resolved(runs).runs)]

  def test_what_differs(self):
    adamw = dict(name='adamw', weight_decay=1e-3)
    self.assertEqual(
      self.families(
        a={}, b=dict(weight_decay=0.1), c=dict(norm=dict(name='none')),
        d=dict(schedule=dict(learning_rate=0.1)), e=dict(optimizer=adamw),
        f=dict(optimizer=dict(adamw, weight_decay=0.0)), g=dict(batch_size=6),
        h=dict(optimizer=dict(adamw, b1=0.8)), i=dict(norm=dict(momentum=0.5)),
      ),
      [
        (('a', 'b', 'd'), ('weight_decay', 'schedule.learning_rate')),
        (('c',), ()),
        (('e', 'f'), ('optimizer.weight_decay',)),
        (('g',), ()), (('h',), ()), (('i',), ()),
      ],
    )  # fmt: skip

  @parameterized.parameters(
    ('model', dict(norm=_NOISY), _RUNS['calm']),
    ('optimizer', {}, dict(schedule=_FAST)),
  )
  def test_what_is_of_a_user_gets_no_data(self, section, *runs):
    """A network is given the norm, an optimizer the rate: it may look at it."""
    configs = resolved(dict(zip('ab', runs))).runs
    self.assertLen(numbers.families(configs), 1)
    own = {
      name: config.replace(**{section: dict(name='mine:make')})
      for name, config in configs.items()
    }
    self.assertLen(numbers.families(own), 2)

  @parameterized.parameters(*optim.OPTIMIZERS)
  def test_every_optimizer_takes_them(self, name):
    optimizer = dict(name=name)
    if name in ('adamw', 'lion', 'lamb', 'muon'):
      optimizer['weight_decay'] = 0.1
    config = resolved(dict(a=dict(optimizer=optimizer))).runs['a']
    paths = numbers._paths(config)
    self.assertEqual(
      'optimizer.weight_decay' in paths, 'weight_decay' in optimizer
    )
    problem = build.problem(config)
    state = jax.eval_shape(problem.init, 0)
    want = jax.tree.structure(state)
    one = jax.ShapeDtypeStruct((), 'float32')
    state = jax.eval_shape(
      build.step_of_one(config, problem, paths),
      state._replace(numbers=dict.fromkeys(paths, one)),
      build.source(config).shapes(config.batch_size),
    )
    self.assertEqual(jax.tree.structure(state._replace(numbers=())), want)

  def groups(self, left, asked, configs):
    (family,) = numbers.families(configs)
    problems = dict.fromkeys(left, build.problem(configs['usual']))
    return together.of_family(family, configs, problems, left, asked)

  def folders(self, run, *begun_with):
    """A folder for each: None, or the number and numbers that it began with."""
    return [
      mock.Mock(
        run=run,
        manifest=begun
        and {
          'seeds_at_once': begun[0], 'numbers': begun[1], 'device': {'count': 1}
        },
      )
      for begun in begun_with
    ]  # fmt: skip

  def test_what_began_without_relatives_goes_on_without(self):
    usual = self.folders('usual', *[(4, ())] * 4)
    fast = self.folders('fast', *[None] * 4)
    folders = {'usual': usual, 'fast': fast}
    self.assertEqual(
      self.groups(folders, folders, resolved().runs),
      [together.Group(usual, 4, ()), together.Group(fast, 4, _NUMBERS)],
    )

  def test_what_began_without_relatives_changes_no_number_of_theirs(self):
    usual = self.folders('usual', *[(5, ())] * 5)  # done
    fast = self.folders('fast', *[(5, _NUMBERS)] * 3, None, None)  # killed
    self.assertEqual(
      self.groups(
        {'fast': fast}, {'usual': usual, 'fast': fast}, resolved().runs
      ),
      [together.Group(fast, 5, _NUMBERS)],
    )

  def test_a_run_may_say_another_number(self):
    configs = resolved().runs
    configs = {**configs, 'fast': configs['fast'].replace(seeds_at_once=1)}
    folders = {
      run: self.folders(run, None, None) for run in ('usual', 'calm', 'fast')
    }
    self.assertEqual(
      self.groups(folders, folders, configs),
      [
        together.Group(folders['usual'] + folders['calm'], 4, _NUMBERS),
        *(together.Group([one], 1, ()) for one in folders['fast']),
      ],
    )

  def test_a_run_begins_with_the_lowering_of_its_relatives(self):
    runs = {'a': {}, 'b': dict(weight_decay=0.1), 'c': dict(batch_size=6)}
    folder = lambda _, run, seed: mock.Mock(
      manifest={'b': {'lowering': 'product'}}.get(run)
    )
    with mock.patch.object(run_folder, 'at', folder):
      self.assertEqual(
        experiment._lowerings(resolved(runs), pathlib.Path()),
        {'a': 'product', 'b': 'product', 'c': None},
      )

  def test_a_rate_that_changes_is_none(self):
    cosine = dict(name='cosine', learning_rate=0.1, decay_steps=12)
    self.assertLen(
      self.families(
        a=dict(schedule=cosine), b=dict(schedule={**cosine, 'learning_rate': 1})
      ),
      2,
    )


class StepsTest(absltest.TestCase):
  """In float64: what is data of the program is what a constant of it is."""

  def compare(self, steps):
    configs = resolved().runs
    problems = {name: build.problem(one) for name, one in configs.items()}
    config = configs['usual']
    split = build.source(config).load().train.peek()
    with jax.enable_x64(True):
      starts = {
        name: layouts.widened(problem.init(3))
        for name, problem in problems.items()
      }
      joined = seeds.joined(
        [
          state._replace(numbers=numbers.of(configs[name], _NUMBERS))
          for name, state in starts.items()
        ],
        devices.mesh(1),
      )
      step = build.step_of_one(config, problems['usual'], _NUMBERS)
      together = seeds.steps(step, devices.mesh(1))
      got = jax.device_get(together(joined, split, steps))
      for i, (name, problem) in enumerate(problems.items()):
        alone, want = jax.jit(problem.step), starts[name]
        for _ in range(steps):
          want = alone(want, split)
        one = jax.tree.map(lambda x: x[i], got)._replace(numbers=())  # noqa: B023
        want = jax.device_get(want)
        layouts.assert_equal(one, want, 1e-9)
        for exact in ('step', 'key', 'order', 'finite', 'skipped'):
          same_bits.assert_same(getattr(one, exact), getattr(want, exact))

  @pytest.mark.slow
  def test_a_hundred_steps(self):
    self.compare(100)


class LooksTest(absltest.TestCase):
  @pytest.mark.slow
  def test_each_has_its_own_numbers(self):
    """The rate in the step of a shift, the noise in what enters a layer."""
    paths = ('schedule.learning_rate', 'norm.n_mu')
    of = dict(every_steps=1, data='current_batch', layers=('linear2',))
    config = files.load(str(_CONFIG)).to_dict()
    config['runs'] = {
      'usual': dict(norm=_NOISY),
      'other': dict(norm=dict(_NOISY, n_mu=0.1), schedule=_FAST),
    }
    config['measures'] = {
      name: dict(name=name, **of) for name in ('covariate_shift', 'activations')
    }
    programs = [
      run_lib.program(
        config, build.problem(config), build.source(config).load()
      )
      for config in resolve.experiment(config, {}).runs.values()
    ]
    states = [
      one.init(3)._replace(numbers=numbers.of(one.config, paths))
      for one in programs
    ]
    joined = seeds.joined(states, devices.mesh(1))
    for i, probe in enumerate(programs[0].probes):
      for got, one in zip(probe.look_at_all(joined), programs, strict=True):
        want = one.probes[i].look(one.init(3))
        for name, value in want.items():
          np.testing.assert_allclose(
            got[name], value, rtol=1e-3, atol=1e-5, err_msg=name
          )


class TrainedTest(parameterized.TestCase):
  """Four runs x two seeds, trained as eight."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = scratch.folder(cls)
    cls.whole = cls.train('whole')

  @classmethod
  def train(cls, name, only=None, **overrides):
    experiment.run(resolved(**overrides), str(cls.folder / name), only=only)
    return cls.folder / name

  def assert_same(self, got, runs=tuple(_RUNS)):
    for run in runs:
      for seed in (0, 1):
        a, b = (folder_of(one, run, seed) for one in (got, self.whole))
        self.assertEqual(a.scalars.read_bytes(), b.scalars.read_bytes(), run)
        states = [
          checkpoint.Checkpoints(x.checkpoints).about(12) for x in (a, b)
        ]
        self.assertEqual(*(state['records'] for state in states))

  def test_all_are_in_one_program(self):
    for run, config in resolved().runs.items():
      for seed in (0, 1):
        manifest = folder_of(self.whole, run, seed).manifest
        self.assertEqual(manifest['seeds_at_once'], 8)
        self.assertEqual(tuple(manifest['numbers']), _NUMBERS)
        self.assertEqual(manifest['config'], config.as_json())
        self.assertEqual((manifest['status'], manifest['step']), ('done', 12))

  def test_each_is_what_it_is_alone(self):
    runs = ('calm', 'decayed')  # all numbers differ in one of them
    only = ','.join(run_folder.label(run, 1) for run in runs)
    alone = self.train('alone', only=only, seeds_at_once=1)
    for run in runs:
      got, want = (
        list(records.read(folder_of(workdir, run, 1).scalars))
        for workdir in (self.whole, alone)
      )
      for a, b in zip(got, want, strict=True):
        self.assertEqual(
          (a.step, a.name, *a.values), (b.step, b.name, *b.values)
        )
        for name, value in b.values.items():
          np.testing.assert_allclose(
            a.values[name], value, rtol=1e-4, atol=1e-5,
            err_msg=f'{run} {a.step} {a.name} {name}',
          )  # fmt: skip

  @pytest.mark.slow
  def test_what_was_killed_goes_on_to_the_same_bits(self):
    """Also a run alone, and with the step of some that of others."""
    killed = shutil.copytree(self.whole, self.folder / 'killed')
    shutil.rmtree(folder_of(killed, 'calm', 1).path)  # had not begun
    for run, newest in (('usual', 4), ('fast', 8)):
      folder = folder_of(killed, run, 0)
      for step in (8, 12):
        if step > newest:
          shutil.rmtree(folder.checkpoints / str(step))
      manifest = dict(folder.manifest, status='running', step=newest)
      del manifest['records']
      files_lib.write_json(folder.manifest_file, manifest, digest=True)
    # What belongs to one program is one part of --jobs.
    self.assertEqual(experiment.parts(resolved(), str(killed)), [list(_RUNS)])
    self.train('killed', only='fast/seed0')
    self.train('killed')
    self.assert_same(killed)

  @pytest.mark.slow
  def test_a_run_that_diverges_harms_no_other(self):
    runs = {**_RUNS, 'decayed': dict(_RUNS['decayed'], weight_decay=1e30)}
    workdir = self.folder / 'diverged'
    diverged = experiment.run(resolved(runs), str(workdir))
    self.assertEqual(diverged, ['decayed/seed0', 'decayed/seed1'])
    self.assert_same(workdir, runs=('usual', 'fast', 'calm'))

  @pytest.mark.slow
  def test_what_began_alone_goes_on_alone(self):
    """A run of an earlier version, or of a config with fewer runs."""
    workdir = self.train('begun', seeds_at_once=1, steps=4)
    self.train('begun')
    alone = self.train('alone again', seeds_at_once=1)
    for run in _RUNS:
      got, want = (folder_of(one, run, 0) for one in (workdir, alone))
      self.assertEqual(got.scalars.read_bytes(), want.scalars.read_bytes())
      self.assertEqual(got.manifest['numbers'], [])


if __name__ == '__main__':
  absltest.main()
