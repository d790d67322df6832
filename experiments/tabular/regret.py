"""Bayesian regret against episodes, for all agents (the paper's Theorem 5.2 and Table 1 in numbers)."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.common.tables import format_table
from experiments.tabular import agents
from experiments.tabular.study import (
  Row,
  Study,
  TabularConfig,
  column,
  cumulative,
  draw_curves,
  groups,
  legend,
  new_figure,
  regrets_on_random_mdps,
  slope,
)
from hyperagent_jax.tabular.types import TabularAgent

COLUMNS = ('constants', 'agent', 'episode', 'mean', 'low', 'high', 'num_mdps')
CONSTANTS = ('theory', 'practical', 'none')


def curve(agent: TabularAgent, settings: TabularConfig) -> list[Row]:
  """Cumulative regret at some episodes, with its confidence interval over MDPs."""
  rows = cumulative(regrets_on_random_mdps(agent, settings))
  return [{**row, 'num_mdps': settings.num_mdps} for row in rows]


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """All agents on the same MDPs."""
  del reduced
  problem, dim = settings.problem, settings.index_dim
  rows: list[Row] = []
  sets = (agents.theory(problem, dim), agents.practical(problem, dim), agents.without_constants(problem))
  for constants, chosen in zip(CONSTANTS, sets, strict=True):
    for name, agent in chosen.items():
      rows += [{'constants': constants, 'agent': name, **row} for row in curve(agent, settings)]
      print(f'  {name} ({constants}): {rows[-1]["mean"]:,.1f}', flush=True)
  return rows


def slope_of(rows: Sequence[Row]) -> float:
  """The slope on logarithmic axes over the last three quarters of the episodes."""
  late = [row for row in rows if row['episode'] >= rows[-1]['episode'] / 4]
  return slope(column(late, 'episode'), column(late, 'mean'))


def tell(rows: Sequence[Row]) -> str:
  """Regret in the end, least first, and how it grows."""
  lines = []
  for (constants, name), mine in groups(rows, 'constants', 'agent').items():
    last = mine[-1]
    interval = f'{last["low"]:,.1f} to {last["high"]:,.1f}'
    lines.append((last['mean'], (name, constants, f'{last["mean"]:,.1f}', interval, f'{slope_of(mine):.2f}')))
  header = ('agent', 'constants', f'regret after {rows[-1]["episode"]:,} episodes', '95% interval', 'slope')
  note = (
    f'Means over {rows[0]["num_mdps"]} random MDPs. Slope: of log regret against log episodes, last three quarters.'
  )
  return format_table(header, [line for _, line in sorted(lines)]) + '\n' + note


def draw(rows: Sequence[Row]) -> Figure:
  """A panel for the theory's constants and one for practical ones; agents without constants are in both."""
  figure, axes = new_figure(2, width=5.6, height=4.6)
  numbers = {name: i for i, name in enumerate(dict.fromkeys(row['agent'] for row in rows))}
  for axis, constants in zip(axes[0], CONSTANTS[:2], strict=True):
    curves = {
      name: (mine, f'{name} ({slope_of(mine):.2f})')
      for (of, name), mine in groups(rows, 'constants', 'agent').items()
      if of in (constants, 'none')
    }
    draw_curves(axis, curves, numbers)
    axis.set_title("the theory's constants" if constants == 'theory' else f'{constants} constants')
    legend(axis, title='agent (slope at the end)', title_fontsize=8)
  axes[0, 0].set_ylabel('cumulative Bayesian regret')
  axes[0, 1].sharey(axes[0, 0])
  return figure


STUDY = Study('Bayesian regret of all agents', COLUMNS, run, draw, tell)
