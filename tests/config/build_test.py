"""From a resolved run to objects: what is built, and what is handed down."""

from unittest import mock

import jax
from absl.testing import absltest, parameterized

from bn_jax import errors, models
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


class TraitsTest(absltest.TestCase):
  def test_batch_norm_behind_the_norm_of_a_kernel_sees_the_whole_batch(self):
    """It has no keyword group_size, and is no norm of single examples."""
    config = files.load(str(_CONFIG)).to_dict() | {'micro_batch_size': 8}
    run = resolve.experiment(config, {}).runs['batchnorm']
    kind = type(run.norm)

    def built(then):
      norm = kind({'name': 'weight_standardization', 'then': then})
      return build.problem(run.replace(norm=norm))

    self.assertEqual(built('group').group_size, 1)
    with self.assertRaisesRegex(errors.ConfigError, 'by the whole batch'):
      built('batch')


class LoweringsTest(parameterized.TestCase):
  """What 'auto' is: of the step, and of measures."""

  @parameterized.named_parameters(
    ('fast_and_exact', {}, 'winograd', 'product'),
    ('in_a_loop', {'micro_batch_size': 8}, 'product', 'product'),
    ('over_devices', {'devices': 2}, 'product', 'product'),
    ('on_each_device', {'devices': 2, 'layout': 'pmap'},
     'winograd', 'product'),
    ('named', {'model.lowering': 'library'}, 'library', 'library'),
    ('asked_of_measures', {'measure_lowering': 'winograd'},
     'winograd', 'winograd'),
    ('both_named',
     {'model.lowering': 'winograd', 'measure_lowering': 'product'},
     'winograd', 'product'),
  )  # fmt: skip
  def test_on_a_cpu(self, changes, training, measures):
    self.assertEqual(
      build.lowerings(_convolving(changes)),
      {'lowering': training, 'measure_lowering': measures},
    )

  @parameterized.parameters({}, {'micro_batch_size': 8})
  def test_elsewhere_it_is_the_library(self, **changes):
    run = _convolving(changes).replace(lowering='product')
    with mock.patch.object(jax, 'default_backend', return_value='gpu'):
      self.assertEqual(set(build.lowerings(run).values()), {'library'})

  def test_goes_on_as_it_was_begun(self):
    run = _convolving({}).replace(lowering='product')
    self.assertEqual(build.lowerings(run)['lowering'], 'product')
    named = _convolving({'model.lowering': 'winograd'})
    named = named.replace(lowering='product')
    self.assertEqual(build.lowerings(named)['lowering'], 'winograd')

  def test_a_dense_network_has_none(self):
    config = files.load(str(_CONFIG)).to_dict()
    run = resolve.experiment(config, {}).runs['batchnorm']
    self.assertEqual(build.lowerings(run), {})

  def test_step_and_measures_have_one_network_but_for_it(self):
    run = _convolving({})
    with mock.patch.object(models, 'make', wraps=models.make) as make:
      problem = build.problem(run)
      build.step(run, problem)
    measured, trained = (dict(call.kwargs) for call in make.call_args_list)
    self.assertEqual(measured.pop('lowering'), 'product')
    self.assertEqual(trained.pop('lowering'), 'winograd')
    for keywords in (measured, trained):
      keywords.pop('norm')  # functions, made anew
    self.assertEqual(trained, measured)


def _convolving(changes):
  config = files.load(str(strict.FIXTURES / 'tiny_config.py')).to_dict()
  changes = {'model.lowering': 'auto', **changes}
  return resolve.experiment(config, changes).runs['batchnorm']


if __name__ == '__main__':
  absltest.main()
