"""Seeds of an experiment that are trained in one program."""

import functools
import pathlib
import shutil
import tempfile
from unittest import mock

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import build, files, resolve
from bn_jax.experiment import cost, experiment, run, together
from bn_jax.storage import checkpoint, records, run_folder
from bn_jax.storage import files as files_lib
from bn_jax.training import seeds
from tests.fixtures import same_bits, scratch, strict

_CONFIG = strict.ROOT / 'tests' / 'fixtures' / 'regression_config.py'
_SEEDS = range(5)


_CALLBACK = """
import jax
import numpy as np
from bn_jax import losses

def of_examples(outputs, targets):
  size = jax.pure_callback(
    lambda x: np.float32(len(x)), jax.ShapeDtypeStruct((), np.float32),
    jax.lax.stop_gradient(outputs),
  )
  return {'loss': size * jax.numpy.square(outputs - targets).sum(axis=-1)}

def make():
  return losses.Loss(of_examples, total=True, classifies=False)
"""
_WITH_CALLBACK = """
from tests.fixtures import regression_config

def get_config():
  config = regression_config.get_config()
  config.loss = dict(name='my_loss:make')
  return config
"""


@functools.cache
def resolved(**overrides):
  config = files.load(str(_CONFIG)).to_dict()
  return resolve.experiment(config, overrides)


def folder_of(workdir, seed):
  return run_folder.at(pathlib.Path(workdir), 'batchnorm', seed)


class TogetherTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = scratch.folder(cls)
    cls.whole = cls.train('whole')

  @classmethod
  def train(cls, name, **overrides):
    experiment.run(resolved(**overrides), str(cls.folder / name))
    return cls.folder / name

  def copied(self, name):
    return shutil.copytree(self.whole, self.folder / name)

  def assert_same(self, got, want, seeds=_SEEDS):
    for seed in seeds:
      same_bits.assert_same_seed(folder_of(got, seed), folder_of(want, seed))

  def test_all_are_in_one_program(self):
    for seed in _SEEDS:
      manifest = folder_of(self.whole, seed).manifest
      self.assertEqual(manifest['seeds_at_once'], len(_SEEDS))
      self.assertEqual((manifest['status'], manifest['step']), ('done', 12))

  def test_each_is_what_it_is_alone(self):
    alone = self.train('alone', seeds_at_once=1)
    for seed in _SEEDS:
      got, want = (
        list(records.read(folder_of(workdir, seed).scalars))
        for workdir in (self.whole, alone)
      )
      for a, b in zip(got, want, strict=True):
        self.assertEqual(
          (a.step, a.name, *a.values), (b.step, b.name, *b.values)
        )
        for name in b.values:
          np.testing.assert_allclose(
            a.values[name], b.values[name], rtol=1e-4, atol=1e-5
          )

  def test_goes_on_from_different_checkpoints(self):
    """As after kill -9: some have saved step 8, others not yet."""
    killed = self.copied('killed')
    for seed in _SEEDS:
      folder = folder_of(killed, seed)
      steps = checkpoint.Checkpoints(folder.checkpoints).steps()
      self.assertEqual(steps, (4, 8, 12))
      newest = 4 if seed in (1, 3) else 8
      for step in (8, 12):
        if step > newest:
          shutil.rmtree(folder.checkpoints / str(step))
      manifest = dict(folder.manifest, status='running', step=newest)
      del manifest['records']
      files_lib.write_json(folder.manifest_file, manifest, digest=True)
    self.train('killed')
    self.assert_same(killed, self.whole)

  def test_one_that_lacks_its_end_has_the_same_bits(self):
    """It is trained in a program of five, the others' places being copies."""
    lacking = self.copied('lacking')
    shutil.rmtree(folder_of(lacking, 2).path)
    # A job of --jobs is given all, so that it finds the same number.
    self.assertEqual(
      experiment.parts(resolved(), str(lacking)), [['batchnorm']]
    )
    self.train('lacking')
    self.assert_same(lacking, self.whole)

  def test_stops_and_goes_on(self):
    stopped = self.folder / 'stopped'
    program = _program()
    answers = iter([False] * 9)
    folders = [folder_of(stopped, seed) for seed in _SEEDS]
    group = together.Group(folders, at_once=5)
    train = functools.partial(run.train, {'batchnorm': program}, group)
    with self.assertRaisesRegex(errors.Interrupted, 'seed0 and 4 more: stopp'):
      train(stopped=lambda: next(answers, True))
    status = {folder.again().status for folder in folders}
    self.assertEqual(status, {'interrupted'})
    train(stopped=lambda: False)
    self.assert_same(stopped, self.whole)

  def test_one_that_diverges_harms_no_other(self):
    program = _program()
    init = program.init

    def broken(seed):
      state = init(seed)
      if seed != 3:
        return state
      scaled = {
        name: {k: 1e30 * x for k, x in layer.items()}
        for name, layer in state.params.items()
      }
      return state._replace(params=scaled)

    workdir = self.folder / 'diverged'
    folders = [folder_of(workdir, seed) for seed in _SEEDS]
    run.train(
      {'batchnorm': program._replace(init=broken)},
      together.Group(folders, at_once=5),
      stopped=lambda: False,
    )
    self.assert_same(workdir, self.whole, seeds=(0, 1, 2, 4))
    manifest = folder_of(workdir, 3).manifest
    self.assertEqual((manifest['status'], manifest['step']), ('diverged', 0))
    self.assertEqual(manifest['divergence']['checkpoint'], 0)


class LooksTest(parameterized.TestCase):
  """All points of all seeds at once are what each look is alone."""

  @parameterized.parameters(
    dict(curvature=True),
    dict(statistics='running', direction='ascent', step_factors=(1e-12,)),
  )
  def test_along_gradient(self, **keywords):
    self.check_along_gradient(**keywords)

  @parameterized.parameters(
    dict(direction='random', step_sizes=(1e-3, 1e-2)),
    dict(warmup_steps=3),  # a rate of 0 at first
  )
  @pytest.mark.slow  # compiles two looks
  def test_along_other_directions(self, **keywords):
    self.check_along_gradient(**keywords)

  def check_along_gradient(self, warmup_steps=0, **keywords):
    config = resolved().runs['batchnorm']
    section = dict(config.measures['landscape'], **keywords)
    config = config.replace(measures={'landscape': section})

    if warmup_steps:
      schedule = dict(
        name='cosine', learning_rate=1e-3, decay_steps=12, warmup_steps=3
      )
      config = config.replace(schedule=schedule)
    self.compare(config)

  @parameterized.parameters(
    dict(name='evaluation', data='test'),  # 40 in batches of 16: padded
    dict(name='activations', data='test:30', layers=('linear2',)),
    dict(name='covariate_shift', data='train:8', norm_parameters=False),
  )
  def test_other_measures(self, **section):
    self.check_measure(section)

  @parameterized.parameters(
    dict(name='activations', data='current_batch', statistics='running'),
    dict(name='covariate_shift', data='current_batch', layers=('linear3',)),
    dict(name='along_gradient', data='train:8', step_factors=(1.0,)),
  )
  @pytest.mark.slow  # compiles two looks
  def test_so_of_other_data(self, **section):
    self.check_measure(section)

  def check_measure(self, section):
    measures = {'m': dict(every_steps=1, **section)}
    config = files.load(str(_CONFIG)).to_dict()
    changes = {'measures': measures, 'evaluation_batch_size': 16}
    experiment = resolve.experiment({**config, **changes}, {})
    self.compare(experiment.runs['batchnorm'])

  def compare(self, config):
    program = run.program(
      config, build.problem(config), build.source(config).load()
    )
    (probe,) = program.probes
    states = [program.init(seed) for seed in (0, 1, 2)]
    got = probe.look_at_all(seeds.joined(states, build.mesh(config)))
    for values, state in zip(got, states, strict=True):
      want = probe.look(state)
      self.assertEqual(list(values), list(want))
      for name, value in want.items():
        np.testing.assert_allclose(
          values[name], value, rtol=2e-3, atol=1e-6, err_msg=name
        )
        self.assertEqual(values[name].dtype, value.dtype)

  def test_what_is_looked_at_seed_by_seed(self):
    for keywords in (
      dict(per_layer=True),
      dict(chunk_size=4, statistics='running'),
    ):
      config = resolved().runs['batchnorm']
      section = dict(config.measures['landscape'], **keywords)
      config = config.replace(measures={'landscape': section})
      (probe,) = run.program(
        config, build.problem(config), build.source(config).load()
      ).probes
      self.assertIsNone(probe.look_at_all)


class RuleTest(parameterized.TestCase):
  @parameterized.parameters(
    (2, 1), (3, 1), (4, 4), (32, 32), (33, 17), (64, 32), (100, 25),
  )  # fmt: skip
  def test_groups_are_about_equal(self, count, want):
    config = resolved().runs['batchnorm']
    problem = build.problem(config)
    self.assertEqual(together.at_once(config, problem, count), want)

  def test_convolutions_train_one_after_the_other(self):
    config = strict.ROOT / 'tests' / 'fixtures' / 'tiny_config.py'
    runs = resolve.experiment(files.load(str(config)).to_dict(), {}).runs
    config = runs['batchnorm']
    problem = build.problem(config)
    self.assertEqual(together.at_once(config, problem, 8), 1)

  def test_no_more_than_fit_into_half_of_the_memory(self):
    config = resolved().runs['batchnorm']
    problem = build.problem(config)
    # Of eleven places: a program for 10 or 11 has three blocks of four.
    left = 2 * 11.5 * together.bytes_of_seed(config, problem)
    with mock.patch.object(cost, 'memory_left', return_value=left):
      self.assertEqual(together.at_once(config, problem, 54), 9)
      together.check(config.replace(seeds_at_once=9), problem)
      with self.assertRaisesRegex(
        errors.ConfigError,
        'seeds_at_once: 10; so many seeds take about .* GB, .* GB may be '
        "used; allowed: up to 9, or 'auto'",
      ):
        together.check(config.replace(seeds_at_once=10), problem)

  def test_states_that_leave_the_caches(self):
    config = resolved().runs['batchnorm']
    wide = dict(config.model, depth=4, features=500)
    config = config.replace(model=wide)
    self.assertEqual(together.at_once(config, build.problem(config), 64), 1)

  def test_a_kill_between_groups_changes_no_number(self):
    config = resolved().runs['batchnorm']
    problem = build.problem(config)
    for earlier, asked, want in (
      (0, 70, [(24, 24), (24, 24), (24, 22)]),
      (8, 16, [(8, 8)]),  # added to 8 that are done: no place is empty
      (33, 66, [(17, 17), (17, 16)]),  # added to as large groups
      (8, 100, [(31, 31), (31, 31), (31, 30)]),
    ):
      numbers = dict.fromkeys(range(earlier), together._even(earlier, 32))
      for number, count in want:
        folders = folders_of(asked, numbers)
        left = [folder for folder in folders if folder.manifest is None]
        got = together.groups(config, problem, left, folders)
        self.assertEqual(
          [(n, len(group)) for n, group in got], want[-len(got) :]
        )
        numbers |= {folder.seed: number for folder in left[:count]}

  @parameterized.parameters(
    ({}, 8),
    (dict(shard_state=True), 1),  # cuts the state of one seed
    (dict(devices=8, batch_size=16), 4),  # as if it began: a rule of 4 seeds
  )
  def test_a_seed_goes_on_in_as_large_a_program(self, changes, want):
    config = resolved().runs['batchnorm'].replace(**changes)
    manifest = {'seeds_at_once': 8, 'device': {'count': 1}}
    left = [mock.Mock(seed=seed, manifest=manifest) for seed in range(4)]
    got = together.groups(config, build.problem(config), left, left)
    self.assertEqual(got[0][0], want)

  def test_what_vmap_cannot_map(self):
    """A user's loss with a callback: one after the other, and a line."""
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (folder / 'my_loss.py').write_text(_CALLBACK)
    (folder / 'config.py').write_text(_WITH_CALLBACK)
    config = files.load(str(folder / 'config.py')).to_dict()
    (config,) = resolve.experiment(config, {}).runs.values()
    problem = build.problem(config)
    left = folders_of(5, {})
    with self.assertLogs('bn_jax') as log:
      groups = together.groups(config, problem, left, left)
    self.assertEqual([number for number, _ in groups], [1] * 5)
    why = r'jax\.vmap cannot map its step: .*my_loss\.py:7: .*vmap_method'
    self.assertLen(log.output, 1)
    self.assertRegex(
      log.output[0], f'seeds are trained one after the other: {why}'
    )
    with self.assertRaisesRegex(errors.ConfigError, f'seeds_at_once: 2; {why}'):
      together.check(config.replace(seeds_at_once=2), problem)

  def test_a_number_stays(self):
    config = resolved(seeds_at_once=2).runs['batchnorm']
    self.assertEqual(together.at_once(config, build.problem(config), 5), 2)


def folders_of(count, numbers):
  """Folders of seeds, some of which were trained in groups of a number."""
  return [
    mock.Mock(
      seed=seed,
      manifest=numbers.get(seed)
      and {'seeds_at_once': numbers[seed], 'device': {'count': 1}},
    )
    for seed in range(count)
  ]


@functools.cache
def _program():
  config = resolved().runs['batchnorm']
  return run.program(config, build.problem(config), build.source(config).load())


if __name__ == '__main__':
  absltest.main()
