"""Keeps what benchmarks measure: a row each, and the files of all of them.

A row has `what`; `ours` and `peer`, medians in `unit`, and `peer_name`;
`ratio`, the median of pairs, with `low`, `high` and `pairs`; `limit` of the
ratio and whether it `holds`; `share`, of what the device could do; `headline`,
whether docs/speed.md shows it. What a row does not have is left out.
"""

import datetime
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent / 'results'
# A file, to which the benchmark that runs appends its rows.
_ROWS = 'BN_JAX_BENCHMARK_ROWS'
_MACHINE = """
import importlib.metadata, json, os, platform, jax
device = jax.devices()[0]
kind = device.device_kind
if device.platform == 'cpu':
  kind = f'{os.cpu_count()} CPU cores'
versions = {'python': platform.python_version()}
for name in ('jax', 'flax', 'torch'):
  try:
    versions[name] = importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    pass
print(json.dumps({'device': kind, 'versions': versions}))
"""
_TOO_LONG = 124  # the exit status of a part that was ended, as of timeout(1)


def add(what: str, **row: Any) -> None:
  """Keeps a row of the benchmark that runs, if its results are written."""
  if path := os.environ.get(_ROWS):
    row = {name: value for name, value in row.items() if value is not None}
    with open(path, 'a') as file:
      print(json.dumps({'what': what.strip(), **row}), file=file)


def machine() -> dict[str, Any]:
  """Returns device, versions and the day; JAX is asked in another process."""
  answer = subprocess.run(
    [sys.executable, '-c', _MACHINE],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  ).stdout
  return {**json.loads(answer), 'date': datetime.date.today().isoformat()}


def measure(
  path: pathlib.Path,
  name: str,
  words: Sequence[str],
  machine: Mapping[str, Any],
  *,
  limit: float | None = None,
) -> int:
  """Runs a command of Python, and writes the rows that it kept.

  Args:
    path: of the results, see `path`.
    name: under which the rows are written.
    limit: seconds after which it is ended.

  Returns:
    Its exit status; 124 if it was ended.
  """
  command = shlex.join(['python', *words])
  print(f'== {command}', flush=True)
  with tempfile.TemporaryDirectory() as folder:
    kept = pathlib.Path(folder) / 'rows.jsonl'
    with subprocess.Popen(
      [sys.executable, *words],
      cwd=FOLDER.parent.parent,
      env=environment(kept),
      # A group of its own, so that what it has started ends with it.
      start_new_session=limit is not None,
    ) as process:
      try:
        code = process.wait(limit)
      except subprocess.TimeoutExpired:
        print(f'error: it took more than {limit:.0f} s, and was ended')
        os.killpg(process.pid, signal.SIGKILL)
        code = _TOO_LONG
    benchmark = {'command': command, 'exit': code, 'rows': rows(kept)}
  write(path, name, benchmark, machine)
  return code


def environment(path: pathlib.Path) -> dict[str, str]:
  """Returns the environment of a benchmark whose rows go to a file."""
  return {**os.environ, _ROWS: str(path)}


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows that a benchmark has kept."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().splitlines()]


def path(device: str, date: str, folder: pathlib.Path = FOLDER) -> Any:
  """Returns where the results of a device and day are."""
  slug = re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')
  return folder / f'{slug}-{date}.json'


def write(
  path: pathlib.Path,
  name: str,
  benchmark: Mapping[str, Any],
  machine: Mapping[str, Any],
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
