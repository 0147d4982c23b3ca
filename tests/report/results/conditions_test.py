"""Which examples an entry looks at, in words."""

import types
from unittest import mock

from absl.testing import absltest, parameterized

from bn_jax.report.results import conditions


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
    seed = types.SimpleNamespace(manifest={'config': {'batch_size': 64}})
    with mock.patch.object(conditions, 'measuring', return_value=texts):
      got = conditions.data_of('cka', 'name')(seed)
    self.assertEqual(got, want)


if __name__ == '__main__':
  absltest.main()
