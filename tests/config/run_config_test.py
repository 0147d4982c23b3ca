"""A resolved run: frozen through and through, and the same after JSON."""

import copy
import dataclasses
import json
import pickle

from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import files, resolve
from bn_jax.config.run_config import RunConfig
from tests.fixtures import strict


def run():
  config = files.load(str(strict.FIXTURES / 'dense_config.py')).to_dict()
  return resolve.experiment(config, {}).runs['batchnorm']


class RunConfigTest(parameterized.TestCase):
  def test_comes_back_from_json(self):
    config = run()
    text = json.dumps(config.as_json())
    again = RunConfig.of(json.loads(text))
    self.assertEqual(again, config)
    self.assertEqual(hash(again), hash(config))
    self.assertEqual(json.dumps(again.as_json()), text)

  @parameterized.parameters(
    copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))
  )
  def test_copies_are_equal_and_frozen(self, copied):
    config = copied(run())
    self.assertEqual(config, run())
    with self.assertRaisesRegex(TypeError, 'frozen'):
      config.norm['name'] = 'none'

  @parameterized.parameters(
    lambda config: config.norm.update(name='none'),
    lambda config: config.norm.pop('name'),
    lambda config: config.measures['landscape'].clear(),
    lambda config: config.measures.setdefault('more', {}),
    lambda config: config.model.__ior__({'depth': 3}),
  )
  def test_no_section_changes(self, change):
    config = run()
    with self.assertRaisesRegex(TypeError, 'frozen'):
      change(config)
    self.assertEqual(config, run())

  def test_no_key_changes(self):
    with self.assertRaises(dataclasses.FrozenInstanceError):
      run().steps = 3

  def test_lists_are_tuples(self):
    config = run().replace(measures={'it': {'layers': ['conv1']}})
    self.assertEqual(config.measures['it']['layers'], ('conv1',))
    self.assertEqual(config.as_json()['measures']['it']['layers'], ['conv1'])

  def test_one_that_is_older_than_a_key_is_refused(self):
    old = run().as_json()
    del old['remat']
    with self.assertRaisesRegex(
      errors.ConfigError, 'PLACE was trained before config.remat was a key'
    ):
      RunConfig.of(old, 'PLACE')

  def test_in_groups_only_where_micro_batches_are(self):
    config = run()
    self.assertIs(config.in_groups(), config)
    parts = config.replace(micro_batch_size=4)
    self.assertEqual(parts.in_groups().norm['group_size'], 4)
    own = parts.replace(norm={**config.norm, 'group_size': 2})
    self.assertEqual(own.in_groups().norm['group_size'], 2)


if __name__ == '__main__':
  absltest.main()
