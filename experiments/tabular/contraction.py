"""F is a contraction of modulus gamma max N / (N + beta) in sup norm (Lemma C.1), measured.

All in float64, so that what is above the bound is the lemma's fault and not rounding's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.tabular.study import (
  COLOURS,
  Row,
  Study,
  TabularConfig,
  column,
  draw_band,
  groups,
  legend,
  new_figure,
  over_runs,
)
from hyperagent_jax.tabular import random_discounted_mdp
from hyperagent_jax.tabular.hyperagent import Parameters, backup, visits

COLUMNS = ('kind', 'regime', 'discount', 'number', 'mean', 'low', 'high', 'bound', 'excess')
# Visits of each state and action: their logarithm is uniform between these, rounded; 0.5 rounds down to none.
REGIMES = {'few': (0.5, 5.0), 'many': (100.0, 1000.0), 'uneven': (0.5, 1000.0)}
MOST_VISITS = int(max(most for _, most in REGIMES.values()))
DISCOUNTS = (0.9, 0.99)
NUM_ITERATIONS = int(np.ceil(-15.0 * np.log(10.0) / np.log(max(DISCOUNTS))))  # leave 1e-15 of the first distance
DISTANCE = 'distance'
CONSTANT_APART = 'constant apart'  # which attains the modulus in the most visited pair
PAIRS = ('random pairs', CONSTANT_APART, 'along the iteration')
NUM_PAIRS = 100
SHOWN = np.unique(np.round(np.geomspace(1, 301, 40)).astype(int)) - 1  # iterations
# Changes below this part of the first one are left out: their ratios would be rounding's.
SMALLEST_CHANGE = 1e-3
TOLERANCE = 1e-9  # of ratios relative to the modulus, and of distances relative to the first


def measure(
  key: jax.Array, fewest: jax.Array, most: jax.Array, discount: jax.Array, settings: TabularConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """One MDP.

  Args:
    key: draws the MDP, the visits, the index and the pairs.
    fewest, most: [] visits.
    discount: [] gamma, one of `DISCOUNTS`.
    settings: S, A and beta.

  Returns:
    The modulus, the largest ratio |F Q1 - F Q2| / |Q1 - Q2| over each of `PAIRS`, and |Q_i - Q*| / |Q_0 - Q*| [I].
  """
  num_states, num_actions, beta = settings.num_states, settings.num_actions, settings.beta
  key_mdp, key_visits, key_counts, key_index, key_pairs = jax.random.split(key, 5)
  mdp = random_discounted_mdp(key_mdp, num_states, num_actions, discount, beta)
  shape = (num_states, num_actions)
  log_n = jnp.log(fewest) + jnp.log(most / fewest) * jax.random.uniform(key_visits, shape)
  # The first N are counted of so many next states drawn.
  uniforms = jax.random.uniform(key_counts, (MOST_VISITS, *shape, 1))
  following = jnp.argmax(jnp.cumsum(mdp.transitions, axis=-1)[None] > uniforms, axis=-1)
  seen = jnp.arange(MOST_VISITS)[:, None, None] < jnp.round(jnp.exp(log_n))[None]
  counts = jnp.sum(seen[..., None] * jax.nn.one_hot(following, num_states), axis=0)
  n = visits(counts)
  # Table 6 with the effective horizon in the place of H.
  horizon = 1.0 / (1.0 - discount)
  parameters = Parameters(6.0**0.5 * horizon, beta, horizon)
  bonus = parameters.sigma * jax.lax.rsqrt(n + beta) * jax.random.normal(key_index, shape)
  f = lambda q: backup(mdp.rewards, counts, jnp.max(q, axis=-1), parameters, bonus, discount)
  norm = lambda q: jnp.max(jnp.abs(q), axis=(-2, -1))
  ratio = lambda one, two: jnp.max(norm(jax.vmap(f)(one) - jax.vmap(f)(two)) / norm(one - two))

  modulus = discount * jnp.max(n / (n + beta))
  one, two = horizon * jax.random.normal(key_pairs, (2, NUM_PAIRS, *shape))
  start = jnp.full(shape, parameters.prior_mean)
  path = jax.lax.scan(lambda q, _: (f(q), q), start, None, NUM_ITERATIONS)[1]
  change = norm(path[1:] - path[:-1])
  large = change[:-1] > SMALLEST_CHANGE * change[0]
  along = jnp.max(jnp.where(large, change[1:] / change[:-1], 0.0))
  distance = norm(path[SHOWN] - path[-1:])
  return modulus, jnp.stack([ratio(one, two), ratio(one, one + horizon), along]), distance / distance[0]


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """Distances by iteration, then ratios by MDP, for each regime and discount."""
  del reduced
  cases = [(regime, discount) for regime in REGIMES for discount in DISCOUNTS]
  numbers = np.array([(*REGIMES[regime], discount) for regime, discount in cases]).T
  # One program for all, since it is compiling that takes the time; one after the other, for memory.
  measured = lambda key: jax.lax.map(lambda case: measure(key, *case, settings), tuple(jnp.asarray(numbers)))
  with jax.enable_x64(True):
    modulus, ratios, distances = over_runs(measured, settings.num_mdps, settings.seed)
  rows: list[Row] = []
  for i, case in enumerate(cases):
    rows += _rows(*case, modulus[:, i], ratios[:, i], distances[:, i])
  return rows


def _rows(regime: str, discount: float, modulus: np.ndarray, ratios: np.ndarray, distances: np.ndarray) -> list[Row]:
  """Rows of one regime: `number` is the iteration of a distance, and the MDP of a ratio.

  A distance's mean is over MDPs, and low and high are their 5% and 95% quantiles; a ratio is one MDP's.
  """
  bounds = modulus[:, None] ** SHOWN
  same = {'regime': regime, 'discount': discount}
  rows = []
  for i, here in enumerate(distances.T):
    # Not a confidence interval: what shrinks by orders of magnitude spreads by them too.
    low, high = np.quantile(here, (0.05, 0.95))
    excess = np.max(here - bounds[:, i])
    numbers = {'mean': here.mean(), 'low': low, 'high': high, 'bound': bounds[:, i].mean(), 'excess': excess}
    rows.append({'kind': DISTANCE, **same, 'number': int(SHOWN[i]), **numbers})
  for kind, of_kind in zip(PAIRS, ratios.T, strict=True):
    for number, (ratio, bound) in enumerate(zip(of_kind, modulus, strict=True)):
      numbers = {'mean': ratio, 'low': '', 'high': '', 'bound': bound, 'excess': ratio / bound - 1.0}
      rows.append({'kind': kind, **same, 'number': number, **numbers})
  return rows


def draw(rows: Sequence[Row]) -> Figure:
  """Distance against iteration for each discount, and ratios against the modulus."""
  kinds = groups(rows, 'kind')
  by_discount = groups(kinds.pop(DISTANCE), 'discount')
  figure, axes = new_figure(len(by_discount) + 1, width=4.4)
  *lefts, right = axes[0]
  for axis, (discount, of_discount) in zip(lefts, by_discount.items(), strict=True):
    for number, (regime, here) in enumerate(groups(of_discount, 'regime').items()):
      x = column(here, 'number')
      draw_band(axis, x, here, f'{regime} visits', number)
      axis.plot(x, column(here, 'bound'), color=COLOURS[number], lw=1.1, ls='--')
    axis.plot([], [], color='#777777', lw=1.1, ls='--', label='bound')
    axis.set(yscale='log', ylim=(1e-8, 2.0), xlim=(0, 300 if discount > 0.95 else 150))
    axis.set(xlabel='iteration', ylabel='distance to the fixed point / first distance')
    axis.set_title(f'gamma = {discount:g}', fontsize=10)
  legend(lefts[0], loc='upper right')
  right.plot([0, 1], [0, 1], color='#777777', lw=1.1, ls='--')
  for number, (kind, here) in enumerate(kinds.items()):
    on_line = kind == CONSTANT_APART  # drawn around the others' points
    look = (
      {'s': 40, 'facecolors': 'none', 'lw': 0.8}
      if on_line
      else {'s': 9, 'facecolors': COLOURS[number], 'alpha': 0.4, 'lw': 0}
    )
    right.scatter(column(here, 'bound'), column(here, 'mean'), edgecolors=COLOURS[number], label=kind, **look)
  right.set(xlabel='modulus gamma max N / (N + beta)', ylabel='largest ratio measured', ylim=(0, 1.02))
  right.set(xlim=(min(row['bound'] for here in kinds.values() for row in here) - 0.03, 1.02))
  right.set_title('F at pairs of tables', fontsize=10)
  legend(right, loc='lower right')
  return figure


def tell(rows: Sequence[Row]) -> str:
  """How far above its bound each quantity ever was."""
  lines = [f'{"quantity":<22}{"visits":<9}{"gamma":<8}{"largest":>10}{"of bound":>10}{"above bound":>14}']
  for (kind, regime, discount), here in groups(rows, 'kind', 'regime', 'discount').items():
    excess = max(column(here, 'excess'))
    # The first distance is the unit of the others, and the last ones are rounding.
    told = [row for row in here if kind != DISTANCE or (row['number'] > 0 and row['bound'] > TOLERANCE)]
    part = column(told, 'mean') / column(told, 'bound')
    lines.append(
      f'{kind:<22}{regime:<9}{discount:<8g}{max(column(told, "mean")):10.4f}{max(part):10.4f}'
      f'{"none" if excess <= TOLERANCE else f"{excess:.2g}":>14}'
    )
  worst = max(column(rows, 'excess'))
  lines.append(f'worst of all: {worst:.1e} above its bound, in float64; up to {TOLERANCE:g} is rounding')
  return '\n'.join(lines)


STUDY = Study('F is a contraction in sup norm (Lemma C.1)', COLUMNS, run, draw, tell)
