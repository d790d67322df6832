"""The deep HyperAgent on one-hot features against the closed form of Eq. 5-7, target copy by target copy."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.common.tables import format_table
from experiments.tabular.study import COLOURS, Row, Study, TabularConfig, column, legend, new_figure, over_runs
from hyperagent_jax import tabular
from hyperagent_jax.distributions import make_perturbation
from hyperagent_jax.tabular.bridge import Data, make_bridge, train, values
from hyperagent_jax.tabular.hyperagent import Parameters, backup, fixed_point
from hyperagent_jax.tabular.play import draw
from hyperagent_jax.types import Array, LearnerState

COLUMNS = ('copies', 'deep', 'tabular', 'difference', 'factor_difference', 'num_runs')
STATES, ACTIONS, DISCOUNT, SIGMA, PRIOR_MEAN = 5, 3, 0.9, 1.0, 2.0
TRANSITIONS, COPIES, UPDATES = 200, 60, 400  # UPDATES of gradient descent between copies of the target network


def collect(key: Array, mdp: tabular.DiscountedMDP, index_dim: int, number: int) -> Data:
  """Transitions of random actions, with perturbations."""
  key_actions, key_states, key_noise = jax.random.split(key, 3)
  actions = jax.random.randint(key_actions, (number,), 0, mdp.rewards.shape[1])

  def step(state: Array, given: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    action, uniform = given
    new = draw(mdp.transitions[state, action], uniform)
    return new, (state, new)

  uniforms = jax.random.uniform(key_states, (number,))
  _, (states, new) = jax.lax.scan(step, jnp.zeros((), jnp.int32), (actions, uniforms))
  noise = make_perturbation('sphere', index_dim).sample(key_noise, number)
  return Data(states, actions, mdp.rewards[states, actions], new, noise)


def closed_form(data: Data, prior_factor: Array, parameters: Parameters) -> tuple[Array, Array]:
  """Counts [S, A, S], and the factor [S, A, M] of all data at once (Eq. 5)."""
  counts = jnp.zeros((STATES, ACTIONS, STATES)).at[data.state, data.action, data.next_state].add(1.0)
  total = jnp.zeros_like(prior_factor).at[data.state, data.action].add(parameters.sigma * data.noise)
  weight = jnp.sum(counts, axis=-1, keepdims=True) + parameters.beta
  return counts, (parameters.beta * prior_factor + total) / weight


def compare(key: Array, settings: TabularConfig, copies: int) -> tuple[Array, Array, Array, Array]:
  """One run: all Q under the fixed indices after each copy, deep [copies, S, A] and closed [copies, S, A], and factors.

  Returns:
    Deep values, closed values, the fixed point [S, A] of F, and the largest difference of factors [].
  """
  key_mdp, key_data, key_agent, key_index = jax.random.split(key, 4)
  mdp = tabular.random_discounted_mdp(key_mdp, STATES, ACTIONS, DISCOUNT, settings.beta)
  parameters = Parameters(SIGMA, settings.beta, PRIOR_MEAN)
  data = collect(key_data, mdp, settings.index_dim, TRANSITIONS)
  index = jax.random.normal(key_index, (STATES, settings.index_dim))
  visits = jnp.zeros((STATES, ACTIONS)).at[data.state, data.action].add(1.0)
  rate = TRANSITIONS / (2.0 * jnp.max(visits + settings.beta))
  bridge = make_bridge(key_agent, STATES, ACTIONS, settings.index_dim, parameters, DISCOUNT, rate, UPDATES)
  counts, factor = closed_form(data, values(bridge, bridge.learner).factor, parameters)
  sampled = lambda q: q.mean + jnp.sum(q.factor * index[:, None, :], axis=-1)

  bonus = jnp.sum(factor * index[:, None, :], axis=-1)

  def one_copy(carry: tuple[LearnerState, Array], _: None) -> tuple[tuple[LearnerState, Array], tuple[Array, Array]]:
    learner, q = carry
    learner = train(bridge, learner, data, index, DISCOUNT, UPDATES)
    q = backup(mdp.rewards, counts, jnp.max(q, axis=-1), parameters, bonus, DISCOUNT)
    return (learner, q), (sampled(values(bridge, learner)), q)

  start = (bridge.learner, sampled(values(bridge, bridge.learner)))
  (learner, _), (deep, closed) = jax.lax.scan(one_copy, start, None, copies)
  limit = fixed_point(mdp.rewards, counts, parameters, bonus, DISCOUNT, num_iterations=500)
  return deep, closed, limit, jnp.max(jnp.abs(values(bridge, learner).factor - factor))


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """Largest distances over all runs, states and actions, in float64."""
  num_runs, copies = max(settings.num_mdps // 5, 2), COPIES // 3 if reduced else COPIES
  with jax.enable_x64(True):
    deep, closed, limit, factors = over_runs(lambda key: compare(key, settings, copies), num_runs, settings.seed)
  largest = lambda x: np.abs(x).max(axis=(0, 2, 3))
  limit = limit[:, None]
  parts = largest(deep - limit), largest(closed - limit), largest(deep - closed)
  return [
    {
      'copies': number,
      'deep': float(d),
      'tabular': float(t),
      'difference': float(x),
      'factor_difference': float(factors.max()),
      'num_runs': num_runs,
    }
    for number, (d, t, x) in enumerate(zip(*parts, strict=True), 1)
  ]


def tell(rows: Sequence[Row]) -> str:
  """The largest differences."""
  lines = [(f'{r["copies"]}', f'{r["deep"]:.1e}', f'{r["tabular"]:.1e}', f'{r["difference"]:.1e}') for r in rows]
  chosen = [lines[i] for i in sorted({0, 1, 4, 9, len(lines) // 2, len(lines) - 1}) if i < len(lines)]
  header = ('target copies', 'deep, to the fixed point', 'F, to the fixed point', 'difference of the two')
  note = (
    f'Largest over {rows[0]["num_runs"]} random MDPs, states and actions, float64. '
    f'Factors differ by {rows[0]["factor_difference"]:.1e} at most.'
  )
  return format_table(header, chosen) + '\n' + note


def draw_figure(rows: Sequence[Row]) -> Figure:
  """Distances by target copy."""
  figure, axes = new_figure(1, width=5.6)
  axis, x = axes[0, 0], column(rows, 'copies')
  looks = {
    'tabular': ('F of Eq. 7, distance to its fixed point', COLOURS[0], '-'),
    'deep': ('deep HyperAgent, distance to the same', COLOURS[1], (0, (4, 3))),
    'difference': ('difference of the two', COLOURS[2], '-'),
  }
  for name, (label, colour, dashes) in looks.items():
    y = column(rows, name)
    axis.plot(x[y > 0], y[y > 0], label=label, color=colour, ls=dashes, lw=1.8)
  axis.set(yscale='log', xlabel='copies of the target network', ylabel='largest distance of action values')
  legend(axis)
  return figure


STUDY = Study('the deep agent on one-hot features is the tabular one', COLUMNS, run, draw_figure, tell)
