"""Which network was trained, and on which examples an entry looks, in words."""

from unittest import mock

from absl.testing import absltest, parameterized

from bn_jax.report.results import conditions, curves


def seed_of(config):
  return curves.Seed(0, {'config': config}, {}, {}, {})


class DataTest(parameterized.TestCase):
  @parameterized.parameters(
    ('current_batch', '64', 'the current training batch of 64 examples'),
    ('current_batch', '9', '9 of the current training batch of 64 examples'),
    ('test:100', '100', 'the first 100 examples of the test set'),
    ('train:100', '9', '9 of the first 100 examples of the training set'),
    ('test:100', None, 'the first 100 examples of the test set'),
    ('test', '355', 'the test set, 355 examples'),
    ('test', None, 'the test set'),
  )
  def test_in_words(self, data, examples, want):
    texts = {'data': data}
    if examples is not None:
      texts['examples'] = examples
    seed = seed_of({'batch_size': 64})
    with mock.patch.object(conditions, 'measuring', return_value=texts):
      got = conditions.data_of('cka', 'name')(seed)
    self.assertEqual(got, want)


class NetworkTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(name='vgg11', width=0.25), 'vgg11 of 0.25 × width'),
    (dict(name='vgg11', width=1), 'vgg11 of 1 × width'),
    (dict(name='vit_tiny', width=48), 'vit_tiny of width 48'),
    (dict(name='mlp'), 'mlp'),
  )
  def test_in_words(self, model, want):
    seed = seed_of({'model': model})
    self.assertEqual(conditions.network(seed), want)


if __name__ == '__main__':
  absltest.main()
