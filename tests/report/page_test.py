import html
import html.parser
import re
import shutil
import subprocess
import sys
import unittest
from unittest import mock

import pytest
from absl.testing import absltest

from bn_jax.report import page, summary
from bn_jax.report.drawing import canvas
from bn_jax.report.results import read
from bn_jax.storage import files as files_lib
from tests.fixtures import commanded, made_up, scratch, strict

_CHROMIUM = shutil.which('chromium')


class _Page(html.parser.HTMLParser):
  """What a page links to, which ids it has, and whether its tags close."""

  _VOID = ('meta', 'img', 'source', 'link', 'br', 'wbr', 'input')

  def __init__(self, text):
    super().__init__()
    self.links, self.ids, self.open, self.text = [], [], [], ''
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.links += [attrs[a] for a in ('href', 'src', 'srcset') if a in attrs]
    self.ids += [attrs['id']] if 'id' in attrs else []
    if tag not in self._VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, tag

  def handle_data(self, data):
    self.text += data


unrendered = commanded.unrendered()
# For tests of what is drawn: writing it in every format takes as long.
unwritten = mock.patch.multiple(canvas, rendered=commanded.blank)


class _InAFolder(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = scratch.folder(self)

  def workdir(self, name='work', seeds=(0,), standard=None, batchnorm=None):
    return made_up.workdir(
      self.folder / name,
      seeds,
      standard={'norm': 'none', **(standard or {})},
      batchnorm={
        'norm': 'batch', 'reaches': 30, 'scale': 0.1, **(batchnorm or {}),
      },
    )  # fmt: skip


class PageTest(_InAFolder):
  def test_one_file_that_needs_no_network(self):
    text = page.write([self.workdir()]).read_text()
    made = _Page(text)
    self.assertIn('One seed: an illustration.', text)
    self.assertNotIn('Different conditions', text)
    self.assertEmpty(made.open)
    self.assertNotRegex(text, r'(src|href|srcset)="(https?:)?//')
    # Data do not run; of what runs there is one, which its hash allows.
    running = re.findall('<script(?! type="application/)', text)
    self.assertLen(running, 1)
    self.assertEqual(len(set(made.ids)), len(made.ids))
    for link in made.links:
      self.assertRegex(link, r'^(#|data:image/svg\+xml|figures/)')
      if link.startswith('#'):
        self.assertIn(link[1:], made.ids)
      if link.startswith('figures/'):
        self.assertTrue((self.folder / 'work' / link).is_file(), link)

  @pytest.mark.slow  # draws all figures twice
  def test_the_same_records_make_the_same_files(self):
    some = dict(made_up.CONFIG['measures'])
    del some['activations']
    some = {'measures': some}
    workdir = self.workdir(seeds=(0, 1), standard=some, batchnorm=some)
    page.write([workdir])
    files = [*(workdir / 'figures').iterdir(), workdir / 'report.html']
    before = {file: file.read_bytes() for file in files}
    text = page.write([workdir]).read_text()
    self.assertNotIn('illustration', text)
    self.assertIn('of bands are means over 2 seeds (0, 1), shades', text)
    for file in files:
      self.assertEqual(file.read_bytes(), before[file], file)

  @unrendered
  def test_names_cannot_break_out(self):
    workdir = self.workdir('<b>&$x')
    text = page.write([workdir]).read_text()
    self.assertIn('&lt;b&gt;&amp;$x', text)
    self.assertNotIn('<b>&', text)

  @pytest.mark.slow  # starts a browser
  @unittest.skipIf(_CHROMIUM is None, 'no chromium here')
  def test_a_browser_runs_nothing_of_it(self):
    blind = {'measures': False}
    workdir = self.workdir(
      '<img src=x onerror=document.title=9>', standard=blind, batchnorm=blind
    )
    path = page.write([workdir], self.folder / 'out')
    done = subprocess.run(
      [_CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--dump-dom',
       f'file://{path}'],
      capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    self.assertIn('<h1>&lt;img src=x', done.stdout)
    self.assertNotIn('<title>9', done.stdout)

  @unwritten
  def test_a_run_without_records(self):
    workdir = self.workdir()
    seed = workdir / 'standard' / 'seed0'
    (seed / 'scalars.jsonl').unlink()
    for path in (seed / 'arrays').iterdir():
      path.unlink()
    made = _Page(page.write([workdir]).read_text())
    self.assertIn('not measured', made.text)

  @unrendered
  def test_unlike_measures_are_pointed_out(self):
    other = dict(made_up.CONFIG['measures'])
    other['landscape'] = {**other['landscape'], 'statistics': 'running'}
    workdir = self.workdir('b', standard={'measures': other})
    made = _Page(page.write([workdir]).read_text())
    self.assertIn(
      'runs were not all measured (along_gradient) alike. statistics: running '
      '(standard) or batch (batchnorm).',
      made.text,
    )

  @unrendered
  def test_the_subtitle_is_true_of_all_runs(self):
    unlike = {
      'data': {'name': 'cifar10', 'resolution': None},
      'model': {'name': 'vgg16'},
      'batch_size': 32,
    }
    text = page.write([self.workdir(standard=unlike)]).read_text()
    self.assertIn(
      'vgg16 or vgg11 of 0.25 × width on cifar10 or digits, batches of 32 or '
      '64, 2 runs, 1 seed',
      text,
    )

  @unrendered
  def test_what_is_not_finished_is_said(self):
    workdir = self.workdir(
      standard={'status': 'diverged', 'steps': 25},
      batchnorm={'status': 'running', 'steps': 35},
    )
    made = _Page(page.write([workdir]).read_text())
    self.assertIn('standard/seed0: diverged at step 25', made.text)
    self.assertIn('batchnorm/seed0: running at step 35', made.text)

  @unrendered
  def test_a_killed_run_is_where_its_records_end(self):
    """After SIGKILL, the manifest still says where it began."""
    workdir = self.workdir(
      standard={'status': 'running', 'steps': 34, 'manifest': {'step': 0}}
    )
    made = _Page(page.write([workdir]).read_text())
    self.assertIn('standard/seed0: running at step 34', made.text)
    (run, _) = read.runs([workdir])
    texts = {c.label: c.texts for c in summary.columns([run])}
    self.assertEqual(texts['Steps'], ['running at 34'])

  @unrendered
  def test_alternative_texts_have_a_finding(self):
    training, landscape, *_ = self.alternatives(self.workdir())
    self.assertIn('Loss and Accuracy against Training step, 4', training)
    self.assertIn('standard, Training loss: ', training)
    self.assertIn('batchnorm: 1 to 1 and 1.1 to 1.1.', landscape)

  @unrendered
  def test_alternative_texts_of_a_short_run_without_numbers(self):
    workdir = self.workdir(standard={'steps': 9})
    (workdir / 'standard' / 'seed0' / 'scalars.jsonl').unlink()
    for text in self.alternatives(workdir):
      self.assertNotIn('nan', text)

  def alternatives(self, workdir):
    text = page.write([workdir]).read_text()
    return [
      html.unescape(label)
      for label in re.findall('class="still wide".*?aria-label="([^"]*)"', text)
    ]

  @unrendered
  def test_without_measures_there_is_no_landscape(self):
    blind = {'measures': False}
    workdir = self.workdir(standard=blind, batchnorm=blind)
    made = _Page(page.write([workdir]).read_text())
    for name in ('landscape', 'activations', 'drift'):
      self.assertNotIn(f'#{name}', made.links)
    self.assertIn('#training', made.links)

  @unrendered
  def test_numbers_of_the_figures_are_those_recorded(self):
    workdir = self.workdir()
    page.write([workdir])
    figures = workdir / 'figures'
    lines = (figures / 'landscape.csv').read_text().splitlines()
    self.assertEqual(lines[0], 'run,seed,step,quantity,value')
    for line in (
      'standard,0,0,loss_min,1', 'standard,0,0,loss_max,2',
      'batchnorm,0,150,gradient_change_max,0.2', 'batchnorm,0,150,beta,0.3',
      'batchnorm,0,150,step_size_min,0.05',
    ):  # fmt: skip
      self.assertIn(line, lines)
    training = (figures / 'training.csv').read_text()
    self.assertIn('batchnorm,0,29,training_accuracy,0.1\n', training)
    self.assertIn('batchnorm,0,30,training_accuracy,1\n', training)
    self.assertIn('standard,0,150,test_accuracy,0.75\n', training)
    drift = (figures / 'drift.csv').read_text()
    self.assertIn('standard,0,conv1,50,mean,0.1\n', drift)
    self.assertIn('standard,0,conv1,150,mean_from_first,0.3\n', drift)


class ConditionsTest(_InAFolder):
  """What all figures share is said above them, the rest in their captions."""

  def parts(self, changes=None, norm='batch', **workdir):
    """Returns the text above the figures, and name -> caption."""
    measures = {
      name: {**section, **(changes or {}).get(name, {})}
      for name, section in made_up.CONFIG['measures'].items()
    }
    one = {'measures': measures, 'norm': norm}
    with unrendered:
      page.write([self.workdir(standard=one, batchnorm=one, **workdir)])
    text = (self.folder / 'work' / 'report.html').read_text()
    above = re.search('<h2>Figures</h2>(.*?)</section>', text, re.DOTALL)[1]
    pattern = '<section id="([^"]*)">.*?<figcaption>(.*?)<span>'
    return above, dict(re.findall(pattern, text.split(above)[1], re.DOTALL))

  def test_what_is_shared_is_said_once(self):
    above, captions = self.parts()
    self.assertIn('Each run has one seed (0).', above)
    for words in ('with batch statistics', 'products in highest precision'):
      self.assertIn(words, above)
      self.assertNotIn(words, ''.join(captions.values()))
    batch, part = 'training batch of 64 examples', 'first 256 examples of the'
    self.assertNotIn('examples', above)
    self.assertIn(batch, captions['landscape'])
    self.assertIn(part, captions['activations'])

  def test_what_one_figure_differs_in_is_said_by_each(self):
    above, captions = self.parts({'activations': {'statistics': 'running'}})
    self.assertNotIn('statistics', above)
    self.assertIn('with batch statistics', captions['landscape'])
    for name in ('activations', 'drift'):
      self.assertIn('with running statistics', captions[name])

  def test_examples_that_all_share(self):
    above, captions = self.parts({'activations': {'data': 'current_batch'}})
    self.assertIn('on the current training batch of 64 examples', above)
    self.assertNotIn('training batch of', captions['landscape'])

  def test_noise_is_that_of_batch_statistics(self):
    noise = 'with the noise of the training step that follows'
    above, captions = self.parts(norm='noisy')
    self.assertIn(noise, above)
    self.assertNotIn(noise, ''.join(captions.values()))

  def test_there_is_no_noise_with_running_statistics(self):
    noise = 'with the noise of the training step that follows'
    running = {'statistics': 'running'}
    above, captions = self.parts({'activations': running}, norm='noisy')
    self.assertNotIn(noise, above)
    self.assertIn(noise, captions['landscape'])
    self.assertNotIn(noise, captions['activations'])


class SummaryTest(_InAFolder):
  def rows(self, **keywords):
    runs = read.runs([self.workdir(**keywords)])
    return {c.label: c.texts for c in summary.columns(runs)}

  def test_table(self):
    rows = self.rows()
    self.assertEqual(list(rows)[:3], ['Norm', 'Steps', 'Seeds'])
    self.assertEqual(rows['Norm'], ['none', 'batch'])
    # From 10 to 100 % at step 100: the mean of 20 is 90 % with the 18th.
    self.assertEqual(rows['Steps to 90 % training accuracy'], ['117', '47'])
    self.assertEqual(rows['Loss band, median width in nats'], ['1', '0.1'])
    self.assertEqual(rows['Gradient change, median upper edge'], ['2', '0.2'])
    self.assertEqual(rows['Effective beta, median'], ['3', '0.3'])
    self.assertEqual(rows['Accuracy, test set'], ['75.0 %', '75.0 %'])
    times = {label: rows[label] for label in list(rows)[-2:]}
    want = {'Training time': ['4 s'] * 2, 'Total time': ['7 s'] * 2}
    self.assertEqual(times, want)

  def test_several_seeds_have_an_interval(self):
    rows = self.rows(seeds=(0, 1, 2))
    self.assertEqual(
      rows['Steps to 90 % training accuracy'], ['118 ± 2', '48 ± 2']
    )

  @unrendered
  def test_a_seed_that_is_not_done_is_not_averaged(self):
    workdir = self.workdir(seeds=(0, 1))
    made_up.run(
      workdir / 'standard' / 'seed2', seed=2, steps=60, status='running'
    )
    made_up.run(
      workdir / 'standard' / 'seed3', seed=3, steps=5, status='diverged'
    )
    runs = read.runs([workdir])
    rows = {c.label: c.texts for c in summary.columns(runs)}
    self.assertEqual(
      rows['Training accuracy, last 20 batches'][0],
      '100.0 % ± 0.0 % (2 of 4 seeds)',
    )
    self.assertEqual(rows['Steps'][0], '150, running at 60, diverged at 5')
    # One of the two that miss it may still come there.
    label = 'Steps to 90 % training accuracy'
    self.assertEqual(rows[label][0], 'not yet in 2 of 4 seeds')
    text = page.write([workdir]).read_text()
    self.assertIn('Where a seed has ended, the others go on.', text)

  @unrendered
  def test_runs_that_measured_other_things_stand_side_by_side(self):
    measures = made_up.CONFIG['measures']
    other = {
      'on_train': {**measures['test'], 'data': 'train'},
      'landscape': measures['landscape'],
      'second': measures['landscape'],
    }
    workdir = self.workdir(standard={'measures': other})
    rows = {c.label: c.texts for c in summary.columns(read.runs([workdir]))}
    self.assertEqual(rows['Accuracy, test set'], ['not measured', '75.0 %'])
    label = 'Loss band, median width in nats (landscape)'
    self.assertEqual(rows[label], ['1', '0.1'])
    page.write([workdir])

  def test_accuracy_with_the_statistics_of_the_population(self):
    """Only where they were found for the weights that there are now."""
    workdir = self.workdir(seeds=(0, 1))
    for run, seed, step, accuracy in (
      ('batchnorm', 0, 150, 0.9), ('batchnorm', 1, 100, 0.2),
    ):  # fmt: skip
      numbers = {'accuracy': accuracy, 'loss': 1.0}
      files_lib.write_json(
        workdir / run / f'seed{seed}' / 'population.json',
        {
          'step': step, 'batches': 3,
          'test': {'running': numbers, 'population': numbers},
        },
      )  # fmt: skip
    rows = {c.label: c.texts for c in summary.columns(read.runs([workdir]))}
    self.assertEqual(
      rows['Accuracy, test set, population statistics'],
      ['not measured', '90.0 % (1 of 2 seeds)'],
    )

  @unwritten
  def test_nothing_finite_to_draw(self):
    """As after a divergence at once: no traceback, and a page."""
    nothing = {'scale': float('nan'), 'drift': float('nan')}
    workdir = self.workdir(standard=nothing, batchnorm=nothing)
    self.assertTrue(page.write([workdir]).is_file())

  def test_what_was_never_reached_is_said(self):
    rows = self.rows(standard={'reaches': 140}, seeds=(0, 1))
    self.assertEqual(rows['Steps to 95 % training accuracy'][0], 'never')

  def test_steps_are_counted_to_the_three_highest_that_some_run_reaches(self):
    """Ten batches of 20 at 100 %, the others at 10 %: 55 % at the end."""
    late, never = {'reaches': 140}, {'reaches': 150}
    rows = self.rows(standard=never, batchnorm=late)
    counted = [name for name in rows if name.startswith('Steps to')]
    want = [f'Steps to {n} % training accuracy' for n in (30, 40, 50)]
    self.assertEqual(counted, want)
    rows = self.rows(name='neither', standard=never, batchnorm=never)
    self.assertEqual(rows['Steps to 20 % training accuracy'], ['never'] * 2)


class CommandTest(_InAFolder):
  def main(self, *words):
    return commanded.run('report', *words)

  def test_by_itself_with_jax_hidden(self):
    workdir = self.workdir()
    hide = "import sys; sys.modules['jax'] = None\n"
    code = hide + (
      'from bn_jax import __main__\n'
      'from bn_jax.report.drawing import canvas\n'
      # Drawn, but not written.
      'canvas.rendered = lambda *_: b\'<svg viewBox="0"></svg>\'\n'
      'canvas.settled = lambda drawing: drawing\n'
      "sys.exit(__main__.main(['bn_jax', 'report', sys.argv[1]]))"
    )
    done = subprocess.run(
      [sys.executable, '-c', code, workdir],
      cwd=strict.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertTrue((workdir / 'report.html').is_file())

  @unrendered
  def test_several_side_by_side(self):
    places = [self.workdir('a'), self.workdir('b')]
    code, out, said = self.main(*places)
    self.assertEqual(code, 0, said)
    self.assertEqual(out.strip(), str(self.folder / 'a+b' / 'report.html'))
    text = (self.folder / 'a+b' / 'report.html').read_text()
    for name in ('a/standard', 'a/batchnorm', 'b/standard', 'b/batchnorm'):
      head = name.replace('/', '/<wbr>')
      self.assertIn(f'<th scope="row" data-value="{name}">{head}</th>', text)
    for name in 'ab':
      compared = f'<dd>{name}/standard (none), {name}/batchnorm (batch)</dd>'
      self.assertIn(compared, text)

  @unrendered
  def test_output(self):
    code, _, said = self.main(self.workdir(), f'--output={self.folder / "o"}')
    self.assertEqual(code, 0, said)
    self.assertTrue((self.folder / 'o' / 'report.html').is_file())


if __name__ == '__main__':
  absltest.main()
