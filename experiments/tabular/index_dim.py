"""Regret against M: how small an index suffices, and what a state's own index and optimism buy."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common.tables import format_table
from experiments.tabular import agents
from experiments.tabular.study import (
  COLOURS,
  Row,
  Study,
  TabularConfig,
  band,
  column,
  draw_band,
  groups,
  legend,
  new_figure,
  over_runs,
  regrets_on_random_mdps,
)
from hyperagent_jax import tabular
from hyperagent_jax.tabular.hyperagent import Parameters, informed, table_6

COLUMNS = ('mdp', 'parameters', 'agent', 'index_dim', 'mean', 'low', 'high', 'num_runs')
DIMS = (1, 2, 4, 8, 16, 32, 64)
SERIES: dict[str, dict[str, Any]] = {
  'an index for each state': {},
  'one index for all states': {'independent': False},
  f'the best of {agents.NUM_INDICES} indices for each state': {'num_indices': agents.NUM_INDICES},
}
RLSVI = 'exact posterior (RLSVI)'
DEEP_SEA = 10  # rows, columns and stages


def final_regrets(agent: tabular.TabularAgent, settings: TabularConfig, of_deep_sea: bool) -> np.ndarray:
  """Cumulative regret [runs] of runs on random MDPs, or on DeepSea."""
  if not of_deep_sea:
    return regrets_on_random_mdps(agent, settings).sum(1)
  mdp = tabular.deep_sea(DEEP_SEA)
  run = lambda key: tabular.play(agent, mdp, settings.num_episodes, key)[0]
  return over_runs(run, settings.num_mdps, settings.seed).sum(1)


def cases(settings: TabularConfig) -> dict[tuple[str, str], tuple[TabularConfig, Parameters, bool]]:
  """MDPs and parameters: name -> settings, parameters, whether the MDP is DeepSea."""
  deep = dataclasses.replace(settings, num_states=DEEP_SEA, num_actions=2, horizon=DEEP_SEA)
  return {
    ('random MDPs', 'neutral prior'): (settings, informed(settings.problem, **agents.NEUTRAL), False),
    ('random MDPs', "theory's constants"): (settings, table_6(settings.problem), False),
    (f'DeepSea {DEEP_SEA}', 'neutral prior'): (deep, informed(deep.problem, **agents.NEUTRAL), True),
  }


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """All series at every M, and RLSVI with the same variance."""
  rows: list[Row] = []

  def add(case: tuple[str, str], name: str, dim: int, agent: tabular.TabularAgent) -> None:
    sized, _, of_deep_sea = cases(settings)[case]
    mean, low, high = band(final_regrets(agent, sized, of_deep_sea))
    place = {'mdp': case[0], 'parameters': case[1], 'agent': name, 'index_dim': dim, 'num_runs': settings.num_mdps}
    rows.append({**place, 'mean': float(mean), 'low': float(low), 'high': float(high)})
    print(f'  {", ".join(case)}, {name}, M={dim}: {float(mean):,.1f}', flush=True)

  chosen = cases(settings)
  for case in list(chosen)[::2] if reduced else chosen:
    sized, parameters, _ = chosen[case]
    for name, options in SERIES.items():
      for dim in DIMS[:5:2] if reduced else DIMS:
        add(case, name, dim, tabular.make_hyperagent(sized.problem, dim, parameters, **options))
    add(case, RLSVI, 0, tabular.make_rlsvi(sized.problem, parameters))
  return rows


def tell(rows: Sequence[Row]) -> str:
  """Regret by M."""
  dims = sorted({row['index_dim'] for row in rows if row['index_dim']})
  lines = []
  for (mdp, parameters, name), mine in groups(rows, 'mdp', 'parameters', 'agent').items():
    by_dim = {row['index_dim']: f'{row["mean"]:,.0f} ±{row["high"] - row["mean"]:,.0f}' for row in mine}
    cells = [by_dim.get(dim, by_dim.get(0, '')) for dim in dims]
    lines.append((mdp, parameters, name, *cells))
  note = f'Cumulative regret, means of {rows[0]["num_runs"]} runs with half of the 95% interval. RLSVI has no M.'
  return format_table(('MDP', 'parameters', 'agent', *(f'M = {dim}' for dim in dims)), lines) + '\n' + note


def draw(rows: Sequence[Row]) -> Figure:
  """A panel for each case."""
  panels = groups(rows, 'mdp', 'parameters')
  figure, axes = new_figure(len(panels), width=4.6)
  for axis, ((mdp, parameters), mine) in zip(axes[0], panels.items(), strict=True):
    for number, (name, series) in enumerate(groups(mine, 'agent').items()):
      if name == RLSVI:
        exact = series[0]
        axis.axhline(exact['mean'], color=COLOURS[6], ls='--', lw=1.2, label=name)
        axis.axhspan(exact['low'], exact['high'], color=COLOURS[6], alpha=0.1, lw=0)
      else:
        draw_band(axis, column(series, 'index_dim'), series, name, number, marker='o', ms=4)
    dims = sorted({row['index_dim'] for row in mine if row['index_dim']})
    axis.set(xscale='log', xlabel='M', title=f'{mdp}, {parameters}', xticks=dims, xticklabels=dims, ylim=(0, None))
    axis.minorticks_off()
    legend(axis)
  axes[0, 0].set_ylabel('cumulative regret')
  return figure


STUDY = Study('regret against the dimension of the index', COLUMNS, run, draw, tell)
