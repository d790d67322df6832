"""What the binaries do when something is wrong, counted.

    python -m benchmarks.robustness --parts=inputs,kills,damages,stops,steady --output_dir=runs/robustness

`inputs`: odd values of every flag of every binary. `kills`: SIGKILL at random moments of runs on DeepSea, bsuite and
Atari, which then go on. `damages`: files cut, flipped, emptied, removed or grown before a run goes on. `stops`: SIGTERM
at random moments, and how long the end takes. `steady`: a run of half an hour, and what it holds. Each part writes a
CSV file as it goes, and goes on where it was interrupted; hours in all, minutes with --reduced. The exit status is 1 if
anything was not as promised.
"""

import csv
import pathlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from benchmarks.robustness import commands, damages, inputs, kills, steady, stops
from experiments.common.tables import csv_text, format_table

OWN_FLAGS = ('parts', 'output_dir', 'reduced', 'minutes')
PARTS = ('inputs', 'kills', 'damages', 'stops', 'steady')
# How often each kind of run is tried.
KILLS, DAMAGES = {'deep_sea': 40, 'bsuite': 40, 'atari': 20}, {'deep_sea': 200, 'bsuite': 100, 'atari': 100}
STOPS = {'deep_sea': 7, 'bsuite': 6, 'atari': 7}
FEW, FEW_DAMAGES = {'deep_sea': 1}, {'deep_sea': 2}
_GOOD = {
  *('refused', 'ran', 'stopped', 'whole', 'as undisturbed', 'refused in a line'),
  'ended before there was anything to save',
}


class Rows:
  """A table that grows by a row at a time and is gone on with."""

  def __init__(self, path: pathlib.Path, columns: Sequence[str]):
    self.path, self._columns = path, columns
    if not path.exists():
      path.write_text(csv_text(columns))
    with path.open(newline='') as file:
      self.rows: list[dict[str, Any]] = list(csv.DictReader(file))

  def write(self, row: dict[str, Any]) -> None:
    """Adds a row."""
    with self.path.open('a') as file:
      file.write(csv_text([row[name] for name in self._columns]))
    self.rows.append({name: str(row[name]) for name in self._columns})


def with_folder(run: Callable[[pathlib.Path], dict[str, Any]]) -> dict[str, Any]:
  """Runs a case in a folder of its own that is gone afterwards."""
  with tempfile.TemporaryDirectory() as folder:
    return run(pathlib.Path(folder))


def count_inputs(rows: Rows, every: int) -> None:
  """Tries odd values of all flags, one k-th of them."""
  done = {(row['binary'], row['arguments']) for row in rows.rows}
  for binary in inputs.BINARIES:
    for arguments in inputs.cases(binary, every):
      if (binary, ' '.join(arguments).replace('\0', '\\0')) not in done:
        row = with_folder(lambda folder, b=binary, a=arguments: inputs.try_case(b, a, folder))  # type: ignore[misc]
        rows.write(row)
        if row['outcome'] not in _GOOD:
          print(row, flush=True)


def count_kills(rows: Rows, numbers: dict[str, int]) -> None:
  """Kills runs of each kind so often."""
  for name, number in numbers.items():
    kind, done = kills.KINDS[name], sum(row['kind'] == name for row in rows.rows)
    if done == number:
      continue
    with tempfile.TemporaryDirectory() as whole:
      seconds = kills.undisturbed(kind, pathlib.Path(whole) / 'run')
      for i in range(done, number):
        rng = random.Random(f'{name} {i}')
        go = lambda folder, rng=rng: kills.trial(kind, folder / 'run', pathlib.Path(whole) / 'run', seconds, rng)  # noqa: B023
        row = {'kind': name, 'trial': i, **with_folder(go)}
        rows.write(row)
        print(name, i, row['outcome'], row['text'], flush=True)


def count_damages(rows: Rows, numbers: dict[str, int]) -> None:
  """Damages files of runs of each kind so often."""
  for name, number in numbers.items():
    kind, done = kills.KINDS[name], sum(row['kind'] == name for row in rows.rows)
    if done == number:
      continue
    with tempfile.TemporaryDirectory() as folder:
      whole, stopped = pathlib.Path(folder) / 'whole', pathlib.Path(folder) / 'stopped'
      seconds = kills.undisturbed(kind, whole)
      damages.stopped_run(kind, stopped, 0.75 * seconds / 60)
      for i in range(done, number):
        rng = random.Random(f'{name} {i}')
        go = lambda place, rng=rng: damages.trial(name, place / 'run', stopped, whole, rng)  # noqa: B023
        row = {'kind': name, 'trial': i, **with_folder(go)}
        rows.write(row)
        if row['outcome'] not in _GOOD:
          print(row, flush=True)


def count_stops(rows: Rows, numbers: dict[str, int]) -> None:
  """Asks runs of each kind to stop so often."""
  for name, number in numbers.items():
    done = sum(row['kind'] == name for row in rows.rows)
    if done == number:
      continue
    with tempfile.TemporaryDirectory() as folder:
      stops.compile_first(name, pathlib.Path(folder) / 'run')
    for i in range(done, number):
      rng = random.Random(f'{name} {i}')
      row = {'trial': i, **with_folder(lambda folder, n=name, r=rng: stops.trial(n, folder / 'run', r))}  # type: ignore[misc]
      rows.write(row)
      print(name, i, row['outcome'], row['seconds'], flush=True)
  print(f'the longest took {max(float(row["seconds"]) for row in rows.rows):.1f} s')


def told(rows: Rows, by: Sequence[str]) -> str:
  """How often each outcome came, by these columns."""
  counts = Counter(tuple(row[name] for name in (*by, 'outcome')) for row in rows.rows)
  return format_table((*by, 'outcome', 'times'), [(*key, number) for key, number in sorted(counts.items())])


def main(argv: list[str]) -> None:
  """Runs the parts asked for."""
  del argv
  values = flags.FLAGS
  unknown = [name for name in values.parts if name not in PARTS]
  if unknown:
    sys.exit(f'robustness: --parts={",".join(values.parts)}: no part {unknown[0]}; there are {", ".join(PARTS)}')
  folder = pathlib.Path(values.output_dir)
  folder.mkdir(parents=True, exist_ok=True)
  commands.prepare(OWN_FLAGS)
  few = values.reduced
  bad = []
  # Name -> columns, what adds rows, and by which columns they are told.
  counted: dict[str, tuple[Sequence[str], Callable[[Rows], None], Sequence[str]]] = {
    'inputs': (inputs.COLUMNS, lambda rows: count_inputs(rows, 40 if few else 1), ('binary',)),
    'kills': (kills.COLUMNS, lambda rows: count_kills(rows, FEW if few else KILLS), ('kind',)),
    'damages': (damages.COLUMNS, lambda rows: count_damages(rows, FEW_DAMAGES if few else DAMAGES), ('kind', 'file')),
    'stops': (stops.COLUMNS, lambda rows: count_stops(rows, FEW if few else STOPS), ('kind',)),
  }
  for name, (columns, count, by) in counted.items():
    if name in values.parts:
      rows = Rows(folder / f'{name}.csv', columns)
      count(rows)
      bad += [row for row in rows.rows if row['outcome'] not in _GOOD]
      print(told(rows, by))
  if 'steady' in values.parts:
    rows = Rows(folder / 'steady.csv', steady.COLUMNS)
    with tempfile.TemporaryDirectory() as place:
      print(steady.watch(pathlib.Path(place) / 'run', 0.2 if few else values.minutes, rows.write, 2.0 if few else 15.0))
  sys.exit(1 if bad else 0)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """The flags of this benchmark."""
  flags.DEFINE_list('parts', list(PARTS), f'Which of {", ".join(PARTS)}.', flag_values=flag_values)
  flags.DEFINE_string('output_dir', 'runs/robustness', 'Folder of the tables.', flag_values=flag_values)
  flags.DEFINE_bool('reduced', False, 'A few cases of each part, to see that it works.', flag_values=flag_values)
  flags.DEFINE_float('minutes', 30.0, 'How long the run of `steady` lasts.', flag_values=flag_values)


if __name__ == '__main__':
  define_flags()
  app.run(main)
