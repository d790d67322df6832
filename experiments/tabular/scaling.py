"""How Bayesian regret grows with S, A and H."""

import dataclasses
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.common.tables import format_table
from experiments.tabular import agents
from experiments.tabular.study import (
  Row,
  Study,
  TabularConfig,
  band,
  column,
  draw_band,
  groups,
  legend,
  new_figure,
  regrets_on_random_mdps,
  slope,
)
from hyperagent_jax import tabular
from hyperagent_jax.tabular.hyperagent import informed, table_6
from hyperagent_jax.tabular.types import Problem, TabularAgent

COLUMNS = ('varied', 'size', 'agent', 'mean', 'low', 'high', 'num_mdps', 'num_episodes')
VARIED = {'num_states': (5, 10, 20, 40), 'num_actions': (2, 4, 8, 16), 'horizon': (3, 6, 12, 24)}
LETTERS = {'num_states': 'S', 'num_actions': 'A', 'horizon': 'H'}
BOUND = {'num_states': 0.5, 'num_actions': 0.5, 'horizon': 2.0}  # exponents of HyperAgent's bound, H^2 sqrt(S A K)


def chosen(problem: Problem, dim: int) -> dict[str, TabularAgent]:
  """HyperAgent both ways, what it approximates, and the exact posterior of the MDP."""
  return {
    "HyperAgent, theory's constants": tabular.make_hyperagent(problem, dim, table_6(problem)),
    'HyperAgent, neutral prior': tabular.make_hyperagent(problem, dim, informed(problem, **agents.NEUTRAL)),
    'RLSVI, neutral prior': tabular.make_rlsvi(problem, informed(problem, **agents.NEUTRAL)),
    'PSRL': tabular.make_psrl(problem),
  }


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """One of S, A and H varied at a time."""
  rows: list[Row] = []
  for varied, sizes in VARIED.items():
    for size in sizes[:: 2 if reduced else 1]:
      sized = dataclasses.replace(settings, **{varied: size}, num_episodes=max(settings.num_episodes // 2, 20))
      for name, agent in chosen(sized.problem, settings.index_dim).items():
        regrets = regrets_on_random_mdps(agent, sized).sum(1)
        mean, low, high = (float(x) for x in band(regrets))
        place = {'varied': varied, 'size': size, 'agent': name, 'num_mdps': settings.num_mdps}
        rows.append({**place, 'num_episodes': sized.num_episodes, 'mean': mean, 'low': low, 'high': high})
        print(f'  {LETTERS[varied]}={size}, {name}: {mean:,.1f}', flush=True)
  return rows


def tell(rows: Sequence[Row]) -> str:
  """Exponents, beside those of the bound."""
  found = groups(rows, 'agent', 'varied')
  lines = []
  for name in groups(rows, 'agent'):
    slopes = [slope(column(found[name, v], 'size'), column(found[name, v], 'mean')) for v in VARIED]
    lines.append((name, *(f'{x:.2f}' for x in slopes)))
  lines.append(('bound', *(f'{BOUND[v]:.2f}' for v in VARIED)))
  header = ('exponent of regret in', *LETTERS.values())
  note = (
    f'Slopes on logarithmic axes, {rows[0]["num_episodes"]:,} episodes, means over {rows[0]["num_mdps"]} random MDPs.'
  )
  return format_table(header, lines) + '\n' + note


def draw(rows: Sequence[Row]) -> Figure:
  """A panel for each of S, A and H."""
  figure, axes = new_figure(3, width=4.4)
  for axis, (varied, mine) in zip(axes[0], groups(rows, 'varied').items(), strict=True):
    for number, (name, series) in enumerate(groups(mine, 'agent').items()):
      x = column(series, 'size')
      label = f'{name} ({slope(x, column(series, "mean")):.2f})'
      draw_band(axis, x, series, label, number, marker='o', ms=4)
    sizes = sorted({row['size'] for row in mine})
    axis.set(xscale='log', yscale='log', xlabel=LETTERS[varied], xticks=sizes, xticklabels=sizes)
    axis.set_title(f'by {LETTERS[varied]} (bound: {BOUND[varied]:g})')
    axis.xaxis.set_minor_locator(NullLocator())
    legend(axis)
  axes[0, 0].set_ylabel('cumulative Bayesian regret')
  return figure


STUDY = Study('regret against S, A and H', COLUMNS, run, draw, tell)
