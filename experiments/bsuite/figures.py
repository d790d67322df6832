"""Pictures of bsuite's scores: a radar by tag and bars by experiment."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common.plotting import COLOURS, DARK, GREY, MARKERS, blank_figure, save_figure  # isort: skip

import numpy as np
from bsuite import sweep
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.projections.polar import PolarAxes

from experiments.bsuite.tables import TYPES, Agent, cell, is_complete

_WIDTH, _BAR, _ROW = 8.5, 0.16, 0.26  # inches: of the pictures, of a bar, and of an experiment at least
_TICKS = (0, 0.25, 0.5, 0.75, 1)
_HATCH: dict[str, Any] = {'hatch': '////', 'alpha': 0.45}  # of what is not finished
_BACKGROUND = {'boxstyle': 'square,pad=0.1', 'fc': 'white', 'ec': 'none', 'alpha': 0.8}  # of numbers above lines


def _label(name: str) -> str:
  """An agent's name as Matplotlib shows it unchanged: $ would begin a formula, _ hide it from a legend."""
  return textwrap.fill((' ' if name.startswith('_') else '') + name.replace('$', r'\$'), 36)


def _figure(height: float, title: str, **kwargs: Any) -> tuple[Figure, Axes]:
  figure = blank_figure(_WIDTH, height, w_pad=0.12, h_pad=0.1)
  figure.suptitle(title, x=0.02, ha='left', fontsize=12, weight='bold')
  return figure, figure.subplots(subplot_kw=kwargs)


def _add_legend(figure: Figure, handles: Sequence[Any]) -> None:
  if handles:
    columns = 2 if len(handles) > 3 or max(len(x.get_label()) for x in handles) > 24 else len(handles)
    figure.legend(handles=handles, loc='outside lower center', ncols=columns, frameon=False, fontsize=9.5)


def draw_radar(agents: Mapping[str, Agent], path: pathlib.Path) -> str:
  """Draws the mean scores by tag, a line for each agent that has gaps where a tag has no score."""
  figure, axis = _figure(6.6, 'bsuite: mean score by tag', projection='polar')
  tags = list(sweep.TAGS)
  angles = np.linspace(0, 2 * np.pi, len(tags), endpoint=False)
  handles, hollow = [], False
  for number, (name, agent) in enumerate(agents.items()):
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    values = np.array([agent.tags.get(tag, np.nan) for tag in tags])
    look: dict[str, Any] = {'color': colour, 'lw': 1.8, 'ls': '--' if number // len(COLOURS) % 2 else '-'}
    axis.plot([*angles, angles[0]], [*values, values[0]], **look, zorder=3)
    if not np.isnan(values).any():
      axis.fill(angles, values, color=colour, alpha=0.08, lw=0)
    for tag, angle, value in zip(tags, angles, values, strict=True):
      complete = is_complete(agent, tag)
      hollow |= not complete and not np.isnan(value)
      face = colour if complete else 'white'
      axis.plot(angle, value, marker, ms=7, mec=colour, mfc=face, mew=1.6, zorder=4, clip_on=False)
    handles.append(Line2D([], [], label=_label(name), marker=marker, ms=6, **look))
  assert isinstance(axis, PolarAxes)
  axis.set_theta_zero_location('N')
  axis.set_theta_direction(-1)
  # Zero is not in the middle, where the lines of all tags would meet.
  axis.set(rlim=(0, 1), rorigin=-0.15, rticks=_TICKS, yticklabels=[])
  for tick in _TICKS:  # in place of labels, which would lie below the lines
    look = {'ha': 'center', 'va': 'center', 'fontsize': 9, 'color': '#555555', 'zorder': 5}
    axis.text(np.pi / len(tags), tick, f'{tick:g}', bbox=_BACKGROUND, **look)
  axis.grid(color='#d8d8d8', lw=0.8)
  axis.spines[['polar', 'inner']].set_color('#b0b0b0')
  labels = [
    tag.replace('_', ' ') + ('' if any(tag in agent.tags for agent in agents.values()) else '\n(no score)')
    for tag in tags
  ]
  axis.set_xticks(angles, labels, fontsize=11)
  for angle, label in zip(angles, axis.get_xticklabels(), strict=True):
    side = np.sin(angle)
    label.set_horizontalalignment('center' if abs(side) < 0.1 else 'left' if side > 0 else 'right')
  if hollow:
    look = {'mfc': 'white', 'mec': GREY, 'mew': 1.6, 'ms': 6}
    handles.append(Line2D([], [], ls='', marker='o', label='not all of the tag finished', **look))
  _add_legend(figure, handles)
  return save_figure(str(path), figure)


def _draw_bar(axis: Axes, agent: Agent, experiment: str, place: float, height: float, colour: str) -> bool:
  """A bar with its number, or why there is none; returns whether it is hatched."""
  text, score = cell(agent, experiment), agent.scores.get(experiment)
  beside: dict[str, Any] = {'va': 'center_baseline', 'fontsize': 8}
  if score is None or np.isnan(score.score):
    axis.text(0.008, place, text, color=GREY, style='italic', **beside)
    return False
  style: dict[str, Any] = {} if score.finished else _HATCH
  axis.barh(place, score.score, height, color=colour, edgecolor='white', lw=0, **style, zorder=3)
  axis.text(score.score + 0.01, place, text, color=DARK, bbox=_BACKGROUND, **beside)
  return not score.finished


def draw_bars(agents: Mapping[str, Agent], path: pathlib.Path) -> str:
  """Draws the scores by experiment below headings of types; colours are types, or agents where there are several."""
  several = len(agents) > 1
  row = max(_ROW, _BAR * len(agents) + 0.08)
  place, places, hatched, bars = 0.0, {}, False, []
  for number, (type_name, names) in enumerate(TYPES.items()):
    bars.append((place + 0.17, type_name, DARK if several else COLOURS[number]))
    place += 0.32
    for name in names:
      places[name] = place + row / 2
      place += row
  figure, axis = _figure(place + (1.5 if several else 1.3), 'bsuite: score by experiment')
  for heading, type_name, colour in bars:
    axis.text(0.004, heading, type_name.replace('_', ' '), weight='bold', fontsize=10, va='center', color=colour)
    for name in TYPES[type_name]:
      for number, agent in enumerate(agents.values()):
        at = places[name] + (number - (len(agents) - 1) / 2) * _BAR
        fill = COLOURS[number % len(COLOURS)] if several else colour
        hatched |= _draw_bar(axis, agent, name, at, 0.9 * _BAR, fill)
  axis.axvline(1, color=GREY, ls='--', lw=0.9, zorder=1)
  axis.set(xlim=(0, 1.1), ylim=(place + 0.05, 0), xticks=_TICKS, xlabel='score')
  axis.set_yticks(list(places.values()), [name.replace('_', ' ') for name in places], fontsize=9.5)
  axis.tick_params(axis='y', length=0)
  axis.grid(axis='x', color='#e6e6e6', lw=0.7)
  axis.set_axisbelow(True)
  axis.spines[['top', 'right']].set_visible(False)
  handles = [
    Patch(color=COLOURS[number % len(COLOURS)], label=_label(name)) for number, name in enumerate(agents) if several
  ]
  if hatched:
    handles.append(Patch(facecolor=GREY, edgecolor='white', lw=0, label='* not all ids or episodes', **_HATCH))
  _add_legend(figure, handles)
  return save_figure(str(path), figure)
