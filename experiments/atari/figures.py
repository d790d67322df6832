"""Figures of an Atari run: learning curves beside the published ones, and a game with the posterior at work.

Reads OUTPUT_DIR/results.csv and, if there is one, OUTPUT_DIR/scores.csv; writes OUTPUT_DIR/figure.png.

  python -m experiments.atari.figures --output_dir=...
"""

import functools
import io
import os
import textwrap
from collections.abc import Sequence
from typing import Any, cast

from experiments.common.plotting import BLUE, DARK, LAST_FRAME_MS, ORANGE, Row, blank_figure, redraw_main, save_figure  # isort: skip

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.ticker import EngFormatter, MaxNLocator, StrMethodFormatter
from PIL import Image, ImageDraw, ImageFont

from experiments.common.tables import read_table
from hyperagent_jax.scores import atari_scores

# Game -> seed -> [2, evaluations] interactions and returns.
Curves = dict[str, dict[int, np.ndarray]]

PUBLISHED_PATH = os.path.join(os.path.dirname(__file__), 'reference', 'atari_learning_curves.csv.gz')
FRAMES_PER_INTERACTION = 4
# Greys that differ in line style too.
PUBLISHED = {
  'hyperagent': ('HyperAgent', '#5a5a5a', '-'),
  'hyperdqn': ('HyperDQN', '#8c8c8c', '--'),
  'sane': ('SANE', '#a0a0a0', ':'),
}
STEPS, NOTE_WIDTH = (1, 2, 2.5, 5, 10), 40
BAND, GRID, GREY = '#fbe6d9', '#dedede', '#6e6e6e'
FRAME_MS = 70  # GIFs count in hundredths of a second
SCREEN_HEIGHT, CHART_WIDTH, GAP = 420, 348, 12
OVERSAMPLE = 2  # the chart is drawn larger, then shrunk: PIL's shapes have hard edges
SCREEN_COLOURS = 190  # of a GIF's 256; the rest is the chart's


def _curves(rows: Sequence[Row], time: str, unit: int = 1) -> Curves:
  """Each seed's evaluations in time order; those that finished no episode are left out."""
  points: dict[str, dict[int, list[tuple[float, float]]]] = {}
  for row in rows:
    value = float(row['eval_episode_return'] or 'nan')
    if np.isfinite(value):
      seeds = points.setdefault(row['game'], {})
      seeds.setdefault(int(row['seed']), []).append((int(row[time]) / unit, value))
  return {game: {seed: np.array(sorted(x)).T for seed, x in seeds.items()} for game, seeds in points.items()}


@functools.cache
def published_curves() -> dict[str, Curves]:
  """Agent -> game -> seed -> [2, evaluations] interactions and returns, as published (`reference/README.md`)."""
  rows = read_table(PUBLISHED_PATH, ('agent', 'game', 'seed', 'frame', 'eval_episode_return'))
  by_agent = {agent: [row for row in rows if row['agent'] == agent] for agent in PUBLISHED}
  return {agent: _curves(mine, 'frame', FRAMES_PER_INTERACTION) for agent, mine in by_agent.items()}


def draw_learning_curves(output_dir: str) -> str:
  """Draws OUTPUT_DIR/figure.png, a panel per game, and returns its path."""
  path, scores_path = (os.path.join(output_dir, name) for name in ('results.csv', 'scores.csv'))
  curves = _curves(read_table(path, ('game', 'seed', 'env_step', 'eval_episode_return')), 'env_step')
  if not curves:
    raise ValueError(f'{path}: no evaluations yet')
  needed = ('game', 'kind', 'mean_return', 'env_step')
  scores = read_table(scores_path, needed) if os.path.exists(scores_path) else []
  games = len(curves)
  columns = games if games <= 3 else 2 if games == 4 else 3 if games in (5, 6, 9) else 4
  shape = ({1: 7.5, 4: 12.0}.get(columns, 10.0), (3.3 if columns > 2 else 3.8) * -(-games // columns) + 0.7)
  figure = blank_figure(*shape, w_pad=0.08, h_pad=0.08)
  axes = list(figure.subplots(-(-games // columns), columns, squeeze=False).flat)
  handles: dict[str, Any] = {}
  for number, (axis, (game, seeds)) in enumerate(zip(axes, curves.items(), strict=False)):
    _draw_panel(axis, game, seeds, [row for row in scores if row['game'] == game], small=columns > 2)
    axis.set_ylabel('evaluation return' if number % columns == 0 else '')
    handles |= {handle.get_label(): handle for handle in axis.get_legend_handles_labels()[0]}
  for axis in axes[games:]:
    axis.set_visible(False)
  shown = [handles[label] for label in sorted(handles, key=lambda label: 'published' in label)]
  style: dict[str, Any] = {'frameon': False, 'fontsize': 9.5, 'handlelength': 1.9, 'columnspacing': 1.4}
  figure.legend(handles=shown, loc='outside lower center', ncols={1: 3, 4: 5}.get(columns, 4), **style)
  return save_figure(os.path.join(output_dir, 'figure.png'), figure)


def _draw_panel(axis: Axes, game: str, seeds: dict[int, np.ndarray], scores: Sequence[Row], small: bool) -> None:
  many = len(seeds) > 1
  for number, curve in enumerate(seeds.values()):
    style: dict[str, Any] = {'lw': 0.9, 'alpha': 0.5} if many else {'lw': 2.4}
    style |= {'marker': 'o' if curve.shape[1] == 1 else None, 'label': None if number else 'one seed'}
    axis.plot(*curve, color=BLUE, zorder=4, **style)
  if many:
    grid, values = _common_grid(seeds)
    axis.plot(grid, values.mean(0), color=BLUE, lw=2.4, label='mean of seeds', zorder=5)
  final = [(int(row['env_step']), float(row['mean_return'])) for row in scores if row['kind'] == 'final']
  if final:
    style = {'ls': '', 'marker': 'D', 'ms': 5, 'mfc': 'white', 'mec': BLUE, 'mew': 1.3, 'clip_on': False}
    axis.plot(*np.transpose(final), label='final score of a seed', zorder=6, **style)
  end = max(curve[0, -1] for curve in seeds.values()) or 1.0
  note = _draw_references(axis, game, scores, end)
  axis.set(xlim=(0, end), xlabel='interactions')
  axis.xaxis.set(major_formatter=EngFormatter(sep=''), major_locator=MaxNLocator(4 if small else 6, steps=STEPS))
  axis.yaxis.set(major_formatter=StrMethodFormatter('{x:,g}'), major_locator=MaxNLocator(6, steps=STEPS))
  axis.spines[['top', 'right']].set_visible(False)
  # Every panel keeps room for as many lines, so that titles are level.
  room = 23 if small else 12
  axis.set_title(f'{game.replace("_", " ").title()}, {len(seeds)} seed{"s" * many}', fontsize=11, pad=7 + room)
  style = {'xycoords': 'axes fraction', 'textcoords': 'offset points', 'ha': 'center', 'va': 'top', 'in_layout': False}
  text = textwrap.fill(note, NOTE_WIDTH) if small else note
  axis.annotate(text, (0.5, 1), (0, 3 + room), fontsize=8, color=GREY, linespacing=1.2, **style)


def _common_grid(seeds: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Times at which every seed was evaluated or lies between evaluations, and the returns [seeds, times] there."""
  # Elsewhere the mean would jump as seeds drop out.
  first, last = max(c[0, 0] for c in seeds.values()), min(c[0, -1] for c in seeds.values())
  grid = np.unique(np.concatenate([c[0] for c in seeds.values()]))
  grid = grid[(grid >= first) & (grid <= last)]
  return grid, np.stack([np.interp(grid, *curve) for curve in seeds.values()])


def _draw_references(axis: Axes, game: str, scores: Sequence[Row], end: float) -> str:
  """Draws what to compare with: scores as lines, published curves; returns what would squeeze the run's as text."""
  published = atari_scores().get(game)
  measured = {kind: [float(x['mean_return']) for x in scores if x['kind'] == kind] for kind in ('random', 'constant')}
  style: dict[str, Any] = {'color': ORANGE, 'zorder': 2}
  if measured['random']:
    axis.axhline(float(np.mean(measured['random'])), ls=':', lw=1.6, label='random policy', **style)
  elif published:
    axis.axhline(published.random, ls=':', lw=1.6, label='random policy, published', **style)
  if measured['constant']:
    axis.axhline(max(measured['constant']), ls='-.', lw=1.2, label='best constant action', **style)
  _draw_published(axis, game, end)
  if not published:
    return ''
  number = lambda value: (f'\xa0{value:,.0f}' if abs(value) >= 100 else f'\xa0{value:g}').replace('-', '−')
  at_2m = published.published
  note = f'published at 2M: HyperAgent{number(at_2m["hyperagent"])}, Rainbow{number(at_2m["rainbow"])}'
  low, high = axis.get_ylim()
  room = 0.05 * (high - low)
  if not low - 5 * room <= published.human <= high + 5 * room:
    return f'human{number(published.human)}; {note}'
  axis.axhline(published.human, color=DARK, ls='--', lw=1, label='human, published', zorder=2)
  axis.set_ylim(min(low, published.human - room), max(high, published.human + room))
  return note


def _draw_published(axis: Axes, game: str, end: float) -> None:
  """The published curves that have an evaluation after the first and no later than `end`, up to there."""
  bands = []
  for agent, (name, colour, line) in PUBLISHED.items():
    grid, values = _common_grid(published_curves()[agent].get(game, {0: np.zeros((2, 1))}))
    if ((grid > 0) & (grid <= end)).any():
      inside = np.append(grid[grid < end], min(end, grid[-1]))
      values = np.stack([np.interp(inside, grid, row) for row in values])
      axis.plot(inside, values.mean(0), color=colour, lw=1.2, ls=line, zorder=3, label=f'{name}, published')
      bands.append((inside, values.min(0), values.max(0)))
  # Lone seeds may leave the panel: they would squeeze everything else.
  axis.set_ylim(axis.get_ylim())
  for band in bands:
    axis.fill_between(*band, color=GREY, alpha=0.15, lw=0, zorder=1, label='published, min to max')


def draw_game(
  path: str,
  screens: np.ndarray,
  mean: np.ndarray,
  std: np.ndarray,
  actions: np.ndarray,
  action_names: Sequence[str],
  rewards: np.ndarray,
) -> str:
  """Writes a GIF of a game beside the posterior over action values, and returns its path.

  Args:
    path: of the file.
    screens: [T, h, w, 3] uint8 RGB.
    mean: [T, A] posterior mean of each action's value.
    std: [T, A] its standard deviation.
    actions: [T] indices of the actions taken.
    action_names: A names.
    rewards: [T]; the text shows their sum so far.
  """
  shapes = [np.shape(x)[:2] for x in (mean, std, actions, rewards)]
  steps, names = len(screens), len(action_names)
  if not steps or shapes != [(steps, names), (steps, names), (steps,), (steps,)]:
    raise ValueError(f'mean, std, actions, rewards: shapes {shapes} for {steps} screens and {names} actions')
  scale = max(1, round(SCREEN_HEIGHT / screens.shape[1]))
  height, width = scale * screens.shape[1], scale * screens.shape[2]
  # A few stray steps would hide the rest: their marks stop at the chart's edge.
  low, high = np.percentile(mean - std, 1), np.percentile(mean + std, 99)
  room = 0.06 * (high - low) or 1.0
  chart = _Chart(height, action_names, low - room, high + room)
  palette, frames = _palette(screens), []
  for screen, total, *step in zip(screens, np.cumsum(rewards), mean, std, actions, strict=True):
    frame = Image.new('RGB', (width + GAP + CHART_WIDTH, height), 'white')
    frame.paste(Image.fromarray(screen).resize((width, height), Image.Resampling.NEAREST))
    frame.paste(chart.draw(step[0], step[1], step[2], total), (width + GAP, 0))
    frames.append(frame.quantize(palette=palette, dither=Image.Dither.NONE))
  file, durations = io.BytesIO(), [FRAME_MS] * (steps - 1) + [LAST_FRAME_MS]
  frames[0].save(file, 'gif', save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
  return save_figure(path, file.getvalue())


def _palette(screens: np.ndarray) -> Image.Image:
  """The colours of all screens and of the chart, the same for all frames: chosen frame by frame they would flicker."""
  seen = np.zeros(1 << 24, bool)
  for screen in screens:
    seen[screen.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)] = True
  colours = np.flatnonzero(seen)[:, None] >> np.array([16, 8, 0]) & 255
  # Exact, but for screens of more colours than ALE has.
  screen = Image.fromarray(colours[None].astype(np.uint8)).quantize(SCREEN_COLOURS, Image.Quantize.MEDIANCUT)
  blends = (('w', DARK), ('w', GREY), ('w', BLUE), ('w', ORANGE), (BAND, ORANGE))
  ramps = [LinearSegmentedColormap.from_list('', ends)(np.linspace(0, 1, 12))[:, :3] for ends in blends]
  chart = (np.concatenate([*ramps, [to_rgb(GRID)]]) * 255).round().astype(np.uint8)
  image = Image.new('P', (1, 1))
  palette = screen.getpalette()
  assert palette is not None, 'a quantized picture has one'
  image.putpalette(bytes(palette)[: 3 * SCREEN_COLOURS] + chart.tobytes())
  return image


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
  path = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', f'DejaVuSans{"-Bold" if bold else ""}.ttf')
  return ImageFont.truetype(path, size * OVERSAMPLE)


class _Chart:
  """Draws the posterior of one step with PIL: matplotlib would take minutes for a game."""

  def __init__(self, height: int, names: Sequence[str], low: float, high: float) -> None:
    self._names, self._height = names, height
    self._top, self._bottom = 66, height - 40
    self._pitch = (self._bottom - self._top) / len(names)
    self._font = int(min(13, max(7, 0.7 * self._pitch)))
    longest = max(_font(self._font, bold=True).getlength(name) for name in names) / OVERSAMPLE
    self._range, self._place = (low, high), (longest + 14, CHART_WIDTH - 16)
    self._ticks = [tick for tick in MaxNLocator(4, steps=STEPS).tick_values(low, high) if low <= tick <= high]

  def draw(self, mean: np.ndarray, std: np.ndarray, action: int, total: float) -> Image.Image:
    """The chart after the action, with the return so far."""
    image = Image.new('RGB', (CHART_WIDTH * OVERSAMPLE, self._height * OVERSAMPLE), 'white')
    pen = ImageDraw.Draw(image)
    row = self._top + self._pitch * action
    at = lambda *place: cast(tuple[float, float], tuple(OVERSAMPLE * x for x in place))  # of a point, or of several
    pen.rounded_rectangle(at(0, row, CHART_WIDTH - 6, row + self._pitch), 4 * OVERSAMPLE, BAND)
    pen.text(at(4, 6), f'return {total:,.10g}'.replace('-', '−'), DARK, _font(20, bold=True))
    pen.text(at(4, 37), 'action values: posterior mean ± std', GREY, _font(12))
    pen.text(at(CHART_WIDTH - 8, 37), 'action taken', ORANGE, _font(12, bold=True), anchor='ra')
    pen.text(at(sum(self._place) / 2, self._height - 18), 'value', GREY, _font(12), anchor='ma')
    for tick, x in zip(self._ticks, np.interp(self._ticks, self._range, self._place), strict=True):
      pen.line(at(x, self._top, x, self._bottom), GRID, OVERSAMPLE)
      pen.text(at(x, self._bottom + 5), f'{tick:g}'.replace('-', '−'), GREY, _font(11), anchor='ma')
    bars = np.interp([mean - std, mean, mean + std], self._range, self._place)
    for number, (name, (first, middle, last)) in enumerate(zip(self._names, bars.T, strict=True)):
      y, taken = self._top + self._pitch * (number + 0.5), number == action
      colour, ink = (ORANGE, ORANGE) if taken else (BLUE, DARK)
      pen.text(at(self._place[0] - 8, y), name, ink, _font(self._font, bold=taken), anchor='rm')
      # One stroke: along the bar, with a cap at either end.
      pen.line(at(first, y - 4, first, y + 4, first, y, last, y, last, y - 4, last, y + 4), colour, 2 * OVERSAMPLE)
      pen.circle(at(middle, y), 5 * OVERSAMPLE, colour)
    return image.reduce(OVERSAMPLE)


def draw_all(output_dir: str) -> list[str]:
  """Draws what can be drawn from a run's files."""
  return [draw_learning_curves(output_dir)]


if __name__ == '__main__':
  redraw_main('atari_figures', draw_all)
