"""Runs that are killed (SIGKILL) at a random moment and gone on with: nothing lost beyond the last checkpoint."""

import csv
import pathlib
import random
import shutil
import signal
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.robustness.commands import ATARI, BSUITE, DEEP_SEA, Outcome, Process, call, complaint, last_lines

COLUMNS = ('kind', 'trial', 'kills', 'killed_at', 'outcome', 'seconds', 'text')


class Kind(NamedTuple):
  """A run, and how what it leaves is compared with what it leaves undisturbed."""

  module: str
  arguments: tuple[str, ...]
  compare: Callable[[pathlib.Path, pathlib.Path], str]  # '' or what differs


def table(path: pathlib.Path, without: tuple[str, ...]) -> list[dict[str, str]]:
  """A CSV file's rows without columns that tell of time."""
  with path.open(newline='') as file:
    return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]


def same_tables(folder: pathlib.Path, undisturbed: pathlib.Path) -> str:
  """Compares every CSV file, digit for digit."""
  names = [{path.name for path in f.glob('*.csv')} for f in (folder, undisturbed)]
  if names[0] != names[1]:
    return f'files: {sorted(names[0] ^ names[1])}'
  times = ('step_rate', 'seconds', 'steps_per_second')
  for name in sorted(names[0]):
    ours, theirs = table(folder / name, times), table(undisturbed / name, times)
    if len(ours) != len(theirs):
      return f'{name}: {len(ours)} rows, not {len(theirs)}'
    for i, (row, expected) in enumerate(zip(ours, theirs, strict=True)):
      if row != expected:
        return f'{name}, row {i}: {next(k for k in expected if row.get(k) != expected[k])} differs'
  return ''


def same_rows(folder: pathlib.Path, undisturbed: pathlib.Path) -> str:
  """Compares which rows there are, in which order: emulators cannot be kept, so their games differ."""
  for name, key in (('results.csv', ('game', 'seed', 'iteration')), ('scores.csv', ('game', 'kind', 'seed', 'action'))):
    ours, theirs = ([tuple(row[k] for k in key) for row in table(f / name, ())] for f in (folder, undisturbed))
    if ours != theirs:
      return f'{name}: {len(ours)} rows, not {len(theirs)}, or in another order'
  return ''


KINDS = {
  'deep_sea': Kind('experiments.deep_sea', DEEP_SEA, same_tables),
  'bsuite': Kind('experiments.bsuite', BSUITE, same_tables),
  'atari': Kind('experiments.atari', ATARI, same_rows),
}


def undisturbed(kind: Kind, folder: pathlib.Path) -> float:
  """Runs to the end; the seconds that it takes."""
  call(kind.module, (*kind.arguments, f'--output_dir={folder}'), folder.parent)  # compiles
  shutil.rmtree(folder)
  outcome = call(kind.module, (*kind.arguments, f'--output_dir={folder}'), folder.parent)
  if outcome.status:
    raise RuntimeError(f'{kind.module} fails undisturbed: {outcome.err}')
  return outcome.seconds


def left_over(folder: pathlib.Path) -> str:
  """A file that no run leaves, or ''."""
  for path in folder.rglob('*'):
    if '.tmp' in path.name or 'orbax-checkpoint-tmp' in path.name or path.name.endswith('.changed'):
      return str(path.relative_to(folder))
  return ''


def trial(
  kind: Kind, folder: pathlib.Path, whole: pathlib.Path, seconds: float, rng: random.Random
) -> dict[str, object]:
  """Kills a run one to three times at random moments of its length, then lets it end.

  Args:
    kind: of run.
    folder: where it writes.
    whole: where it has written undisturbed.
    seconds: that this took.
    rng: draws the moments.
  """
  killed_at: list[str] = []
  for _ in range(rng.randint(1, 3)):
    after = rng.uniform(0.05, 1.0) * seconds
    process = Process(kind.module, arguments(kind, folder), folder.parent)
    if process.wait(after) is None:
      process.kill(signal.SIGKILL)
      killed_at.append(f'{after:.2f}')
    ended = process.outcome(10.0)
    if ended.status == 0:
      break
    if is_before_the_first_checkpoint(ended):
      shutil.rmtree(folder)
    elif ended.status > 0:
      return row(killed_at, ended, complaint(ended) or 'refused')
  outcome = call(kind.module, arguments(kind, folder), folder.parent)
  note = 'as undisturbed'
  if is_before_the_first_checkpoint(outcome):
    note = 'as undisturbed, begun again: it was killed before its first checkpoint'
    shutil.rmtree(folder)
    outcome = call(kind.module, arguments(kind, folder), folder.parent)
  if outcome.status or complaint(outcome):
    return row(killed_at, outcome, complaint(outcome) or 'refused')
  wrong = kind.compare(folder, whole) or left_over(folder)
  return row(killed_at, outcome, 'wrong' if wrong else 'whole', wrong or note)


def arguments(kind: Kind, folder: pathlib.Path) -> tuple[str, ...]:
  """To begin a run, or to go on with one that has left results."""
  resume = ('--resume',) if any(folder.glob('*.csv')) else ()
  return (*kind.arguments, *resume, f'--output_dir={folder}')


def is_before_the_first_checkpoint(outcome: Outcome) -> bool:
  """Whether a run said, in a line, that there is nothing to go on from."""
  return outcome.status == 1 and 'has no checkpoint' in outcome.err and not complaint(outcome)


def row(killed_at: list[str], outcome: Outcome, what: str, text: str = '') -> dict[str, object]:
  """What is written down of a trial."""
  text = text or (last_lines(outcome) or [''])[-1]
  seconds = f'{outcome.seconds:.1f}'
  killed = {'killed_at': ' '.join(killed_at), 'kills': len(killed_at)}
  return {**killed, 'outcome': what, 'seconds': seconds, 'text': text[:200]}
