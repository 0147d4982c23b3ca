#!/usr/bin/env bash
# grain's IndexSampler brings the same records together in every epoch, where
# several processes share the data.
#
# Versions: grain 0.2.18, numpy 2.4.6, Python 3.11.
#
# With shard_options the sampler cuts the records into consecutive pieces, one a
# process, and shuffles each piece by the seed. Pieces of equal length are
# shuffled alike: where process 0 reads its record 17, process 1 reads the 17th
# of its own, in every epoch. The documentation promises a "global shuffle of
# the dataset". Given to DataLoader instead of the sampler, the same
# shard_options do it. MaxText's issue 477 says that a shuffle within pieces is
# all there is; of the partners it does not speak.
#
# Expected: any two records meet about equally often, in both ways.
# Why it matters: in data sorted by class, each process sees a few classes for
# ever, and Batch Normalization without synchronization normalizes by these. If
# synchronized, by records that stay together, as negatives of a contrastive
# loss do, and the noise of gradients has less to vary. The loss goes down, each
# record is read once an epoch, and a look at one process shows a good shuffle.
#
# Output seen (12,000 records, sorted by 10 classes; 4 processes, 3 epochs):
#   shard_options given to        IndexSampler         DataLoader
#   records beside 17, epoch 1    [3017, 6017, 9017]   [55, 6957, 9650]
#   records beside 17, epoch 2    [3017, 6017, 9017]   [4162, 6003, 11004]
#   records beside 17, epoch 3    [3017, 6017, 9017]   [1235, 7775, 9469]
#   classes that process 0 reads  3                    10
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  grain==0.2.18 numpy==2.4.6
"$folder/env/bin/python" - <<'END'
import grain
import numpy as np

RECORDS, PROCESSES, EPOCHS = 12_000, 4, 3


def read(to_sampler):
  """Returns the records, as [epoch, place, process]."""
  columns = []
  for index in range(PROCESSES):
    sharding = {
      'shard_options': grain.sharding.ShardOptions(
        index, PROCESSES, drop_remainder=True
      )
    }
    sampler = grain.samplers.IndexSampler(
      num_records=RECORDS,
      num_epochs=EPOCHS,
      shuffle=True,
      seed=0,
      **(sharding if to_sampler else {}),
    )
    loader = grain.DataLoader(
      data_source=np.arange(RECORDS),
      sampler=sampler,
      **({} if to_sampler else sharding),
    )
    columns.append([int(record) for record in loader])
  return np.array(columns).T.reshape(EPOCHS, -1, PROCESSES)


def partners(records, epoch):
  row = records[epoch][(records[epoch] == 17).any(axis=1)][0]
  return sorted(record.item() for record in row if record != 17)


tables = [read(True), read(False)]
for records in tables:
  for epoch in records:
    if sorted(epoch.ravel()) != list(range(RECORDS)):
      raise SystemExit('changed: not each record once an epoch')


def show(name, cells):
  print(f'{name:29} {cells[0]!s:20} {cells[1]!s}')


show('shard_options given to', ('IndexSampler', 'DataLoader'))
for epoch in range(EPOCHS):
  show(
    f'records beside 17, epoch {epoch + 1}',
    [partners(records, epoch) for records in tables],
  )
classes = [
  len(np.unique(records[..., 0] * 10 // RECORDS)) for records in tables
]
show('classes that process 0 reads', classes)
if any(partners(tables[0], e) != [3017, 6017, 9017] for e in range(EPOCHS)):
  raise SystemExit('changed: the sampler mixes the pieces')
if partners(tables[1], 0) == partners(tables[1], 1):
  raise SystemExit('changed: DataLoader no longer mixes them')
if classes != [3, 10]:
  raise SystemExit('changed: the classes of a process')
END
