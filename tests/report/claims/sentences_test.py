"""Which claims are one sentence, and what stands in its grid."""

import functools

from absl.testing import absltest, parameterized

from bn_jax.report.claims import judging, reading, rows, sentences

_files = functools.cache(reading.load)


def _of_file(name, size='paper'):
  """Returns the sentences of a file of claims, without verdicts."""
  figure = _files()[name]
  verdicts = [
    judging.verdict(claim, size, judging.Evidence({}, {}))
    for claim in figure.claims
  ]
  claims = [
    sentences.Claim(rows.of(figure, verdict), verdict.claim.id, None)
    for verdict in verdicts
  ]
  return sentences.of(claims)


class SentencesTest(parameterized.TestCase):
  def test_norms_that_lower_what_none_has(self):
    band, change, plateau = _of_file('santurkar2018/figure12')
    self.assertEqual(
      [sentence.text for sentence in (band, change, plateau)],
      [
        'With … the loss varies less along the gradient',
        'With … the gradient is more predictive',
        'Later on the effective beta with … is 2 / (learning rate)',
      ],
    )
    self.assertEqual(band.labels, (('l1',), ('l2',), ('linf',)))
    self.assertEqual(band.claims[0].id, 'l1-band')

  @parameterized.parameters(
    ('paper', ['conv2', 'conv9', 'conv13']),
    ('small', ['conv2', 'conv5', 'conv8']),
  )
  def test_layers_are_those_of_the_size(self, size, layers):
    mean, *others = _of_file('santurkar2018/figure8', size)
    self.assertLen(others, 3)  # of the variance, and both without noise
    self.assertEndsWith(mean.text, 'look to look than without BN, layer …')
    self.assertEqual([label for (label,) in mean.labels], layers)

  def test_norms_under_optimizers_are_rows_and_columns(self):
    accuracy, steps, *_ = _of_file('place_of_bn/vgg')
    self.assertEqual(
      accuracy.text,
      '… takes the place of … BN under … the test accuracy at the end is at '
      'most one point below',
    )
    self.assertEqual(
      accuracy.labels[:2],
      (
        ('The network without a norm', 'SGD with momentum'),
        ('Group normalization', 'SGD with momentum'),
      ),
    )
    self.assertLen(set(accuracy.labels), 24)
    self.assertLen(steps.claims, 8)

  def test_equal_words_are_told_by_their_runs(self):
    _, _, _, concavity = _of_file('curvature/surfaces')[:4]
    self.assertEqual(concavity.text, 'With BN, it is nearer to convex')
    self.assertEqual(
      concavity.labels,
      (('vgg_batchnorm − vgg',), ('resnet_batchnorm − resnet',)),
    )

  def test_no_claim_is_lost_or_named_twice(self):
    for name, figure in _files().items():
      every = _of_file(name)
      ids = [claim.id for sentence in every for claim in sentence.claims]
      self.assertCountEqual(ids, [claim.id for claim in figure.claims])
      for sentence in every:
        self.assertLen(set(sentence.labels), len(sentence.claims), sentence)
        self.assertLessEqual(len(sentence.labels[0]), 2)

  def test_the_same_twice_is_told_by_its_id(self):
    row = {
      'statement': 'it is', 'statistic': 'a()', 'threshold': 'b at most 1',
      'figure': '', 'size': '',
    }  # fmt: skip
    twice = [sentences.Claim({**row, 'id': key}, key, None) for key in 'xy']
    self.assertEqual(sentences.of(twice)[0].labels, (('x',), ('y',)))

  @parameterized.parameters(
    ('a layer (small: conv2)', 'a layer (small: conv2)'),
    ('it is lower (median)', 'it is lower'),
    ('it comes to 2 / (learning rate)', 'it comes to 2 / (learning rate)'),
  )
  def test_what_is_left_out_of_a_line(self, statement, text):
    row = {
      'statement': statement, 'statistic': '', 'threshold': '',
      'figure': '', 'size': '',
    }  # fmt: skip
    (sentence,) = sentences.of([sentences.Claim(row, '', None)])
    self.assertEqual(sentence.text, text)


if __name__ == '__main__':
  absltest.main()
