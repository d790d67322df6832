"""The devices and the memory of a run; how seeds are spread over them is in `hyperagent_jax/seeds.py`."""

import contextlib
import os

import jax

from experiments.common.console import warn
from hyperagent_jax.config import ConfigError
from hyperagent_jax.seeds import num_cores, num_devices_used


def make_devices(num_devices: int, most: int) -> int:
  """Makes a device of each CPU core, `most` at most; other platforms have theirs.

  Returns:
    How many there are.

  Raises:
    ConfigError: if more devices are asked for than there are.
  """
  # In a process that has used its devices already they are what they are.
  with contextlib.suppress(RuntimeError):
    jax.config.update('jax_num_cpu_devices', num_devices or min(num_cores(), most))
  available = len(jax.local_devices())
  if jax.local_devices()[0].platform == 'cpu':
    available = min(available, num_cores())  # JAX would make more, for nothing
  if num_devices > available:
    raise ConfigError(f'--num_devices={num_devices}: must be at most {available}, the devices of this machine')
  return available


def set_num_devices(num_devices: int, num_seeds: int) -> None:
  """Makes devices for so many seeds to run in parallel; warns where they cannot be spread evenly.

  Raises:
    ConfigError: if more devices are asked for than there are.
  """
  # Not more than seeds: XLA moves the work of one seed between the threads of idle devices, which costs it a fifth.
  available = make_devices(num_devices, num_seeds)
  wanted = min(num_devices or available, num_seeds)
  used = num_devices_used(num_seeds, wanted)
  if used < wanted:
    warn(f'--num_seeds={num_seeds}: spread over {used} of {wanted} devices; a multiple of {wanted} would use all')


def chosen_devices(num_devices: int) -> list[jax.Device]:
  """The devices to use."""
  return jax.local_devices()[: num_devices or None]


def available_memory() -> int:
  """Bytes that a run may take on each device, or on all CPU devices together."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit']
  try:
    with open('/proc/meminfo') as file:
      kilobytes = next(int(line.split()[1]) for line in file if line.startswith('MemAvailable'))
    return kilobytes * 1024
  except (OSError, StopIteration):
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
