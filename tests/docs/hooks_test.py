"""What the site makes of links, docstrings, commands and files."""

import pathlib
import tempfile

from absl.testing import absltest

from bn_jax import __main__
from docs.hooks import docstrings, files, notebook, outside, sources, tables
from tests.fixtures import strict


class NotebookTest(absltest.TestCase):
  def test_the_tour_has_what_its_cells_gave(self):
    """Whoever changes a cell runs the notebook again."""
    text, pictures = notebook.page(strict.ROOT / 'docs' / 'tour.ipynb')
    self.assertEqual(text.count('```python'), 8)
    self.assertLen(pictures, 3)
    for path, content in pictures.items():
      self.assertIn(f']({path})', text)
      self.assertEqual(content[:4], b'\x89PNG')
    drawn = text.split('bn_jax.plot(looks)\n```\n\n')[1]
    self.assertStartsWith(drawn, '![What the cell above draws](tour/1.png)')
    self.assertIn('batchnorm  standard', text)


class SourcesTest(absltest.TestCase):
  def test_a_link_out_of_docs_leads_to_a_page(self):
    text = 'See [batch](../bn_jax/norms/batch.py#x), [a](norms.md), [b](#c).'
    self.assertEqual(
      sources.relinked(text, 'models.md'),
      'See [batch](source/bn_jax/norms/batch.py.md#x), [a](norms.md), [b](#c).',
    )
    deep = sources.relinked('[a](../../configs/default.py)', 'results/x.md')
    self.assertEqual(deep, '[a](../source/configs/default.py.md)')
    far = '[a](https://arxiv.org/abs/1502.03167)'
    self.assertEqual(sources.relinked(far, 'x.md'), far)

  def test_the_page_of_a_file_shows_it(self):
    page = sources.page('bn_jax/trees.py')
    text = (strict.ROOT / 'bn_jax/trees.py').read_text()
    self.assertIn('\n\n# bn_jax/trees.py\n\n`````python\n', page)
    self.assertIn(text, page)
    self.assertIn('* `optax_ema_debias.sh`', sources.page('findings'))
    with self.assertRaises(FileNotFoundError):
      sources.page('bn_jax/nowhere.py')


class OutsideTest(absltest.TestCase):
  def test_what_is_fetched_from_elsewhere(self):
    page = (
      '<a href="https://a/"></a><script src="https://b/x.js"></script>'
      '<link rel="stylesheet" href="//c/y.css"><img src="d.png">'
      '<style>@import url(http://e/f.css);</style>'
    )
    self.assertEqual(
      outside.of_page(page), ['https://b/x.js', '//c/y.css', 'http://e/f.css']
    )

  def test_all_files_of_a_site_are_read(self):
    with tempfile.TemporaryDirectory() as folder:
      site = pathlib.Path(folder)
      (site / 'a').mkdir()
      (site / 'a' / 'x.html').write_text('<img src="https://b/c.png">')
      (site / 'y.css').write_text('div {background: url("https://d/e")}')
      (site / 'z.css').write_text('div {background: url("e.png")}')
      self.assertEqual(
        list(outside.fetched(site)),
        [('a/x.html', 'https://b/c.png'), ('y.css', 'https://d/e')],
      )


class DocstringsTest(absltest.TestCase):
  def test_formulas_are_code_and_names_have_an_item_each(self):
    docstring = (
      'Returns x, as follows:\n\n  y = x\n  z = y\n\nwith y.\n\n'
      'Args:\n  width, height: pixels\n    of an image.\n  other: one\n\n'
      '  more: two\n\nRaises:\n  ValueError: none.'
    )
    self.assertEqual(
      docstrings.rewritten(docstring),
      'Returns x, as follows:\n\n      y = x\n      z = y\n\nwith y.\n\n'
      'Args:\n  width: pixels\n    of an image.\n  height: pixels\n'
      '    of an image.\n  other: one\n\n  more: two\n\n'
      'Raises:\n  ValueError: none.',
    )

  def test_attributes_beside_those_of_another(self):
    self.assertEqual(
      docstrings.rewritten('A.\n\nAttributes, beside\nthose of B:\n  x: y.'),
      'A.\n\nAttributes, beside\nthose of B.\n\nAttributes:\n  x: y.',
    )


class FilesTest(absltest.TestCase):
  def test_a_list_in_a_docstring(self):
    listed = files.of(
      'Finds.\n\nWORKDIR/a.json    one\nWORKDIR/RUN/  a run\n'
      '  b/NAME.npz      two, which\n                  goes on\n\nEnd.'
    )
    self.assertEqual(
      listed,
      [
        ('WORKDIR/a.json', 'one'),
        ('WORKDIR/RUN/', 'a run'),
        ('WORKDIR/RUN/b/NAME.npz', 'two, which goes on'),
      ],
    )

  def test_all_that_are_listed_are_explained(self):
    listed = files.listed()
    self.assertGreater(len(listed), 20)
    for file in listed:
      self.assertNotEmpty(file.text, file.path)
      self.assertStartsWith(file.path, 'WORKDIR/')


class TablesTest(absltest.TestCase):
  def test_every_command_with_every_flag(self):
    page = tables.commands()
    for name in __main__.COMMANDS:
      self.assertIn(f'\n## {name}\n', f'\n{page}')
      parser = __main__.parser([name])._subparsers._group_actions[0]
      for flag in parser.choices[name].flags():
        self.assertIn(flag, page)
    self.assertIn('\n### data prepare\n', page)

  def test_marks_are_filled_in(self):
    text = tables.filled('a\n<!-- generated: loss keywords -->\nb')
    self.assertIn('squared&#95;error', text)
    with self.assertRaises(KeyError):
      tables.filled('<!-- generated: nothing -->')

  def test_what_markdown_would_take_for_its_own(self):
    said = tables._said("`a|b` or {'*/x': 1}, docs/norms.md#theory, a_b_c")
    self.assertEqual(
      said,
      "<code>a&#124;b</code> or &#123;'&#42;/x': 1&#125;, "
      '[norms.md](../norms.md#theory), a&#95;b&#95;c',
    )


if __name__ == '__main__':
  absltest.main()
