"""Bar charts of compared choices."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.timing import Summary

_OURS, _OTHERS, _TEXT = '#0072B2', '#b8b8b8', '#222222'


class Panel(NamedTuple):
  """Compared things; the first is the library's choice."""

  title: str
  unit: str
  values: dict[str, Summary]


def format_value(x: float) -> str:
  """Three digits, or whole."""
  return f'{x:,.0f}' if x >= 100 else f'{x:.1f}' if x >= 10 else f'{x:.2f}'


def draw(path: pathlib.Path, title: str, panels: Sequence[Panel]) -> None:
  """Draws the panels two by two, bars at the median with a line from the lowest to the highest measurement."""
  num_rows, num_bars = (len(panels) + 1) // 2, max(len(p.values) for p in panels)
  figure = Figure(figsize=(9, 0.7 + num_rows * (0.85 + 0.32 * num_bars)), dpi=110, layout='constrained')
  FigureCanvasAgg(figure)
  figure.suptitle(title, x=0.01, ha='left', fontsize=12, fontweight='bold', color=_TEXT)
  note = 'Bars: medians; lines: lowest to highest. Blue: what the library does.'
  figure.supxlabel(note, x=0.01, ha='left', fontsize=8, color=_TEXT)
  axes = figure.subplots(num_rows, 2, squeeze=False).ravel()
  for i, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
    _bars(ax, panel, same_names=i % 2 == 1 and list(panel.values) == list(panels[i - 1].values))
  for ax in axes[len(panels) :]:
    ax.set_visible(False)
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path)


def _bars(ax: Axes, panel: Panel, same_names: bool) -> None:
  names, values = list(panel.values), list(panel.values.values())
  positions = range(len(names))
  largest = max(v.high for v in values)
  ax.barh(positions, [v.median for v in values], 0.66, color=[_OURS if i == 0 else _OTHERS for i in positions])
  for i, v in enumerate(values):
    if v.high > v.low:
      ax.plot([v.low, v.high], [i, i], color=_TEXT, lw=1.1, solid_capstyle='butt')
    ax.text(v.high + 0.02 * largest, i, format_value(v.median), va='center', fontsize=9, color=_TEXT)
  ax.set_yticks(positions, [] if same_names else names, fontsize=9, color=_TEXT)
  ax.set_ylim(len(names) - 0.4, -0.6)
  ax.set_xlim(0, 1.22 * largest)
  ax.set_xticks([])
  ax.tick_params(length=0)
  ax.spines[['top', 'right', 'bottom']].set_visible(False)
  ax.set_title(f'{panel.title}: {panel.unit}', loc='left', fontsize=10, color=_TEXT)
