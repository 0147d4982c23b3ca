"""How much memory a device has left."""

import os
import pathlib

import jax


def available(device: jax.Device) -> int:
  """Bytes that a device can still give, by what it or the system says.

  Of a CPU, what the system could give without swapping; on systems that do not
  say, half of what there is.
  """
  said = device.memory_stats()
  if said and 'bytes_limit' in said:
    return said['bytes_limit'] - said['bytes_in_use']
  listed = pathlib.Path('/proc/meminfo')
  if listed.exists():
    for line in listed.read_text().splitlines():
      name, _, amount = line.partition(':')
      if name == 'MemAvailable':
        return 1024 * int(amount.split()[0])
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
