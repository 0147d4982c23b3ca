#!/usr/bin/env bash
# Processes that begin a database of MLflow together ruin it for all.
#
# Versions: mlflow-skinny 3.17.2 (mlflow 3.17.2 does the same), sqlalchemy 2.1.9,
# alembic 1.20.1, SQLite 3.40.1, Python 3.11.
#
# A sqlite:/// address is made by whoever uses it first: MlflowClient creates
# the tables and takes them through some fifty migrations, for 5 to 30 seconds.
# Nothing is locked meanwhile. Of several processes that find no file, each
# creates and changes the same tables, and stops at a step that another one has
# done. Where all have stopped, the database stays between two versions, and
# whoever comes later fails at that step too. Now and then one comes through:
# then the others alone have failed, and the file can be used.
#
# Expected: one makes the database, the others wait for it.
# Why it matters: seeds are started together, by a loop of a shell or an array
# of jobs, and the address is that of a new folder. None of them runs, and the
# error speaks of a column or a table that nobody has asked for. A command that
# is tried out first, alone, makes the file, and everything works.
#
# Output seen (three times; the steps named differ):
#   one process:                  0 failed
#   four processes together:      4 failed
#     table _alembic_tmp_metrics already exists
#     duplicate column name: step
#     duplicate column name: step
#   four more, when it is there:  4 failed
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1
cat >"$folder/run.py" <<'END'
import pathlib
import sys
import time

import mlflow

address, ready, go = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
ready.touch()
while not go.exists():
  time.sleep(0.01)
client = mlflow.MlflowClient(tracking_uri=address)
run = client.create_run(experiment_id='0')
client.log_metric(run.info.run_id, 'loss', 1.0, step=0)
END
MLFLOW_DISABLE_TELEMETRY=true timeout 600 "$folder/env/bin/python" - "$folder" \
  <<'END'
import pathlib
import subprocess
import sys
import time

folder = pathlib.Path(sys.argv[1])


def failed(database, number):
  """Returns how many of some processes fail that begin a run together."""
  begun = []
  go = folder / f'go-{time.monotonic_ns()}'
  for i in range(number):
    ready = folder / f'ready-{go.name}-{i}'
    words = (f'sqlite:///{folder}/{database}.db', str(ready), str(go))
    with open(folder / f'{ready.name}.log', 'w') as log:
      begun.append((ready, subprocess.Popen(
        [sys.executable, str(folder / 'run.py'), *words],
        stdout=log, stderr=log,
      )))  # fmt: skip
  while not all(ready.exists() or p.poll() is not None for ready, p in begun):
    time.sleep(0.01)
  go.touch()
  codes = [process.wait() for _, process in begun]
  said = [
    line.split(') ', 1)[1]
    for ready, _ in begun
    for line in (folder / f'{ready.name}.log').read_text().splitlines()
    if line.startswith('sqlalchemy.exc.OperationalError: ')
  ]
  return sum(code != 0 for code in codes), said


alone, _ = failed('alone', 1)
print(f'one process:                  {alone} failed')
together, said = failed('together', 4)
print(f'four processes together:      {together} failed')
print('\n'.join(f'  {line}' for line in said))
later, _ = failed('together', 4)
print(f'four more, when it is there:  {later} failed')
if alone:
  raise SystemExit('changed: one process fails, too')
if together == 0:
  raise SystemExit('changed: several processes may begin one database')
END
