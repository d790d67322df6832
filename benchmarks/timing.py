"""What the benchmarks share: the clock, loops on the device, the machine's name, CSV files.

Everything is compiled and warm before it is timed. Things that are compared take turns, a short while each, in one
process; a slow spell of the machine then falls on all of them and the median forgets it.
"""

import csv
import pathlib
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.seeds import num_cores
from hyperagent_jax.types import Array, tree_index

BLOCK = 64  # entries in a stack of inputs; the runner draws its random numbers in blocks as long
RESULTS = pathlib.Path(__file__).parent / 'results'


class Summary(NamedTuple):
  """Repeated measurements of one thing."""

  median: float
  low: float
  high: float


def use_all_cores() -> None:
  """Makes a device of each CPU core, as the experiments do; call it before JAX starts."""
  jax.config.update('jax_num_cpu_devices', num_cores())


def hardware() -> str:
  """One line that says where the numbers were measured."""
  device = jax.devices()[0]
  on = device.platform if device.platform == 'cpu' else f'{len(jax.devices())}x {device.device_kind}'
  cores = f'{num_cores()} core{"s" if num_cores() > 1 else ""}'
  return f'{_cpu_model()}, {cores}, {platform.system()}, jax {jax.__version__} on {on}'


def _cpu_model() -> str:
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  models = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
  return models[0] if models else platform.processor() or platform.machine()


def summary(values: Iterable[float]) -> Summary:
  """Median, lowest and highest."""
  values = list(values)
  return Summary(float(np.median(values)), min(values), max(values))


def alternate(cases: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Summary]:
  """Calls every case in turn, `repeats` times, after two calls each that do not count.

  The first compiles, and so may the second: state that a program returns can be laid out unlike what it was given.

  Args:
    cases: functions that do some work and return the number measured, such as microseconds per step.
    repeats: rounds; every other one goes backwards, so that no case always follows the same neighbour.
  """
  for case in [*cases.values()] * 2:
    case()
  values: dict[str, list[float]] = {name: [] for name in cases}
  for i in range(repeats):
    for name in list(cases)[:: -1 if i % 2 else 1]:
      values[name].append(cases[name]())
  return {name: summary(v) for name, v in values.items()}


def pick(stack: Any, i: Array, after: Array) -> Any:
  """Entry `i` modulo the length of a stack of inputs, read only once `after`, a float, is known.

  The dependence keeps XLA from moving work out of the loop and from starting it before the last iteration has ended.
  """
  length = jax.tree.leaves(stack)[0].shape[0]
  return tree_index(stack, (i + jnp.isnan(after)) % length)


def loop(body: Callable[[Array, Any, Any], Any], carry: Any, data: Any, num_steps: int) -> Callable[[], float]:
  """A case that runs `carry = body(i, carry, data)` in one compiled loop; microseconds per iteration.

  Args:
    body: what is measured. Whatever its result should keep alive must be in the carry.
    carry: copied, then handed from call to call and donated, so that it is written in place.
    data: inputs that do not change. They are arguments of the program, not constants that XLA could fold.
    num_steps: iterations per call.
  """

  @jax.jit(donate_argnums=0)
  def program(carry: Any, data: Any, num: Array) -> Any:
    return jax.lax.fori_loop(0, num, lambda i, c: body(i, c, data), carry)

  # Arrays are on a device from the start: what comes back will be, and a change of placement would compile anew.
  carry, data = jax.device_put((jax.tree.map(jnp.copy, carry), data), jax.devices()[0])

  def run() -> float:
    nonlocal carry
    start = time.perf_counter()
    carry = jax.block_until_ready(program(carry, data, np.int32(num_steps)))
    return 1e6 * (time.perf_counter() - start) / num_steps

  return run


def num_bytes(tree: Any) -> int:
  """Bytes of all arrays of a tree, which may be shapes only."""
  return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def write_csv(path: pathlib.Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
  """Writes a table, replacing an earlier one."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows([f'{x:.6g}' if isinstance(x, float) else x for x in row] for row in rows)


class Row(NamedTuple):
  """A line of the table and of throughput.csv."""

  what: str
  value: float
  unit: str
  bar: float | None = None


def show(title: str, rows: list[Row]) -> None:
  """Prints a block of the table."""
  print(f'\n{title}')
  for row in rows:
    digits = 0 if row.value >= 1000 else 1 if row.value >= 10 else 2
    bar = '' if row.bar is None else f'   bar {row.bar:,g}'
    print(f'  {row.what:56s}{row.value:>10,.{digits}f} {row.unit:8s}{bar}'.rstrip(), flush=True)
