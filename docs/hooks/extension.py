"""Has mkdocstrings read docstrings as they are written here."""

import griffe

from docs.hooks import docstrings


class Docstrings(griffe.Extension):
  """Makes code blocks of formulas, and an item for each name of Args."""

  def on_instance(self, *, obj: griffe.Object, **_) -> None:
    if obj.docstring:
      obj.docstring.value = docstrings.rewritten(obj.docstring.value)
