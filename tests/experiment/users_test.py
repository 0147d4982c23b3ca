"""A user's module: trained by, resumed, reported, analysed, evaluated."""

import contextlib
import json
import logging
import pathlib
import shutil
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors, modules
from bn_jax.analysis.kind import _of_user
from bn_jax.experiment import probes
from bn_jax.report import summary
from bn_jax.report.results import read
from bn_jax.storage import records, run_folder
from tests.fixtures import commanded, scratch, strict, trained

_FILES = strict.FIXTURES / 'users'


def setUpModule():
  jax.config.update('jax_disable_most_optimizations', True)


def tearDownModule():
  jax.config.update('jax_disable_most_optimizations', False)


def load_anew(case):
  """Forgets what was loaded, as in another process."""
  modules._activate(None)
  case.enterContext(mock.patch.object(modules, '_state', modules._State()))


class Case(absltest.TestCase):
  """In an empty folder; the config and its module lie in another one."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.shared = scratch.folder(cls).resolve()
    cls.project(cls.shared)
    code, _, wrong = cls.train(cls.shared)
    assert code == 0, wrong

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.folder = self.folder.resolve()
    self.enterContext(contextlib.chdir(self.folder))

  @staticmethod
  def project(folder):
    """Writes a user's files into a folder."""
    folder.mkdir(exist_ok=True)
    for file in _FILES.glob('*.py'):
      shutil.copy(file, folder)

  @staticmethod
  def train(folder, *words):
    with commanded.without_page():
      return commanded.run(
        'train', f'--config={folder}/my_config.py', f'--workdir={folder}/work',
        *words,
      )  # fmt: skip

  def copied(self, name='project'):
    """A copy of the trained project, as if trained there."""
    folder = self.folder / name
    shutil.copytree(self.shared, folder)
    for file in folder.glob('work/*/seed0/manifest.json'):
      text = json.loads(file.read_text())
      del text['format'], text['digest']  # as before they were written
      for entry in text['modules'].values():
        entry['file'] = str(folder / pathlib.Path(entry['file']).name)
      file.write_text(json.dumps(text))
    return folder

  def change(self, folder, old='** power', new='** power * 2'):
    file = folder / 'my_module.py'
    text = file.read_text()
    self.assertIn(old, text)
    file.write_text(text.replace(old, new))

  def works(self, *words):
    code, said, wrong = commanded.run(*words)
    self.assertEqual(code, 0, wrong)
    return said, wrong


class LooksTest(parameterized.TestCase):
  """What a user's measure returns, look after look."""

  @parameterized.parameters(
    ({'x': [1]}, {'x': [1, 2]}, "'x' of shape (1,), then of shape (2,)"),
    ({'x': 1}, {'x': 1, 'y': 2}, "'y' absent, then of shape ()"),
    ({'x': 1, 'y': 2}, {'x': 1}, "'y' of shape (), then absent"),
  )
  def test_that_differ(self, first, second, said):
    """Their lines could not be read as one."""
    looks = iter([first, first, second])
    look = _of_user('a:b', lambda: lambda *_: next(looks))()
    self.assertIs(look(None, None, ()), look(None, None, ()))
    with self.assertRaises(errors.ConfigError) as caught:
      look(None, None, ())
    self.assertEqual(
      str(caught.exception), f'the measure of a:b returned {said}; each look '
      'must return the same names and shapes',
    )  # fmt: skip

  def test_a_number_that_is_not_finite(self):
    """It is told once, by its name."""
    told = set()
    with self.assertLogs('bn_jax', logging.WARNING) as log:
      for _ in range(2):
        probes._tell_not_finite('a:b', told, {'x': [1, np.nan], 'y': 1})
    self.assertEqual(
      log.output, ["WARNING:bn_jax:the measure of a:b: 'x' is not finite"]
    )


class UsersTest(Case):
  def test_its_numbers_are_those_of_ours(self):
    rows = {
      run: [
        record
        for record in records.read(
          run_folder.at(self.shared / 'work', run, 0).scalars
        )
        if record.name in ('train', 'test')
      ]
      for run in ('own', 'ours')
    }
    self.assertLen(rows['own'], 4 + 3)
    self.assertEqual(rows['own'], rows['ours'])

  def test_its_manifest_names_the_files(self):
    manifest = run_folder.at(self.shared / 'work', 'own', 0).manifest
    self.assertEqual(
      {name: entry['file'] for name, entry in manifest['modules'].items()},
      {
        name: str(self.shared / f'{name}.py')
        for name in ('my_module', 'my_neighbour')
      },
    )
    config = manifest['config']
    model = {'name': 'my_module:network', 'hidden': [8]}
    self.assertEqual(config['model'], model)
    self.assertEqual(config['schedule']['half_life'], 100)
    ours = run_folder.at(self.shared / 'work', 'ours', 0).manifest
    self.assertEqual(ours['modules'], {})

  def test_measured_while_training(self):
    folder, *_, state = trained.newest(self.shared / 'work' / 'own')
    looks = [r for r in records.read(folder.scalars) if r.name == 'sizes']
    self.assertEqual([look.step for look in looks], [0, 2, 4])
    self.assertEqual(looks[-1].values['examples'], 16)
    sizes = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
    np.testing.assert_allclose(
      looks[-1].values['mean_power'], np.abs(sizes).mean(), rtol=1e-6
    )

  def test_analysed_by_its_measure(self):
    project = self.copied()
    said, wrong = self.works(
      'analyze', project / 'work' / 'own', '--measure=my_module:sizes',
      '--power=3', '--data=test:32',
    )  # fmt: skip
    self.assertEqual(wrong, '')
    *_, state = trained.newest(project / 'work' / 'own')
    sizes = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
    self.assertIn(f'mean_power {np.mean(np.abs(sizes) ** 3):.4g}, exam', said)
    folder = project / 'work' / 'own' / 'seed0' / 'analysis' / 'my_module-sizes'
    settings = json.loads((folder / 'settings.json').read_text())
    self.assertEqual(
      settings['modules']['my_module']['file'], str(project / 'my_module.py')
    )
    self.assertEqual(settings['measure']['power'], 3.0)

  def test_the_plan_of_its_measure(self):
    project = self.copied()
    said, wrong = self.works(
      'analyze', project / 'work' / 'own', '--measure=my_module:sizes',
      '--data=test:32', '--plan',
    )  # fmt: skip
    self.assertEqual(wrong, '')
    self.assertIn('my_module:sizes of 32 examples', said)

  def test_its_measure_of_a_run_of_ours(self):
    """The module lies in the current folder, as nothing else names it."""
    project = self.copied()
    with contextlib.chdir(project):
      said, _ = self.works('analyze', 'work/ours', '--measure=my_module:sizes',
                           '--data=test:8')  # fmt: skip
    self.assertIn('mean_power', said)
    self.assertIn('examples 8', said)

  def test_a_kind_of_its_own(self):
    project = self.copied()
    measure = strict.FIXTURES / 'one_file_measure.py'
    shutil.copy(measure, project / 'own_kind.py')
    with contextlib.chdir(project):
      said, _ = self.works(
        'analyze', 'work/own', '--measure=own_kind:KIND', '--powers=1,2'
      )
      self.assertIn('mean_power', said)
      said, _ = self.works(
        'analyze', 'work/own', '--measure=own_kind:KIND', '--plan', '--name=x'
      )
    self.assertIn('1 values (1 chunk x 1 checkpoint)', said)
    self.works('report', project / 'work')
    page = (project / 'work' / 'report.html').read_text()
    self.assertIn('Mean of |w|ᵖ', page)

  def test_a_measure_in_chunks(self):
    """It need not say of which statistics, which would be 'running'."""
    project = self.copied()
    self.change(project, 'power: float = 2.0', "power=2.0, chunk_size='auto'")
    load_anew(self)
    said, _ = self.works(
      'analyze', project / 'work/own', '--measure=my_module:sizes',
      '--data=test:64', '--name=sizes',
    )  # fmt: skip
    self.assertIn('examples 64', said)

  def test_a_measure_that_fails(self):
    """While training, and afterwards; it is said where."""
    for new, said in (
      ("return {}['mean']", "my_module.py:42: KeyError: 'mean'"),
      ('return 3', 'the measure of my_module:sizes returned 3; it must return'),
      ("return {'text': 'x'}", "sizes returned {'text': 'x'}; it must return"),
    ):
      project = self.copied(f'project{len(new)}')
      self.change(
        project, "return {'mean_power': mean, 'examples': examples}", new
      )
      command = ('analyze', project / 'work/own', '--measure=my_module:sizes')
      if 'mean' in new:
        command = (
          'train', f'--config={project}/my_config.py', '--only=own',
          f'--workdir={self.folder}/new',
        )  # fmt: skip
      load_anew(self)
      code, _, wrong = commanded.run(*command)
      self.assertEqual(code, 2, wrong)
      self.assertIn(said, wrong.splitlines()[-1])
      self.assertNotIn('Traceback', wrong)

  def test_a_schedule_that_has_no_learning_rate(self):
    """The summary has its name, and other optimizers beside the rates."""
    project = self.copied()
    file = project / 'work' / 'own' / 'seed0' / 'manifest.json'
    text = json.loads(file.read_text())
    del text['config']['schedule']['learning_rate']
    file.write_text(json.dumps(text))
    runs = read.runs([project / 'work'])
    texts = {one.label: one.texts for one in summary.columns(runs)}
    names = ['my_module:schedule', 'constant']
    self.assertCountEqual(texts['schedule.name'], names)
    self.assertCountEqual(texts['Optimizer'], ['my_module:optimizer', 'sgd'])

  def test_a_keyword_that_came_later(self):
    project = self.copied()
    self.change(project, 'hidden=(8,),', 'hidden=(8,), later=0.5,')
    code, _, wrong = self.train(project, '--config.steps=6', '--only=own')
    self.assertEqual(code, 0, wrong)
    config = run_folder.at(project / 'work', 'own', 0).manifest['config']
    self.assertEqual(config['model']['later'], 0.5)

  def test_its_layers(self):
    with contextlib.chdir(self.shared):
      said, _ = self.works('models', 'my_module:network', '--image=8')
      ours, _ = self.works('models', 'mlp')
    self.assertIn('logits', said)
    weights = 8 * 8 * 3 * 8 + 8 * 1000
    self.assertRegex(said, rf'sum +\S+ +{weights:,}\n')
    self.assertNotIn('my_module', ours)

  def test_its_help(self):
    said, _ = self.works(
      'analyze', self.shared / 'work' / 'own', '--measure=my_module:sizes',
      '--help',
    )  # fmt: skip
    self.assertIn('Means of |w|^power over all parameters.', said)
    self.assertRegex(said, r'--power=POWER +of \|w\|, above 0; default: 2.0')

  def test_evaluated_and_recalibrated(self):
    project = self.copied()
    said, _ = self.works('recalibrate', project / 'work' / 'own', '--batches=2')
    self.assertIn('with statistics of 2 batches', said)
    said, _ = self.works('evaluate', project / 'work' / 'own',
                         project / 'work' / 'ours')  # fmt: skip
    accuracies = [line.split()[1] for line in said.splitlines()[2:]]
    self.assertLen(set(accuracies), 1)  # own, ours, together

  def test_reported_without_its_code(self):
    project = self.copied()
    for file in project.glob('*.py'):
      file.unlink()
    self.works('report', project / 'work')
    page = (project / 'work' / 'report.html').read_text()
    self.assertIn('<h2>Sizes</h2>', page)
    self.assertTrue((project / 'work/figures/my-module-sizes.csv').exists())

  def test_resumed(self):
    project = self.copied()
    code, _, wrong = self.train(
      project, '--config.steps=6', '--resume=must', '--only=own'
    )
    self.assertEqual(code, 0, wrong)
    self.assertNotIn('has changed', wrong)
    self.assertEqual(run_folder.at(project / 'work', 'own', 0).step, 6)

  def test_a_changed_file_is_said_when_resumed(self):
    project = self.copied()
    self.change(project)
    old = run_folder.at(project / 'work', 'own', 0).manifest['modules']
    with self.assertLogs('bn_jax', logging.WARNING) as log:
      code, _, wrong = self.train(project, '--config.steps=6', '--only=own')
    self.assertEqual(code, 0, wrong)
    (line,) = log.output
    self.assertRegex(
      line, 'own/seed0 goes on, though .*my_module.py has changed: its SHA-256 '
      f'was {old["my_module"]["digest"][:12]}',
    )  # fmt: skip
    folder = run_folder.at(project / 'work', 'own', 0)
    self.assertNotEqual(folder.manifest['modules'], old)
    looks = [r for r in records.read(folder.scalars) if r.name == 'sizes']
    before, after = (look.values['mean_power'] for look in looks[1:3])
    self.assertGreater(after / before, 1.5)

  def test_a_changed_file_is_said_where_nothing_is_left_to_train(self):
    project = self.copied()
    self.change(project)
    load_anew(self)
    with self.assertLogs('bn_jax', logging.WARNING) as log:
      code, _, wrong = self.train(project)
    self.assertEqual(code, 0, wrong)
    (line,) = log.output
    self.assertRegex(
      line, 'own/seed0 has ended and stays as it is, though .*my_module.py has '
      'changed: its SHA-256 was ',
    )  # fmt: skip

  def test_a_changed_file_is_said_when_analysed(self):
    project = self.copied()
    own = project / 'work' / 'own'
    words = ('analyze', own, '--measure=my_module:sizes', '--data=test:8')
    before, wrong = self.works(*words, '--name=before')
    self.assertEqual(wrong, '')
    self.change(project)
    load_anew(self)
    with self.assertLogs('bn_jax', logging.WARNING) as log:
      after, _ = self.works(*words, '--name=after')
    self.assertIn('my_module.py has changed', log.output[0])
    values = [
      float(text.partition('mean_power ')[2].partition(',')[0])
      for text in (before, after)
    ]
    self.assertAlmostEqual(values[1] / values[0], 2, places=2)

  def test_two_projects_with_modules_of_one_name(self):
    """Each network is built by the code that it was trained by."""
    one, other = self.copied('one'), self.copied('other')
    # Nothing learned: all outputs are the bias of the last layer, which is 0.
    self.change(
      other, "make('mlp', num_classes=num_classes, norm=norm, hidden=hidden)",
      'Nothing(num_classes=num_classes, norm=norm, hidden=hidden)',
    )  # fmt: skip
    self.change(other, 'models, norms\n', 'models, norms\n' + _NOTHING)
    alone = [
      self.works('evaluate', place / 'work' / 'own')[0].splitlines()[-1]
      for place in (one, other)
    ]
    self.assertNotEqual(*alone)
    said, _ = self.works('evaluate', one / 'work/own', other / 'work/own')
    self.assertEqual(
      [line.split()[1:] for line in said.splitlines()[2:4]],
      [line.split()[1:] for line in alone],
    )
    self.assertIn(f'{other}/work/own/seed0 ', said)

  def test_a_file_that_is_gone(self):
    project = self.copied()
    (project / 'my_module.py').rename(project / 'my_other.py')
    before = sorted(project.rglob('*'))
    for words in (
      ('evaluate', project / 'work' / 'own'),
      ('recalibrate', project / 'work' / 'own'),
      ('analyze', project / 'work' / 'own', '--measure=weights'),
      ('analyze', project / 'work' / 'own', '--measure=my_module:sizes'),
    ):
      code, said, wrong = commanded.run(*words)
      self.assertEqual((code, said), (2, ''), wrong)
      self.assertRegex(
        wrong, r'^error: .*my_module.py, the module my_module of the run, is '
        r'gone; put it back, or start the command in the folder that has it\n$',
      )  # fmt: skip
    self.assertEqual(sorted(project.rglob('*')), before)

  def test_a_file_that_lies_elsewhere_now(self):
    project = self.copied()
    for name in ('my_module.py', 'my_neighbour.py'):
      (project / name).rename(self.folder / name)
    said, wrong = self.works('evaluate', project / 'work' / 'own')
    self.assertIn('own/seed0', said)
    self.assertEqual(wrong, '')  # it is the same

  def test_no_such_measure_of_a_user(self):
    for name, said in (
      ('my_module:size', "unknown name 'size'; did you mean 'sizes'?"),
      ('my_modul:sizes', "no module 'my_modul' is in . or installed"),
    ):
      code, _, wrong = commanded.run(
        'analyze', self.shared / 'work' / 'own', f'--measure={name}'
      )
      self.assertEqual(code, 2)
      self.assertIn(said, wrong)
      self.assertEqual(wrong.count('\n'), 1)

  def test_on_two_devices(self):
    """The norm sees the whole batch, of which a device has a part."""
    folder = run_folder.at(self.shared / 'work', 'own', 0)
    alone = [r for r in records.read(folder.scalars) if r.name == 'train'][:2]
    with commanded.without_page():
      code, _, wrong = commanded.run(
        'train', f'--config={self.shared}/my_config.py', '--only=own',
        f'--workdir={self.folder}/two', '--devices=2', '--config.steps=2',
        '--config.layout=shard_map',
      )  # fmt: skip
    self.assertEqual(code, 0, wrong)
    scalars = run_folder.at(self.folder / 'two', 'own', 0).scalars
    rows = [r for r in records.read(scalars) if r.name == 'train']
    for row, expected in zip(rows, alone, strict=True):
      for name in ('objective', 'gradient_norm'):
        np.testing.assert_allclose(
          row.values[name], expected.values[name], rtol=1e-5
        )

  def test_begun_with_its_parameters(self):
    project = self.copied()
    (project / 'own.py').write_text((project / 'my_config.py').read_text())
    with commanded.without_page():
      code, _, wrong = commanded.run(
        'train', f'--config={project}/own.py', f'--workdir={self.folder}/next',
        f'--config.init_from={project}/work/own/seed0', '--config.steps=1',
        '--only=own',
      )  # fmt: skip
    self.assertEqual(code, 0, wrong)

  def test_launched(self):
    said, _ = self.works(
      'launch', '--engine=print', f'--config={self.shared}/my_config.py'
    )
    self.assertLen(said.splitlines(), 2)


_NOTHING = """
class Nothing(type(models.make('mlp', num_classes=2))):
  @norms.norm.checked_call
  def __call__(self, x, *, statistics, mask=None, first=0):
    y = super().__call__(x, statistics=statistics, mask=mask, first=first)
    return 0 * y
"""


if __name__ == '__main__':
  absltest.main()
