"""Figures of a DeepSea run: learning curves, and the posterior over action values as it narrows.

Reads OUTPUT_DIR/results.csv and OUTPUT_DIR/posterior/size_<N>/<env_step>.npz; writes OUTPUT_DIR/figure.png and
OUTPUT_DIR/posterior_size_<N>.png and .gif.

  python -m experiments.figures --output_dir=...
"""

import csv
import io
import os
import re
import sys
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app, flags
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

Row = dict[str, Any]

BEST_RETURN = 0.99
TEXT_COLUMNS = ('environment_name', 'agent_name')
INT_COLUMNS = ('seed', 'iteration', 'frame', 'env_step', 'episode', 'eval_num_episodes', 'size', 'solved')
NEEDED_COLUMNS = ('seed', 'size', 'episode', 'eval_episode_return', 'solved')
# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, DARK = '#0072B2', '#D55E00', '#222222'
UNVISITED = '#c4c4c4'
MOMENTS = 5
SOLVE_MARK = {'ls': '', 'marker': 'v', 'ms': 6, 'mfc': ORANGE, 'mec': 'white', 'mew': 0.5}
GIF_BYTES = 1_500_000
FRAME_MS, LAST_FRAME_MS = 300, 2500


def read_results(path: str) -> list[Row]:
  """Rows of a results.csv with numbers converted (empty: nan), without lines torn by a run at work or killed."""
  with open(path, newline='') as file:
    text = file.read()
  reader = csv.DictReader(io.StringIO(text[: text.rfind('\n') + 1]))
  missing = [name for name in NEEDED_COLUMNS if name not in (reader.fieldnames or ())]
  if missing:
    raise ValueError(f'{path}: no column {", ".join(missing)}')
  whole = [row for row in reader if None not in row and None not in row.values()]
  return [{name: _convert(name, value) for name, value in row.items()} for row in whole]


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
  # No pyplot: its state is global, and this may run next to other code that draws.
  shape = (10.0 if columns > 1 else 7.5, (3.1 if columns == 3 else 3.6) * lines + 0.6)
  figure = Figure(shape, layout='constrained', facecolor='white')
  figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
  axes = figure.subplots(lines, columns, squeeze=False).flat
  for axis, size in zip(axes, solved, strict=False):
    _draw_curves(axis, size, _curves(rows, size), solved[size])
  handles = axes[0].get_legend_handles_labels()[0]
  if any(episode is not None for seeds in solved.values() for episode in seeds.values()):
    handles.append(Line2D([], [], label='seed solved', **SOLVE_MARK))
  style = {'frameon': False, 'fontsize': 9.5, 'handlelength': 1.6, 'columnspacing': 1.4}
  figure.legend(handles=handles, loc='outside lower center', ncols=5, **style)
  if len(solved) > 1:
    _draw_scaling(axes[len(solved)], rows, solved)
  for number, axis in enumerate(axes):
    axis.spines[['top', 'right']].set_visible(False)
    axis.set_visible(number < panels)
  return _save(os.path.join(output_dir, 'figure.png'), figure)


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
    style = {'lw': 0.8, 'alpha': 0.45} if many else {'lw': 2.4}
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
  dots, open_ends, bars = [], [], []
  for size, seeds in solved.items():
    times = [episode for episode in seeds.values() if episode is not None]
    if times:
      bars.append((size, np.mean(times), np.mean(times) - min(times), max(times) - np.mean(times)))
    for place, (seed, episode) in zip(np.linspace(-spread, spread, len(seeds)), seeds.items(), strict=True):
      last = max(row['episode'] for row in rows if (row['size'], row['seed']) == (size, seed))
      (open_ends if episode is None else dots).append((size + place, last if episode is None else episode))
  if bars:
    size, mean, below, above = np.transpose(bars)
    style = {'color': DARK, 'marker': 'D', 'ms': 5, 'lw': 1, 'capsize': 4, 'zorder': 3}
    axis.errorbar(size, mean, [below, above], label='mean, min to max (solved)', **style)
    axis.plot(*np.transpose(dots), ls='', marker='o', ms=4, color=BLUE, alpha=0.6, mew=0, label='seed solved')
  if open_ends:
    style = {'mfc': 'white', 'mec': ORANGE, 'mew': 1.3}
    axis.plot(*np.transpose(open_ends), ls='', marker='^', ms=7, label='unsolved, last episode', zorder=4, **style)
  axis.set(xlabel='size N', ylabel='episodes to solve', xticks=list(solved)[:: -(-len(solved) // 8)])
  axis.set_ylim(0, axis.get_ylim()[1] * 1.35)
  axis.set_title('Episodes to solve against size', fontsize=10)
  axis.legend(loc='upper left', frameon=False, fontsize=8.5, handlelength=1.2, labelspacing=0.3)


def draw_posterior(output_dir: str) -> list[str]:
  """Draws OUTPUT_DIR/posterior_size_<N>.png (a few moments) and .gif (all of them) for each size with snapshots."""
  folder, written = os.path.join(output_dir, 'posterior'), []
  names = os.listdir(folder) if os.path.isdir(folder) else []
  for size in sorted(int(name[5:]) for name in names if re.fullmatch(r'size_\d+', name)):
    snapshots = _read_snapshots(os.path.join(folder, f'size_{size}'))
    if snapshots:
      moments = _choose_moments(snapshots)
      stem = os.path.join(output_dir, f'posterior_size_{size}')
      written.append(_save(f'{stem}.png', _posterior_figure(size, moments, moments)[0]))
      written.append(_save(f'{stem}.gif', _posterior_gif(size, snapshots, moments)))
  return written


def _read_snapshots(folder: str) -> list[Row]:
  """A folder's snapshots in time order as [N, N] pictures, nan where unreachable; unreadable files are left out."""
  snapshots = []
  for name in sorted(os.listdir(folder)):
    if re.fullmatch(r'\d+\.npz', name):
      try:
        with open(os.path.join(folder, name), 'rb') as file, np.load(file) as arrays:
          snapshots.append(_pictures(arrays))
      except (OSError, EOFError, KeyError, IndexError, ValueError, zipfile.BadZipFile):
        continue
  return sorted(snapshots, key=lambda snapshot: snapshot['env_step'])


def _pictures(arrays: Any) -> Row:
  right, mean = arrays['right_action'], arrays['mean']
  cells = np.divmod(arrays['observation'], len(right))
  values = {
    'visits': arrays['visits'],
    'value': mean.max(1),
    'spread': np.take_along_axis(arrays['std'], right[cells][:, None], 1)[:, 0],
    'goes_right': mean.argmax(1) == right[cells],
  }
  pictures: Row = {name: int(arrays[name]) for name in ('env_step', 'episode')}
  for name, value in values.items():
    pictures[name] = np.full(right.shape, np.nan)
    pictures[name][cells] = value
  return pictures


def _choose_moments(snapshots: Sequence[Row]) -> list[Row]:
  """Up to `MOMENTS` snapshots, evenly in log-time, the first and the last among them."""
  steps = np.array([snapshot['env_step'] for snapshot in snapshots], float)
  # Step 0, if there is one, has no logarithm: it counts as half of the next moment.
  time = np.log(np.maximum(steps, max(1.0, steps[min(1, len(steps) - 1)] / 2)))
  chosen = {0, len(steps) - 1}
  for target in np.linspace(time[0], time[-1], MOMENTS)[1:-1]:
    left = [index for index in range(len(steps)) if index not in chosen]
    if left:
      chosen.add(min(left, key=lambda index: abs(time[index] - target)))
  return [snapshots[index] for index in sorted(chosen)]


def _scales(moments: Sequence[Row]) -> list[tuple[str, str, str, Normalize, str]]:
  """Each column's picture, title, colour map, scale (all moments share it) and colourbar ends."""
  visits = max(np.nanmax(moment['visits']) for moment in moments)
  # A few stray cells would hide the rest: they are off the scale, which the colourbar's arrows say.
  low, high = np.nanpercentile([moment['value'] for moment in moments], [0.5, 99.5])
  value = Normalize(min(low, 0), max(high, BEST_RETURN))
  thin, wide = np.nanpercentile([moment['spread'] for moment in moments], [0.5, 99.5])
  log = bool(0 < thin < wide / 20)
  title = 'Value of moving right:\nposterior std' + log * ' (log scale)'
  spread = LogNorm(thin, wide) if log else Normalize(0, max(wide, 1e-6))
  return [
    ('visits', 'Visits so far\n(grey: never visited)', 'viridis', LogNorm(1, max(visits, 2)), 'neither'),
    ('value', 'Value of the greedy action:\nposterior mean', 'cividis', value, 'both'),
    ('spread', title, 'plasma', spread, 'both' if log else 'max'),
  ]


def _posterior_figure(size: int, shown: Sequence[Row], moments: Sequence[Row]) -> tuple[Figure, list[list[Any]]]:
  """A row of pictures for each snapshot shown, coloured by the range of `moments`, and the rows' artists."""
  # Placed by hand, in inches: a layout engine leaves gaps around square panels, and shifts them between frames.
  side, gap, left, below, above, width = 2.5, 0.13, 0.62, 1.05, 0.84, 9.0
  height = below + len(shown) * (side + gap) - gap + above
  figure, rows = Figure((width, height), facecolor='white'), []

  def place(column: int, bottom: float, tall: float) -> Axes:
    return figure.add_axes(((left + 2.8 * column) / width, bottom / height, side / width, tall / height))

  scales = _scales(moments)
  for line, snapshot in enumerate(shown):
    bottom = below + (len(shown) - 1 - line) * (side + gap)
    axes = [place(column, bottom, side) for column in range(len(scales))]
    rows.append(_draw_snapshot(axes, snapshot, scales))
    for column, axis in enumerate(axes):
      axis.tick_params(labelsize=8.5, labelleft=column == 0, labelbottom=line == len(shown) - 1)
      if line == 0:
        axis.set_title(scales[column][1], fontsize=10)
    axes[0].set_ylabel('row', fontsize=9)
  for column, (_, _, _, scale, extend) in enumerate(scales):
    axes[column].set_xlabel('column', fontsize=9)
    bar = figure.colorbar(rows[-1][column], cax=place(column, 0.36, 0.13), orientation='horizontal', extend=extend)
    bar.ax.tick_params(labelsize=8.5)
    if isinstance(scale, LogNorm):
      digits = (1,) if scale.vmax > 100 * scale.vmin else (1, 2, 5)
      bar.ax.xaxis.set(major_locator=LogLocator(subs=digits), minor_locator=NullLocator(), major_formatter='{x:g}')
  title = f'DeepSea {size}, one seed: where the agent has been, what it expects, how unsure it is'
  figure.suptitle(title, fontsize=11.5, y=1 - 0.12 / height, va='top')
  return figure, rows


def _draw_snapshot(axes: Sequence[Axes], snapshot: Row, scales: Sequence[tuple]) -> list[Any]:
  artists: list[Any] = []
  for axis, (name, _, colours, scale, _) in zip(axes, scales, strict=True):
    axis.imshow(np.where(np.isnan(snapshot[name]), np.nan, 1.0), cmap=ListedColormap([UNVISITED]))
    artists.append(axis.imshow(snapshot[name], cmap=colours, norm=scale))
    axis.spines[['top', 'right']].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
  outline = [patheffects.withStroke(linewidth=2.8, foreground='white')]
  artists += axes[1].plot([], [], color=ORANGE, lw=1.5, path_effects=outline, label='greedy path')
  axes[1].legend(loc='upper right', frameon=False, fontsize=9, handlelength=1.2, borderaxespad=0.2)
  style = {'ha': 'right', 'va': 'top', 'weight': 'bold', 'fontsize': 10.5}
  artists.append(axes[0].text(0.98, 0.97, '', transform=axes[0].transAxes, **style))
  _show(artists, snapshot)
  return artists


def _show(artists: Sequence[Any], snapshot: Row) -> None:
  visits, value, spread, path, caption = artists
  visits.set_data(np.where(snapshot['visits'] > 0, snapshot['visits'], np.nan))
  value.set_data(snapshot['value'])
  spread.set_data(snapshot['spread'])
  path.set_data(_greedy_path(snapshot['goes_right']), range(len(snapshot['value'])))
  caption.set_text(f'episode\n{snapshot["episode"]}')


def _greedy_path(goes_right: np.ndarray) -> list[int]:
  """Column in each row of an episode that follows the greedy actions."""
  columns = [0]
  for row in goes_right[:-1]:
    columns.append(columns[-1] + 1 if row[columns[-1]] else max(columns[-1] - 1, 0))
  return columns


def _posterior_gif(size: int, snapshots: Sequence[Row], moments: Sequence[Row]) -> bytes:
  """A frame per snapshot, drawn smaller or thinned out as far as the file's size asks for."""
  figure, (artists,) = _posterior_figure(size, snapshots[-1:], moments)
  for dpi, stride in ((100, 1), (80, 1), (70, 2), (60, 4)):
    figure.set_dpi(dpi)
    frames, file = [], io.BytesIO()
    for snapshot in [*snapshots[:-1][::stride], snapshots[-1]]:
      _show(artists, snapshot)
      canvas = FigureCanvasAgg(figure)
      canvas.draw()
      frame = Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])
      frames.append(frame.quantize(palette=_palette(), dither=Image.Dither.NONE))
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    frames[0].save(file, 'gif', save_all=True, append_images=frames[1:], duration=durations, loop=0)
    if file.tell() <= GIF_BYTES:
      break
  return file.getvalue()


def _palette() -> Image.Image:
  """The figure's colours, the same for all frames: chosen frame by frame they would flicker."""
  ramps = [colormaps[name](np.linspace(0, 1, 67)) for name in ('viridis', 'cividis', 'plasma')]
  for ends, count in ((('k', 'w'), 24), ((ORANGE, 'w'), 16), ((ORANGE, ramps[1][-1]), 14)):
    ramps.append(LinearSegmentedColormap.from_list('', ends)(np.linspace(0, 1, count)))
  colours = np.concatenate([*ramps, [to_rgba(UNVISITED)]])[:, :3]
  image = Image.new('P', (1, 1))
  image.putpalette((colours * 255).round().astype(np.uint8).tobytes())
  return image


def _save(path: str, content: Figure | bytes) -> str:
  """Writes a file whole or not at all."""
  if isinstance(content, Figure):
    file = io.BytesIO()
    FigureCanvasAgg(content).print_figure(file, format='png', dpi=150)
    content = file.getvalue()
  temporary = f'{path}.{os.getpid()}.tmp'
  try:
    with open(temporary, 'wb') as file:
      file.write(content)
    os.replace(temporary, path)
  finally:
    if os.path.exists(temporary):
      os.remove(temporary)
  return path


def draw_all(output_dir: str) -> list[str]:
  """Draws every figure there is data for and returns the files written."""
  return [draw_learning_curves(output_dir), *draw_posterior(output_dir)]


def main(argv: Sequence[str]) -> None:
  """Redraws the figures of --output_dir; what goes wrong with its files is one line on stderr and exit code 1."""
  del argv
  try:
    for path in draw_all(flags.FLAGS.output_dir):
      print(path)
  except (OSError, ValueError) as error:
    named = isinstance(error, OSError) and error.filename
    print(f'figures: {f"{error.filename}: {error.strerror}" if named else error}', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__':
  # Not at import: the experiment that calls draw_all has an --output_dir of its own.
  flags.DEFINE_string('output_dir', None, 'Folder of a run, with its results.csv.', required=True)
  app.run(main)
