"""Every word of the glossary is explained, found and used."""

import re

from absl.testing import absltest

from tests.fixtures import pages, strict

_PAGE = strict.ROOT / 'docs' / 'glossary.md'
# What a reader of the pages meets before anything else.
_FIRST = (
  'band', 'Batch Normalization', 'batch statistics', 'beta', 'beta_0', 'claim',
  'contradicted', 'edge of stability', 'effective beta',
  'gradient predictiveness', 'hold', 'internal covariate shift', 'look',
  'not measured', 'population statistics', 'probe', 'recalibrate', 'run',
  'running statistics', 'seed', 'sharpness', 'statistics', 'undecided',
  'verdict', 'working directory',
)  # fmt: skip


def entries():
  """Returns term -> its explanation."""
  _, *parts = re.split('^### ', _PAGE.read_text(), flags=re.M)
  return dict(part.split('\n', 1) for part in parts)


class GlossaryTest(absltest.TestCase):
  def test_each_entry_is_explained(self):
    for term, text in entries().items():
      self.assertGreater(len(text.split()), 5, term)

  def test_they_are_in_order_and_there_once(self):
    terms = re.findall('^### (.*)$', _PAGE.read_text(), re.M)
    self.assertEqual(terms, sorted(set(terms), key=str.lower))

  def test_the_first_words_are_among_them(self):
    self.assertContainsSubset(_FIRST, entries())

  def test_each_is_used_on_a_page(self):
    text = '\n'.join(p.read_text() for p in pages.ALL if p != _PAGE).lower()
    words = ' '.join(text.split())
    for term in entries():
      self.assertIn(term.lower(), words)


if __name__ == '__main__':
  absltest.main()
