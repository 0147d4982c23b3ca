"""What all commands have in common: their help, their names, their version."""

import contextlib
import io
import os
import re
import subprocess
import sys
from importlib import metadata
from unittest import mock

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import __main__, analysis, commands
from bn_jax.commands import train
from tests.fixtures import commanded, strict

_ACTIONS = (
  ('data', 'prepare'), ('data', 'info'), ('papers', 'verify'),
  ('papers', 'draw'), ('papers', 'ioffe2015'),
)  # fmt: skip
_MEASURES = [('analyze', f'--measure={name}') for name in analysis.MEASURES]

run = commanded.run


class HelpTest(parameterized.TestCase):
  @parameterized.parameters(
    (), *((name,) for name in __main__.COMMANDS), *_ACTIONS, *_MEASURES
  )
  def test_says_what_each_word_and_flag_is(self, *words):
    code, said, wrong = run(*words, '--help')
    self.assertEqual((code, wrong), (0, ''))
    self.assertLessEqual(max(map(len, said.splitlines())), 80)
    usage, description, *_ = said.split('\n\n')
    name = [word for word in words if not word.startswith('--')]
    self.assertStartsWith(usage, ' '.join(['usage: python -m bn_jax', *name]))
    self.assertRegex(description, r'^[A-Z][^:]*\.')
    # Words may begin below a long flag.
    for flag in re.findall(r'\n  (-[^ ]*|[A-Z][A-Za-z/]*)(?= {2}|\n)', said):
      if flag not in ('COMMAND', 'ACTION'):
        text = said.split(f'\n  {flag}')[1]
        self.assertRegex(text, r'^(, --\w+)?( {2,}|\n {20,})[\w\'(]', flag)

  def test_all_flags_of_a_measure_are_there(self):
    _, said, _ = run('analyze', '--measure=along_gradient', '--help')
    for keyword, default in (
      ('step_factors', '0.5,1.0,2.0,4.0'), ('chunk_size', 'auto'),
      ('direction', 'descent'), ('group_size', 'None'),
    ):  # fmt: skip
      self.assertRegex(
        ' '.join(said.split()), rf' --{keyword}=\w+ [^-]*; default: {default}'
      )

  @parameterized.parameters(
    ((), {}),
    (('--chunk_size=None',), {'chunk_size': None}),
    (('--chunk_size=7',), {'chunk_size': 7}),
    (('--step_sizes=0.1, 2',), {'step_sizes': [0.1, 2.0]}),
  )
  def test_a_keyword_that_is_given_is_in_the_section(self, words, keywords):
    """None is given too: it is not the default of chunk_size."""
    with mock.patch('bn_jax.trained.analyze.done', return_value=0) as done:
      self.assertEqual(
        run('analyze', 'x', '--measure=along_gradient', *words)[0], 0
      )
    section = dict(done.call_args.args[1].section)
    for key in ('name', 'data', 'curvature', 'per_layer'):
      del section[key]
    self.assertEqual(section, keywords)

  def test_without_a_command_it_is_an_error(self):
    self.assertEqual(run(), (2, run('--help')[1], ''))

  def test_waits_for_no_jax(self):
    """Nor do wrong command lines; `analyze` asks JAX which measures it has."""
    code = 'import sys\nsys.modules["jax"] = sys.modules["flax"] = None\n' + (
      'from bn_jax import __main__\n'
      'from bn_jax.commands import train\n'
      'assert train.main(["train.py", "--help"]) == 0\n'
      'assert "numpy" not in sys.modules\n'
      'for name in __main__.COMMANDS:\n'
      '  if name != "analyze":\n'
      '    assert __main__.main(["", name, "--help"]) == 0\n'
      '    assert __main__.main(["", name, "--hlep"]) == 2\n'
    )
    done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=strict.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    self.assertEqual(done.returncode, 0, done.stderr)


class MainTest(parameterized.TestCase):
  def test_each_file_is_a_command(self):
    folder = strict.ROOT / 'bn_jax' / 'commands'
    names = {path.stem for path in folder.glob('*.py')} - {'__init__'}
    self.assertEqual(names, set(__main__.COMMANDS))

  @parameterized.parameters(
    'train', 'analyze', 'data prepare', 'data info', 'evaluate', 'launch',
    'papers', 'papers verify', 'papers draw', 'papers ioffe2015', 'report',
    'recalibrate', 'theory',
  )  # fmt: skip
  def test_whatever_is_a_path_is_read_as_one(self, words):
    """24.8: ~ is the home folder, and no bucket becomes a local folder."""
    parsers = [__main__.parser(words.split())]
    for word in words.split():
      parsers.append(parsers[-1]._subparsers._group_actions[0].choices[word])
    found = [
      action
      for action in parsers[-1]._actions
      if re.match('DIR|FILE|WORKDIR', str(action.metavar))
    ]
    self.assertNotEmpty(found)
    for action in found:
      with mock.patch.dict(os.environ, HOME='/home/me'):
        self.assertEqual(str(action.type('~/x')), '/home/me/x', action.dest)

  def test_train_is_train_py(self):
    words = ['--config=tests/fixtures/tiny_config.py', '--config.steps=3',
             '--plan', '--only=standard']  # fmt: skip
    with (
      contextlib.chdir(strict.ROOT),
      mock.patch.object(train, '_plan', return_value=47) as planned,
    ):
      self.assertEqual(run('train', *words)[0], 47)
      self.assertEqual(train.main(['train.py', *words]), 47)
    (one,), (other,) = (call.args for call in planned.call_args_list)
    self.assertEqual(one.config.to_dict(), other.config.to_dict())
    self.assertEqual(one.overrides, {'steps': 3})
    self.assertEqual(one._replace(config=None), other._replace(config=None))

  @parameterized.parameters(
    lambda: np.empty(10**15),
    lambda: jnp.zeros((10**5, 10**9)).sum(),
  )
  def test_too_little_memory_is_one_line(self, allocate):
    """24.9."""
    with contextlib.redirect_stderr(io.StringIO()) as wrong:
      self.assertEqual(commands.run(allocate), 2)
    self.assertStartsWith(wrong.getvalue(), 'error: out of memory: ')
    self.assertEndsWith(wrong.getvalue(), 'data or network\n')
    self.assertEqual(wrong.getvalue().count('\n'), 1)

  def test_another_error_keeps_its_traceback(self):
    with self.assertRaisesRegex(RuntimeError, 'a bug'):
      commands.run(lambda: (_ for _ in ()).throw(RuntimeError('a bug')))

  def test_version(self):
    (version,) = re.findall(
      r'^version = "(.*)"$', (strict.ROOT / 'pyproject.toml').read_text(), re.M
    )
    code, said, _ = run('--version')
    self.assertEqual(code, 0)
    jax, flax = metadata.version('jax'), metadata.version('flax')
    self.assertEqual(said, f'bn_jax {version} (jax {jax}, flax {flax})\n')

  def module(self, name, *words):
    """(exit code, stdout, stderr) of python -m NAME WORDS."""
    done = subprocess.run(
      [sys.executable, '-m', name, *words],
      cwd=strict.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr

  @parameterized.parameters(*__main__.COMMANDS)
  def test_a_module_of_a_command_is_the_command(self, name):
    """24.14: it did nothing, and exited with 0."""
    found = self.module(f'bn_jax.commands.{name}', '--nosuchflag')
    code, _, wrong = run(name, '--nosuchflag')
    self.assertEqual(found[0], code)
    # train says how it is called itself: python train.py.
    self.assertEqual(
      found[2].replace('python train.py', 'python -m bn_jax train'), wrong
    )

  @parameterized.parameters(
    'trained.evaluate', 'trained.analyze', 'trained.theory', 'papers.verify',
    'papers.draw', 'report.page', 'report', 'launch.engines', 'launch',
    'experiment.run', 'experiment.experiment', 'data.disk.prepare', 'commands',
  )  # fmt: skip
  def test_a_module_that_is_no_command_says_so(self, name):
    """24.14."""
    code, said, wrong = self.module(f'bn_jax.{name}', 'runs/mine')
    self.assertEqual((code, said), (2, ''))
    self.assertEqual(
      wrong,
      f'error: bn_jax.{name} is no command; see python -m bn_jax --help\n',
    )


if __name__ == '__main__':
  absltest.main()
