"""A study's figure, from the CSV table that `study.py` writes."""

import itertools
import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Locator, LogLocator, NullLocator
from matplotlib.transforms import offset_copy

from experiments.common.plotting import COLOURS, GREY, MARKERS, blank_figure, save_figure
from experiments.common.tables import read_table
from experiments.deep_sea.studies.study import COLUMNS, Study
from experiments.deep_sea.studies.tables import (
  EPISODES,
  PARAMETERS,
  SECONDS,
  Cell,
  Cells,
  Places,
  collect,
  every,
  layout,
  number_of,
  plain,
  subtitle,
)

Y_LABELS = {
  EPISODES: 'episodes to solve',
  SECONDS: 'seconds of training a seed until solved',
  PARAMETERS: 'trained parameters',
}
DASHES = (0, (4, 3))
INCHES, AXES_POINTS = (8.5, 4.8), 235  # a figure with lines, and the height of its axes
LEVEL_POINTS = 9.5  # from one series' triangles to the next one's


def _label(x: str) -> str:
  number = number_of(x)
  return textwrap.fill(x, 28) if number is None else plain(number)


def ticks(places: Places) -> Places:
  """The x that get a tick: all, unless they are many or would touch."""
  span = max(places.values()) - min(places.values())
  chosen: dict[str, float] = {}
  for x, place in places.items():
    if not chosen or place - max(chosen.values()) >= span * (0.0999 if len(places) > 10 else 0.045):
      chosen[x] = place
  return chosen


def _style(number: int, kind: str) -> dict[str, Any]:
  look: dict[str, Any] = {'color': COLOURS[number % len(COLOURS)], 'lw': 1.5, 'ms': 5, 'mew': 1.2}
  if kind == 'rows':
    return {**look, 'marker': 'D' if number < len(COLOURS) else 'd', 'ls': ''}
  return {**look, 'marker': MARKERS[number % len(MARKERS)], 'ls': (0, (4, 1.5)) if number // len(COLOURS) % 2 else '-'}


def _scale(axis: Axes, along: Literal['x', 'y'], values: Sequence[float], log: bool, room: float) -> None:
  """Range, scale and plain numbers of the axis along which y is drawn, leaving a part of it free at its end."""
  ruler = getattr(axis, f'{along}axis')
  if log and min(values) > 0:
    low, high = math.log10(min(values)), math.log10(max(values))
    spare = 0.05 * (high - low) + max(0.3 - (high - low) / 2, 0.0)
    low, high = low - spare, low - spare + (high - low + 2 * spare) / (1 - room)
    getattr(axis, f'set_{along}scale')('log')
    choices = (
      ((1, 2, 3, 5, 7), (1, 2, 5), (1,)) if along == 'y' else ((1, 2, 5), (1, 3), (1,))
    )  # labels lie side by side
    digits = choices[(high - low > 1.1) + (high - low > 2.5)]
    minor: Locator = LogLocator(subs=range(2, 10)) if len(digits) == 1 else NullLocator()
    ruler.set(major_locator=LogLocator(subs=digits), minor_locator=minor)
    getattr(axis, f'set_{along}lim')(10**low, 10**high)
  else:
    getattr(axis, f'set_{along}lim')(min(0.0, *values), max(values) * 1.05 / (1 - room) or 1.0)
  if room:  # no value lies beyond the caps
    start = ruler.get_view_interval()[0]
    for is_minor in (False, True):
      ticks_shown = [tick for tick in ruler.get_ticklocs(minor=is_minor) if start <= tick <= max(values)]
      ruler.set_ticks(ticks_shown, minor=is_minor)
  ruler.set_major_formatter(plain)
  ruler.set_minor_formatter('')
  axis.grid(axis=along, color='#e6e6e6', lw=0.7)


def _edges(places: Places) -> dict[str, tuple[float, float]]:
  """Each place's borders, half-way to its neighbours; the outer ones are not far off."""
  at = list(places.values())
  inner = [(low + high) / 2 for low, high in itertools.pairwise(at)]
  span = at[-1] - at[0] or 10.0
  first, last = np.clip([inner[0] - at[0], at[-1] - inner[-1]] if inner else [1.0, 1.0], 0.03 * span, 0.1 * span)
  ends = [at[0] - first, *inner, at[-1] + last]
  return dict(zip(places, itertools.pairwise(ends), strict=True))


def _draw_cell(axis: Axes, cell: Cell, place: float, slot: float, style: Mapping[str, Any], sideways: bool) -> None:
  """Dots for the seeds, a line from the lowest to the highest, and the mean."""

  def plot(places: Any, values: Any, **how: Any) -> None:
    axis.plot(*((values, places) if sideways else (places, values)), **{**style, 'ls': '', **how})

  count = len(cell.values)
  if count > 1 or cell.mean is None:
    jitter = np.linspace(-slot / 2, slot / 2, count) if count > 1 else np.zeros(count)
    plot(place + jitter, cell.values, marker='o', ms=2.8, alpha=0.4, mew=0)
  if cell.mean is not None:
    plot([place] * 2, [min(cell.values), max(cell.values)], ls='-', marker='', lw=1.2, alpha=0.45)
    plot(place, cell.mean, mfc='white' if cell.partial else style['color'], zorder=4)


def levels_of(cells: Cells, y: str) -> dict[str, int]:
  """The series with unsolved seeds, with the level above the cap of their triangles: the first series highest."""
  names = [name for name, xs in cells.items() if y == EPISODES and any(cell.partial for cell in xs.values())]
  return {name: level for level, name in enumerate(reversed(names))}


def _draw_lines(axis: Axes, cells: Cells, places: Places, y: str) -> None:
  """Series as lines over x; above the cap a triangle for each series and x with unsolved seeds."""
  gap, edges, levels = min(np.diff(list(places.values())), default=1.0), _edges(places), levels_of(cells, y)
  ends = min(edges.values())[0], max(edges.values())[1]
  slot = min(0.06 if y == EPISODES else 0.015, 0.6 / len(cells)) * gap
  for number, (name, xs) in enumerate(cells.items()):
    style, shift = _style(number, 'lines'), (number - (len(cells) - 1) / 2) * slot
    means = np.array([xs[x].mean if x in xs else None for x in places], float)  # nan, a gap, where there is none
    axis.plot(np.array(list(places.values())) + shift, means, **{**style, 'marker': ''}, zorder=3)
    for x, cell in xs.items():
      _draw_cell(axis, cell, places[x] + shift, 0.8 * slot, style, sideways=False)
      if cell.partial and levels:
        up: dict[str, Any] = {'fig': axis.figure, 'y': 6 + LEVEL_POINTS * levels[name], 'units': 'points'}
        mark: dict[str, Any] = {'mfc': 'white', 'mec': style['color'], 'mew': 1.2, 'ms': 5.5}
        axis.plot(places[x], cell.cap, '^', transform=offset_copy(axis.transData, **up), **mark)
        roomy = 800 * (edges[x][1] - places[x]) > 28 * (ends[1] - ends[0])  # points to the neighbour, about
        beside: dict[str, Any] = {
          'transform': offset_copy(axis.transData, x=4.5, **up),
          'va': 'center_baseline',
          'fontsize': 7,
        }
        axis.text(places[x], cell.cap, cell.count if roomy else '', color=style['color'], **beside)
  if levels:
    caps = {(cell.cap, edges[x]) for xs in cells.values() for x, cell in xs.items()}
    whole = len({cap for cap, _ in caps}) == 1
    for cap, edge in {(cap, ends) for cap, _ in caps} if whole else caps:
      axis.plot(edge, [cap] * 2, color=GREY, ls=DASHES, lw=0.9, zorder=1)
      if edge[1] == ends[1]:
        axis.text(1.01, cap, 'cap', transform=axis.get_yaxis_transform(), va='center', fontsize=8.5, color=GREY)
  axis.set(xlim=ends, xticks=list(ticks(places).values()), xticklabels=map(_label, ticks(places)))


def _draw_rows(axis: Axes, cells: Cells, places: Places, y: str) -> None:
  """A row for each x, in which every series has a line of its own."""
  right = axis.get_yaxis_transform()
  small: dict[str, Any] = {'fontsize': 8.5, 'color': GREY}
  for x, row in places.items():
    names = [name for name in cells if x in cells[name]]
    for line, name in enumerate(names):
      cell, style = cells[name][x], _style(list(cells).index(name), 'rows')
      place = row + (line - (len(names) - 1) / 2) * 0.8 / len(names)
      _draw_cell(axis, cell, place, 0.35 / len(names), style, sideways=True)
      if y != PARAMETERS:
        axis.text(1.015, place, cell.count, transform=right, va='center', **{**small, 'color': style['color']})
      if y == EPISODES and cell.partial:
        axis.plot(cell.cap, place, '^', ms=5.5, mfc='white', mec=style['color'], mew=1.2)
        axis.plot([cell.cap] * 2, [row - 0.5, row + 0.5], color=GREY, ls=DASHES, lw=0.9, zorder=1)
  if y != PARAMETERS:
    axis.text(1.015, 1, 'solved', transform=axis.transAxes, va='bottom', **small)
  for cap in {cell.cap for cell in every(cells) if y == EPISODES and cell.partial}:
    axis.text(cap, 1, 'cap', transform=axis.get_xaxis_transform(), ha='center', va='bottom', **small)
  axis.set(yticks=list(places.values()), yticklabels=map(_label, places), ylim=(len(places) - 0.5, -0.5))


def _signs(cells: Cells, kind: str, y: str) -> list[Line2D]:
  """What the signs mean, as far as they occur."""

  def sign(shown: bool, label: str, marker: str, **look: Any) -> list[Line2D]:
    return [Line2D([], [], ls='', label=label, marker=marker, color=GREY, **look)] if shown else []

  all_cells, rows, hollow = every(cells), kind == 'rows', {'mfc': 'white', 'mew': 1.2}
  several, partial = any(len(cell.values) > 1 for cell in all_cells), [cell for cell in all_cells if cell.partial]
  mean = 'mean of the solved, half or more' if y == EPISODES else 'not all seeds solved'
  return [
    *sign(several, 'one seed' if y != PARAMETERS else 'one run', 'o', ms=3),
    *sign(several, 'min to max', '_' if rows else '|', ms=11),
    *sign(any(cell.mean is not None for cell in partial), mean, 'D' if rows else 'o', ms=5, **hollow),
    *sign(y == EPISODES and bool(partial), f'unsolved seeds{"" if rows else " (k/n: solved)"}', '^', ms=5.5, **hollow),
  ]


def _add_legends(figure: Figure, cells: Cells, kind: str, y: str) -> None:
  """The series to the right if they are many, else below; the signs below."""
  series = [Line2D([], [], label=name, **_style(number, kind)) for number, name in enumerate(cells)]
  below, look = [_signs(cells, kind, y)], {'frameon': False, 'fontsize': 8.5, 'columnspacing': 1.6}
  if len(series) > 4 or sum(map(len, cells)) > 50:
    # Rows that are named like their series need no legend.
    if kind != 'rows' or any(list(xs) != [name] for name, xs in cells.items()):
      figure.legend(handles=series, loc='outside right center', handlelength=2.8, **look)
  else:
    below.insert(0, series)
  columns = max(map(len, below))
  if columns:
    # A legend is filled column by column: in turns, the series make its first line and the signs its second.
    blank = Line2D([], [], ls='', label=' ')
    lines = [line + [blank] * (columns - len(line)) for line in below if line]
    handles = list(itertools.chain(*zip(*lines, strict=True)))
    figure.legend(handles=handles, loc='outside lower center', ncols=columns, handlelength=2.4, **look)


def _add_title(figure: Figure, title: str, caption: str) -> None:
  title = textwrap.fill(title, 84)
  # An empty line keeps the place of the caption, which is smaller.
  figure.suptitle(f'{title}\n', x=0.015, ha='left', fontsize=12, weight='bold', linespacing=1.25)
  below = 6 + 17 * (title.count('\n') + 1)
  figure.text(0.015, 1 - below / 72 / figure.get_figheight(), caption, va='top', fontsize=9.5, color=GREY)


def _read(table: str, y: str) -> tuple[Cells, str]:
  rows = read_table(table, COLUMNS)
  if not rows:
    raise ValueError(f'{table}: no runs yet')
  if y not in Y_LABELS:
    raise ValueError(f'{table}: cannot draw column {y}, only {", ".join(Y_LABELS)}')
  try:
    return collect(rows, y), subtitle(rows)
  except ValueError as error:
    raise ValueError(f'{table}: {error}') from error


def draw_study(study: Study, table: str | pathlib.Path, path: str) -> str:
  """Draws a study's table as a PNG and returns its path.

  Raises:
    ValueError: if the table cannot be drawn, in one line that names it.
  """
  cells, caption = _read(str(table), study.y)
  kind, places = layout(cells, study.log_x)
  sideways, levels = kind == 'rows', levels_of(cells, study.y)
  above = 0.0 if sideways else LEVEL_POINTS * len(levels)
  lines = [max(1.4, 0.9 * sum(x in xs for xs in cells.values())) for x in places]
  height = 1.9 + 0.24 * sum(lines) if sideways else INCHES[1] + above / 72
  figure = blank_figure(INCHES[0], height, w_pad=0.1, h_pad=0.08)
  axis = figure.subplots()
  (_draw_rows if sideways else _draw_lines)(axis, cells, places, study.y)
  shown = [value for cell in every(cells) for value in (*cell.values, *([cell.cap] if levels else []))]
  room = (above + 6) / (AXES_POINTS + above) if above else 0.0
  _scale(axis, 'x' if sideways else 'y', shown, study.log_y, room)
  labels = (Y_LABELS[study.y], study.x_label) if sideways else (study.x_label, Y_LABELS[study.y])
  axis.set(xlabel=labels[0], ylabel=labels[1])
  axis.spines[['top', 'right']].set_visible(False)
  axis.tick_params(labelsize=9)
  _add_legends(figure, cells, kind, study.y)
  _add_title(figure, study.title, caption)
  return save_figure(str(path), figure)
