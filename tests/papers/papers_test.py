"""Figures found again in working directories, listed, and judged."""

import contextlib
import csv
import json
import logging
import pathlib
from unittest import mock

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bn_jax import commands, distributions
from bn_jax.commands import train
from bn_jax.config.run_config import FrozenDict, RunConfig
from bn_jax.papers import draw, figures, listing, matching
from bn_jax.papers import verify as verify_lib
from bn_jax.report import figures as figures_lib
from bn_jax.report import page
from bn_jax.report.claims import reading, verifying
from bn_jax.storage import array_files, records, run_folder
from bn_jax.storage import files as files_lib
from tests.fixtures import commanded, made_up, scratch, strict

FIGURE = 'ioffe2015/figure1'
# For tests of the text around the figures: drawing them takes the time.
undrawn = mock.patch.object(figures_lib, 'every', lambda runs: [])


def figure(name=FIGURE, size='small'):
  (found,) = (
    one for one in figures.every() if (one.figure, one.size) == (name, size)
  )
  return found


def as_json(runs):
  """name -> the config of a run, of JSON."""
  return {name: run.as_json() for name, run in runs.items()}


class _InAFolder(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(contextlib.chdir(strict.ROOT))
    self.folder = scratch.folder(self)

  def workdir(self, name='work', seeds=(0, 1, 2), size='small', **runs):
    """Figure 1 of a size: with BN 90 % at step 1000, else at 3000.

    A percentile of its activations moves by 1 with BN, by 2 without. `runs` is
    what else a run's config says, path -> value.
    """
    place = made_up.workdir(self.folder / name)
    configs = as_json(figure(size=size).runs)
    for run, (path, value) in runs.items():
      configs[run] = made_up.changed(configs[run], path, value)
    files_lib.write_json(
      place / 'experiment.json', {'runs': configs, 'seeds': list(seeds)}
    )
    for run, config in configs.items():
      for seed in seeds:
        self.add(place / run / f'seed{seed}', config, seed)
    return place

  def add(self, place, config, seed, status='done'):
    made_up.run(
      place, seed=seed, measures=False, steps=30, status=status,
      manifest={'config': config, 'step': config['steps']},
    )  # fmt: skip
    fast = config['norm']['name'] == 'batch'
    looks = [
      records.Record(step, 'test', {
        'accuracy': 0.9 if step >= (1000 if fast else 3000) else 0.1,
        'loss': 1.0,
      })
      for step in range(0, 5001, 500)
    ]  # fmt: skip
    records.write_all(place / 'scalars.jsonl', looks)
    arrays = array_files.Arrays(place / 'arrays')
    for k in range(3):
      middle = (-1) ** k * np.array([1.0, 1.0]) * (0.5 if fast else 1.0)
      seen = {
        'levels': np.array([0.15, 0.5, 0.85]),
        'dense3/mean': middle, 'dense3/var': np.ones(2),
        'dense3/histogram': np.ones(distributions.CELLS, int),
        'dense3/quantiles': np.array([middle - 1, middle, middle + 1]),
      }  # fmt: skip
      arrays.write(records.Record(100 * k, 'activations', seen))

  def main(self, *words):
    """(exit code, stdout, stderr)"""
    return commanded.run('papers', *words)


class VerifyTest(_InAFolder):
  def verify(self, *words):
    with mock.patch.object(page, 'write') as written:
      code, out, said = self.main('verify', *words)
    self.assertEqual(code, 0, said)
    # Of each directory, and of several together.
    several = len(words) > 1 and not str(words[1]).startswith('--')
    self.assertEqual(
      [call.args[0] for call in written.call_args_list],
      [[place] for place in words if isinstance(place, pathlib.Path)]
      + [list(words)] * several,
    )
    return out

  def test_claim_by_claim(self):
    place = self.workdir()
    out = self.verify(place, f'--out={self.folder / "v.csv"}')
    self.assertIn('ioffe2015/figure1 (small): MNIST', out)
    self.assertIn('HOLDS  With BN the test accuracy reaches 95 %', out)
    # 1000 / 3000 in each seed.
    self.assertIn(
      'measured   0.333 (0.333 to 0.333), 3 seeds; batchnorm 1,000', out
    )
    self.assertIn('threshold  batchnorm / standard at most 1', out)
    # Both end at 90 %, both are as wide at all times.
    self.assertIn(
      'UNDECIDED  With BN the test accuracy is higher in the end', out
    )
    self.assertIn('NOT MEASURED  So does its 15th to 85th', out)
    self.assertEndsWith(
      out, '3 hold, 0 contradicted, 1 undecided, 1 not measured\n'
    )
    rows = list(csv.DictReader((self.folder / 'v.csv').open()))
    self.assertEqual(
      [row['verdict'] for row in rows],
      ['holds', 'undecided', 'holds', 'not measured', 'holds'],
    )
    self.assertAlmostEqual(float(rows[0]['mean']), 1 / 3)
    kept, stale = verifying.kept(place)
    self.assertEqual([row['id'] for row in kept], [row['id'] for row in rows])
    self.assertFalse(stale)

  def test_fewer_seeds_are_not_enough_and_add_up(self):
    one, two = self.workdir('a', seeds=(0, 1)), self.workdir('b', seeds=(1, 2))
    out = self.verify(one)
    self.assertIn('2 of 3 seeds', out)
    self.assertEndsWith(
      out, '0 hold, 0 contradicted, 0 undecided, 5 not measured\n'
    )
    out = self.verify(one, two)
    self.assertIn('0.333 (0.333 to 0.333), 3 seeds', out)
    self.assertEqual(out.count('left out: '), 2)
    self.assertIn('b/standard/seed1: seed 1 of standard again', out)
    self.assertEqual(verifying.kept(one), verifying.kept(two))

  def test_each_directory_has_the_verdicts_of_its_own_runs(self):
    small, paper = self.workdir('a'), self.workdir('b', size='paper')
    self.verify(small, paper)
    for place, size in ((small, 'small'), (paper, 'paper')):
      rows, _ = verifying.kept(place)
      self.assertEqual({row['size'] for row in rows}, {size})

  def test_what_is_not_as_configured_is_said(self):
    place = self.workdir(standard=('schedule.learning_rate', 0.2))
    out = self.verify(place)
    self.assertIn('no run standard (not as configured:', out)
    said = 'schedule.learning_rate 0.2 instead of 0.1)'
    self.assertIn(said, ' '.join(out.split()))

  def test_nothing_to_judge(self):
    short = ('steps', 10)
    place = self.workdir(standard=short, batchnorm=short)
    code, _, said = self.main('verify', place)
    self.assertEqual(code, 2)
    self.assertEqual(said.count('\n'), 1)
    self.assertIn(
      'run standard is that of ioffe2015/figure1 (paper), but not as '
      'configured: steps 10 instead of 50000',
      said,
    )

  @undrawn
  def test_the_page_shows_them_until_runs_change(self):
    place = self.workdir()
    self.assertEqual(self.main('verify', place)[0], 0)
    text = (place / 'report.html').read_text()
    self.assertIn('<a href="#claims">Claims</a>', text)
    self.assertIn('<section id="claims">', text)
    self.assertRegex(
      text, r'<p><b.*> 3 hold<.*> 1 undecided<.*> 2 not measured</span></b></p>'
    )
    self.assertIn('<details>\n<summary><b class="holds"><span aria', text)
    self.assertNotIn('Out of date', text)
    self.judge_by_older_rules(place)
    text = page.write([place]).read_text()
    self.assertIn('<strong>Out of date.</strong>', text)
    self.assertEqual(self.main('verify', place)[0], 0)
    self.assertNotIn('Out of date', page.write([place]).read_text())
    run = figure().runs['standard'].as_json()
    self.add(place / 'standard' / 'seed7', run, 7)
    text = page.write([place]).read_text()
    self.assertIn('<strong>Out of date.</strong>', text)

  @undrawn
  def test_damaged_verdicts_are_judged_again(self):
    place = self.workdir()
    self.assertEqual(self.main('verify', place)[0], 0)
    (place / 'verdicts.json').write_text('{')
    text = page.write([place]).read_text()
    self.assertIn('<strong>Out of date.</strong>', text)

  def judge_by_older_rules(self, place):
    """Makes verdicts.json one of before rules had a number."""
    content = files_lib.read_json(place / 'verdicts.json')
    del content['rules']
    files_lib.write_json(place / 'verdicts.json', content)

  @undrawn
  def test_the_page_of_several_says_what_is_alike_once(self):
    one, two = self.workdir('a', seeds=(0, 1)), self.workdir('b', seeds=(2,))
    self.assertEqual(self.main('verify', one, two)[0], 0)
    text = (self.folder / 'a+b' / 'report.html').read_text()
    self.assertEqual(text.count('ioffe2015/figure1 (small)'), 1)
    for place in (one, two):
      self.assertIn('id="claims"', (place / 'report.html').read_text())
    self.verify(two)
    text = page.write([one, two]).read_text()
    self.assertIn('of activations; runs of a</h3>', text)

  def test_texts_cannot_break_out(self):
    place = self.workdir(seeds=(0,))
    self.verify(place)
    path = place / verifying.FILE
    text = json.dumps(files_lib.read_json(path)).replace('With BN', '<script>')
    path.write_text(text.replace('"not measured"', '"<script>"'))
    with undrawn:
      self.assertNotIn('<script>', page.write([place]).read_text())

  def test_after_training_and_never_in_its_way(self):
    place = self.workdir()
    self.assertLen(verify_lib.refresh(place), 2)
    self.assertLen(verifying.kept(place)[0], 5)
    broken = mock.patch.object(
      verify_lib.matching, 'begun', side_effect=KeyError('x')
    )
    with broken, self.assertLogs('bn_jax', logging.WARNING) as said:
      self.assertIsNone(verify_lib.refresh(place))
    self.assertIn('no verdicts', said.output[0])
    runs = verify_lib.refresh(place)
    with (
      mock.patch.object(commands, 'draw', return_value='page') as drawn,
      mock.patch.object(verify_lib, 'refresh', lambda place: runs),
    ):
      self.assertIn('report: page', train._reported(str(place)))
    drawn.assert_called_once_with([place], runs=runs)
    other = made_up.workdir(self.folder / 'other', standard={})
    self.assertIsNone(verify_lib.refresh(other))
    self.assertFalse((other / verifying.FILE).exists())


class DrawTest(_InAFolder):
  def protocol(self, name='protocol', seeds=(0, 1)):
    """Figure 1 under other names and in another order, and a run more.

    Each has an evaluation more, every 500 steps.
    """
    place = self.folder / name
    runs = as_json(figure().runs)
    more = {'name': 'evaluation', 'data': 'train', 'every_steps': 500}
    named = {
      'b': runs['batchnorm'],
      'fast': made_up.changed(runs['standard'], 'schedule.learning_rate', 0.2),
      's': runs['standard'],
    }
    named = {
      run: made_up.changed(config, 'measures.more', more)
      for run, config in named.items()
    }
    for run, config in named.items():
      for seed in seeds:
        at = place / run / f'seed{seed}'
        self.add(at, config, seed)
        with (at / 'scalars.jsonl').open('a') as file:
          look = records.Record(0, 'more', {'loss': 1.0, 'accuracy': 0.1})
          file.write(records.as_line(look))
    files_lib.write_json(
      place / 'experiment.json', {'runs': named, 'seeds': list(seeds)}
    )
    return place

  def test_the_runs_of_the_figure_with_its_measures_alone(self):
    places = [self.protocol(), self.workdir(seeds=(1, 2))]
    cut = draw.of(FIGURE, places, None)
    self.assertEqual([run.name for run in cut.runs], ['standard', 'batchnorm'])
    for run in cut.runs:
      self.assertEqual([seed.seed for seed in run.seeds], [0, 1, 2])
      norm = figure().runs[run.name].norm['name']
      for seed in run.seeds:
        config = seed.manifest['config']
        self.assertEqual(config['norm']['name'], norm)
        self.assertEqual(set(config['measures']), {'test', 'activations'})
        self.assertNotIn('more', seed.series)
        self.assertLen(seed.arrays['activations'], 3)
    # The first directory's seed 1 counts.
    self.assertEqual(
      cut.match.folders['standard'][1].path, places[0] / 's' / 'seed1'
    )
    said = draw.absent(cut)
    self.assertLen(said, 2)
    self.assertIn('left out: ', said[0])
    together = verify_lib.of(places)
    self.assertEqual(cut.judged.rows, together.figures[0].rows)

  @undrawn
  def test_its_files_and_no_others(self):
    place = self.protocol(seeds=(0, 1, 2))
    before = contents(place)
    code, out, said = self.main('draw', FIGURE, place)
    self.assertEqual((code, said), (0, ''))
    made = place / 'papers' / 'figure1-small'
    self.assertEqual(out, f'{made / "report.html"}\n')
    self.assertEqual(
      {path.name for path in made.iterdir()},
      {
        'report.html',
        'results.csv',
        'figures',
        'verdicts.json',
        'verdicts.csv',
      },
    )
    text = (made / 'report.html').read_text()
    self.assertIn('<h1>ioffe2015/figure1 (small): Figure 1 of Ioffe', text)
    self.assertRegex(
      text, r'<p><b.*> 3 hold<.*> 1 undecided<.*> 2 not measured</span></b></p>'
    )
    self.assertIn('2 runs, 3 seeds', text)
    self.assertNotIn('Out of date', text)
    rows = list(csv.DictReader((made / 'verdicts.csv').open()))
    self.assertEqual([row['verdict'] for row in rows].count('holds'), 3)
    after = contents(place)
    self.assertEqual({path: after[path] for path in before}, before)
    self.assertTrue(
      all(made in path.parents for path in after.keys() - before.keys())
    )
    runs, _ = matching.below(self.folder)
    self.assertLen(runs, 9)  # none of them is the page

  @undrawn
  def test_of_both_sizes_one_is_to_be_named(self):
    small = self.workdir('a', seeds=(0,))
    paper = self.workdir('b', seeds=(0,), size='paper')
    code, _, said = self.main('draw', FIGURE, small, paper)
    self.assertEqual((code, said.count('\n')), (2, 1))
    self.assertIn(f'runs of {FIGURE} (paper) and of {FIGURE} (small)', said)
    code, out, _ = self.main('draw', FIGURE, small, paper, '--size=paper')
    self.assertEqual(code, 0)
    self.assertEqual(out, f'{small / "papers" / "figure1" / "report.html"}\n')

  @undrawn
  def test_without_claims_and_a_run(self):
    place = self.workdir(seeds=(0,), standard=('schedule.learning_rate', 0.2))
    made = self.folder / 'made'
    with mock.patch.object(reading, 'load', dict):
      code, _, said = self.main('draw', FIGURE, place, f'--output={made}')
    self.assertEqual(code, 0, said)
    self.assertStartsWith(said, 'no run standard: not as configured: schedule.')
    self.assertNotIn('id="claims"', (made / 'report.html').read_text())

  def test_what_cannot_be_drawn_is_one_line(self):
    place = self.workdir(seeds=(0,), batchnorm=('steps', 10))
    other = 'santurkar2018/figure10'
    for words, expected in (
      (('ioffe2015/figure7', place), "unknown figure 'ioffe2015/figure7'; did"),
      ((other, place), f'no run is one of {other} (paper) or {other} (small)'),
      ((FIGURE, place, '--size=paper'), 'steps 5000 instead of 50000'),
      ((FIGURE, place, f'--output={place}'), 'is a working directory'),
    ):
      code, out, said = self.main('draw', *words)
      self.assertEqual((code, out), (2, ''), said)
      self.assertIn(expected, said)
      self.assertIn('error: ', said)


def contents(folder):
  """Path -> bytes of all files below a folder."""
  files = (path for path in folder.rglob('*') if path.is_file())
  return {path: path.read_bytes() for path in files}


class MatchingTest(_InAFolder):
  def difference(self, path, value):
    run = figure('santurkar2018/figure4').runs['batchnorm'].as_json()
    return matching.difference(made_up.changed(run, path, value), run)

  @parameterized.parameters(
    ('data_dir', '/elsewhere'),
    ('devices', 4),
    ('log_every_steps', 7),
    ('measures.more', {'name': 'evaluation', 'data': 'train'}),
  )
  def test_what_changes_no_number_is_no_difference(self, path, value):
    self.assertIsNone(self.difference(path, value))

  def test_what_only_the_page_shows_is_none(self):
    """A run from before the keyword, too."""
    run = figure('ioffe2015/figure1').runs['batchnorm'].as_json()
    for unit in (False, None):
      changed = made_up.changed(run, 'measures.activations.unit', unit)
      self.assertIsNone(matching.difference(changed, run))

  @parameterized.parameters(
    ('steps', 10, 'steps 10 instead of 1200'),
    ('batch_size', 64, 'batch_size 64 instead of 128'),
    ('norm.epsilon', 1e-3, 'norm.epsilon 0.001 instead of 1e-05'),
    ('model.width', 1.0, 'model.width 1.0 instead of 0.25'),
    ('on_nonfinite', 'skip', 'on_nonfinite skip instead of stop'),
    ('measures.landscape.every_steps', 100, 'every_steps 100 instead of 40'),
    ('measures.landscape.direction', 'random', 'random instead of descent'),
    ('measures.random', None, 'measure random was not taken'),
  )
  def test_what_does_is_said(self, path, value, expected):
    self.assertIn(expected, self.difference(path, value))

  def test_by_config_not_by_name(self):
    runs = as_json(figure().runs)
    begun = {
      run_folder.at(self.folder, name, 0): config
      for name, config in (('x', runs['batchnorm']), ('y', runs['standard']))
    }
    found = matching.match(figure(), begun)
    self.assertEqual(found.folders['standard'][0].run, 'y')
    self.assertEqual(found.folders['batchnorm'][0].run, 'x')
    paper = matching.match(figure(size='paper'), begun)
    self.assertEqual((paper.folders, paper.notes), ({}, {}))

  @parameterized.parameters(('product', True), ('winograd', False))
  def test_a_lowering_that_was_auto_is_that_of_the_manifest(
    self, lowering, stands
  ):
    one = figure('curvature/connectivity')
    config = made_up.changed(
      as_json(one.runs)['batchnorm'], 'model.lowering', 'auto'
    )
    made_up.run(
      self.folder / 'batchnorm' / 'seed0', measures=False, steps=30,
      manifest={'config': config, 'lowering': lowering},
    )  # fmt: skip
    found = matching.match(one, matching.begun([self.folder]))
    self.assertEqual('batchnorm' in found.folders, stands)

  def test_a_protocol_answers_for_its_figures(self):
    """A directory of all runs and all measures of vgg.py."""
    whole = as_json(figure('santurkar2018/vgg').runs)
    begun = {
      run_folder.at(self.folder, name, 0): config
      for name, config in whole.items()
    }
    for name in ('1', '2', '3', '4', '5', '6', '8', '11', '12'):
      one = figure(f'santurkar2018/figure{name}')
      found = matching.match(one, begun).folders
      self.assertEqual(set(found), set(one.runs), name)

  def test_keys_that_came_later_are_filled_in(self):
    """A manifest from before a keyword of the norm, and before a key."""
    old = made_up.changed(
      figure().runs['batchnorm'].as_json(), 'norm.momentum', None
    )
    old = made_up.changed(old, 'norm.epsilon', None)
    old = made_up.changed(old, 'on_nonfinite', None)
    place = self.folder / 'batchnorm' / 'seed0'
    made_up.run(place, measures=False, steps=1, manifest={'config': old})
    (config,) = matching.begun([self.folder]).values()
    # The default of momentum is .9, that of the figure .99.
    run = figure().runs['batchnorm'].as_json()
    self.assertEqual(
      matching.difference(config, run),
      'norm.momentum 0.9 instead of 0.99',
    )
    self.assertIsNone(
      matching.difference(made_up.changed(config, 'norm.momentum', 0.99), run)
    )


class ListTest(_InAFolder):
  def setUp(self):
    super().setUp()
    rate = mock.patch.object(listing, 'rate', lambda: 1e11)
    self.enter_context(rate)

  def test_figures_with_their_size_and_state(self):
    # Networks are traced for it: that of this figure takes no time.
    estimated = listing.estimated
    self.enterContext(
      mock.patch.object(
        listing, 'estimated',
        lambda one, rate: (
          estimated(one, rate) if one.figure == FIGURE else None
        ),
      )
    )  # fmt: skip
    place = self.workdir('runs', seeds=(0, 1))
    run = figure().runs['standard'].as_json()
    self.add(place / 'standard' / 'seed2', run, 2, status='running')
    code, out, _ = self.main('ioffe2015', f'--runs={self.folder}')
    self.assertEqual(code, 0)
    self.assertNotIn('santurkar2018/figure1\n', out)
    self.assertIn('  Figure 1 of Ioffe and Szegedy (2015): MNIST', out)
    lines = out.splitlines()
    where = lines.index(FIGURE)
    self.assertRegex(
      lines[where + 2],
      r'paper  2 runs x 5 seeds x 50,000 steps +\d+ min +not started$',
    )
    # 1.5 and 2.5 seconds of training in each, of two runs with one seed.
    self.assertRegex(
      lines[where + 3],
      r'small  2 runs x 1 seed x 5,000 steps +8 s\* +4 of 5 done, 1 begun$',
    )

  def test_a_damaged_manifest_leaves_out_that_run_alone(self):
    # Estimates of time take most of it.
    self.enterContext(mock.patch.object(listing, 'estimated', lambda *_: None))
    place = self.workdir('runs', seeds=(0, 1))
    (place / 'standard' / 'seed1' / 'manifest.json').write_text('{"run": 3}')
    code, out, _ = self.main('ioffe2015', f'--runs={self.folder}')
    self.assertEqual(code, 0)
    self.assertIn(' 3 of 3 done\n', out)
    (left_out,) = (x for x in out.splitlines() if x.startswith('Left out: '))
    self.assertIn('standard/seed1/manifest.json', left_out)
    (place / 'experiment.json').write_text('{')
    self.workdir('others', seeds=(0,))
    code, out, _ = self.main('ioffe2015', f'--runs={self.folder}')
    self.assertEqual(code, 0)
    (left_out,) = (x for x in out.splitlines() if x.startswith('Left out: '))
    self.assertIn('runs/experiment.json is not JSON', left_out)

  def test_in_the_order_of_the_paper(self):
    with mock.patch.object(listing, 'estimated', lambda *_: None):
      _, out, _ = self.main('santurkar2018', f'--runs={self.folder / "none"}')
    names = [line for line in out.splitlines() if line.startswith('santurkar')]
    self.assertEqual(names[:3], [f'santurkar2018/figure{k}' for k in (1, 2, 3)])
    self.assertLess(
      names.index('santurkar2018/figure9'),
      names.index('santurkar2018/figure10'),
    )

  @pytest.mark.slow  # traces all networks
  def test_every_figure_has_an_estimate(self):
    for one in figures.every():
      seconds = listing.estimated(one, 1e11)
      if seconds is not None:  # its data may not be here
        self.assertGreater(seconds, 0, one.figure)

  def test_a_lowering_changes_no_product_that_is_counted(self):
    counts = {
      listing._forward(FrozenDict(name='digits'), FrozenDict(model), None)
      for model in (
        {'name': 'vgg11', 'width': 0.0625, 'lowering': lowering}
        for lowering in ('product', 'winograd')
      )
    }
    self.assertLen(counts, 1)

  def test_data_that_are_not_known_break_nothing(self):
    one = figure()
    runs = {
      name: run.replace(data={'name': 'no_such_set'})
      for name, run in one.runs.items()
    }
    self.assertIsNone(listing.estimated(one._replace(runs=runs), 1e11))

  @parameterized.parameters(
    (0.4, '0 s'), (119, '119 s'), (121, '2 min'), (7300, '2 h'),
    (200_000, '2 days'),
  )  # fmt: skip
  def test_duration(self, seconds, expected):
    self.assertEqual(listing.duration(seconds), expected)

  def test_operations_are_those_of_the_products(self):
    """Of a dense layer: two a weight and example, three passes a gradient."""
    run = figure().runs['batchnorm'].as_json()
    run = RunConfig.of(made_up.changed(run, 'measures.activations', None))
    weights = 784 * 100 + 2 * 100 * 100 + 100 * 10
    steps, looks = 5000 * 60, 11 * 10_000 / 3  # in gradients of one example
    self.assertAlmostEqual(
      listing.operations(run) / (6 * weights * (steps + looks)), 1
    )


class WordsTest(_InAFolder):
  @parameterized.parameters(
    (('santurkar',), "unknown action 'santurkar'; did you mean 'sant"),
    (('verify',), 'WORKDIR is missing'),
    (('verify', 'nowhere'), 'nowhere is not a directory'),
    (('verify', 'docs'), 'docs holds no experiment'),
    (('verify', '--runs=x', 'docs'), "unknown flag '--runs'"),
    (('--size=small',), "unknown flag '--size'"),
    (('draw',), 'FIGURE, WORKDIR is missing'),
    (('draw', FIGURE), 'WORKDIR is missing'),
    (
      ('draw', FIGURE, '--size=big', 'docs'),
      "--size: unknown value 'big'; known: paper, small",
    ),
    (
      ('draw', FIGURE, '--out=x', 'docs'),
      "flag '--out'; did you mean '--output'",
    ),
    (('--out=x.csv',), "unknown flag '--out'"),
    (('--outt=x.csv',), 'outt'),
  )
  def test_wrong_ones_are_one_line(self, words, expected):
    code, out, said = self.main(*words)
    self.assertEqual((code, out), (2, ''))
    self.assertStartsWith(said, 'error: ')
    self.assertEqual(said.count('\n'), 1)
    self.assertIn(expected, said)

  def test_a_directory_is_given_once(self):
    place = self.workdir(seeds=())
    code, _, said = self.main('verify', place, place)
    self.assertEqual(code, 2)
    self.assertIn('given twice', said)

  def test_help(self):
    for words in ((), ('verify',), ('draw',), ('ioffe2015',)):
      code, out, _ = self.main(*words, '--help')
      self.assertEqual(code, 0)
      self.assertStartsWith(
        out, f'usage: {" ".join(("python -m bn_jax papers", *words))} [-h]'
      )


if __name__ == '__main__':
  absltest.main()
