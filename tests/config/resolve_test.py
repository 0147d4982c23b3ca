import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import defaults, differences, resolve, schema
from tests.fixtures import strict  # noqa: F401


def experiment(overrides=None, **changes):
  """Resolves the defaults with changes made in the file and by flags."""
  config = defaults.get_config()
  for path, value in {**changes, **(overrides or {})}.items():
    *above, last = path.replace('__', '.').split('.')
    section = config
    for key in above:
      section = section[key]
    with section.ignore_type():
      section[last] = value
  return resolve.experiment(config.to_dict(), overrides or {})


class ResolveTest(parameterized.TestCase):
  def test_numbers_of_numpy_and_jax_become_pythons(self):
    values = np.float32(0.5), np.int64(2), np.True_, jnp.float32(0.5)
    found = schema.jsonable('config', [*values, np.arange(2)])
    self.assertEqual(repr(found), '[0.5, 2, True, 0.5, [0, 1]]')

  def test_runs_keep_their_order_and_seeds(self):
    plan = experiment(seeds=(0, 2))
    self.assertEqual(list(plan.runs), ['standard', 'batchnorm'])
    self.assertEqual(plan.seeds, (0, 2))

  def test_a_run_is_what_it_changes(self):
    runs = experiment().runs
    standard, batchnorm = (
      runs[name].as_json() for name in ('standard', 'batchnorm')
    )
    self.assertEqual(standard.pop('norm'), {'name': 'none'})
    self.assertEqual(
      batchnorm.pop('norm'),
      {
        'name': 'batch',
        'group_size': None,
        'momentum': 0.9,
        'epsilon': 1e-5,
        'running_variance': 'biased',
        'running_average': 'ema',
        'stop_statistics_gradient': False,
        'affine': True,
        'bias_before': None,
        'scale_init': 1.0,
        'frozen': False,
      },
    )
    self.assertEqual(standard, batchnorm)

  def test_every_keyword_is_named(self):
    run = experiment().runs['batchnorm']
    self.assertEqual(run.optimizer['nesterov'], False)
    self.assertEqual(run.measures['test']['name'], 'evaluation')

  def test_a_number_for_a_text_is_text(self):
    """A step as the other end of a path: as the file has it, and a flag."""
    measure = {'name': 'path', 'data': 'current_batch', 'every_steps': 1}
    for to in ('4', 4):
      plan = experiment(measures__line={**measure, 'to': to})
      self.assertEqual(plan.runs['batchnorm'].measures['line']['to'], '4')

  def test_flag_beats_run_beats_config(self):
    runs = {
      'a': {'schedule': {'learning_rate': 0.3}},
      'b': {'schedule': {'learning_rate': 0.3}},
    }
    plan = experiment(runs=runs, schedule__learning_rate=0.2)
    self.assertEqual(plan.runs['a'].schedule['learning_rate'], 0.3)
    plan = experiment({'schedule.learning_rate': 0.7}, runs=runs)
    self.assertEqual(plan.runs['a'].schedule['learning_rate'], 0.7)

  def test_a_flag_where_the_runs_differ_is_refused(self):
    with self.assertRaisesRegex(
      errors.ConfigError, 'runs differ in it.*standard: none, batchnorm: batch'
    ):
      experiment({'norm.name': 'batch'})

  def test_a_flag_on_a_keyword_of_one_run(self):
    plan = experiment({'norm.group_size': 32})
    self.assertEqual(plan.runs['batchnorm'].norm['group_size'], 32)
    self.assertEqual(plan.runs['standard'].norm, {'name': 'none'})

  def test_a_new_name_drops_the_old_keywords(self):
    plan = experiment({'norm.name': 'none'}, runs={'only': {}})
    self.assertEqual(plan.runs['only'].norm, {'name': 'none'})

  @parameterized.parameters(
    (dict(batchsize=3), "unknown key 'batchsize'; did you mean 'batch_size'"),
    (dict(model__name='vgg12'), "unknown model 'vgg12'; did you mean 'vgg"),
    (dict(norm__name='bach', runs={'a': {}}), "config.norm.name: unknown norm"),
    (dict(loss__name='entropy'), "unknown loss 'entropy'; did you mean 'cross"),
    (dict(data__flipped=True), "unknown key 'flipped'; did you mean 'flip'"),
    (dict(data_dir=3), 'config.data_dir: 3; allowed: the path of a folder'),
    (dict(init_from=3), 'config.init_from: 3; allowed: the path of a folder'),
    (dict(optimizer__name='adams'), "unknown optimizer 'adams'"),
    (dict(schedule__name='cosin'), "unknown schedule 'cosin'"),
    (dict(measures__test__name='eval'), "unknown measure 'eval'"),
    (dict(measures__test__data='tset'), 'allowed for evaluation'),
    (dict(measures__landscape__data='test'), 'current_batch'),
    (dict(measures__test__every_steps=0), 'allowed: 1, 2, 3'),
    (dict(measures__test__evry_steps=3), "did you mean 'every_steps'"),
    (dict(model__widht=2), "unknown key 'widht'; did you mean 'width'"),
    (dict(model__num_classes=2), "unknown key 'num_classes'"),
    (dict(model__depth=2), "unknown key 'depth'"),
    (dict(batch_size=0), 'config.batch_size: 0'),
    (dict(batch_size=12.5), 'config.batch_size: 12.5'),
    (dict(batch_size=None), 'config.batch_size: None'),
    (dict(steps=-1), 'config.steps: -1'),
    (dict(seeds=()), 'one seed or more'),
    (dict(seeds=(0, 0)), 'each once'),
    (dict(seeds=(-1,)), 'whole numbers'),
    (dict(seeds=('a',)), 'whole numbers'),
    (dict(matmul_precision='best'), 'allowed: default, high, highest'),
    (dict(schedule=dict(name='cosine', learning_rate=0.1)), 'needs it'),
    (dict(schedule=dict(learning_rate=0.1)), 'a dict with a name'),
    (dict(schedule__learning_rate=float('nan')), 'finite numbers'),
    (dict(runs={}), 'one run or more'),
    (dict(runs={'<script>': {}}), 'is no name for a run'),
    (dict(runs={'a b': {}}), 'is no name for a run'),
    (dict(runs={'figures': {}}), 'is no name for a run.*not "figures"'),
    (dict(runs={'a' * 101: {}}), 'is no name for a run'),
    (dict(runs={'a': {'norn': {}}}), "did you mean 'norm'"),
    (dict(runs={'a': {'norm': {'nam': 'none'}}}), "unknown key 'nam'"),
    (dict(expected_divergence=('standrd',)), "did you mean 'standard'"),
    (dict(recalibrate=('standrd',)), "did you mean 'standard'"),
    (dict(checkpoint=dict(every_steps=5)), 'every_steps and keep'),
    (dict(layout='vmap'), "layout: 'vmap'; allowed: jit, pmap, shard_map"),
    (dict(devices=0), 'config.devices: 0; allowed: 1, 2, 3'),
    (dict(devices=7), '128 does not divide over 7 devices.*: 126 and 133'),
    (dict(devices=200), '128 does not divide over 200 devices.*does: 200'),
    (dict(micro_batch_size=48), '48 does not divide the batch of 128'),
    (dict(micro_batch_size=4, devices=8), 'micro_batch_size: 4 does not div'),
    (dict(micro_batch_size=0), 'config.micro_batch_size: 0'),
    (dict(compute_dtype='float16'), 'allowed: float32, bfloat16'),
    (dict(on_nonfinite='ignore'), "'ignore'; allowed: stop, skip"),
    (dict(on_nonfinite='skip'), "max_skips, with on_nonfinite 'skip': None;"),
    (dict(on_nonfinite='skip', max_skips=0), "'skip': 0; allowed: 1, 2, 3"),
    (dict(on_nonfinite='skip', max_skips=2.5), "'skip': 2.5; allowed: 1"),
    (dict(max_skips=2), "max_skips: 2 with on_nonfinite 'stop'; allowed: None"),
    (dict(max_skips=0), "max_skips: 0 with on_nonfinite 'stop'"),
    (dict(remat='yes'), "config.remat: 'yes'; allowed: True, False"),
    (dict(layout='pmap', shard_state=True), "allowed: with layout 'jit'"),
    (
      dict(layout='pmap', devices=4, norm__group_size=64),
      'group_size: 64.*allowed: what divides 32.*or 128',
    ),
  )  # fmt: skip
  def test_refuses(self, changes, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      experiment(**changes)

  @parameterized.parameters(
    dict(layout='jit', devices=4, norm__group_size=64),
    dict(layout='pmap', devices=4, norm__group_size=16),
    dict(layout='shard_map', devices=4, norm__group_size=128),
    dict(devices=4, micro_batch_size=32),
    dict(on_nonfinite='skip', max_skips=1),
  )
  def test_takes(self, **changes):
    self.assertIn('batchnorm', experiment(**changes).runs)

  def test_says_which_run(self):
    runs = {'good': {}, 'bad': {'model': {'name': 'vgg'}}}
    with self.assertRaisesRegex(errors.ConfigError, "run 'bad': config.model"):
      experiment(runs=runs)

  @parameterized.parameters(
    (dict(steps=7), True),
    (dict(log_every_steps=7), True),
    (dict(layout='pmap'), True),
    (dict(devices=2), True),
    (dict(remat=True), True),
    (dict(on_nonfinite='skip', max_skips=3), True),
    (dict(shard_state=True), True),
    (dict(batch_size=7), False),
    (dict(micro_batch_size=64), False),
    (dict(compute_dtype='bfloat16'), False),
    (dict(schedule__learning_rate=0.7), False),
  )
  def test_what_is_the_same_experiment(self, changes, same):
    old = experiment().runs['standard'].as_json()
    new = experiment(**changes).runs['standard'].as_json()
    self.assertEqual(differences.difference(old, new) is None, same)


def leaves(config, above=''):
  """path -> value of every key that is no section."""
  for key, value in config.items():
    path = f'{above}{key}'
    if isinstance(value, dict):
      yield from leaves(value, f'{path}.')
    else:
      yield path, value


class EveryKeyTest(parameterized.TestCase):
  """Every key of configs/default.py, with what people give it by mistake."""

  def resolved(self, path, value):
    config = defaults.get_config().to_dict()
    *above, last = path.split('.')
    section = config
    for key in above:
      section = section[key]
    section[last] = value
    return resolve.experiment(config, {})

  def test_what_json_lacks_is_named_by_its_key(self):
    paths = [path for path, _ in leaves(defaults.get_config().to_dict())]
    self.assertGreater(len(paths), 70)
    for path in paths:
      for value in (float('nan'), float('inf'), {1}, b'a', (1, float('nan'))):
        with self.assertRaises(errors.ConfigError) as raised:
          self.resolved(path, value)
        said = str(raised.exception)
        self.assertStartsWith(said, f'config.{path}: ')
        self.assertIn('; allowed: ', said)
        self.assertNotIn('\n', said)

  def test_a_key_of_the_program_is_checked(self):
    """Keys of no constructor; those of one are swept in checks_test."""
    folders = (None, 'a', '1e-3')
    allowed = {
      'data_dir': folders, 'init_from': folders, 'max_skips': (None,),
      'micro_batch_size': (None,), 'shard_state': (True,),
      'remat': (True,),
      'measures': ({},), 'sinks': ([],), 'seeds': (0, (1, 2)),
      'expected_divergence': ([],),
      'recalibrate': ([],),
    }  # fmt: skip
    values = (True, None, '1e-3', '', -1, 0, 2.5, 10**18, (1, 2), [], {}, 'a')
    weights = (  # checked when the optimizer is built
      'weight_decay', 'weight_decay_on', 'clip_norm', 'adaptive_clip', 'rates',
      'trainable', 'ema',
    )  # fmt: skip
    names = ('seeds', 'expected_divergence', 'recalibrate', 'runs')
    for key in (*resolve.KEYS, *names):
      if key in schema.SECTIONS or key in weights:
        continue
      for value in values:
        try:
          self.resolved(key, value)
        except errors.ConfigError as error:
          self.assertNotIn('\n', str(error))
          self.assertIn(f'config.{key}', str(error))
          self.assertIn('allowed: ', str(error))
        else:
          taken = [(type(one), one) for one in allowed.get(key, ())]
          self.assertIn((type(value), value), taken, key)


class ContinuedTest(parameterized.TestCase):
  def changed(self, **changes):
    old, new = (
      one.runs['batchnorm'].as_json()
      for one in (experiment(), experiment(**changes))
    )
    return differences.difference(old, new)

  @parameterized.parameters(
    dict(steps=2000),
    dict(log_every_steps=3),
    dict(measures__test__every_steps=7),
    dict(measures__activations__unit=True),  # what the page shows
  )
  def test_may_change(self, **changes):
    self.assertIsNone(self.changed(**changes))

  def test_measures_may_come_and_go(self):
    self.assertIsNone(self.changed(measures={}))

  @parameterized.parameters(
    (dict(batch_size=64), 'config.batch_size was 128, is 64'),
    # Another norm has other keywords; the name says enough.
    (
      dict(runs={'batchnorm': {'norm': {'name': 'none'}}}),
      "config.norm.name was 'batch', is 'none'",
    ),
    (
      dict(
        batch_size=64,
        schedule__learning_rate=0.3,
        micro_batch_size=32,
        compute_dtype='bfloat16',
        weight_decay=0.1,
        model__width=2.0,
      ),
      'config.model.width was 1.0, is 2.0; config.schedule.learning_rate was '
      '0.1, is 0.3; config.batch_size was 128, is 64; config.weight_decay was '
      '0.0, is 0.1; and 2 more',
    ),
    (
      dict(measures__landscape__step_factors=(1.0,)),
      'config.measures.landscape.step_factors was [0.5, 1.0, 2.0, 4.0], '
      'is [1.0]',
    ),
    (
      dict(measures__test__data='train'),
      "config.measures.test.data was 'test', is 'train'",
    ),
  )
  def test_may_not_change(self, changes, message):
    self.assertEqual(message, self.changed(**changes))

  def test_a_section_that_was_not_there(self):
    now = {'steps': 3, 'loss': {'name': 'cross_entropy'}}
    self.assertEqual(
      list(differences.changed('config', {'steps': 3}, now)),
      ["config.loss.name was None, is 'cross_entropy'"],
    )
    # Nothing, and nothing in it, are two things all the same.
    self.assertLen(list(differences.changed('a', None, {})), 1)


class FlagTest(parameterized.TestCase):
  def test_none_in_a_run_is_a_difference_too(self):
    runs = {'a': {'norm': {'group_size': None}}, 'b': {}}
    with self.assertRaisesRegex(errors.ConfigError, 'runs differ in it'):
      experiment({'norm.group_size': 16}, runs=runs)

  def test_a_flag_that_no_run_has_is_refused(self):
    runs = {'a': {'norm': {'name': 'none'}}}
    with self.assertRaisesRegex(errors.ConfigError, 'no run has it.*a: .*none'):
      experiment({'norm.momentum': 0.5}, runs=runs)


if __name__ == '__main__':
  absltest.main()
