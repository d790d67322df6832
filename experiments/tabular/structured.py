"""RiverSwim and DeepSea: MDPs in which acting at random does not find the reward."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from experiments.common.tables import format_table
from experiments.tabular import agents as library
from experiments.tabular.study import (
  Row,
  Study,
  TabularConfig,
  cumulative,
  draw_curves,
  groups,
  legend,
  new_figure,
  over_runs,
)
from hyperagent_jax import tabular
from hyperagent_jax.tabular.hyperagent import informed
from hyperagent_jax.tabular.types import Problem, TabularAgent

COLUMNS = ('mdp', 'agent', 'episode', 'mean', 'low', 'high', 'num_runs')
RIVER, RIVER_HORIZON, SEA = 6, 20, 12
SCALES, UCBVI_SCALES, EPSILON_SCALES = (0.1, 0.03), (1e-3, 3e-4), (1.0, 0.1)
BETA = 1.0  # weight of the prior: transitions here are far more certain than a Dirichlet of total 3


def chosen(problem: Problem, dim: int) -> dict[str, TabularAgent]:
  """One of each kind; those with a scale at two, since the best one differs between MDPs."""
  agents = {}
  for scale in SCALES:
    neutral = informed(problem, scale, library.NEUTRAL['optimism'])
    for name, agent in library.with_parameters(problem, dim, neutral).items():
      agents[f'{name}, {scale:g}'] = agent
  for scale in UCBVI_SCALES:
    agents[f'UCBVI, {scale:g}'] = tabular.make_ucbvi(problem, scale)
  for scale in EPSILON_SCALES:
    agents[f'epsilon-greedy, {scale:g}'] = tabular.make_epsilon_greedy(problem, scale)
  return {**agents, **library.without_constants(problem)}


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """All agents on both MDPs; the MDP is one, the runs are many."""
  river, sea = (4, 10, 6) if reduced else (RIVER, RIVER_HORIZON, SEA), 6 if reduced else SEA
  cases: dict[str, tuple[tabular.MDP, Problem]] = {
    f'RiverSwim {river[0]}': (
      tabular.river_swim(river[0], river[1]),
      Problem(river[0], 2, river[1], settings.num_episodes, BETA),
    ),
    f'DeepSea {sea}': (tabular.deep_sea(sea), Problem(sea, 2, sea, settings.num_episodes, BETA)),
  }
  rows: list[Row] = []
  for of, (mdp, problem) in cases.items():
    for name, agent in chosen(problem, settings.index_dim).items():
      played: Callable = lambda key, agent=agent, mdp=mdp: tabular.play(agent, mdp, settings.num_episodes, key)[0]
      regrets = over_runs(played, settings.num_mdps, settings.seed)
      place = {'mdp': of, 'agent': name, 'num_runs': settings.num_mdps}
      rows += [{**place, **row} for row in cumulative(regrets)]
      print(f'  {of}, {name}: {rows[-1]["mean"]:,.1f}', flush=True)
  return rows


def tell(rows: Sequence[Row]) -> str:
  """Regret in the end."""
  lines = [
    (mdp, name, f'{mine[-1]["mean"]:,.1f}', f'{mine[-1]["low"]:,.1f} to {mine[-1]["high"]:,.1f}')
    for (mdp, name), mine in groups(rows, 'mdp', 'agent').items()
  ]
  header = ('MDP', 'agent', f'regret after {rows[-1]["episode"]:,} episodes', '95% interval')
  return format_table(header, lines) + f'\nMeans of {rows[0]["num_runs"]} runs.'


def draw(rows: Sequence[Row]) -> Figure:
  """A panel for each MDP."""
  panels = groups(rows, 'mdp')
  figure, axes = new_figure(len(panels), width=6.0, height=5.2)
  numbers = {name: i for i, name in enumerate(groups(rows, 'agent'))}
  for axis, (mdp, mine) in zip(axes[0], panels.items(), strict=True):
    draw_curves(axis, {name: (series, name) for name, series in groups(mine, 'agent').items()}, numbers)
    axis.set_title(mdp)
    legend(axis)
  axes[0, 0].set_ylabel('cumulative regret')
  return figure


STUDY = Study('RiverSwim and DeepSea', COLUMNS, run, draw, tell)
