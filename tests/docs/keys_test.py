"""The page of all keys is what the file of defaults and constructors say."""

import ast
import re
from unittest import mock

import ml_collections
from absl.testing import absltest

from bn_jax.config import defaults, schema
from docs.hooks import keys, tables

_FILE = """
def get_config():
  config = dict()

  # Data: what is looked at. More of it.
  config.runs = runs(  # each has a name
    first={},
  )
  config.size = 3  # pixels a side,
  # or None
  # Between: 'all' or nothing. docs/data.md#sizes
  config.shape = config_dict.placeholder(str)
  config.part = dict(
    name='a',
    width=2,  # in `metres`
  )

  # Files.
  config.seconds = 1.5  # of a look
"""


def flat(config, above=''):
  """Yields (path, value) of every key; runs are one."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict) and key != 'runs' and value:
      yield from flat(value, f'{above}{key}.')
    else:
      yield f'{above}{key}', value


class FileTest(absltest.TestCase):
  def test_comments_and_defaults(self):
    first, second = keys.groups(_FILE)
    self.assertEqual(first.title, 'Data')
    self.assertEqual(first.text, 'what is looked at. More of it.')
    self.assertEqual(
      first.keys,
      [
        ('runs', 'first', 'each has a name'),
        ('size', '3', 'pixels a side, or None'),
        ('shape', 'None', "Between: 'all' or nothing. docs/data.md#sizes"),
        ('part.name', "'a'", ''),
        ('part.width', '2', 'in `metres`'),
      ],
    )
    self.assertEqual(second, ('Files', '', [('seconds', '1.5', 'of a look')]))

  def test_it_has_the_keys_and_defaults_of_the_config(self):
    found = {
      key.name: key.default
      for group in keys.groups(keys.FILE.read_text())
      for key in group.keys
    }
    config = dict(flat(defaults.get_config()))
    self.assertEqual(sorted(found), sorted(config))
    for name, value in config.items():
      if name in ('runs', 'rates', 'data.crop_aspect'):
        continue
      self.assertEqual(ast.literal_eval(found[name]), value, name)


class PageTest(absltest.TestCase):
  def test_a_key_without_text_is_refused(self):
    source = keys.FILE.read_text()
    for key, comment in (
      ('batch_size', '  # examples a step'),
      ('log_every_steps', '  # steps between fetches of metrics'),
    ):
      self.assertIn(comment, source)
      with self.assertRaisesRegex(ValueError, f'explains {key}$'):
        tables.config_keys(source.replace(comment, ''))

  def test_a_row_each(self):
    page = tables.config_keys()
    names = [name for name, _ in flat(defaults.get_config())]
    self.assertCountEqual(re.findall('<a id="(.*?)">', page), names)
    self.assertNotRegex(page, r'\|\s*\|$')
    self.assertIn('[optimizers.md](../optimizers.md)', page)
    # Where a line's comment is about the constructor, it says the rest.
    self.assertRegex(page, 'optimizer.nesterov.*False.*the update looks ahead')

  def test_every_keyword_is_explained(self):
    for kind in (*schema.SECTIONS, 'measure'):
      text = tables.keywords(kind)
      for name in schema.of(kind).registry:
        shown = name.replace('_', '&#95;')
        self.assertIn(f'<code>{shown}</code>', text)

  def test_a_keyword_without_text_is_refused(self):
    def silent(*, unheard_of=1):
      """Returns nothing."""

    registry = {'silent': silent}
    section = schema.SECTIONS['loss']._replace(registry=registry)
    with (
      mock.patch.dict(schema.SECTIONS, loss=section),
      self.assertRaisesRegex(ValueError, 'explains unheard_of'),
    ):
      tables.keywords('loss')


if __name__ == '__main__':
  absltest.main()
