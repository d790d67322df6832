"""What the parts of `benchmarks.accelerator` share: rows that survive a kill, cases with a budget, the clock."""

import csv
import gc
import os
import pathlib
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

from benchmarks import timing

COLUMNS = ('run', 'part', 'what', 'seeds', 'value', 'unit', 'note', 'hardware')
FILE = 'accelerator.csv'
LEFT_OUT, ERROR = 'left out', 'error'  # units of rows without a value


class Session(NamedTuple):
  """One part in its process: where its rows go and until when it may start something new."""

  part: str
  folder: pathlib.Path
  deadline: float  # monotonic time
  reduced: bool  # tiny sizes, for a CPU
  hardware: str
  run: str = ''  # which one, where a file holds several

  def left(self) -> float:
    """Seconds in which new cases may start."""
    return self.deadline - time.monotonic()

  def write(self, what: str, value: Any, unit: str, seeds: int | str = '', note: str = '') -> None:
    """Appends a row and shows it."""
    row = (self.run, self.part, what, seeds, value, unit, note, self.hardware)
    append(self.folder / FILE, row)
    shown = f'{value:,.4g}' if isinstance(value, float) else str(value)
    print(f'  {self.part:9s} {what:58s} {seeds!s:>5} {shown:>12} {unit}  {note}'.rstrip(), flush=True)

  def leave_out(self, what: str, why: str) -> None:
    """A row for what was not measured."""
    self.write(what, '', LEFT_OUT, note=why)

  def fail(self, what: str, error: BaseException) -> None:
    """A row for what went wrong; the traceback goes to the log."""
    traceback.print_exception(error)
    self.write(what, '', ERROR, note=' '.join(f'{type(error).__name__}: {error}'.split())[:300])


def append(path: pathlib.Path, row: Sequence[Any]) -> None:
  """Adds a row that is on the disk when this returns, so that a kill loses none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, 'a', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    if file.tell() == 0:
      writer.writerow(COLUMNS)
    writer.writerow([f'{x:.6g}' if isinstance(x, float) else x for x in row])
    file.flush()
    os.fsync(file.fileno())


def read(path: pathlib.Path) -> list[dict[str, str]]:
  """All rows."""
  if not path.exists():
    return []
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


class Case(NamedTuple):
  """Something measured: `prepare` builds and compiles, what it returns measures and writes rows."""

  name: str
  prepare: Callable[[], Callable[[], None]]


def run_cases(session: Session, cases: Sequence[Case], at_once: int = 1) -> int:
  """Runs the cases in their order until the time is up; a case that fails costs its own rows only.

  Args:
    session: of the part.
    cases: the most informative first.
    at_once: how many are compiled side by side, which is most of the time; measuring is one by one.

  Returns:
    How many failed.
  """
  failed, longest = 0, 0.0
  for start in range(0, len(cases), at_once):
    began = time.monotonic()
    if session.left() < longest / 2:
      rest = '; '.join(case.name for case in cases[start:])
      session.leave_out(f'{len(cases) - start} cases', f'the share of the time was over: {rest}')
      break
    group = cases[start : start + at_once]
    with ThreadPoolExecutor(len(group)) as pool:
      prepared = {i: pool.submit(case.prepare) for i, case in enumerate(group)}
    seconds = time.monotonic() - began
    if seconds > 5:
      names = '; '.join(case.name for case in group)
      session.write('built and compiled', seconds, 's', note=f'{len(group)} side by side: {names}')
    for i, case in enumerate(group):
      try:
        prepared[i].result()()
      except Exception as e:  # whatever it is, the other cases are worth having
        session.fail(case.name, e)
        failed += 1
      del prepared[i]  # its arrays
      gc.collect()
    longest = max(longest, time.monotonic() - began)
  return failed


def seconds_per_step(run: Callable[[int], Any], reduced: bool, seconds: float = 0.7) -> float:
  """The median of three timings of `run(number of steps)`, each of about so many seconds, per step."""

  def clock(num: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(num))
    return (time.perf_counter() - start) / num

  seconds = 0.02 if reduced else seconds
  for _ in range(2):  # compiles, loads kernels
    clock(2)
  num = max(2, min(100_000, int(seconds / clock(3))))
  return timing.summary(clock(num) for _ in range(3)).median
