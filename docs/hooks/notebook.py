"""Makes a page of a notebook: its texts, its cells, and what they gave."""

import base64
import json
import pathlib


def page(file: pathlib.Path) -> tuple[str, dict[str, bytes]]:
  """Returns the text of the page, and path below docs/ -> picture.

  Args:
    file: a notebook in docs/ that was run: outputs that are neither pictures
      nor text are left out.
  """
  parts, pictures = [], {}
  for cell in json.loads(file.read_text(encoding='utf-8'))['cells']:
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
      parts.append(source)
      continue
    parts.append(f'```python\n{source}\n```')
    for output in cell['outputs']:
      data = output.get('data', {})
      if 'image/png' in data:
        path = f'{file.stem}/{len(pictures) + 1}.png'
        pictures[path] = base64.b64decode(data['image/png'])
        parts.append(f'![What the cell above draws]({path})')
      elif 'text/plain' in data:
        parts.append(f'```\n{"".join(data["text/plain"])}\n```')
  parts.append(f'The notebook itself: [{file.name}]({file.name}).')
  return '\n\n'.join(parts) + '\n', pictures
