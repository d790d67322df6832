"""How much noise each agent needs: a grid over its constants, on other MDPs than those of the other studies."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

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
  over_runs,
  random_mdps,
)
from hyperagent_jax import tabular
from hyperagent_jax.tabular.hyperagent import Parameters, informed, table_6
from hyperagent_jax.tabular.types import TabularAgent
from hyperagent_jax.types import Array

COLUMNS = ('agent', 'parameters', 'scale', 'mean', 'low', 'high', 'num_mdps')
SCALES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
UCBVI_SCALES = (1.0, 0.1, 0.01, 1e-3, 3e-4, 1e-4)  # its bonus starts at a hundred times the values
OTHER_MDPS = 1_000_000  # added to the seed


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """Final regret for every agent, every kind of parameters and every scale, all scales in one program."""
  problem, dim = settings.problem, settings.index_dim
  num_mdps = max(settings.num_mdps // 4, 2)
  kinds: dict[str, Callable[[Array], Parameters]] = {
    'theory': lambda scale: table_6(problem, scale=scale),
    'informed, optimistic prior': lambda scale: informed(problem, scale),
    'informed, neutral prior': lambda scale: informed(problem, scale, agents.NEUTRAL['optimism']),
  }
  mdps = random_mdps(problem._replace(num_episodes=0), num_mdps, settings.seed + OTHER_MDPS)
  rows: list[Row] = []

  def add(name: str, kind: str, scales: Sequence[float], make: Callable[[Array], TabularAgent]) -> None:
    def regrets(key: Array, mdp: tabular.MDP) -> Array:  # -> [scales]
      final = lambda scale: jnp.sum(tabular.play(make(scale), mdp, settings.num_episodes, key)[0])
      return jax.vmap(final)(jnp.asarray(scales))

    means = band(over_runs(regrets, num_mdps, settings.seed + OTHER_MDPS + 1, mdps))
    for scale, mean, low, high in zip(scales, *means, strict=True):
      place = {'agent': name, 'parameters': kind, 'scale': scale, 'num_mdps': num_mdps}
      rows.append({**place, 'mean': mean, 'low': low, 'high': high})
    print(f'  {name}, {kind}: {min(means.mean):,.1f}', flush=True)

  scales = SCALES[1::2] if reduced else SCALES
  for kind, parameters in kinds.items():
    for name in ('HyperAgent', 'RLSVI', 'Ensemble sampling', 'LMC-LSVI'):
      make = lambda scale, name=name, of=parameters: agents.with_parameters(problem, dim, of(scale))[name]
      add(name, kind, scales, make)
  add('UCBVI', 'others', UCBVI_SCALES, lambda scale: tabular.make_ucbvi(problem, scale))
  add('epsilon-greedy', 'others', SCALES, lambda scale: tabular.make_epsilon_greedy(problem, scale))
  return rows


def tell(rows: Sequence[Row]) -> str:
  """The best scale of each."""
  best = [min(mine, key=lambda row: row['mean']) for mine in groups(rows, 'agent', 'parameters').values()]
  header = ('agent', 'parameters', 'best scale', 'regret', '95% interval')
  cells = [
    (r['agent'], r['parameters'], f'{r["scale"]:g}', f'{r["mean"]:,.1f}', f'{r["low"]:,.1f} to {r["high"]:,.1f}')
    for r in best
  ]
  return format_table(header, cells) + f'\nMeans over {rows[0]["num_mdps"]} random MDPs.'


def draw(rows: Sequence[Row]) -> Figure:
  """A panel for each kind of parameters."""
  kinds = list(dict.fromkeys(row['parameters'] for row in rows))
  figure, axes = new_figure(len(kinds), width=4.0)
  for axis, kind in zip(axes[0], kinds, strict=True):
    of_kind = [row for row in rows if row['parameters'] == kind]
    for number, (name, mine) in enumerate(groups(of_kind, 'agent').items()):
      draw_band(axis, column(mine, 'scale'), mine, name, number, marker='o', ms=4)
    axis.set(xscale='log', yscale='log', xlabel='scale of the noise (of the bonus)', title=kind)
    legend(axis)
  axes[0, 0].set_ylabel('cumulative Bayesian regret')
  return figure


STUDY = Study('regret against the scale of the noise', COLUMNS, run, draw, tell)
