from absl.testing import absltest, parameterized

from bn_jax import errors
from tests.fixtures import strict  # noqa: F401


class FirstLineTest(parameterized.TestCase):
  @parameterized.parameters(
    (ValueError('one line'), 'one line'),
    (ValueError('\n  the first\r\nthe second\n'), 'the first'),
    (KeyError('shape'), "'shape'"),  # as Python itself prints it
    (AssertionError(), 'AssertionError'),
    (OSError(' \n '), 'OSError'),
    (RuntimeError('x' * 300 + '\ny'), 'x' * 200),
  )
  def test_one_line_of_any_error(self, error, line):
    self.assertEqual(errors.first_line(error), line)


if __name__ == '__main__':
  absltest.main()
