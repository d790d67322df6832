"""RLSVI and LMC-LSVI as they are written for function approximation: they keep every datum and go through all of them.

A datum's feature is one-hot, the indicator of its state and action. So the normal equations are diagonal, and a pass
over the data is a sum into S A cells: the cheapest that refitting can be. The laws are those of `sampling.make_rlsvi`
and `sampling.make_lmc_lsvi`, which keep counts instead; what differs is the work, which here grows with the past.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperagent_jax.tabular.hyperagent import Parameters, by_stage, most_left, table_6
from hyperagent_jax.tabular.planning import greedy
from hyperagent_jax.tabular.sampling import RLSVI_VARIANCE, make_lmc_lsvi
from hyperagent_jax.tabular.types import Episode, Problem, TabularAgent
from hyperagent_jax.types import Array, PRNGKey


class Data(NamedTuple):
  """Every episode played, in arrays with room for K; rows from `num_episodes` on hold nothing."""

  states: Array  # [K, H + 1] int32
  actions: Array  # [K, H] int32
  num_episodes: Array  # [] int32


class Refitted(NamedTuple):
  """What a refitting agent keeps."""

  rewards: Array  # [H, S, A]
  data: Data
  q: Array | None  # [H, S, A] where a chain is; None for RLSVI, which starts anew


def no_data(problem: Problem) -> Data:
  """Room for all of a run's episodes."""
  states = jnp.zeros((problem.num_episodes, problem.horizon + 1), jnp.int32)
  return Data(states, states[:, 1:], jnp.zeros((), jnp.int32))


def append(data: Data, episode: Episode) -> Data:
  """The data with one more episode; unchanged but for their number where there is no room."""
  row = data.num_episodes
  return Data(data.states.at[row].set(episode.states), data.actions.at[row].set(episode.actions), row + 1)


def _cells(data: Data, num_states: int, num_actions: int) -> Array:
  """The component [H, K] of each datum's feature that is 1; rows that hold nothing get S A, which is out of range."""
  known = jnp.arange(data.states.shape[0])[:, None] < data.num_episodes
  return jnp.where(known, data.states[:, :-1] * num_actions + data.actions, num_states * num_actions).T


def _total(values: Array, cell: Array, like: Array) -> Array:
  """Sum over data of value times feature, [K], [K] -> [S, A]; what is out of range is left out."""
  return jax.ops.segment_sum(values, cell, like.size).reshape(like.shape)


def _targets(reward: Array, v_next: Array, cell: Array, state_next: Array) -> Array:
  """r(s, a) + max_a' Q(s', a') of each datum, [K]."""
  return reward.reshape(-1)[cell] + v_next[state_next]


def _priors(rewards: Array, parameters: Parameters) -> Array:
  """What each action value is regressed towards, [H, S, A]: mu0, on top of the reward where that is known."""
  mu0 = jnp.broadcast_to(by_stage(parameters.prior_mean, rewards.shape[0])[:, None, None], rewards.shape)
  return (mu0 + rewards if parameters.known_rewards else mu0).astype(rewards.dtype)


def rlsvi_refit(rewards: Array, data: Data, parameters: Parameters, key: PRNGKey) -> Array:
  """A sample of RLSVI (Osband et al. 2019): regressions of targets with noise of their own, stage by stage.

  From the last stage on, with every z_i and every entry of z drawn afresh,

      w = argmin sum_i (<phi_i, w> - y_i - sigma z_i)^2 + beta |w - mu0 - sigma0 z|^2,   sigma0^2 = sigma^2 / beta

  where y_i = r(s, a) + max_a' Q(s', a'). That is the mean of Eq. 7 plus N(0, sigma^2 / (N + beta)), which
  `sampling.make_rlsvi` draws directly.

  Args:
    rewards: [H, S, A].
    data: at most K episodes.
    parameters: sigma, beta and mu0.
    key: of the noise.

  Returns:
    [H, S, A] sampled action values. Takes time and memory of order H K, however many of the K rows are filled.
  """
  horizon, num_states, num_actions = rewards.shape
  key_data, key_prior = jax.random.split(key)
  cells = _cells(data, num_states, num_actions)
  sigma = by_stage(parameters.sigma, horizon).astype(rewards.dtype)[:, None]
  noise = sigma * jax.random.normal(key_data, cells.shape, rewards.dtype)
  spread = parameters.beta**-0.5 * sigma[..., None]  # sigma0
  prior = _priors(rewards, parameters) + spread * jax.random.normal(key_prior, rewards.shape, rewards.dtype)

  def stage(v_next: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
    reward, prior_here, cell, state_next, noise_here = given
    y = _targets(reward, v_next, cell, state_next) + noise_here
    n = _total(jnp.ones_like(y), cell, reward)
    q = (_total(y, cell, reward) + parameters.beta * prior_here) / (n + parameters.beta)
    return jnp.max(q, axis=-1), q

  given = (rewards, prior, cells, data.states.T[1:], noise)
  return jax.lax.scan(stage, jnp.zeros(num_states, rewards.dtype), given, reverse=True)[1]


def lmc_refit(rewards: Array, data: Data, q: Array, noise: Array, parameters: Parameters) -> Array:
  """Noisy gradient descent on the same loss without noise in it (LMC-LSVI, Ishfaq et al. 2024), stage by stage.

  Each of J steps is w <- w - eta dL/dw + sqrt(4 eta) sigma z, where L is summed over all data; see
  `sampling.make_lmc_lsvi`, which this equals for the same noise.

  Args:
    rewards: [H, S, A].
    data: at most K episodes.
    q: [H, S, A] where the chain is.
    noise: [H, J, S, A] standard normal.
    parameters: sigma, beta and mu0.

  Returns:
    [H, S, A] where the chain is after J steps. Takes time of order H J K.
  """
  horizon, num_states, num_actions = rewards.shape
  most = most_left(horizon).astype(rewards.dtype)

  def stage(v_next: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
    reward, prior, sigma, start, noises, cell, state_next, bound = given
    y = _targets(reward, v_next, cell, state_next)
    n = _total(jnp.ones_like(y), cell, reward)
    step = 0.25 / (jnp.max(n) + parameters.beta)  # eta
    jump = jnp.sqrt(4.0 * step) * sigma

    def move(w: Array, z: Array) -> tuple[Array, None]:
      error = _total(w.reshape(-1)[cell] - y, cell, reward)
      return w - step * 2.0 * (error + parameters.beta * (w - prior)) + jump * z, None

    w = jax.lax.scan(move, start, noises)[0]
    return jnp.clip(jnp.max(w, axis=-1), 0.0, bound), w

  sigmas = by_stage(parameters.sigma, horizon).astype(rewards.dtype)
  cells = _cells(data, num_states, num_actions)
  given = (rewards, _priors(rewards, parameters), sigmas, q, noise, cells, data.states.T[1:], most)
  return jax.lax.scan(stage, jnp.zeros(num_states, rewards.dtype), given, reverse=True)[1]


def make_rlsvi_refit(problem: Problem, parameters: Parameters | None = None) -> TabularAgent:
  """RLSVI that refits every datum each episode; with the law of `sampling.make_rlsvi`.

  Args:
    problem: S, A, H, K and beta.
    parameters: sigma^2 = 3 H^2 and mu0 = H by default.

  Returns:
    A `TabularAgent` whose state is a `Refitted`, with room for K episodes.
  """
  chosen = table_6(problem, RLSVI_VARIANCE) if parameters is None else parameters

  def init(key: PRNGKey, rewards: Array) -> Refitted:
    del key
    return Refitted(rewards, no_data(problem), None)

  def policy(state: Refitted, key: PRNGKey) -> Array:
    return greedy(rlsvi_refit(state.rewards, state.data, chosen, key))

  def update(state: Refitted, episode: Episode, key: PRNGKey) -> Refitted:
    del key
    return state._replace(data=append(state.data, episode))

  return TabularAgent(init, policy, update)


def make_lmc_lsvi_refit(
  problem: Problem, parameters: Parameters | None = None, num_inner_steps: int = 10
) -> TabularAgent:
  """LMC-LSVI whose every gradient is a sum over all data; plays as `sampling.make_lmc_lsvi` does with the same keys.

  Args:
    problem: S, A, H, K and beta.
    parameters: RLSVI's by default.
    num_inner_steps: J.

  Returns:
    A `TabularAgent` whose state is a `Refitted`, with room for K episodes.
  """
  chosen = table_6(problem, RLSVI_VARIANCE) if parameters is None else parameters
  by_counts = make_lmc_lsvi(problem, chosen)
  horizon, num_states, num_actions = problem.shape

  def init(key: PRNGKey, rewards: Array) -> Refitted:
    return Refitted(rewards, no_data(problem), by_counts.init(key, rewards).q)

  def update(state: Refitted, episode: Episode, key: PRNGKey) -> Refitted:
    assert state.q is not None, 'a chain has a value to go on from'
    data = append(state.data, episode)
    noise = jax.random.normal(key, (horizon, num_inner_steps, num_states, num_actions), state.rewards.dtype)
    return Refitted(state.rewards, data, lmc_refit(state.rewards, data, state.q, noise, chosen))

  # Acting takes the chain's values alone, from either kind of state.
  return TabularAgent(init, by_counts.policy, update)
