"""The section of the page: what it counts, and which words stand there."""

import html.parser
import math
import pathlib
import re
from unittest import mock

from absl.testing import absltest, parameterized

from bn_jax.report.claims import judging, reading, rows, showing, verifying
from bn_jax.report.results import read
from tests.fixtures import (
  made_up,
  strict,  # noqa: F401
)

_TITLES = {'training': '<Training>'}


class SectionTest(absltest.TestCase):
  def shown(self, seeds, others=None, **batchnorm):
    folder = pathlib.Path(self.create_tempdir().full_path)
    workdir = made_up.workdir(
      folder / 'work', seeds, standard={'scale': 1.0},
      batchnorm={'norm': 'batch', 'reaches': 30, **batchnorm},
      **(others or {}),
    )  # fmt: skip
    return showing.of([workdir], read.runs([workdir]), _TITLES)

  def section(self, *args, **keywords):
    return ' '.join(self.shown(*args, **keywords).section.split())

  def test_verdicts_are_counted_and_shown_by_their_words(self):
    text = self.section((0, 1, 2), scale=0.1)
    holds = '<b class="holds"><span aria-hidden="true">✓</span><span> '
    self.assertIn(f'<p>{holds}4 hold</span></b></p>', text)
    self.assertEqual(text.count(f'{holds}holds</span></b>'), 4)
    self.assertIn('<dt>Runs</dt><dd>standard (none), batchnorm (batch)', text)
    self.assertNotIn('Claims of figures', text)
    text = self.section((0, 1, 2), scale=2.0)
    self.assertIn('<b class="contradicted"><span aria-hidden="true">✗', text)
    self.assertRegex(text, r'<p><b.*> 1 hold<.*> 3 contradicted</span></b></p>')

  def test_one_seed_is_undecided(self):
    text = self.section((0,), scale=0.1)
    self.assertEqual(text.count('<span> undecided (one seed)</span></b>'), 4)
    self.assertIn('<small>batch 0.1 → none 1</small></summary>', text)
    self.assertIn('<dd>batch 0.1 → none 1; ratio 10, 1 seed</dd>', text)
    self.assertIn('<dd>a second seed, and more: one has no interval</dd>', text)

  def test_nothing_where_there_is_no_claim(self):
    self.assertEqual(self.shown((0,), batch_size=32), ('', {}))

  def test_a_claim_and_the_figure_that_draws_it_link_to_each_other(self):
    """Of the landscape, which is not on this page, neither does."""
    shown = self.shown((0, 1), scale=0.1)
    self.assertEqual(list(shown.beside), ['training'])
    (identity,) = _links(shown.beside['training'])
    self.assertEqual(identity, '#claim-norms-standard-speed')
    self.assertIn(f'<li id="{identity[1:]}"><details>', shown.section)
    self.assertEqual(_links(shown.section), ['#training'])
    self.assertIn('<a href="#training">&lt;Training&gt;</a>', shown.section)

  def test_one_sentence_of_several_runs_is_one_line_with_a_grid(self):
    slow = {'schedule': {'name': 'constant', 'learning_rate': 0.01}}
    others = {'slow': slow, 'bn_slow': {'norm': 'batch', 'scale': 2.0, **slow}}
    text = self.shown((0, 1), others=others, scale=0.1).section
    self.assertLen(_links(text), 2)
    grid = re.search('(?s)loss vary less.*?<ul class="grid">(.*?)</ul>', text)
    cells = ' '.join(re.sub('<[^>]*>', ' ', grid[1]).split())
    self.assertEqual(cells, 'rate 0.1 ✓ holds 10 rate 0.01 ✗ contradicted 0.5')
    self.assertIn('<li id="claim-norms-standard-loss">', text)
    self.assertIn('<h4 id="claim-norms-slow-loss">rate 0.01: ', text)

  def test_other_verdicts_on_one_figure_are_both_shown(self):
    """Of two folders that are both called work."""
    figure = reading.load()['ioffe2015/shuffling']
    verdict = judging.verdict(
      figure.claims[0], 'paper', judging.Evidence({}, {})
    )
    row = rows.of(figure, verdict)
    kept = {'a': ([row], False), 'b': ([{**row, 'detail': 'other'}], False)}
    with mock.patch.object(
      verifying, 'kept', lambda workdir: kept[workdir.parent.name]
    ):
      workdirs = [pathlib.Path('a/work'), pathlib.Path('b/work')]
      text = showing.of(workdirs, [], {}).section
    self.assertIn('> 2 not measured</span></b></p>', text)
    self.assertIn('<dd>other</dd>', text)
    for name in ('higher', 'higher-2'):
      self.assertIn(f'<li id="claim-ioffe2015-shuffling-paper-{name}">', text)


class ToDecideTest(parameterized.TestCase):
  """Three seeds whose interval is 0.12 ± 0.2, t = 4.303: s = 0.0805.

  With t = 3.182 of four seeds half of it is 0.128, with 2.776 of five 0.0999.
  """

  @parameterized.parameters(
    ('a − b at most 0', float, '5 seeds'),
    ('a / b at most 1', lambda number: math.exp(10 * number), '5 seeds'),
    ('a within -1 and 0.121', float, 'more than 100 seeds'),
    ('by hand', float, ''),
  )
  def test_seeds(self, threshold, scale, words):
    mean, low, high = map(scale, (0.12, -0.08, 0.32))
    row = {
      'verdict': 'undecided', 'threshold': threshold, 'seeds': 3,
      'mean': mean, 'low': low, 'high': high,
    }  # fmt: skip
    said = rows.would_decide(row)
    self.assertIn(words, said)
    self.assertEqual(bool(words), bool(said))
    self.assertEqual(rows.would_decide({**row, 'verdict': 'holds'}), '')

  def test_steps(self):
    row = {
      'verdict': 'undecided', 'threshold': 'a / b at most 1', 'seeds': 3,
      'mean': 'inf', 'low': 'inf', 'high': 'inf',
    }  # fmt: skip
    self.assertStartsWith(rows.would_decide(row), 'more steps')


def _links(text):
  """Returns what a page links to; fails where its tags do not close."""
  links, above = [], []
  parser = html.parser.HTMLParser()
  parser.handle_starttag = lambda tag, attributes: (
    above.append(tag), links.extend(v for k, v in attributes if k == 'href')
  )  # fmt: skip
  parser.handle_endtag = lambda tag: _close(above, tag)
  parser.feed(text)
  assert not above, above
  return links


def _close(above, tag):
  assert above.pop() == tag, tag


if __name__ == '__main__':
  absltest.main()
