"""The posterior over action values at work: heat maps over DeepSea's grid, as a picture and as an animated GIF."""

import io
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

from experiments.common.console import warn
from experiments.common.plotting import LAST_FRAME_MS, ORANGE, Row, save_figure

BEST_RETURN = 0.99
UNVISITED = '#c4c4c4'
MOMENTS = 5
GIF_BYTES = 1_500_000
FRAME_MS = 300


def draw_posterior(output_dir: str) -> list[str]:
  """Draws OUTPUT_DIR/posterior_size_<N>.png (a few moments) and .gif (all of them) for each size with snapshots."""
  folder, written = os.path.join(output_dir, 'posterior'), []
  names = os.listdir(folder) if os.path.isdir(folder) else []
  for size in sorted(int(name[5:]) for name in names if re.fullmatch(r'size_\d+', name)):
    snapshots = _read_snapshots(os.path.join(folder, f'size_{size}'))
    if snapshots:
      moments = _choose_moments(snapshots)
      stem = os.path.join(output_dir, f'posterior_size_{size}')
      written.append(save_figure(f'{stem}.png', _posterior_figure(size, moments, moments)[0]))
      written.append(save_figure(f'{stem}.gif', _posterior_gif(size, snapshots, moments)))
  return written


def _read_snapshots(folder: str) -> list[Row]:
  """A folder's snapshots in time order as [N, N] pictures, nan where unreachable; unreadable files are left out."""
  snapshots = []
  for name in sorted(os.listdir(folder)):
    if re.fullmatch(r'\d+\.npz', name):
      try:
        with open(os.path.join(folder, name), 'rb') as file, np.load(file) as arrays:
          snapshots.append(_pictures(arrays))
      except Exception as e:  # whatever damage makes of a file, only the picture may suffer
        warn(f'{os.path.join(folder, name)}: cannot be read ({type(e).__name__}); left out of the figure')
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
    ('visits', 'Visits in replay\n(grey: none)', 'viridis', LogNorm(1, max(visits, 2)), 'neither'),
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
      assert scale.vmin is not None and scale.vmax is not None
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
  style: dict[str, Any] = {'ha': 'right', 'va': 'top', 'weight': 'bold', 'fontsize': 10.5}
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
