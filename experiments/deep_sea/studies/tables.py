"""A study's table put together: what came out of each series at each x, and the same as Markdown."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

EPISODES, SECONDS, PARAMETERS = 'episodes', 'seconds', 'parameters'


@dataclasses.dataclass(frozen=True)
class Cell:
  """What came out of one series at one x."""

  values: tuple[float, ...]  # episodes of the solved seeds, or one value for each run
  mean: float | None  # None if fewer than half of the seeds are solved
  solved: int
  seeds: int
  cap: float  # the most episodes a seed could play
  partial: bool  # not all seeds are solved, where the column depends on that

  @property
  def count(self) -> str:
    """Seeds solved, of all."""
    return f'{self.solved}/{self.seeds}'


Cells = dict[str, dict[str, Cell]]  # series -> x -> cell
Places = dict[str, float]  # x -> its place along the axis


def every(cells: Cells) -> list[Cell]:
  """All cells, series by series."""
  return [cell for xs in cells.values() for cell in xs.values()]


def number_of(text: Any) -> float | None:
  """A finite number, or None for any other text."""
  try:
    return float(text) if math.isfinite(float(text)) else None
  except ValueError:
    return None


def plain(value: float, _: Any = None) -> str:
  """A number without needless digits."""
  return f'{value:,.0f}' if value == int(value) or abs(value) >= 1000 else f'{value:.4g}'


def collect(rows: Iterable[Mapping[str, Any]], y: str = EPISODES) -> Cells:
  """A table's rows as series -> x -> cell; 10 and 10.0 are the same x.

  Seconds are those of training one solved seed, its interactions at the rate of the run: so they do not depend on how
  many seeds a run had, nor on compilation and evaluation. Where a run was too short for a rate there is no cell.
  """
  cells: dict[str, dict[str, dict[tuple, Mapping[str, Any]]]] = {}
  for row in rows:
    x = str(row['x']) if number_of(row['x']) is None else f'{number_of(row["x"]):.12g}'
    cells.setdefault(row['series'], {}).setdefault(x, {})[row['flags'], int(row['seed'])] = row
  made = {name: {x: _cell(list(seeds.values()), y) for x, seeds in xs.items()} for name, xs in cells.items()}
  return {name: {x: cell for x, cell in xs.items() if cell.values or y != SECONDS} for name, xs in made.items()}


def _cell(rows: Sequence[Mapping[str, Any]], y: str) -> Cell:
  solved = [row for row in rows if int(row['solved'])]
  match y:
    case 'episodes':
      values = [float(row[y]) for row in solved]
    case 'seconds':
      seconds = [float(row['interactions']) / float(row['steps_per_second']) for row in solved]
      values = [x for x in seconds if math.isfinite(x)]
    case _:
      values = list({row['flags']: float(row[y]) for row in rows}.values())
  mean = sum(values) / len(values) if values and (y != EPISODES or 2 * len(solved) >= len(rows)) else None
  cap = max(float(row['max_episodes']) for row in rows)
  return Cell(tuple(values), mean, len(solved), len(rows), cap, y != PARAMETERS and len(solved) < len(rows))


def layout(cells: Cells, log_x: bool = False) -> tuple[str, Places]:
  """The kind of figure ('numbers' or 'categories' along x, or 'rows' for categories) and the place of each x."""
  numbers = {x: number_of(x) for xs in cells.values() for x in xs}
  order = {x: float(place) for place, x in enumerate(numbers)}
  texts = sum(number is None for number in numbers.values())
  if texts == len(numbers) or (texts and all(len(xs) == 1 for xs in cells.values())):
    return 'rows', order
  # Zero has no logarithm: it is a category of its own, such as 'off'.
  if texts or (log_x and min(numbers.values()) <= 0):
    return 'categories', order
  places = {x: math.log2(number) if log_x else number for x, number in numbers.items()}
  return 'numbers', dict(sorted(places.items(), key=lambda item: item[1]))


def subtitle(rows: Iterable[Mapping[str, Any]]) -> str:
  """The sizes and the number of seeds, such as 'sizes 10-50; 10 seeds (4 above 30)'."""
  runs: dict[tuple, set[int]] = {}
  for row in rows:
    runs.setdefault((int(row['size']), row['series'], row['x'], row['flags']), set()).add(int(row['seed']))
  counts: dict[int, set[int]] = {}
  for run, seeds in sorted(runs.items()):
    counts.setdefault(run[0], set()).add(len(seeds))
  sizes, every = list(counts), sorted(set().union(*counts.values()))
  changes = [(low, high) for low, high in itertools.pairwise(sizes) if counts[low] != counts[high]]
  text = f'{every[0]} to {every[-1]} seeds' if len(every) > 1 else f'{every[0]} seed{"s" * (every[0] > 1)}'
  if len(changes) == 1 and all(len(count) == 1 for count in counts.values()):
    (low, high) = changes[0]
    text = f'{min(counts[low])} seed{"s" * (min(counts[low]) > 1)} ({min(counts[high])} above {low})'
  return f'{text}, size {sizes[0]}' if len(sizes) == 1 else f'sizes {sizes[0]}-{sizes[-1]}; {text}'


def markdown_table(rows: Sequence[Mapping[str, Any]], y: str = EPISODES) -> str:
  """A Markdown table: 'mean (min-max)', and how many seeds are solved if not all.

  Series are its rows; where x are words, which are long, these are.
  """
  if not rows:
    raise ValueError('no rows')
  cells = collect(rows, y)
  kind, places = layout(cells)
  labels = [x if number_of(x) is None else plain(float(x)) for x in places]
  lines = [['', *labels], *([name, *(_cell_text(xs.get(x)) for x in places)] for name, xs in cells.items())]
  if kind == 'rows':
    lines = list(map(list, zip(*lines, strict=True)))
  lines.insert(1, ['---', *['---:'] * (len(lines[0]) - 1)])
  return ''.join(f'| {" | ".join(text.replace("|", chr(92) + "|") for text in line)} |\n' for line in lines)


def _cell_text(cell: Cell | None) -> str:
  if cell is None:
    return '-'
  if not cell.values:
    return f'not solved in {cell.cap:,.0f} ({cell.count})'
  shown = lambda value: plain(round(value, 1 if max(cell.values) < 100 else None))
  mean = shown(sum(cell.values) / len(cell.values))
  if cell.partial or len(cell.values) == 1:
    return f'{cell.count}: {mean}' if cell.partial else mean
  return f'{mean} ({shown(min(cell.values))}-{shown(max(cell.values))})'
