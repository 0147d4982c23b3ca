"""Every shipped config: it resolves, and its program has consistent shapes."""

import ast

import jax
import jax.numpy as jnp
import strict
from absl.testing import absltest, parameterized

from bn_jax import assemble, resolve, types
from bn_jax.commands import config_file
from bn_jax.data import in_memory

_FILES = [
  str(file.relative_to(strict.ROOT))
  for file in sorted((strict.ROOT / 'configs').glob('**/*.py'))
  if file.name != '__init__.py'
]


def split_like(run):
  """The shapes of the training split of a run."""
  facts = in_memory.facts(run['data']['name'])
  shape = in_memory.image_shape(
    run['data']['name'], resolution=run['data']['resolution']
  )
  channels = jax.ShapeDtypeStruct(shape[-1:], jnp.float32)
  return types.Split(
    images=jax.ShapeDtypeStruct((facts.num_train, *shape), jnp.uint8),
    labels=jax.ShapeDtypeStruct((facts.num_train,), jnp.int32),
    mean=channels,
    std=channels,
  )


class ConfigsTest(parameterized.TestCase):
  @parameterized.parameters(*_FILES)
  def test_every_run_has_a_step_that_keeps_the_shapes(self, file):
    config = config_file.load(str(strict.ROOT / file)).to_dict()
    plan = resolve.experiment(config, {})
    self.assertNotEmpty(plan.runs)
    for name, run in plan.runs.items():
      with self.subTest(name):
        problem = assemble.problem(run)
        assemble.check_measures(run, problem)
        state = jax.eval_shape(problem.init, 0)
        after = jax.eval_shape(problem.step, state, split_like(run))
        self.assertEqual(after, state)

  @parameterized.parameters(*_FILES)
  def test_says_what_it_is_and_how_it_is_started(self, file):
    text = (strict.ROOT / file).read_text()
    docstring = ast.get_docstring(ast.parse(text))
    if file.endswith('default.py'):
      self.assertIn('meaning', docstring)
      return
    self.assertIn(f'python train.py --config={file}', docstring)


if __name__ == '__main__':
  absltest.main()
