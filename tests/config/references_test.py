"""What a config can say to a user's function: the keywords that it has."""

import pathlib
import tempfile

from absl.testing import absltest

from bn_jax import errors, models, modules, norms, placement
from bn_jax.config import schema
from tests.fixtures import strict  # noqa: F401

_MODULE = """
from flax import linen as nn

from bn_jax import models, norms


class Network(nn.Module):
  num_classes: int
  width: int = 8
  activation: object = nn.relu

  @nn.compact
  def __call__(self, x, train):
    return nn.Dense(self.num_classes)(self.activation(nn.Dense(self.width)(x)))


def anything(**keywords):
  return models.make('mlp', **keywords)


class Centre(nn.Module):
  def __call__(self, x, *, statistics, mask=None, first=0):
    return x - x.mean(0, keepdims=True)


def norm(*, spread):
  return norms.Norm(lambda name: Centre(name=name), bias_before=False)
"""
_MODEL = schema.SECTIONS['model']


class ReferencesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    (folder / 'my_module.py').write_text(_MODULE)
    modules.search(folder)

  def completed(self, name, **keywords):
    return schema.completed('config.model', _MODEL, {'name': name, **keywords})

  def test_a_class_has_the_keywords_of_its_fields(self):
    name = 'my_module:Network'
    # flax's own fields are none, and a function stays the class's own.
    self.assertEqual(self.completed(name), {'name': name, 'width': 8})
    self.assertEqual(self.completed(name, width=3)['width'], 3)
    with self.assertRaisesRegex(errors.ConfigError, "unknown key 'parent'"):
      self.completed(name, parent=None)
    module = models.make(name, num_classes=2, width=3)
    self.assertEqual(module.network.module.width, 3)

  def test_a_function_of_any_keywords_takes_any(self):
    name = 'my_module:anything'
    section = {'name': name, 'hidden': [3], 'other': 1}
    self.assertEqual(self.completed(**section), section)
    module = models.make(name, num_classes=2, hidden=(3,), norm='batch')
    self.assertEqual((module.hidden, module.num_classes), ((3,), 2))

  def test_an_old_config_gets_the_defaults(self):
    name = 'my_module:Network'
    self.assertEqual(
      schema.filled(_MODEL, {'name': name}), {'name': name, 'width': 8}
    )
    gone = {'name': 'my_other:make', 'width': 3}
    self.assertEqual(schema.filled(_MODEL, gone), gone)

  def test_a_norm_that_no_trace_shows_may_see_the_whole_batch(self):
    alone = models.Traits(group_size=1, noisy=False)
    own, layer = norms.make('my_module:norm'), norms.make('layer')
    traits = models.with_norm(alone, own, placement.ALONE)
    self.assertIsNone(traits.group_size)
    self.assertIs(models.with_norm(alone, layer, placement.ALONE), alone)
    with self.assertRaisesRegex(ValueError, "Centre may have each device's"):
      models.with_norm(alone, own, placement.Spread(2, 'data'))

  def test_references_of_a_run(self):
    run = {
      'model': {'name': 'my_module:make'},
      'norm': {'name': 'batch'},
      'measures': {'own': {'name': 'a.b:c'}, 'test': {'name': 'evaluation'}},
    }
    self.assertEqual(schema.references(run), ['my_module:make', 'a.b:c'])


if __name__ == '__main__':
  absltest.main()
