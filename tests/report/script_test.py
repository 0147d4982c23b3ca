"""The script of pages, in a real browser where there is one."""

import base64
import csv
import hashlib
import os
import pathlib
import re
import shutil
import tempfile
import xml.etree.ElementTree as xml

import numpy as np
import pytest
from absl.testing import absltest

from bn_jax.report import script
from bn_jax.report.drawing import interactive, record
from tests.fixtures import answering, strict

_SOURCE = strict.ROOT / 'bn_jax' / 'report' / 'page.js'
_LARGEST = 40_000  # bytes on the page, see issue 29
_PATIENCE = 120_000  # milliseconds: a machine may do much else
_LONGEST = 60  # lines of a function
_FORBIDDEN = (
  'eval', 'innerHTML', 'outerHTML', 'insertAdjacent', 'http', 'Function(',
  'document.write', 'fetch(', '</', '<!--',
)  # fmt: skip
_BROWSER = shutil.which('chromium') or shutil.which('chromium-browser')
_FRAME = '.stage > svg > g > g:nth-of-type(1)'  # of a panel: its grid
# Would say so in the title of the page if it were run.
_DONE = 'document.title="executed"'
_HOSTILE = (
  f'<script>{_DONE}</script>', f'</script><script>{_DONE}</script>',
  f'<img src=x onerror=\'{_DONE}\'>', f'"><svg onload=\'{_DONE}\'>',
  f'\' onmouseover=\'{_DONE}', f'" autofocus onfocus=\'{_DONE}\' x="',
  f'javascript:{_DONE}', f'${{{_DONE}}}', f'`${{{_DONE}}}`', f'{{{{{_DONE}}}}}',
  f'<iframe srcdoc="<script>parent.{_DONE}</script>">', '<!--', '<!-- <script>',
  '-->', ']]>', '<![CDATA[', '&lt;b&gt;', '&amp;', '&#60;script&#62;',
  '\u2028' + _DONE, '\u2029' + _DONE, '\\u003cscript\\u003e', '\\', '\\n\\x3c',
  '__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty',
  '$title', '$script', '$$', '%3Cscript%3E', '#?{"filter":1}', '=1+1',
  '@SUM(1)',
  'a' * 2000, 'norm=batch', 'seed=0', '\u202egnp.exe', '日本語 🎉', 'x,y"z\'',
)  # fmt: skip


class SourceTest(absltest.TestCase):
  def test_size_and_what_it_must_not_do(self):
    text = script.text()
    self.assertLess(len(text.encode()), _LARGEST)
    for word in _FORBIDDEN:
      self.assertNotIn(word, text)

  def test_no_function_is_long(self):
    begins = re.compile(r'(async )?function \w+|  (async |get )?\w+\(.*\) {$')
    begin, lengths = None, {}
    for number, line in enumerate(_SOURCE.read_text().splitlines()):
      self.assertLessEqual(len(line), 80, line)
      if begins.match(line) and not line.lstrip().startswith(('if', 'for')):
        begin = number, re.match(' *', line)[0]
        name = line
      elif begin and re.match(begin[1] + '},?$', line):
        lengths[name] = number - begin[0] + 1
        begin = None
    self.assertGreater(len(lengths), 60)
    self.assertLessEqual(max(lengths.values()), _LONGEST)

  def test_its_hash_is_in_the_policy(self):
    digest = hashlib.sha256(script.text().encode()).digest()
    sources = dict(
      part.split(' ', 1) for part in script.policy().split('; ')
    )  # fmt: skip
    self.assertEqual(
      sources['script-src'], f"'sha256-{base64.b64encode(digest).decode()}'"
    )
    self.assertEqual(sources['default-src'], "'none'")

  def test_texts_stay_whole_where_comments_go(self):
    self.assertIn("'stroke-dasharray'", script.text())
    # A text within a text would hide what is to be left out.
    self.assertNotIn('\n', script.text())
    self.assertNotIn('Lets the figures', script.text())

  def test_names_are_short_where_that_is_safe(self):
    code = (
      'let first=1;let second={first:2,third:3};let{third}=second;'
      "let fourth=(second)=>`${second.fifth+first} first`;let fifth='first';"
      'let sixth={seventh(){return eighth}};function eighth(ninth){return'
      '[...first,ninth,{ninth}]}'
    )
    self.assertEqual(
      script._renamed(code),
      'let first=1;let a={first:2,third:3};let{third}=a;'
      "let c=(a)=>`${a.fifth+first} first`;let fifth='first';"
      'let d={seventh(){return b}};function b(ninth){return'
      '[...first,ninth,{ninth}]}',
    )


@pytest.mark.slow
class BrowserTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    sync_api = pytest.importorskip(
      'playwright.sync_api', reason='playwright drives the browser'
    )
    if _BROWSER is None:
      pytest.skip('no chromium on this machine')
    cls._driver = sync_api.sync_playwright().start()
    cls.addClassCleanup(cls._driver.stop)
    cls._browser = cls._driver.chromium.launch(
      executable_path=_BROWSER, args=['--no-sandbox', '--disable-gpu']
    )
    cls.addClassCleanup(cls._browser.close)
    cls._folder = pathlib.Path(
      cls.enterClassContext(tempfile.TemporaryDirectory())
    )
    of_page = answering.runs(('standard', 'batchnorm', 'noisy'))
    cls._page = answering.write(
      cls._folder / 'page.html', of_page, answering.figures(of_page)
    )

  def folder(self):
    """A folder for another page than that of all tests."""
    return pathlib.Path(self.create_tempdir().full_path)

  def open(self, path=None, address='', width=1400, **keywords):
    """Opens a page whose errors and requests fail the test."""
    context = self._browser.new_context(
      viewport={'width': width, 'height': 900}, **keywords
    )
    self.addCleanup(context.close)
    context.set_default_timeout(_PATIENCE)
    page = context.new_page()
    faults = []
    page.on('console', lambda told: faults.append(told.text))
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.on('dialog', lambda dialog: faults.append(dialog.message))
    page.on(
      'request',
      lambda request: (
        request.url.startswith(('file:', 'data:', 'blob:'))
        or faults.append(request.url)
      ),
    )
    page.goto((path or self._page).as_uri() + address)
    self.addCleanup(lambda: self.assertEqual(faults, []))
    return page

  def show(self, page, name):
    """Scrolls to a figure, waits until it is drawn, and returns it."""
    figure = page.locator(f'#{name} figure')
    figure.scroll_into_view_if_needed()
    figure.locator('.stage > svg > g').first.wait_for()
    return figure

  def hover(self, page, figure, share=0.5, panel=0):
    """Puts the pointer on a panel, at a share of its width."""
    box = figure.locator(_FRAME).nth(panel).bounding_box()
    page.mouse.move(box['x'] + share * box['width'], box['y'] + 40)
    page.wait_for_timeout(100)

  def test_every_figure_is_drawn_without_a_request_or_an_error(self):
    page = self.open()
    for name in ('training', 'maps', 'surface', 'rest', 'layers'):
      figure = self.show(page, name)
      self.assertFalse(figure.locator('.still').is_visible())
    self.assertIn('diverged at 60', page.locator('#training').inner_text())
    self.assertEqual(page.locator('svg').filter(has_text='NaN').count(), 0)
    self.assertNotIn('NaN', page.locator('#rest .stage').inner_html())

  def test_values_at_the_cursor_are_those_of_the_table(self):
    page = self.open()
    figure = self.show(page, 'training')
    figure.locator('summary').click()
    with open(self._folder / 'training.csv') as file:
      rows = list(csv.DictReader(file))
    for share in (0.1, 0.33, 0.7):
      self.hover(page, figure, share)
      cells = [
        row.locator('td').all_inner_texts()
        for row in figure.locator('tbody tr').all()
      ]
      told = 0
      for title, _, label, at, value in cells:
        run, _, seed = label.partition(', ')
        if value == '–' or 'not' in value or 'mean of' in seed:
          continue
        ends = [
          float(row['value']) for row in rows
          if row['run'] == run and row['step'] == at
          and row['seed'] == seed.removeprefix('seed ')
          and row['quantity'].startswith(title.lower())
        ]  # fmt: skip
        self.assertEqual(list(map(float, value.split(' to '))), ends, cells)
        told += 1
      self.assertGreater(told, 15)
    tip = figure.locator('.tip')
    self.assertIn('batchnorm, seed 1', tip.inner_text())

  def test_cursor_goes_through_all_figures_with_steps(self):
    page = self.open(width=1400)
    page.set_viewport_size({'width': 1400, 'height': 4000})
    figures = [self.show(page, name) for name in ('training', 'rest', 'layers')]
    self.hover(page, figures[0])
    lines = [
      figure.locator('.stage > svg > g > g:last-child > path').count()
      for figure in figures
    ]
    self.assertEqual(lines, [3, 2, 0])

  def test_filter_and_legend_hide_and_the_address_restores(self):
    page = self.open()
    figure = self.show(page, 'training')
    before = figure.locator('.stage path').count()
    page.get_by_label('Show runs').fill('norm=group')
    page.wait_for_timeout(300)
    pressed = '.legend button[aria-pressed=true]'
    self.assertEqual(figure.locator(pressed).all_inner_texts(), ['batchnorm'])
    self.assertLess(figure.locator('.stage path').count(), before)
    page.get_by_label('Show runs').fill('standard,noisy')
    figure.get_by_role('button', name='noisy').click()
    page.get_by_role('button', name='Seed 1').click()
    layers = self.show(page, 'layers')
    layers.locator('input').fill('3')
    surface = self.show(page, 'surface')
    surface.get_by_role('button', name='Heights').click()
    page.wait_for_timeout(300)
    again = self.open(address=page.evaluate('location.hash'))
    figure = self.show(again, 'training')
    self.assertEqual(figure.locator(pressed).all_inner_texts(), ['standard'])
    self.assertEqual(again.get_by_label('Show runs').input_value(),
                     'standard,noisy')  # fmt: skip
    self.assertEqual(
      again.get_by_role('button', name='Seed 1').get_attribute('aria-pressed'),
      'false',
    )
    self.assertEqual(
      self.show(again, 'layers').locator('output').inner_text(), 'step 30'
    )
    self.assertEqual(self.show(again, 'surface').locator('canvas').count(), 1)

  def test_an_address_of_nonsense_is_passed_over(self):
    for text in ('#?x', '#surface?%7B', '#?%7B%22own%22:[[1]]%7D', '#x?y?z'):
      page = self.open(address=text)
      self.show(page, 'training')

  def test_slider_moves_the_picture(self):
    page = self.open()
    for name, place in (('layers', 0), ('maps', 2)):
      figure = self.show(page, name)
      picture = figure.locator('.stage > svg > g').nth(place)
      before = picture.inner_html()
      figure.locator('input[type=range]').focus()
      page.keyboard.press('ArrowRight')
      page.keyboard.press('ArrowRight')
      page.wait_for_timeout(200)
      self.assertEqual(figure.locator('output').inner_text(), 'step 10')
      self.assertNotEqual(picture.inner_html(), before)

  def test_axes_zoom_and_smoothing(self):
    page = self.open()
    figure = self.show(page, 'training')

    def ticks():
      page.wait_for_timeout(200)
      return figure.locator('.stage > svg > g').first.locator(
        'text').all_text_contents()  # fmt: skip

    first = ticks()
    figure.locator('[name=y]').select_option('linear')
    self.assertNotEqual(ticks(), first)
    figure.locator('[name=y]').select_option('')
    self.assertEqual(ticks(), first)
    box = figure.locator(_FRAME).first.bounding_box()
    page.mouse.move(box['x'] + 40, box['y'] + 30)
    page.mouse.down()
    page.mouse.move(box['x'] + 90, box['y'] + 90, steps=3)
    page.mouse.up()
    self.assertNotEqual(ticks(), first)
    page.keyboard.press('Escape')
    self.assertEqual(ticks(), first)
    figure.locator('.stage > svg').focus()
    page.keyboard.press('+')
    self.assertNotEqual(ticks(), first)
    page.mouse.dblclick(box['x'] + 40, box['y'] + 30)
    self.assertEqual(ticks(), first)
    shapes = """() => [...document.querySelector('#training .stage g')
      .querySelectorAll('path')].map((of) => of.getAttribute('d'))"""
    rough = page.evaluate(shapes)
    page.get_by_label('Smooth').fill('2')
    page.wait_for_timeout(300)
    self.assertNotEqual(page.evaluate(shapes), rough)
    page.locator('.tools').get_by_label('Against').select_option('Epoch')
    self.assertIn('Epoch', ticks())

  def test_surfaces_of_a_figure_turn_together(self):
    page = self.open()
    figure = self.show(page, 'surface')
    figure.get_by_role('button', name='Heights').click()
    canvases = figure.locator('canvas')
    canvases.first.wait_for()

    def pictures():
      return [one.evaluate('(of) => of.toDataURL()') for one in canvases.all()]

    before = pictures()
    self.assertLen(before, 2)
    figure.locator('.stage > svg').focus()
    page.keyboard.press('ArrowLeft')
    by_key = pictures()
    for one, other in zip(before, by_key):
      self.assertNotEqual(one, other)
    box = canvases.nth(1).bounding_box()
    page.mouse.move(box['x'] + 50, box['y'] + 50)
    page.mouse.down()
    page.mouse.move(box['x'] + 90, box['y'] + 50)
    page.mouse.up()
    for one, other in zip(by_key, pictures()):
      self.assertNotEqual(one, other)

  def test_contours_lie_where_colours_meet(self):
    page = self.open()
    figure = self.show(page, 'surface')
    panel = figure.locator('.stage > svg > g').first
    lines = panel.locator('path[stroke-width="0.5"]')
    box = figure.locator(_FRAME).first.evaluate(
      """(of) => { const { width, height } = of.firstChild.getBBox();
        return [width, height]; }"""
    )
    points = re.findall(r'[ML]([-\d.]+),([-\d.]+)', lines.get_attribute('d'))
    self.assertGreater(len(points), 1000)
    places = np.array(points, float) / box
    self.assertBetween(places.min(), 0, 1)
    x, y = 2 * places.T - 1
    # Seventeen colours from 0.1 to 10, of the surface that `answering` makes.
    level = 17 * ((1.5 * (x**2 + 0.5 * y**2) - 0.8) / np.log(10) + 1) / 2
    np.testing.assert_allclose(level, np.round(level), atol=0.05)
    self.assertGreater(len(np.unique(np.round(level))), 7)

  def test_keys_reach_every_value_of_maps(self):
    page = self.open()
    for name, place, keys, wanted in (
      ('surface', 0, 'Right Right Up Up Up', {'alpha': '-0.96',
       'beta': '-0.92'}),
      # Down through three rows of a map, and from panel to panel.
      ('maps', 6, 'Right Right Up Up', {'step': '22.5', 'unit': '1.5'}),
      ('maps', 0, 'Right Down', {'a': 'conv1', 'b': 'logits'}),
    ):  # fmt: skip
      figure = self.show(page, name)
      figure.locator('.stage > svg').focus()
      page.keyboard.press('Escape')
      for _ in range(place):
        page.keyboard.press('ArrowDown')
      for key in keys.split():
        page.keyboard.press(f'Arrow{key}')
      with open(self._folder / f'{name}.csv') as file:
        (row,) = [
          row for row in csv.DictReader(file)
          if wanted.items() <= row.items() and row['run'] == 'standard'
        ]  # fmt: skip
      tip = figure.locator('.tip').inner_text()
      self.assertEqual(float(tip.split(': ')[-1]), float(row['value']), tip)
      for place in wanted.values():
        self.assertIn(place, tip)
      self.assertIn(tip.split(': ')[-1], page.locator('#said').inner_text())

  def test_maps_are_saved_with_the_places_of_the_table(self):
    page = self.open(accept_downloads=True)
    figure = self.show(page, 'maps')
    with page.expect_download() as download:
      figure.get_by_role('button', name='as CSV').click()
    with open(download.value.path()) as file:
      saved = list(csv.DictReader(file))
    with open(self._folder / 'maps.csv') as file:
      table = list(csv.DictReader(file))
    for quantity, x, y, count in (('drift', 'step', 'unit', 56),
                                  ('cka', 'a', 'b', 9)):  # fmt: skip
      of = {
        (row['x'], row['y'], float(row['value']))
        for row in saved if row['quantity'] == quantity
      }  # fmt: skip
      self.assertLen(of, count)
      wanted = {
        (row[x], row[y], float(row['value']))
        for row in table if row['quantity'] == quantity
      }  # fmt: skip
      self.assertEqual(of, wanted)

  def test_the_slider_of_ridges_has_the_steps_of_all_runs(self):
    of_page = answering.runs('ab', 1)
    bins = np.arange(4.0)
    panels = [
      record.Panel(
        record.Axis('V', 'v'), record.Axis('S', 's'),
        (record.Ridges(key, 'v', 0, bins, steps, np.ones((3, 3)), (0, 2)),),
        run.name, run=run.name,
      )
      for key, run, steps in zip((0, 1), of_page, ((0, 10, 20), (0, 20, 40)))
    ]  # fmt: skip
    made = record.Figure(
      'ridges', 'R', '', (tuple(panels),), record.keys_of(enumerate(of_page))
    )
    path = answering.write(self.folder() / 'ridges.html', of_page, [made])
    page = self.open(path)
    figure = self.show(page, 'ridges')
    shown = []
    for place in range(4):
      figure.locator('input').fill(str(place))
      page.wait_for_timeout(200)
      shown.append(
        (
          figure.locator('output').inner_text(),
          *(
            one.locator('path[fill-opacity]').count() > 0
            for one in figure.locator('.stage > svg > g').all()
          ),
        )
      )
    self.assertEqual(shown, [
      ('step 0', True, True), ('step 10', True, False),
      ('step 20', True, True), ('step 40', False, True),
    ])  # fmt: skip

  def test_files_hold_what_is_shown(self):
    page = self.open(accept_downloads=True)
    figure = self.show(page, 'training')
    page.get_by_label('Show runs').fill('batchnorm')
    page.wait_for_timeout(300)
    contents = {}
    for kind in ('SVG', 'PNG', 'CSV'):
      with page.expect_download() as download:
        figure.get_by_role('button', name=f'as {kind}').click()
      contents[kind] = pathlib.Path(download.value.path()).read_bytes()
      self.assertEqual(
        download.value.suggested_filename, f'training.{kind.lower()}'
      )
    self.assertEqual(contents['PNG'][:4], b'\x89PNG')
    texts = [of.text for of in xml.fromstring(contents['SVG']).iter()]
    self.assertIn('batchnorm', texts)
    self.assertNotIn('standard', texts)
    rows = list(csv.DictReader(contents['CSV'].decode().splitlines()))
    self.assertEqual({row['run'] for row in rows}, {'batchnorm'})
    with open(self._folder / 'training.csv') as file:
      values = {
        (row['seed'], row['step'], row['quantity'], float(row['value']))
        for row in csv.DictReader(file)
        if row['run'] == 'batchnorm'
      }
    of_seeds = [row for row in rows if row['seed'] in '01']
    self.assertGreater(len(of_seeds), 300)
    for row in of_seeds:
      if row['value'] != 'nan':
        self.assertIn(
          (row['seed'], row['x'], row['quantity'], float(row['value'])), values
        )

  def test_summary_is_sorted(self):
    page = self.open()
    head = page.get_by_role('button', name='best')
    head.focus()
    page.keyboard.press('Enter')
    cells = page.locator('#summary td').all_inner_texts()
    self.assertEqual(cells, ['0 %', '2 %', '4 %'])
    page.keyboard.press('Enter')
    cells = page.locator('#summary td').all_inner_texts()
    self.assertEqual(cells, ['4 %', '2 %', '0 %'])
    column = page.locator('#summary th').nth(1)
    self.assertEqual(column.get_attribute('aria-sort'), 'descending')

  def test_what_has_no_value_is_sorted_last(self):
    path = self._folder / 'empty.html'
    text = self._page.read_text()
    path.write_text(text.replace('data-value="2">2 %', 'data-value="">–'))
    page = self.open(path)
    for wanted in (['0 %', '4 %', '–'], ['4 %', '0 %', '–']):
      page.get_by_role('button', name='best').click()
      cells = page.locator('#summary td').all_inner_texts()
      self.assertEqual(cells, wanted)

  def test_keyboard_alone_reaches_everything(self):
    page = self.open()
    page.set_viewport_size({'width': 1400, 'height': 4000})
    for name in ('training', 'maps', 'surface', 'rest', 'layers'):
      self.show(page, name)
    page.evaluate('window.reached = new Set()')
    page.evaluate(
      "addEventListener('focusin', (event) => reached.add(event.target))"
    )
    count = 0
    for _ in range(200):
      page.keyboard.press('Tab')
      told = page.evaluate("""() => {
        const of = document.activeElement;
        const style = getComputedStyle(of);
        return [of.tagName, style.outlineStyle, Boolean(of.closest(
          '[role=toolbar]'))];
      }""")
      if told[0] == 'BODY':
        break
      self.assertNotEqual(told[1], 'none', told)
      if told[2]:
        for _ in range(12):
          page.keyboard.press('ArrowRight')
      count += 1
    self.assertGreater(count, 20)
    missed = page.evaluate("""() => [...document.querySelectorAll(
      'a[href], button, input, select, summary, [tabindex]')].filter((of) =>
      of.checkVisibility() && !reached.has(of)).map((of) => of.outerHTML)""")
    self.assertEqual(missed, [])

  def test_keys_move_the_cursor_and_tell(self):
    page = self.open()
    figure = self.show(page, 'training')
    figure.locator('.stage > svg').focus()
    for key in ('ArrowRight', 'ArrowRight', 'ArrowRight', 'ArrowLeft'):
      page.keyboard.press(key)
    self.assertIn('Training step 2', figure.locator('.tip').inner_text())
    page.keyboard.press('ArrowDown')
    page.keyboard.press('ArrowRight')
    self.assertIn('Accuracy', page.locator('#said').inner_text())
    self.assertIn('Training step 4', page.locator('#said').inner_text())

  def test_a_figure_stands_alone_and_goes_back(self):
    page = self.open()
    figure = self.show(page, 'training')
    width = figure.bounding_box()['width']
    full = 'document.fullscreenElement !== null'
    for way in ('again', 'by the browser', 'Escape'):
      if way == 'Escape':  # where the screen may not be filled
        page.evaluate("""() => { Element.prototype.requestFullscreen =
            () => Promise.reject(); }""")
      figure.get_by_role('button', name='Alone').click()
      page.wait_for_timeout(400)
      self.assertEqual(page.evaluate(full), way != 'Escape')
      self.assertGreater(figure.bounding_box()['width'], width)
      if way == 'again':
        figure.get_by_role('button', name='Alone').click()
      elif way == 'Escape':
        figure.locator('.stage > svg').focus()
        page.keyboard.press('Escape')
      else:
        page.evaluate('document.exitFullscreen()')
      page.wait_for_timeout(400)
      self.assertFalse(page.evaluate(full))
      self.assertEqual(figure.bounding_box()['width'], width)

  def test_near_divergences_share_a_label(self):
    for steps, text in (((60, 61), '60 and 61'), ((60, 61, 62), '60 to 62')):
      of_page = answering.runs(['a', 'b'], 3)
      for seed, step in zip(of_page[1].seeds, steps):
        seed.manifest.update(status='diverged', step=step)
      path = answering.write(
        self.folder() / 'near.html', of_page, answering.figures(of_page)[:1]
      )
      figure = self.show(self.open(path), 'training')
      self.assertIn(f'diverged at {text}', figure.inner_text())

  def test_many_runs_have_looks_of_their_own(self):
    of_page = answering.runs([f'run{index}' for index in range(60)], 1)
    path = answering.write(
      self.folder() / 'many.html', of_page, answering.figures(of_page)[:1]
    )
    page = self.open(path)
    figure = self.show(page, 'training')
    for by in ('norm', 'schedule.learning_rate', ''):
      page.get_by_label('Colours by').select_option(by)
      page.wait_for_timeout(500)
      looks = figure.locator('.legend svg').evaluate_all(
        '(all) => all.map((of) => of.innerHTML)'
      )
      self.assertLen(set(looks), 60)
    page.get_by_label('Panels by').select_option('norm')
    page.wait_for_timeout(500)
    self.assertIn('norm group', figure.inner_text())
    self.assertEqual(figure.locator('.stage > svg > g').count(), 9)

  def test_hostile_names_are_texts(self):
    of_page = answering.runs(_HOSTILE, 1)
    name = f'"><script>{_DONE}</script>'
    figures = answering.figures(of_page, title=name)
    # Data that stand on the page as they are.
    panel = record.Panel(
      record.STEPS, record.Axis(name, name), (record.Rule(0.5),), name, name
    )
    keys = record.keys_of(enumerate(of_page[:1]))
    figures.append(record.Figure('small', name, name, ((panel,),), keys))
    self.assertEqual(interactive.encoded(figures[-1])[0], 'json')
    path = answering.write(self.folder() / 'hostile.html', of_page, figures)
    page = self.open(path)
    figure = self.show(page, 'training-x')
    labels = figure.locator('.legend button').all_inner_texts()
    self.assertLen(labels, len(_HOSTILE))
    self.assertIn('__proto__', labels)
    self.assertIn(_HOSTILE[0], labels)
    figure.locator('summary').click()
    self.hover(page, figure)
    for key in ('data.note', 'norm'):
      page.get_by_label('Panels by').select_option(key)
      page.get_by_label('Colours by').select_option(key)
      page.wait_for_timeout(800)
    for text in (*_HOSTILE[:4], '__proto__=1', '=', ',,', '[', '\\'):
      page.get_by_label('Show runs').fill(text)
      page.wait_for_timeout(100)
    again = self.open(path, page.evaluate('location.hash'))
    for name in ('training-x', 'rest', 'small'):
      self.show(again, name)
    for one in (page, again):
      self.assertEqual(one.title(), 'Made up · bn_jax')
      self.assertEqual(one.evaluate('({}).polluted'), None)
      self.assertEqual(one.locator('script').count(), 8)

  def test_without_controls_on_paper(self):
    page = self.open()
    self.show(page, 'training')
    page.emulate_media(media='print')
    for part in ('.tools', '.bar', '.live details'):
      self.assertFalse(page.locator(part).first.is_visible())
    self.assertTrue(page.locator('.stage').first.is_visible())

  def test_axe_finds_no_serious_fault(self):
    path = os.environ.get('BN_JAX_AXE')
    if not path:
      self.skipTest('BN_JAX_AXE names no axe.min.js (npm pack axe-core)')
    source = pathlib.Path(path).read_text()
    for scheme in ('light', 'dark'):
      for width in (1400, 390):
        page = self.open(color_scheme=scheme, width=width)
        page.set_viewport_size({'width': width, 'height': 6000})
        for name in ('training', 'maps', 'surface', 'rest', 'layers'):
          self.show(page, name).locator('summary').click()
        self.hover(page, page.locator('#training figure'))
        page.locator('#surface').get_by_role('button', name='Heights').click()
        page.evaluate(source)
        faults = page.evaluate("""async () => (await axe.run()).violations
          .filter((of) => ['serious', 'critical'].includes(of.impact))
          .map((of) => [of.id, of.nodes.slice(0, 3).map((one) => one.html)])""")
        self.assertEqual(faults, [])


if __name__ == '__main__':
  absltest.main()
