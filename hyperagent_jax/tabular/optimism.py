"""Rivals that are optimistic: UCBVI, Bayes-UCBVI and its incremental form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.tabular.gamma import standard_gamma
from hyperagent_jax.tabular.hyperagent import count, most_left, visits
from hyperagent_jax.tabular.planning import expected, greedy
from hyperagent_jax.tabular.sampling import Counts, init_counts, update_counts
from hyperagent_jax.tabular.types import Episode, Problem, TabularAgent, check_problem
from hyperagent_jax.types import Array, PRNGKey


def check_samples(num_samples: int, quantile: float, prior_visits: float) -> None:
  """ValueError where a quantile over samples cannot be taken."""
  if num_samples < 1 or not 0 < quantile <= 1 or prior_visits <= 0:
    given = f'num_samples={num_samples}, quantile={quantile}, prior_visits={prior_visits}'
    raise ValueError(f'{given}: must be at least 1, in (0, 1], and above 0')


def upper(samples: Array, quantile: float) -> Array:  # [..., B] -> [...]
  """The quantile of B samples, as the least of them that is no less than that part of all."""
  num_above = samples.shape[-1] - int(np.ceil(quantile * samples.shape[-1])) + 1
  return jax.lax.top_k(samples, num_above)[0][..., -1]


def make_ucbvi(problem: Problem, scale: float | Array = 1.0, delta: float = 0.05) -> TabularAgent:
  """UCBVI with Hoeffding's bonus (Azar et al. 2017): 7 H log(5 S A K H / delta) / sqrt(N).

  Rewards are known, so that the bonus is for the next state's value alone, which is cut to H - h - 1, the most that can
  follow. The paper's minimum with the last episode's values is left out.

  Args:
    problem: S, A, H and K.
    scale: times the bonus, whose constant the analysis needs and practice does not; may be traced.
    delta: probability with which the bound may fail, in (0, 1).

  Raises:
    ValueError: on another delta.
  """
  if not 0 < delta < 1:
    raise ValueError(f'delta={delta}: must be between 0 and 1')
  horizon, num_states, num_actions = problem.shape
  log = jnp.log(5.0 * num_states * num_actions * problem.num_episodes * horizon / delta)

  def policy(state: Counts, key: PRNGKey) -> Array:
    del key

    def stage(v_next: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
      reward, count_here, most_next = given
      n = visits(count_here)
      mean = expected(count_here, v_next) / jnp.maximum(n, 1.0)
      bonus = scale * 7.0 * horizon * log * jax.lax.rsqrt(jnp.maximum(n, 1.0))
      q = reward + jnp.where(n > 0, jnp.minimum(mean + bonus, most_next), most_next)
      return jnp.max(q, axis=-1), q

    given = (state.rewards, state.counts, most_left(horizon).astype(state.rewards.dtype) - 1.0)
    return greedy(jax.lax.scan(stage, jnp.zeros(num_states, state.rewards.dtype), given, reverse=True)[1])

  return TabularAgent(init_counts(problem), policy, update_counts)


class Weighted(NamedTuple):
  """Counts, and samples of the posterior that they make."""

  rewards: Array  # [H, S, A]
  counts: Array  # [H, S, A, S]
  weights: Array  # [H, S, A, B, S + 1] Dirichlet samples; the last outcome is the optimistic one


def make_bayes_ucbvi(
  problem: Problem, num_samples: int = 64, quantile: float = 0.85, prior_visits: float = 1.0
) -> TabularAgent:
  """Bayes-UCBVI (Tiapkin et al. 2022): a quantile of each value's posterior takes the place of a bonus.

  Next states are Dirichlet with the visits as parameters; beside them stands an optimistic outcome, worth the most
  that is left, with `prior_visits`. The quantile is taken over B samples. A cell's samples are drawn anew when it is
  visited; until then they are of the right posterior, and only the values that they weigh change.

  Args:
    problem: S, A, H.
    num_samples: B.
    quantile: kappa, in (0, 1]. The analysis has one close to 1 that grows with N; here it is a constant.
    prior_visits: n0, above 0. These three numbers are ours, and not tuned.

  Raises:
    ValueError: on a number out of its range.
  """
  check_samples(num_samples, quantile, prior_visits)
  horizon, num_states, _ = problem.shape

  def draw(counts: Array, key: PRNGKey) -> Array:  # [..., S] -> [..., B, S + 1]
    alpha = jnp.concatenate([counts, jnp.full_like(counts[..., :1], prior_visits)], axis=-1)[..., None, :]
    alpha = jnp.broadcast_to(alpha, (*counts.shape[:-1], num_samples, num_states + 1))
    gamma = jnp.where(alpha > 0, standard_gamma(key, jnp.maximum(alpha, 1e-6)), 0.0)
    return gamma / jnp.sum(gamma, axis=-1, keepdims=True)

  def init(key: PRNGKey, rewards: Array) -> Weighted:
    start = init_counts(problem)(key, rewards)
    unseen = jax.nn.one_hot(num_states, num_states + 1, dtype=rewards.dtype)
    weights = jnp.broadcast_to(unseen, (*problem.shape, num_samples, num_states + 1))
    return Weighted(*start, weights)

  def policy(state: Weighted, key: PRNGKey) -> Array:
    del key

    def stage(v_next: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
      reward, weights, most_next = given
      worth = jnp.append(v_next, most_next)
      q = reward + upper(expected(weights, worth), quantile)
      return jnp.max(q, axis=-1), q

    most_next = most_left(horizon).astype(state.rewards.dtype) - 1.0  # from the next stage on
    start = jnp.zeros(num_states, state.rewards.dtype)
    return greedy(jax.lax.scan(stage, start, (state.rewards, state.weights, most_next), reverse=True)[1])

  def update(state: Weighted, episode: Episode, key: PRNGKey) -> Weighted:
    counts = count(state.counts, episode)
    where = (jnp.arange(horizon), episode.states[:-1], episode.actions)
    return Weighted(state.rewards, counts, state.weights.at[where].set(draw(counts[where], key)))

  return TabularAgent(init, policy, update)


class Averages(NamedTuple):
  """Weighted averages of targets, B for each value."""

  rewards: Array  # [H, S, A]
  q: Array  # [H, S, A, B]
  weight: Array  # [H, S, A, B]
  value: Array  # [H, S, A] the quantile of q


def make_incre_bayes_ucbvi(
  problem: Problem, num_samples: int = 64, quantile: float = 0.85, prior_visits: float = 1.0
) -> TabularAgent:
  """Incre-Bayes-UCBVI (after Tiapkin et al. 2022): the same quantile by a Bayesian bootstrap kept up visit by visit.

  Each of B averages weighs the targets r + v(s') of a cell by its own Exp(1) numbers, and the optimistic outcome by
  the sum of n0 of them. Only visited cells change, and with the values of that time, so that news travels back one
  stage an episode: constant cost, like HyperAgent's, and no model.

  Args:
    problem, num_samples, quantile, prior_visits: as for `make_bayes_ucbvi`, which also says what is raised.
  """
  check_samples(num_samples, quantile, prior_visits)
  horizon = problem.horizon

  def init(key: PRNGKey, rewards: Array) -> Averages:
    check_problem(problem, rewards)
    shape = (*problem.shape, num_samples)
    weight = standard_gamma(key, jnp.full(shape, prior_visits, rewards.dtype))
    most = most_left(horizon).astype(rewards.dtype)[:, None, None]
    value = rewards + most - 1.0
    return Averages(rewards, jnp.broadcast_to(value[..., None], shape), weight, value)

  def update(state: Averages, episode: Episode, key: PRNGKey) -> Averages:
    v = jnp.max(state.value, axis=-1)  # [H, S]
    v_next = jnp.concatenate([v[1:], jnp.zeros_like(v[:1])])[jnp.arange(horizon), episode.states[1:]]  # [H]
    where = (jnp.arange(horizon), episode.states[:-1], episode.actions)
    drawn = jax.random.exponential(key, (horizon, num_samples), v.dtype)
    target = (state.rewards[where] + v_next)[:, None]
    weight = state.weight[where] + drawn
    q = state.q[where]
    q = q + drawn / weight * (target - q)
    value = state.value.at[where].set(upper(q, quantile))
    return Averages(state.rewards, state.q.at[where].set(q), state.weight.at[where].set(weight), value)

  return TabularAgent(init, lambda state, key: greedy(state.value), update)
