from absl.testing import absltest, parameterized

from bn_jax import errors
from bn_jax.config import changes, defaults, flags, parser
from tests.fixtures import strict  # noqa: F401


def example():
  """A parser with a flag of each kind."""
  made = parser.Parser(prog='example')
  made.add_argument('workdirs', metavar='WORKDIR', nargs='+', help='some')
  made.add_argument('--output', metavar='DIR', help='where')
  made.add_argument('--units', type=parser.count, default=8, help='how many')
  made.add_argument('--process_id', type=parser.whole, help='which')
  made.add_argument('--size', choices=('paper', 'small'), help='which')
  made.add_switch('--plan', 'says what it costs')
  made.add_switch('--biases', 'with biases', default=True)
  return made


def read(*words):
  return example().parse_args(words)


class ReadTest(parameterized.TestCase):
  @parameterized.parameters(
    ('a', 'b', '--output=c'),
    ('--output=c', 'a', 'b'),
    ('a', '--output=c', 'b'),
    ('a', '--output', 'c', 'b'),
  )
  def test_flags_may_stand_anywhere(self, *words):
    given = read(*words)
    self.assertEqual((given.workdirs, given.output), (['a', 'b'], 'c'))

  @parameterized.parameters(
    ((), False, True),
    (('--plan', '--nobiases'), True, False),
    (('--plan=true', '--biases=false'), True, False),
    (('--plan=1', '--biases=False'), True, False),
    (('--plan', '--noplan', '--biases'), False, True),
  )
  def test_switches(self, words, plan, biases):
    # None of them takes the word behind it.
    given = read(*words, 'a')
    self.assertEqual((given.plan, given.biases), (plan, biases))

  @parameterized.parameters(
    ((), 'WORKDIR is missing; see example --help'),
    (('--outptu=x',), "unknown flag '--outptu'; did you mean '--output'"),
    (('a', '--unit=3'), "unknown flag '--unit'; did you mean '--units'"),
    (('a', '-output=x'), "unknown flag '-output'; did you mean '--output'"),
    (('a', '--output'), '--output: expected one argument; see example --he'),
    (('a', '--units=0'), "--units: '0'; allowed: 1, 2, 3, ...$"),
    (('a', '--units=-1'), "--units: '-1'; allowed: 1, 2, 3, ...$"),
    (('a', '--units=many'), "--units: 'many'; allowed: 1, 2, 3, ...$"),
    (('a', '--process_id=x'), "--process_id: 'x'; allowed: whole numbers$"),
    (('a', '--size=smal'), "--size: unknown value 'smal'; did you mean 'smal"),
    (('a', '--size=big'), "unknown value 'big'; known: paper, small$"),
    (('a', '--plan=maybe'), "--plan: 'maybe'; allowed: true, false$"),
  )
  def test_refuses(self, words, message):
    with self.assertRaisesRegex(errors.ConfigError, message):
      read(*words)

  def test_a_negative_number_is_a_value(self):
    self.assertEqual(read('a', '--process_id', '-1').process_id, -1)

  def test_what_is_kept_keeps_its_order(self):
    made = parser.Parser(prog='example')
    flags.add_config(made)
    given = made.parse_args(
      ['--config.steps', '-3', '--data_dir', 'd', '--x=1', 'y', '--config=f']
    )
    self.assertEqual((given.config, given.data_dir), ('f', 'd'))
    self.assertEqual(given.rest, ['--config.steps', '-3', '--x=1', 'y'])

  def test_help(self):
    text = example().format_help()
    self.assertIn('--output=DIR', text)
    self.assertIn('--size={paper,small}', text)
    self.assertIn('how many; default: 8\n', text)
    self.assertIn('with biases; --nobiases turns it off; default: True\n', text)
    self.assertIn('says what it costs\n', text)
    self.assertNotIn('  --nobiases', text)


class MeantTest(parameterized.TestCase):
  def test_synonyms_are_of_keys_that_there_are(self):
    known = list(changes.paths(defaults.get_config()))
    for word, path in parser.SYNONYMS.items():
      self.assertIn(path, known, word)
      # What is a key already needs no other.
      self.assertNotIn(word, known)

  @parameterized.parameters(
    ('lr', ['schedule.learning_rate']),
    ('optimizer.lr', ['schedule.learning_rate']),
    ('LR', ['schedule.learning_rate']),
    ('learning_rate', ['schedule.learning_rate']),
    ('momentum', ['optimizer.momentum', 'norm.momentum']),
    ('num_epochs', ['epochs']),
    ('wd', ['weight_decay']),
    ('stepz', []),
  )
  def test_of_all_keys(self, key, expected):
    keys = list(changes.paths(defaults.get_config()))
    self.assertEqual(parser.meant(key, keys), expected)

  @parameterized.parameters(
    ('lr', ('learning_rate', 'name'), ['learning_rate']),  # of schedule
    ('lr', ('momentum', 'name'), ['schedule.learning_rate']),  # of optimizer
    ('lr', ('schedule', 'steps'), ['schedule.learning_rate']),  # of a run
    ('momentum', ('optimizer', 'norm'), ['optimizer.momentum']),
    ('momentum', ('name',), []),  # of the norm 'none': no other is meant
  )
  def test_of_a_section(self, key, known, expected):
    self.assertEqual(parser.meant(key, known), expected)

  @parameterized.parameters('lr', 'zzz', 'name', 'stepz')
  def test_few_are_named(self, key):
    keys = changes.paths(defaults.get_config())
    message = parser.unknown_key(key, keys)
    self.assertLessEqual(message.count(' or '), 4)
    self.assertLess(len(message), 200)
    self.assertEndsWith(message, 'see bn_jax/config/defaults.py')


if __name__ == '__main__':
  absltest.main()
