"""How uncertainty about one action reaches earlier stages and other states (Example D.7, Fig. 6)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.tabular.study import Row, Study, TabularConfig, groups, new_figure, over_runs
from hyperagent_jax.tabular.hyperagent import Parameters, visits
from hyperagent_jax.tabular.spreading import chain_counts, sample_factor, value_spread

COLUMNS = ('agent', 'iteration', 'stage', 'state', 'std')
HYPERAGENT, SHARED, RLSVI, LOCAL = 'HyperAgent', 'HyperAgent, one shared index', 'RLSVI (exact)', 'not backed up'
AGENTS = (HYPERAGENT, SHARED, RLSVI, LOCAL)
SIGMA = 1.0  # the unit of all numbers


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """Spread of max_a Q by agent and iteration: root mean square over runs, each with its own perturbations."""
  counts, parameters = chain_counts(), Parameters(SIGMA, settings.beta, 0.0)
  num_samples = 100 if reduced else 1000

  def variances(key: jax.Array) -> jax.Array:  # -> [agents, H + 1, H, S]
    key_factor, *keys = jax.random.split(key, 1 + len(AGENTS))
    factor = sample_factor(key_factor, visits(counts), settings.index_dim, parameters)
    spread = lambda number, *args: value_spread(keys[number], counts, parameters, *args)
    return jnp.stack(
      [
        spread(0, factor, num_samples),
        spread(1, factor, num_samples, False),
        spread(2, None, num_samples),
        spread(3, factor, num_samples, True, False),
      ]
    )

  std = np.sqrt(over_runs(variances, settings.num_mdps, settings.seed).mean(0))
  return [
    # States count from 1, as in the paper.
    {'agent': AGENTS[agent], 'iteration': iteration, 'stage': stage, 'state': state + 1, 'std': value}
    for (agent, iteration, stage, state), value in np.ndenumerate(std)
  ]


def grid(rows: Sequence[Row]) -> np.ndarray:
  """The column std as [states, stages]."""
  by_state = groups(rows, 'state')
  return np.array([[row['std'] for row in by_state[state]] for state in sorted(by_state)])


def draw(rows: Sequence[Row]) -> Figure:
  """A grid of circles for each agent and iteration, the darker the less certain."""
  agents = groups(rows, 'agent')
  num_iterations = len(groups(rows, 'iteration'))
  figure, axes = new_figure(num_iterations, len(agents), 1.75, 1.35)
  colours = ScalarMappable(Normalize(0.0, max(row['std'] for row in rows)), 'Blues')
  for line, (agent, of_agent) in zip(axes, agents.items(), strict=True):
    for axis, (iteration, here) in zip(line, groups(of_agent, 'iteration').items(), strict=True):
      std = grid(here)
      state, stage = np.indices(std.shape)
      look = {'c': colours.to_rgba(std.ravel()), 'edgecolors': '#888888', 'linewidths': 0.6}
      axis.scatter(stage.ravel(), state.ravel() + 1, s=95, **look)
      axis.grid(False)
      axis.spines[:].set_visible(False)
      axis.tick_params(length=0, labelsize=7)
      axis.set_xticks(range(std.shape[1]))
      axis.set_yticks(range(1, len(std) + 1))
      axis.set(xlim=(-0.6, std.shape[1] - 0.4), ylim=(len(std) + 0.6, 0.4), aspect='equal')
      if axis in axes[0]:
        axis.set_title(f'iteration {iteration}', fontsize=9)
      if axis in axes[-1]:
        axis.set_xlabel('stage', fontsize=8)
    line[0].set_ylabel(f'{agent}\nstate'.replace(', ', ',\n'), fontsize=8)
  bar = figure.colorbar(colours, ax=axes, shrink=0.6, pad=0.01)
  bar.set_label('standard deviation of the sampled value / sigma', fontsize=8)
  bar.ax.tick_params(labelsize=7)
  return figure


def tell(rows: Sequence[Row]) -> str:
  """Spread by state and stage, after the last iteration."""
  last = max(row['iteration'] for row in rows)
  lines = ['standard deviation of max_a Q / sigma after the last iteration', '']
  for agent, of_agent in groups([row for row in rows if row['iteration'] == last], 'agent').items():
    std = grid(of_agent)
    lines.append(f'{agent:<30}' + ''.join(f'{f"stage {stage}":>9}' for stage in range(std.shape[1])))
    lines += [f'  state {state + 1:<22}' + ''.join(f'{x:9.3f}' for x in line) for state, line in enumerate(std)]
  return '\n'.join(lines)


STUDY = Study('uncertainty about one action spreads through value iteration (Fig. 6)', COLUMNS, run, draw, tell)
