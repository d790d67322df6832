"""Does HyperAgent match Thompson sampling in linear bandits, and from which index dimension on?

Bandits are drawn from the prior that all agents know, so that the mean over them is the Bayesian regret. Every agent
plays the same bandits. HyperAgent and ensembles have M numbers per feature; LinTS knows the exact posterior.

LinUCB's scale 1 is its theorem's; smaller ones are all shown, since the best of them is only known afterwards, and
greedy is scale 0. All other agents have the numbers of the model: prior N(0, I), noise of NOISE_STD. LMC-TS has its
theory's step size, but the posterior's own temperature, where the theory's is higher.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments.common.tables import format_table
from experiments.tabular.study import (
  COLOURS,
  Row,
  Study,
  TabularConfig,
  band,
  checkpoints,
  column,
  draw_band,
  groups,
  legend,
  new_figure,
  over_runs,
  slope,
)
from hyperagent_jax.tabular.bandits import (
  BanditAgent,
  make_lin_ts,
  make_lin_ucb,
  make_linear_ensemble,
  make_linear_hyperagent,
  make_lmc_ts,
  play_bandit,
  random_bandit,
)

DIM, NUM_ACTIONS, NOISE_STD = 10, 50, 1.0
NUM_STEPS, REDUCED_STEPS = 1_000, 200
INDEX_DIMS = {'HyperAgent': (1, 4, 16, 64), 'Ensemble': (4, 16, 64)}  # M
SHOWN_DIM = 16  # M of those drawn against steps
FIRST_SHOWN = 10  # step; before, hardly anything is known
NUM_INDICES = 4  # K of optimistic index sampling
SMALLER_SCALES = (0.4, 0.2, 0.1)  # of LinUCB
LIN_TS = 'LinTS'


def with_dim(name: str, index_dim: int) -> str:
  """An agent's name in the table."""
  return f'{name} M={index_dim}'


def make_agents() -> dict[str, BanditAgent]:
  """All agents by the names of the table."""
  make = {
    'HyperAgent': lambda index_dim: make_linear_hyperagent(DIM, index_dim, NOISE_STD),
    'Ensemble': lambda index_dim: make_linear_ensemble(DIM, index_dim, NOISE_STD),
  }
  optimistic = make_linear_hyperagent(DIM, SHOWN_DIM, NOISE_STD, num_indices=NUM_INDICES)
  return {
    LIN_TS: make_lin_ts(DIM, NOISE_STD),
    **{with_dim(name, m): make[name](m) for name, dims in INDEX_DIMS.items() for m in dims},
    with_dim(f'HyperAgent OIS K={NUM_INDICES}', SHOWN_DIM): optimistic,
    'LMC-TS': make_lmc_ts(DIM, NOISE_STD),
    'LinUCB (theory)': make_lin_ucb(DIM, NOISE_STD),
    **{f'LinUCB x {scale}': make_lin_ucb(DIM, NOISE_STD, scale=scale) for scale in SMALLER_SCALES},
    'Greedy': make_lin_ucb(DIM, NOISE_STD, scale=0.0),
  }


def run(config: TabularConfig, reduced: bool) -> list[Row]:
  """Plays every agent on `config.num_mdps` bandits; steps count from 1."""
  num_steps = REDUCED_STEPS if reduced else NUM_STEPS
  kept = checkpoints(num_steps)
  rows = []
  for name, agent in make_agents().items():

    def one(key: jax.Array, agent: BanditAgent = agent) -> jax.Array:
      key_bandit, key_play = jax.random.split(key)
      bandit = random_bandit(key_bandit, NUM_ACTIONS, DIM, NOISE_STD)
      return jnp.cumsum(play_bandit(agent, bandit, num_steps, key_play))

    regret = band(over_runs(one, config.num_mdps, config.seed)[:, kept - 1])
    numbers = zip(kept.tolist(), *(x.tolist() for x in regret), strict=True)
    rows += [{'agent': name, 'step': step, 'mean': mean, 'low': low, 'high': high} for step, mean, low, high in numbers]
  return rows


def draw(rows: Sequence[Row]) -> Figure:
  """Regret against steps, and the last of it against M."""
  agents = groups(rows, 'agent')
  figure, axes = new_figure(2)
  left, right = axes[0]
  of_dim = {with_dim(name, m): m for name, dims in INDEX_DIMS.items() for m in dims}
  shown = [name for name in agents if of_dim.get(name, SHOWN_DIM) == SHOWN_DIM]
  colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(shown)}
  for i, name in enumerate(shown):
    late = [row for row in agents[name] if row['step'] >= FIRST_SHOWN]
    draw_band(left, column(late, 'step'), late, name, i, zorder=3 if name == LIN_TS else 2)
  left.set(xlabel='Step', ylabel='Cumulative regret', xscale='log', yscale='log', title='Bayesian regret')
  legend(left)

  last = {name: own[-1] for name, own in agents.items()}
  for shift, (name, dims) in zip((1.0, 1.08), INDEX_DIMS.items(), strict=True):  # so that no bar hides another
    here = [last[with_dim(name, m)] for m in dims]
    mean, low, high = (column(here, x) for x in ('mean', 'low', 'high'))
    look = {'color': colours[with_dim(name, SHOWN_DIM)], 'marker': 'o', 'ms': 4, 'capsize': 3, 'lw': 1.6}
    right.errorbar([shift * m for m in dims], mean, (mean - low, high - mean), label=name, **look)
  exact = last[LIN_TS]
  right.axhspan(exact['low'], exact['high'], color=colours[LIN_TS], alpha=0.15, lw=0)
  right.axhline(exact['mean'], color=colours[LIN_TS], lw=1.6, label=LIN_TS)
  ticks = INDEX_DIMS['HyperAgent']
  right.set(xlabel='Index dimension, or members, M', ylabel=f'Regret after {exact["step"]:,} steps')
  right.set(xscale='log', ylim=(0, None), title='How large must M be?')
  right.set_xticks(ticks, [str(m) for m in ticks])
  right.minorticks_off()
  legend(right)
  return figure


def tell(rows: Sequence[Row]) -> str:
  """Final regrets and how they still grow: the slope of log regret on log steps over the second half."""
  lines = []
  for name, own in groups(rows, 'agent').items():
    step, mean = column(own, 'step'), column(own, 'mean')
    late = step >= step[-1] / 2
    last = own[-1]
    interval = f'[{last["low"]:.1f}, {last["high"]:.1f}]'
    lines.append([name, f'{last["mean"]:.1f}', interval, f'{slope(step[late], mean[late]):.2f}'])
  return format_table(('agent', 'regret', '95% interval', 'slope'), lines)


STUDY = Study(
  title='linear bandits: regret of HyperAgent, Thompson sampling and their rivals',
  columns=('agent', 'step', 'mean', 'low', 'high'),
  run=run,
  draw=draw,
  tell=tell,
)
