"""Lemma 5.1 under adaptive data: how far |m|^2 (N + beta) / sigma^2 strays from 1, and how large M must be.

The lemma says that with M of order log(SAHK) / eps^2 it stays within 1 - eps and 1 + eps for all episodes, states,
actions and stages at once, with high probability.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.common.tables import format_table
from experiments.tabular.agents import NEUTRAL
from experiments.tabular.study import (
  COLOURS,
  Row,
  Study,
  TabularConfig,
  band,
  bootstrap,
  column,
  groups,
  legend,
  new_figure,
  over_runs,
  random_mdps,
)
from hyperagent_jax import tabular
from hyperagent_jax.distributions import PERTURBATIONS
from hyperagent_jax.tabular.hyperagent import informed, visits
from hyperagent_jax.types import Array

COLUMNS = (
  *('question', 'perturbation', 'index_dim', 'sizes', 'log_sahk', 'epsilon'),
  *('coverage', 'coverage_low', 'coverage_high', 'deviation', 'deviation_low', 'deviation_high', 'num_runs'),
)
EPSILONS = (0.1, 0.25, 0.5)
CONFIDENT = 0.95  # of the runs
DIMS = (4, 8, 16, 32, 64, 128, 256, 512)
# S, A, H, K: log(SAHK) from 8 to 14.
SIZES = ((3, 2, 3, 200), (5, 3, 5, 400), (10, 3, 5, 1_000), (15, 4, 8, 2_000))


def deviations(settings: TabularConfig, perturbation: str, index_dim: int) -> tuple[Array, Array]:
  """Runs of HyperAgent, watched.

  A cell's ratio changes only when it is visited, so that the largest over visits is the largest over all episodes.
  Unvisited cells, whose ratio is exactly 1, are left out of the coverage.

  Returns:
    [runs] the largest |ratio - 1| over all episodes and cells; [runs, epsilons] the share of visits after which
    the ratio lies within each of `EPSILONS`.
  """
  # Noise at every stage, of the size that is best in practice; the ratio does not depend on its scale.
  parameters = informed(settings.problem, **NEUTRAL)
  sigma = (
    jnp.asarray(parameters.sigma).at[-1].set(1.0)
  )  # the last stage has no noise of its own, which would leave no ratio
  parameters = parameters._replace(sigma=sigma)
  agent = tabular.make_hyperagent(settings.problem, index_dim, parameters, perturbation=perturbation)
  stages = jnp.arange(settings.horizon)

  def observe(state: Any, episode: tabular.Episode) -> Array:  # -> [H]
    where = (stages, episode.states[:-1], episode.actions)
    square = jnp.sum(jnp.square(state.factor[where]), axis=-1)
    return square * (visits(state.counts[where]) + settings.beta) / jnp.square(sigma)

  def run(key: Array, mdp: tabular.MDP) -> tuple[Array, Array]:
    ratio = tabular.play(agent, mdp, settings.num_episodes, key, observe)[1]
    off = jnp.abs(ratio - 1.0)
    return jnp.max(off), jnp.stack([jnp.mean(off <= epsilon) for epsilon in EPSILONS])

  mdps = random_mdps(settings.problem._replace(num_episodes=0), settings.num_mdps, settings.seed)
  return over_runs(run, settings.num_mdps, settings.seed + 1, mdps)


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """For every perturbation and M; for every size and M with the sphere."""
  dims = DIMS[::3] if reduced else DIMS
  sizes = SIZES[:2] if reduced else SIZES
  rows: list[Row] = []

  def add(question: str, sized: TabularConfig, perturbation: str, dim: int) -> None:
    largest, shares = deviations(sized, perturbation, dim)
    problem = sized.problem
    place = {
      'question': question,
      'perturbation': perturbation,
      'index_dim': dim,
      'sizes': f'{problem.num_states}x{problem.num_actions}x{problem.horizon}x{problem.num_episodes}',
      'log_sahk': float(np.log(np.prod(problem[:4]))),
      'num_runs': settings.num_mdps,
    }
    # The interval of a 95th percentile, which few runs decide, by resampling them.
    most = bootstrap(np.asarray(largest), lambda x: np.quantile(x, CONFIDENT, axis=1))
    deviation = dict(zip(('deviation', 'deviation_low', 'deviation_high'), map(float, most), strict=True))
    for number, epsilon in enumerate(EPSILONS):
      shared = map(float, band(shares[:, number]))
      coverage = dict(zip(('coverage', 'coverage_low', 'coverage_high'), shared, strict=True))
      rows.append({**place, 'epsilon': epsilon, **coverage, **deviation})
    print(f'  {question} {perturbation} M={dim} {place["sizes"]}: {most.mean:.3f}', flush=True)

  for s, a, h, k in sizes:
    for dim in dims:
      add('size', resized(settings, s, a, h, k), 'sphere', dim)
  s, a, h, k = sizes[1]
  for perturbation in PERTURBATIONS[::2] if reduced else PERTURBATIONS:
    # Haar matrices of hundreds of rows would take most of the time.
    for dim in (dim for dim in dims if perturbation != 'orthogonal' or dim <= 64):
      add('perturbation', resized(settings, s, a, h, k), perturbation, dim)
  return rows


def resized(settings: TabularConfig, s: int, a: int, h: int, k: int) -> TabularConfig:
  """Settings with other sizes."""
  return dataclasses.replace(settings, num_states=s, num_actions=a, horizon=h, num_episodes=k)


def smallest_dim(rows: Sequence[Row], epsilon: float) -> float:
  """The M at which 95% of runs stay within epsilon throughout, between measured ones by a straight line in logarithms.

  Nan if it is not among the measured ones.
  """
  found = [(row['index_dim'], row['deviation']) for row in rows if row['epsilon'] == epsilon]
  for (low, above), (high, below) in itertools.pairwise(found):
    if above > epsilon >= below:
      part = np.log(above / epsilon) / np.log(above / below)
      return float(np.exp(np.log(low) + part * np.log(high / low)))
  return float('nan')


def tell(rows: Sequence[Row]) -> str:
  """The smallest M for each epsilon, by size and by perturbation."""
  lines = []
  for (question, perturbation, sizes), mine in groups(rows, 'question', 'perturbation', 'sizes').items():
    dims = [smallest_dim(mine, epsilon) for epsilon in EPSILONS]
    shown = [f'{dim:,.0f}' if dim == dim else '-' for dim in dims]
    lines.append((question, perturbation, sizes, f'{mine[0]["log_sahk"]:.1f}', *shown))
  header = ('varied', 'perturbation', 'S x A x H x K', 'log SAHK', *(f'M for eps {e:g}' for e in EPSILONS))
  note = (
    f'The smallest M with which {CONFIDENT:.0%} of {rows[0]["num_runs"]} runs keep every ratio between 1 - eps and '
    '1 + eps in all episodes; -: not among the measured ones.'
  )
  return format_table(header, lines) + '\n' + note


def draw(rows: Sequence[Row]) -> Figure:
  """Deviation against M by size, the M needed against log(SAHK), and coverage against M by perturbation."""
  figure, axes = new_figure(3, width=4.6)
  by_size = groups([row for row in rows if row['question'] == 'size'], 'sizes')
  for number, (sizes, mine) in enumerate(by_size.items()):
    one = [row for row in mine if row['epsilon'] == EPSILONS[0]]
    look = {'marker': 'o', 'ms': 4, 'lw': 1.6, 'color': COLOURS[number]}
    x, low, high = (column(one, name) for name in ('index_dim', 'deviation_low', 'deviation_high'))
    axes[0, 0].plot(x, column(one, 'deviation'), label=f'SAHK = {sizes}', **look)
    axes[0, 0].fill_between(x, low, high, color=COLOURS[number], alpha=0.15, lw=0)
  dims = np.array(sorted({row['index_dim'] for row in rows}), float)
  axes[0, 0].plot(dims, 10 / np.sqrt(dims), color='#999999', ls=':', label='falls as M^(-1/2)')
  axes[0, 0].set(xscale='log', yscale='log', xlabel='M', ylabel='largest |ratio - 1| of a run, 95th percentile')
  for number, epsilon in enumerate(EPSILONS):
    needed = [(mine[0]['log_sahk'], smallest_dim(mine, epsilon)) for mine in by_size.values()]
    if np.all(np.isnan([dim for _, dim in needed])):  # beyond what was measured
      continue
    look = {'marker': 'o', 'ms': 5, 'color': COLOURS[number]}
    axes[0, 1].plot(*np.transpose(needed), label=f'eps = {epsilon:g}', **look)
  axes[0, 1].set(xlabel='log(SAHK)', ylabel='smallest M, 95% of runs', ylim=(0, None))
  by_law = groups([row for row in rows if row['question'] == 'perturbation'], 'perturbation')
  for number, (name, mine) in enumerate(by_law.items()):
    one = [row for row in mine if row['epsilon'] == EPSILONS[1]]
    look = {'marker': 'o', 'ms': 4, 'lw': 1.6, 'color': COLOURS[number]}
    x, low, high = (column(one, name) for name in ('index_dim', 'coverage_low', 'coverage_high'))
    axes[0, 2].plot(x, column(one, 'coverage'), label=name, **look)
    axes[0, 2].fill_between(x, low, high, color=COLOURS[number], alpha=0.15, lw=0)
  axes[0, 2].set(xscale='log', xlabel='M', ylabel=f'share of visits within 1 ± {EPSILONS[1]:g}', ylim=(0, 1.02))
  for axis, title in zip(axes[0], ('by size', 'M that suffices', 'by perturbation'), strict=True):
    axis.set_title(title)
    legend(axis)
  return figure


STUDY = Study('how well M numbers hold a posterior variance (Lemma 5.1)', COLUMNS, run, draw, tell)
