"""Makes the pictures of gallery.md: `make gallery`.

Those of the page are from runs/quickstart, the others from the cells of
tour.ipynb, which are run in runs/.
"""

import contextlib
import json
import pathlib
import shutil
import sys
from typing import Any

import bn_jax

DOCS = pathlib.Path(__file__).resolve().parent
PAGE = ('landscape', 'training', 'activations')  # figures of the quickstart


def cells() -> list[str]:
  """Returns the code cells of the tour."""
  notebook = json.loads((DOCS / 'tour.ipynb').read_text(encoding='utf-8'))
  return [
    ''.join(cell['source'])
    for cell in notebook['cells']
    if cell['cell_type'] == 'code'
  ]


def tour() -> dict[str, Any]:
  """Runs the cells one after the other; returns their variables."""
  names = {'__name__': 'tour'}
  for number, cell in enumerate(cells(), 1):
    exec(compile(cell, f'cell {number}', 'exec'), names)
  return names


def draw(names: dict[str, Any], folder: pathlib.Path) -> None:
  """Draws what the tour has measured."""
  grid = names['grid']
  for picture, result, keywords in (
    ('along_gradient', 'looks', {}),
    ('spectral_density', 'spectra', {}),
    ('surface', 'plane', {'coordinates': (grid, grid)}),
  ):
    figure = bn_jax.plot(names[result], **keywords)
    figure.savefig(folder / f'{picture}.png', dpi=144)


def main() -> None:
  """Puts all pictures into docs/gallery/."""
  folder = DOCS / 'gallery'
  for name in PAGE:
    shutil.copy(f'runs/quickstart/figures/{name}.png', folder)
  with contextlib.redirect_stdout(sys.stderr):
    draw(tour(), folder)


if __name__ == '__main__':
  main()
