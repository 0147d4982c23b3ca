"""From a resolved run to objects: what is built, and what is handed down."""

from unittest import mock

from absl.testing import absltest, parameterized

from bn_jax import models
from bn_jax.config import build, files, resolve
from tests.fixtures import strict

_CONFIG = strict.FIXTURES / 'dense_config.py'


class StepTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('as_measured', {}, 0),
    ('on_devices', {'devices': 2}, 0),
    ('of_one_device', {'devices': 2, 'layout': 'pmap'}, 1),
    ('in_bfloat16', {'compute_dtype': 'bfloat16'}, 1),
    ('in_micro_batches', {'micro_batch_size': 8}, 1),
  )
  def test_has_a_network_of_its_own_only_where_it_is_another(self, keys, more):
    config = files.load(str(_CONFIG)).to_dict() | keys
    run = resolve.experiment(config, {}).runs['batchnorm']
    with mock.patch.object(models, 'make', wraps=models.make) as make:
      made = build.problem(run)
      self.assertEqual(make.call_count, 1)
      build.step(run, made)
      self.assertEqual(make.call_count, 1 + more)


if __name__ == '__main__':
  absltest.main()
