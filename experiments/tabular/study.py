"""What the studies of the tabular theory share: settings, runs side by side, bands, tables on disk."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import special

from experiments.common.plotting import BLUE, DARK, ORANGE, blank_figure
from experiments.common.tables import read_table, write_table
from hyperagent_jax import tabular
from hyperagent_jax.config import MOST_INDICES, field
from hyperagent_jax.seeds import over_seeds
from hyperagent_jax.tabular import Problem

Row = dict[str, Any]
# Okabe and Ito's colours.
COLOURS = (BLUE, ORANGE, '#009E73', '#CC79A7', '#E69F00', '#56B4E9', DARK, '#777777')
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class TabularConfig:
  """The random MDPs of the studies, and how long they are played; studies of other sizes say so in their files."""

  num_mdps: int = field(100, 'Random MDPs, one run of each agent on each.', low=2, high=100_000)
  num_episodes: int = field(2_000, 'Episodes K of a run.', low=20, high=10**8)
  num_states: int = field(10, 'States S.', low=2, high=10_000)
  num_actions: int = field(3, 'Actions A.', low=2, high=10_000)
  horizon: int = field(5, 'Stages H of an episode.', low=2, high=10_000)
  beta: float = field(
    3.0, "Total of the Dirichlet prior of each next state; the theory's is at least 3.", low=1e-3, high=1e6
  )
  index_dim: int = field(16, 'Dimension M of the index, where it is not what is varied.', low=1, high=MOST_INDICES)
  seed: int = field(0, 'Of all randomness.', low=0, high=2**31 - 2)

  @property
  def problem(self) -> Problem:
    """What agents are told."""
    return Problem(self.num_states, self.num_actions, self.horizon, self.num_episodes, self.beta)


# The settings of --reduced, as far as no flag is given.
REDUCED = TabularConfig(num_mdps=20, num_episodes=300)


class Study(NamedTuple):
  """One question, its runs, its table and its figure."""

  title: str
  columns: tuple[str, ...]
  run: Callable[[TabularConfig, bool], Sequence[Row]]  # settings, whether reduced -> the table's rows
  draw: Callable[[Sequence[Row]], Figure]
  tell: Callable[[Sequence[Row]], str]  # what is printed


class Band(NamedTuple):
  """A mean over runs and its 95% confidence interval."""

  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray


def band(values: Any) -> Band:  # [runs, ...]
  """The mean over runs and its 95% interval by Student's t."""
  x = np.asarray(values, np.float64)
  mean, error = x.mean(0), x.std(0, ddof=1) / np.sqrt(len(x))
  # Student's quantile; scipy.stats has it too, but takes a second to import.
  width = special.stdtrit(len(x) - 1, (1.0 + CONFIDENCE) / 2.0) * error
  return Band(mean, mean - width, mean + width)


def bootstrap(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Band:
  """A statistic of the runs, along axis 1 of [resamples, runs], and its 95% interval over 2,000 resamples of them."""
  picked = np.random.RandomState(seed).randint(len(values), size=(2_000, len(values)))
  tail = 100 * (1.0 - CONFIDENCE) / 2.0
  low, high = np.percentile(statistic(values[picked]), (tail, 100 - tail))
  return Band(statistic(values[None])[0], low, high)


# Half the time to compile, which is most of a study's, and programs of small arrays are no slower for it.
QUICK = {'xla_backend_optimization_level': 1}


def over_runs(run: Callable[..., Any], num_runs: int, seed: int, *stacked: Any) -> Any:
  """A function of a key, and of one of each stacked pytree, for so many keys, side by side on all devices.

  Args:
    run: (key, ...) -> a pytree of arrays.
    num_runs: how many; the same seed gives the same keys.
    seed: of the keys.
    *stacked: pytrees of arrays with a leading axis of runs.

  Returns:
    The results as NumPy arrays with a leading axis of runs.
  """
  spread = over_seeds(run, (0,) * (1 + len(stacked)), 0, jax.local_devices(), 'vmap')
  keys = jax.random.split(jax.random.key(seed), num_runs)
  options = QUICK if jax.default_backend() == 'cpu' else None
  return jax.tree.map(np.asarray, jax.jit(spread, compiler_options=options)(keys, *stacked))


@functools.cache
def random_mdps(problem: Problem, num_mdps: int, seed: int) -> tabular.MDP:
  """MDPs [num_mdps, ...] of these sizes, the same for all agents and studies with this seed."""
  make = lambda key: tabular.random_mdp(key, problem.num_states, problem.num_actions, problem.horizon, problem.beta)
  return over_runs(make, num_mdps, seed)


def regrets_on_random_mdps(agent: tabular.TabularAgent, settings: TabularConfig) -> np.ndarray:
  """Regret [runs, K] of each episode, each run on an MDP of its own."""
  mdps = random_mdps(settings.problem._replace(num_episodes=0), settings.num_mdps, settings.seed)
  run = lambda key, mdp: tabular.play(agent, mdp, settings.num_episodes, key)[0]
  return over_runs(run, settings.num_mdps, settings.seed + 1, mdps)


def checkpoints(num_episodes: int, number: int = 60) -> np.ndarray:
  """Episodes at which curves are kept, evenly on a logarithmic axis, the first and last among them."""
  return np.unique(np.round(np.geomspace(1, num_episodes, number)).astype(int))


def cumulative(regrets: np.ndarray) -> list[Row]:  # [runs, K]
  """Cumulative regret at some episodes, with its confidence interval over runs."""
  episodes = checkpoints(regrets.shape[1])
  means = band(np.cumsum(regrets, axis=1, dtype=np.float64)[:, episodes - 1])
  numbers = zip(episodes.tolist(), *means, strict=True)
  return [{'episode': k, 'mean': mean, 'low': low, 'high': high} for k, mean, low, high in numbers]


def slope(x: Any, y: Any) -> float:
  """The slope of y against x on logarithmic axes, by least squares; nan where a value is not above 0."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  if np.any(x <= 0) or np.any(y <= 0):
    return float('nan')
  return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def write_rows(path: pathlib.Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes a table, whole or not at all; numbers with six digits."""
  write_table(path, columns, ([_cell(row[name]) for name in columns] for row in rows))


def _cell(value: Any) -> Any:
  return f'{value:.6g}' if isinstance(value, float | np.floating) else value


def read_rows(path: pathlib.Path, columns: Sequence[str]) -> list[Row]:
  """A table as `write_rows` wrote it, numbers as numbers.

  Raises:
    OSError, ValueError: if it is not there, or not such a table.
  """
  return [{name: _number(row[name]) for name in columns} for row in read_table(str(path), columns)]


def _number(text: str) -> Any:
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      continue
  return text


def groups(rows: Sequence[Row], *names: str) -> dict[Any, list[Row]]:
  """Rows by the values of these columns, in the order in which they first appear."""
  found: dict[Any, list[Row]] = {}
  for row in rows:
    key = tuple(row[name] for name in names)
    found.setdefault(key if len(names) > 1 else key[0], []).append(row)
  return found


def column(rows: Sequence[Row], name: str) -> np.ndarray:
  """A column's numbers."""
  return np.array([row[name] for row in rows], np.float64)


def new_figure(
  num_columns: int = 1, num_lines: int = 1, width: float = 5.0, height: float = 3.9, **pads: float
) -> tuple[Figure, Any]:
  """A figure and its axes [lines, columns], of so many inches each."""
  figure = blank_figure(width * num_columns, height * num_lines, **pads)
  axes = figure.subplots(num_lines, num_columns, squeeze=False)
  for axis in axes.flat:
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(color='#eeeeee', lw=0.7)
  return figure, axes


def draw_band(axis: Axes, x: Any, rows: Sequence[Row], label: str, number: int, **style: Any) -> None:
  """A line with its confidence band, from the columns mean, low and high."""
  look = {
    'color': COLOURS[number % len(COLOURS)],
    'lw': 1.6,
    'ls': '-' if number < len(COLOURS) else (0, (4, 1.5)),
    **style,
  }
  axis.plot(x, column(rows, 'mean'), label=label, **look)
  axis.fill_between(x, column(rows, 'low'), column(rows, 'high'), color=look['color'], alpha=0.15, lw=0)


def draw_curves(axis: Axes, curves: Mapping[str, tuple[Sequence[Row], str]], numbers: Mapping[str, int]) -> None:
  """Agents' curves over episodes, the legend from the highest at the end to the lowest; HyperAgent's are wider.

  Args:
    axis: where.
    curves: agent -> its rows and its label.
    numbers: agent -> number of its colour.
  """
  for name, (rows, label) in sorted(curves.items(), key=lambda item: -item[1][0][-1]['mean']):
    own = name.startswith('HyperAgent')
    draw_band(axis, column(rows, 'episode'), rows, label, numbers[name], lw=2.8 if own else 1.3, zorder=3 - own)
  axis.set(xscale='log', yscale='log', xlabel='episodes')


def legend(axis: Axes, **where: Any) -> None:
  """Draws a legend without a frame, in small print."""
  axis.legend(**{'frameon': False, 'fontsize': 8, 'handlelength': 1.8, 'labelspacing': 0.3, **where})
