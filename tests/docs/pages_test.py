"""How the pages of the documentation are read by the tests that run them."""

import pathlib
import tempfile

from absl.testing import absltest

from tests.fixtures import pages

_PAGE = """# Title

Some text. `mine.py`:

```python
value = 3
```

Now it is used.

```python
import mine
print(mine.value)
other = mine.value + 1
```

<!-- not run: it would fail -->
```python
raise ValueError
```

<!-- run: with --norm=batch -->
```sh
python -m bn_jax models \\
  mlp  # the layers
# a comment
```

`bn_jax.load` and `bn_jax train --show` and `python train.py --plan`

```
printed
```
"""


class PagesTest(absltest.TestCase):
  def test_blocks(self):
    first, second, third, fourth, last = pages.blocks(_PAGE)
    self.assertEqual(first, ('python', 'value = 3\n', '', '', 'mine.py'))
    self.assertEqual((second.mark, second.file), ('', ''))
    self.assertEqual((third.mark, third.why), ('not run', 'it would fail'))
    self.assertEqual((fourth.mark, fourth.why), ('run', 'with --norm=batch'))
    self.assertEqual((last.language, last.text), ('', 'printed\n'))

  def test_commands(self):
    block = pages.blocks(_PAGE)[3]
    (line,) = pages.lines(block.text)
    self.assertEqual(pages.command(line), ['models', 'mlp'])
    self.assertEqual(
      pages.spoken(_PAGE), [['train', '--show'], ['train', '--plan']]
    )
    self.assertIsNone(pages.command('pip install bn_jax'))
    self.assertEqual(pages.command('bn_jax data info x'), ['data', 'info', 'x'])

  def test_it_is_run_in_order(self):
    with tempfile.TemporaryDirectory() as folder:
      names = pages.run(_PAGE, pathlib.Path(folder), {})
    self.assertEqual(names['other'], 4)

  def test_what_fails_is_told(self):
    for text in (
      '```python\nassert False\n```\n',
      '<!-- run -->\n```sh\nbn_jax models nothing\n```\n',
      '```json\n{\n```\n',
    ):
      with (
        tempfile.TemporaryDirectory() as folder,
        self.assertRaises((AssertionError, ValueError)),
      ):
        pages.run(text, pathlib.Path(folder), {})


if __name__ == '__main__':
  absltest.main()
