"""Figures of a DeepSea run: learning curves, episodes to solve, and the posterior (`posterior_figures.py`).

Reads OUTPUT_DIR/results.csv and OUTPUT_DIR/posterior/size_<N>/<env_step>.npz; writes OUTPUT_DIR/figure.png and
OUTPUT_DIR/posterior_size_<N>.png and .gif.

  python -m experiments.deep_sea.figures --output_dir=...
"""

import os
from collections.abc import Sequence
from typing import Any

from experiments.common.plotting import BLUE, DARK, ORANGE, Row, redraw_main, save_figure  # isort: skip

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.common.plotting import blank_figure
from experiments.common.tables import read_table
from experiments.deep_sea.posterior_figures import BEST_RETURN, draw_posterior

TEXT_COLUMNS = ('environment_name', 'agent_name')
INT_COLUMNS = ('seed', 'iteration', 'frame', 'env_step', 'episode', 'eval_num_episodes', 'size', 'solved')
NEEDED_COLUMNS = ('seed', 'size', 'episode', 'eval_episode_return', 'solved')
SOLVE_MARK: dict[str, Any] = {'ls': '', 'marker': 'v', 'ms': 6, 'mfc': ORANGE, 'mec': 'white', 'mew': 0.5}


def read_results(path: str) -> list[Row]:
  """Rows of a results.csv with numbers converted (empty: nan), without lines torn by a run at work or killed."""
  return [{name: _convert(name, value) for name, value in row.items()} for row in read_table(path, NEEDED_COLUMNS)]


def _convert(name: str, value: str) -> str | int | float:
  if name in TEXT_COLUMNS:
    return value
  if name in INT_COLUMNS:
    return int(value)
  return float(value) if value else float('nan')


def episodes_to_solve(rows: Sequence[Row]) -> dict[int, dict[int, int | None]]:
  """Size -> seed -> episode of the first evaluation at which the seed is solved, None if there is none."""
  solved: dict[int, dict[int, int | None]] = {}
  for row in sorted(rows, key=lambda row: (row['size'], row['seed'], row['episode'])):
    seeds = solved.setdefault(row['size'], {})
    if seeds.setdefault(row['seed'], None) is None and row['solved']:
      seeds[row['seed']] = row['episode']
  return solved


def draw_learning_curves(output_dir: str) -> str:
  """Draws OUTPUT_DIR/figure.png: a panel per size and, with several sizes, episodes to solve against size."""
  path = os.path.join(output_dir, 'results.csv')
  rows = read_results(path)
  if not rows:
    raise ValueError(f'{path}: no evaluations yet')
  solved = episodes_to_solve(rows)
  panels = len(solved) + (len(solved) > 1)
  columns = panels if panels <= 3 else 2 if panels == 4 else 3
  lines = -(-panels // columns)
  shape = (10.0 if columns > 1 else 7.5, (3.1 if columns == 3 else 3.6) * lines + 0.6)
  figure = blank_figure(*shape, w_pad=0.08, h_pad=0.06)
  axes = figure.subplots(lines, columns, squeeze=False).flat
  for axis, size in zip(axes, solved, strict=False):
    _draw_curves(axis, size, _curves(rows, size), solved[size])
  handles = axes[0].get_legend_handles_labels()[0]
  if any(episode is not None for seeds in solved.values() for episode in seeds.values()):
    handles.append(Line2D([], [], label='seed solved', **SOLVE_MARK))
  style: dict[str, Any] = {'frameon': False, 'fontsize': 9.5, 'handlelength': 1.6, 'columnspacing': 1.4}
  figure.legend(handles=handles, loc='outside lower center', ncols=5, **style)
  if len(solved) > 1:
    _draw_scaling(axes[len(solved)], rows, solved)
  for number, axis in enumerate(axes):
    axis.spines[['top', 'right']].set_visible(False)
    axis.set_visible(number < panels)
  return save_figure(os.path.join(output_dir, 'figure.png'), figure)


def _curves(rows: Sequence[Row], size: int) -> dict[int, np.ndarray]:
  """Seed -> [2, evaluations] episodes and evaluation returns."""
  curves: dict[int, list[tuple[int, float]]] = {}
  for row in rows:
    if row['size'] == size:
      curves.setdefault(row['seed'], []).append((row['episode'], row['eval_episode_return']))
  return {seed: np.array(sorted(points)).T for seed, points in sorted(curves.items())}


def _draw_curves(axis: Axes, size: int, curves: dict[int, np.ndarray], solved: dict[int, int | None]) -> None:
  many = len(curves) > 1
  for number, (episodes, returns) in enumerate(curves.values()):
    style: dict[str, Any] = {'lw': 0.8, 'alpha': 0.45} if many else {'lw': 2.4}
    style['marker'] = 'o' if len(episodes) == 1 else None
    axis.plot(episodes, returns, color=BLUE, label=None if number else 'one seed', **style)
  # Only where every seed was evaluated: elsewhere the mean would jump as seeds drop out.
  first, last = max(c[0, 0] for c in curves.values()), min(c[0, -1] for c in curves.values())
  grid = np.unique(np.concatenate([c[0] for c in curves.values()]))
  grid = grid[(grid >= first) & (grid <= last)]
  if many and grid.size:
    values = np.stack([np.interp(grid, *curve) for curve in curves.values()])
    axis.plot(grid, values.mean(0), color=BLUE, lw=2.4, label='mean')
    axis.fill_between(grid, values.min(0), values.max(0), color=BLUE, alpha=0.15, lw=0, label='min to max of seeds')
  axis.axhline(BEST_RETURN, color=DARK, ls='--', lw=1, label=f'best return {BEST_RETURN}')
  for episode in solved.values():
    if episode is not None:
      axis.axvline(episode, color=ORANGE, ls=':', lw=0.9, alpha=0.6, zorder=1)
      axis.plot(episode, 0.95, transform=axis.get_xaxis_transform(), zorder=5, **SOLVE_MARK)
  lowest = min(np.nanmin(c[1], initial=0.0) for c in curves.values())
  highest = max(np.nanmax(c[1], initial=BEST_RETURN) for c in curves.values())
  axis.set(xlabel='episodes', ylabel='evaluation return', ylim=(lowest - 0.05, highest + 0.15))
  axis.set_xlim(left=0)
  axis.set_yticks(np.arange(0, 1.01, 0.25))
  axis.set_title(_curve_title(size, solved), fontsize=10)


def _curve_title(size: int, solved: dict[int, int | None]) -> str:
  times = [episode for episode in solved.values() if episode is not None]
  title = f'DeepSea {size}: {len(times)} of {len(solved)} seeds solved'
  if len(times) > 1:
    return f'{title},\n{np.mean(times):.0f} episodes on average ({min(times)}–{max(times)})'
  return f'{title},\n{times[0]} episodes' if times else title


def _draw_scaling(axis: Axes, rows: Sequence[Row], solved: dict[int, dict[int, int | None]]) -> None:
  """Episodes to solve against size; unsolved seeds as hollow triangles at their last episode."""
  spread = 0.012 * (max(solved) - min(solved))
  dots: list[tuple[float, int]] = []
  open_ends: list[tuple[float, int]] = []
  bars: list[tuple[float, ...]] = []
  for size, seeds in solved.items():
    times = [episode for episode in seeds.values() if episode is not None]
    if times:
      mean = float(np.mean(times))
      bars.append((size, mean, mean - min(times), max(times) - mean))
    for place, (seed, episode) in zip(np.linspace(-spread, spread, len(seeds)), seeds.items(), strict=True):
      last = max(row['episode'] for row in rows if (row['size'], row['seed']) == (size, seed))
      (open_ends if episode is None else dots).append((size + place, last if episode is None else episode))
  if bars:
    sizes, means, below, above = np.transpose(bars)
    style: dict[str, Any] = {'color': DARK, 'marker': 'D', 'ms': 5, 'lw': 1, 'capsize': 4, 'zorder': 3}
    axis.errorbar(sizes, means, [below, above], label='mean, min to max (solved)', **style)
    axis.plot(*np.transpose(dots), ls='', marker='o', ms=4, color=BLUE, alpha=0.6, mew=0, label='seed solved')
  if open_ends:
    style = {'mfc': 'white', 'mec': ORANGE, 'mew': 1.3}
    axis.plot(*np.transpose(open_ends), ls='', marker='^', ms=7, label='unsolved, last episode', zorder=4, **style)
  axis.set(xlabel='size N', ylabel='episodes to solve', xticks=list(solved)[:: -(-len(solved) // 8)])
  axis.set_ylim(0, axis.get_ylim()[1] * 1.35)
  axis.set_title('Episodes to solve against size', fontsize=10)
  axis.legend(loc='upper left', frameon=False, fontsize=8.5, handlelength=1.2, labelspacing=0.3)


def draw_all(output_dir: str) -> list[str]:
  """Draws every figure there is data for and returns the files written."""
  return [draw_learning_curves(output_dir), *draw_posterior(output_dir)]


if __name__ == '__main__':
  redraw_main('figures', draw_all)
