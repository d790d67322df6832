"""Rivals that sample: PSRL, RLSVI, ensemble sampling, Langevin Monte Carlo; and two ends to measure against."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperagent_jax.tabular.gamma import dirichlet
from hyperagent_jax.tabular.hyperagent import (
  Parameters,
  backup,
  backward_values,
  by_stage,
  count,
  make_hyperagent,
  most_left,
  table_6,
  visits,
)
from hyperagent_jax.tabular.mdp import MDP
from hyperagent_jax.tabular.planning import backward_induction, greedy
from hyperagent_jax.tabular.types import Episode, Problem, TabularAgent, check_problem
from hyperagent_jax.types import Array, PRNGKey

RLSVI_VARIANCE = 3.0  # of its sigma^2 / H^2


class Counts(NamedTuple):
  """What a model-based agent keeps."""

  rewards: Array  # [H, S, A]
  counts: Array  # [H, S, A, S]


def init_counts(problem: Problem) -> Callable[[PRNGKey, Array], Counts]:
  """The start of agents that keep counts: nothing seen yet."""

  def init(key: PRNGKey, rewards: Array) -> Counts:
    del key
    check_problem(problem, rewards)
    return Counts(rewards, jnp.zeros((*problem.shape, problem.num_states), rewards.dtype))

  return init


def update_counts(state: Counts, episode: Episode, key: PRNGKey) -> Counts:
  """One more episode seen."""
  del key
  return state._replace(counts=count(state.counts, episode))


def make_psrl(problem: Problem) -> TabularAgent:
  """Posterior sampling (Strens 2000; Osband et al. 2013): plans in an MDP drawn from the exact Dirichlet posterior."""

  def policy(state: Counts, key: PRNGKey) -> Array:
    transitions = dirichlet(key, problem.beta / problem.num_states + state.counts)
    return greedy(backward_induction(transitions, state.rewards).q)

  return TabularAgent(init_counts(problem), policy, update_counts)


def make_rlsvi(problem: Problem, parameters: Parameters | None = None) -> TabularAgent:
  """Randomized least-squares value iteration (Osband et al. 2019) in its exact tabular form.

  Regressing targets with noise N(0, sigma^2) on one-hot features, towards a prior N(mu0, sigma^2 / beta), gives in each
  state and action the mean of Eq. 7 plus N(0, sigma^2 / (N + beta)): what HyperAgent approximates with M numbers.

  Args:
    problem: S, A, H and beta.
    parameters: sigma^2 = 3 H^2 and mu0 = H by default.
  """
  chosen = table_6(problem, RLSVI_VARIANCE) if parameters is None else parameters

  def policy(state: Counts, key: PRNGKey) -> Array:
    sigma = by_stage(chosen.sigma, problem.horizon)[:, None, None]
    spread = sigma * jax.lax.rsqrt(visits(state.counts) + chosen.beta)
    noise = spread * jax.random.normal(key, problem.shape, state.rewards.dtype)
    return greedy(backward_values(state.rewards, state.counts, chosen, noise))

  return TabularAgent(init_counts(problem), policy, update_counts)


def make_ensemble_sampling(problem: Problem, num_members: int, parameters: Parameters | None = None) -> TabularAgent:
  """Ensemble sampling (Lu and Van Roy 2017): M regressions with their own noise, one of them followed for an episode.

  It is HyperAgent with a one-hot index that all states share and Gaussian perturbations.

  Args:
    problem: S, A, H and beta.
    num_members: M, at least 1.
    parameters: RLSVI's by default, whose posterior the members sample once and for all.
  """
  chosen = table_6(problem, RLSVI_VARIANCE) if parameters is None else parameters
  return make_hyperagent(problem, num_members, chosen, 'one_hot', 'gaussian', independent=False)


class Langevin(NamedTuple):
  """Counts, and where the chain is."""

  rewards: Array  # [H, S, A]
  counts: Array  # [H, S, A, S]
  q: Array  # [H, S, A]


def make_lmc_lsvi(problem: Problem, parameters: Parameters | None = None, num_inner_steps: int = 10) -> TabularAgent:
  """LMC-LSVI (Ishfaq et al. 2024): the same regressions, sampled by noisy gradient descent from the last sample on.

  With L = (N + beta) (w - mean)^2 + const, the loss of a stage, J steps of
      w <- w - eta dL/dw + sqrt(2 eta / tau) N(0, 1),   tau = 1 / (2 sigma^2),   eta = 1 / (4 (max N + beta))
  approach N(mean, c sigma^2 / (N + beta)), RLSVI's posterior but for c = 1 / (1 - (N + beta) / (4 (max N + beta))),
  which a step of finite size adds: 1 for rare cells, 4/3 for the most visited. eta is the paper's, one for all states
  of a stage, so that rarely visited ones move slowly. Values are cut to [0, H - h] as there.

  Args:
    problem: S, A, H and beta.
    parameters: RLSVI's by default; regularised towards mu0 with weight beta, where the paper has 0 and 1.
    num_inner_steps: J, at least 1.

  Raises:
    ValueError: on a number out of its range.
  """
  if num_inner_steps < 1:
    raise ValueError(f'num_inner_steps={num_inner_steps}: must be at least 1')
  chosen = table_6(problem, RLSVI_VARIANCE) if parameters is None else parameters
  horizon = problem.horizon

  def init(key: PRNGKey, rewards: Array) -> Langevin:
    start = by_stage(chosen.prior_mean, horizon)[:, None, None]
    return Langevin(*init_counts(problem)(key, rewards), jnp.broadcast_to(start, rewards.shape).astype(rewards.dtype))

  def update(state: Langevin, episode: Episode, key: PRNGKey) -> Langevin:
    counts = count(state.counts, episode)
    noise = jax.random.normal(key, (horizon, num_inner_steps, *problem.shape[1:]), state.rewards.dtype)
    most = most_left(horizon).astype(state.rewards.dtype)

    def stage(v_next: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
      reward, count_here, start, noises, bound, sigma, prior_mean = given
      weight = visits(count_here) + chosen.beta
      step = 0.25 / jnp.max(weight)
      mean = backup(reward, count_here, v_next, chosen._replace(prior_mean=prior_mean), jnp.zeros_like(reward))
      jump = jnp.sqrt(4.0 * step) * sigma  # sqrt(2 eta / tau)

      def move(w: Array, noise: Array) -> tuple[Array, None]:
        return w - step * 2.0 * weight * (w - mean) + jump * noise, None

      q = jax.lax.scan(move, start, noises)[0]
      return jnp.clip(jnp.max(q, axis=-1), 0.0, bound), q

    of_stages = (by_stage(x, horizon).astype(noise.dtype) for x in (chosen.sigma, chosen.prior_mean))
    given = (state.rewards, counts, state.q, noise, most, *of_stages)
    q = jax.lax.scan(stage, jnp.zeros(problem.num_states, noise.dtype), given, reverse=True)[1]
    return Langevin(state.rewards, counts, q)

  policy = lambda state, key: greedy(jnp.clip(state.q, 0.0, most_left(horizon)[:, None, None]))
  return TabularAgent(init, policy, update)


class Counted(NamedTuple):
  """Counts, and episodes played."""

  rewards: Array  # [H, S, A]
  counts: Array  # [H, S, A, S]
  num_episodes: Array  # []


def make_epsilon_greedy(problem: Problem, scale: float | Array = 1.0) -> TabularAgent:
  """Plans in the most likely MDP and acts at random with probability min(1, scale k^(-1/3)) in episode k = 1, 2, ...

  Where nothing is known yet the value is the immediate reward alone. The rate balances what exploring costs against
  what it gives in a bandit (Auer et al. 2002 discuss such schedules).
  """

  def init(key: PRNGKey, rewards: Array) -> Counted:
    return Counted(*init_counts(problem)(key, rewards), jnp.zeros((), rewards.dtype))

  def policy(state: Counted, key: PRNGKey) -> Array:
    del key
    p_hat = state.counts / jnp.maximum(visits(state.counts), 1.0)[..., None]
    best = greedy(backward_induction(p_hat, state.rewards).q)
    epsilon = jnp.minimum(1.0, scale * (state.num_episodes + 1.0) ** (-1.0 / 3.0))
    return (1.0 - epsilon) * best + epsilon / best.shape[-1]

  def update(state: Counted, episode: Episode, key: PRNGKey) -> Counted:
    del key
    return Counted(state.rewards, count(state.counts, episode), state.num_episodes + 1.0)

  return TabularAgent(init, policy, update)


def make_known(mdp: MDP) -> TabularAgent:
  """Plans in the true MDP: what regret is measured from."""
  best = greedy(backward_induction(mdp.transitions, mdp.rewards).q)
  return TabularAgent(lambda key, rewards: (), lambda state, key: best, lambda state, episode, key: state)
