"""Keeps what benchmarks measure: a row each, and the files of all of them.

A row has `what`; `ours` and `peer`, medians in `unit`, and `peer_name`;
`ratio`, the median of pairs, with `low`, `high` and `pairs`; `limit` of the
ratio and whether it `holds`; `share`, of what the device could do; `headline`,
whether README shows it. What a row does not have is left out.
"""

import json
import os
import pathlib
import re
from datetime import date as Date
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent / 'results'
# A file, to which the benchmark that runs appends its rows.
_ROWS = 'BN_JAX_BENCHMARK_ROWS'


def add(what: str, **row: Any) -> None:
  """Keeps a row of the benchmark that runs, if its results are written."""
  if path := os.environ.get(_ROWS):
    row = {name: value for name, value in row.items() if value is not None}
    with open(path, 'a') as file:
      print(json.dumps({'what': what.strip(), **row}), file=file)


def environment(path: pathlib.Path) -> dict[str, str]:
  """Returns the environment of a benchmark whose rows go to a file."""
  return {**os.environ, _ROWS: str(path)}


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows that a benchmark has kept."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().splitlines()]


def path(device: str, date: Date, folder: pathlib.Path = FOLDER) -> Any:
  """Returns where the results of a device and day are."""
  slug = re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')
  return folder / f'{slug}-{date.isoformat()}.json'


def write(
  path: pathlib.Path,
  name: str,
  benchmark: dict[str, Any],
  machine: dict[str, Any],
) -> None:
  """Puts the results of one benchmark into a file, beside those of others.

  Args:
    benchmark: `command`, `exit` (its code) and `rows`.
    machine: `device`, `date` and `versions`.
  """
  whole = json.loads(path.read_text()) if path.exists() else {}
  names = whole.get('benchmarks', {}) | {name: benchmark}
  path.parent.mkdir(exist_ok=True)
  text = json.dumps({**machine, 'benchmarks': names}, indent=1)
  path.write_text(text + '\n')


def table(folder: pathlib.Path = FOLDER) -> str:
  """Returns the headlines of each device's newest results, in Markdown."""
  newest = {}
  for path in sorted(folder.glob('*.json')):
    whole = json.loads(path.read_text())
    last = newest.get(whole['device'])
    if last is None or last['date'] < whole['date']:
      newest[whole['device']] = whole
  return '\n\n'.join(_of_device(whole) for whole in newest.values())


def _of_device(whole: dict[str, Any]) -> str:
  versions = ', '.join(f'{k} {v}' for k, v in whole['versions'].items())
  lines = [
    f'{whole["device"]}, {whole["date"]} ({versions}):',
    '',
    '| | ratio | range | bar |',
    '|---|---|---|---|',
  ]
  for benchmark in whole['benchmarks'].values():
    lines += [_line(row) for row in benchmark['rows'] if row.get('headline')]
  return '\n'.join(lines)


def _line(row: dict[str, Any]) -> str:
  bar = '' if 'limit' not in row else f'{row["limit"]}'
  bar += '' if row.get('holds', True) else ': missed'
  span = (
    f'{row["low"]:.2f} to {row["high"]:.2f} in {row["pairs"]} rounds'
    if row['pairs'] > 1
    else ''
  )
  return f'| {row["what"]} | **{row["ratio"]:.2f}** | {span} | {bar} |'
