"""Tabular HyperAgent (Eq. 5-7): a posterior over action values, kept up incrementally as M numbers for each.

    Q(s, a, xi) = mean(s, a) + <m(s, a), xi>,   |m(s, a)|^2 close to sigma^2 / (N + beta)            (Lemma 5.1)

The paper's m + sigma0 z0 is `factor` here, one vector that starts as the prior's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperagent_jax.distributions import haar_orthogonal
from hyperagent_jax.tabular.laws import make_laws
from hyperagent_jax.tabular.planning import expected, greedy
from hyperagent_jax.tabular.types import Episode, Problem, TabularAgent, check_problem
from hyperagent_jax.types import Array, PRNGKey


class Parameters(NamedTuple):
  """The numbers of a Bayesian regression of values (Table 6).

  sigma and mu0 may be arrays [H], and traced; the others are part of the program.
  """

  sigma: float | Array  # standard deviation of a target's noise; sigma0^2 = sigma^2 / beta is the prior's variance
  beta: float  # weight of the prior, in visits
  prior_mean: float | Array  # mu0
  known_rewards: bool = False  # mu0 is the prior of the next state's value alone, rewards are added as known


def table_6(problem: Problem, variance: float = 6.0, scale: float | Array = 1.0) -> Parameters:
  """The parameters of the regret bound: sigma^2 = 6 H^2 and mu0 = H.

  Args:
    problem: gives H and beta.
    variance: sigma^2 / H^2; RLSVI's is 3.
    scale: times sigma. The bound needs 1; far less explores enough, see docs/theory.md.
  """
  return Parameters(scale * variance**0.5 * problem.horizon, problem.beta, float(problem.horizon))


def informed(problem: Problem, scale: float | Array = 1.0, optimism: float | Array = 1.0) -> Parameters:
  """Parameters that use what the problem tells, which the regret bound's do not: beyond the paper.

  The bound regresses whole targets r + v(s') towards H at every stage, with one noise for all, although rewards are
  known and what can follow stage h is worth H - h - 1 at most. Here only v(s') is regressed, towards that worth, with a
  noise in proportion to it: none at the last stage, where nothing is unknown.

  Args:
    problem: gives H and beta.
    scale: sigma_h / (H - h - 1). 1/2 is the most that a quantity between 0 and H - h - 1 can spread.
    optimism: mu0 / (H - h - 1); 1 is the best that may come.
  """
  left = most_left(problem.horizon) - 1.0
  return Parameters(scale * left, problem.beta, optimism * left, known_rewards=True)


def most_left(horizon: int) -> Array:  # -> [H]
  """The greatest return possible from each stage on, H - h, for rewards of at most 1."""
  return jnp.arange(horizon, 0, -1.0)


def by_stage(number: float | Array, horizon: int) -> Array:  # [] or [H] -> [H]
  """A parameter of each stage."""
  return jnp.broadcast_to(jnp.asarray(number), (horizon,))


class State(NamedTuple):
  """All that is kept of the past; its size does not depend on how long that is."""

  rewards: Array  # [H, S, A]
  counts: Array  # [H, S, A, S] transitions seen
  factor: Array  # [H, S, A, M]
  noise_block: Array | None  # [M, M] whose rows the orthogonal perturbation deals out; None for any other
  num_steps: Array  # [] int32


def visits(counts: Array) -> Array:  # [..., S] -> [...]
  """N."""
  return jnp.sum(counts, axis=-1)


def count(counts: Array, episode: Episode) -> Array:
  """The counts [H, S, A, S] with an episode's transitions."""
  stages = jnp.arange(counts.shape[0])
  return counts.at[stages, episode.states[:-1], episode.actions, episode.states[1:]].add(1.0)


def backup(
  rewards: Array, counts: Array, v_next: Array, parameters: Parameters, bonus: Array, discount: float | Array = 1.0
) -> Array:
  """F of Eq. 7 for one stage: the posterior mean of a value, regressed towards mu0, and what the index adds.

      [ beta mu0 + N (r + gamma E_{s' ~ P_hat} v(s')) ] / (N + beta) + <m, xi(s)>

  Args:
    rewards: [S, A].
    counts: [S, A, S].
    v_next: [S] max_a' Q(s', a').
    parameters: beta, and mu0 of this stage; with known rewards r is added outside the fraction.
    bonus: [S, A] what the index adds.
    discount: gamma.

  Returns:
    [S, A]. In sup norm a contraction in v, of modulus gamma max N / (N + beta) (Lemma C.1).
  """
  n = visits(counts)
  total = discount * expected(counts, v_next)
  if not parameters.known_rewards:
    total = total + n * rewards
  mean = (parameters.beta * parameters.prior_mean + total) / (n + parameters.beta)
  return mean + bonus + (rewards if parameters.known_rewards else 0.0)


def backward_values(rewards: Array, counts: Array, parameters: Parameters, bonus: Array) -> Array:
  """The fixed point of F over stages (Eq. 6), which H applications reach: one for each stage, from the last on.

  Args:
    rewards, counts, bonus: as for `backup`, with a leading axis of stages.
    parameters: beta and mu0.

  Returns:
    [H, S, A] the sampled action values.
  """

  def stage(v_next: Array, given: tuple[Array, ...]) -> tuple[Array, Array]:
    reward, count_here, bonus_here, prior_mean = given
    q = backup(reward, count_here, v_next, parameters._replace(prior_mean=prior_mean), bonus_here)
    return jnp.max(q, axis=-1), q

  start = jnp.zeros(rewards.shape[1], rewards.dtype)
  given = (rewards, counts, bonus, by_stage(parameters.prior_mean, rewards.shape[0]).astype(rewards.dtype))
  return jax.lax.scan(stage, start, given, reverse=True)[1]


def fixed_point(
  rewards: Array, counts: Array, parameters: Parameters, bonus: Array, discount: Array | float, num_iterations: int
) -> Array:
  """Q after so many applications of F to a table of mu0, without stages (Eq. 6, discounted).

  Args:
    rewards: [S, A].
    counts: [S, A, S].
    parameters: beta and mu0.
    bonus: [S, A] what the index of each state adds.
    discount: [] gamma.
    num_iterations: by Lemma C.1 the error falls by gamma max N / (N + beta) with each.

  Returns:
    [S, A].
  """

  def iterate(q: Array, _: None) -> tuple[Array, None]:
    return backup(rewards, counts, jnp.max(q, axis=-1), parameters, bonus, discount), None

  return jax.lax.scan(iterate, jnp.full_like(rewards, parameters.prior_mean), None, num_iterations)[0]


def update_factor(factor: Array, n: Array, noise: Array, parameters: Parameters) -> Array:
  """Eq. 5 for one visited state and action: [ (N + beta) m + sigma z ] / (N + 1 + beta).

  Args:
    factor: [M] m before the visit.
    n: [] visits before it.
    noise: [M] the visit's perturbation z.
    parameters: sigma and beta.
  """
  weight = n + parameters.beta
  return (weight * factor + parameters.sigma * noise) / (weight + 1.0)


def make_hyperagent(
  problem: Problem,
  index_dim: int,
  parameters: Parameters | None = None,
  reference: str = 'gaussian',
  perturbation: str = 'sphere',
  independent: bool = True,
  num_indices: int = 1,
  perturbed: bool = True,
  num_nonzero: int = 1,
) -> TabularAgent:
  """Tabular HyperAgent.

  Args:
    problem: S, A, H, K and beta.
    index_dim: M, of order log(SAHK) in the theory.
    parameters: Table 6's by default.
    reference: distribution of the index, one of `distributions.REFERENCES`.
    perturbation: distribution of z, one of `distributions.PERTURBATIONS`; `make_laws` scales both.
    independent: whether each state draws its own index (the theory's) or one is shared by an episode.
    num_indices: K of optimistic index sampling; a state's value is its best under any of them (Eq. 8-9).
    perturbed: whether visits are perturbed; without, the factor is that of the prior, fading as 1/N.
    num_nonzero: of the sparse distributions.

  Returns:
    A `TabularAgent` whose state is a `State`.

  Raises:
    ValueError: on a distribution that does not exist, or a number out of its range.
  """
  if num_indices < 1:
    raise ValueError(f'num_indices={num_indices}: must be at least 1')
  laws = make_laws(reference, perturbation, index_dim, num_nonzero)
  in_blocks = perturbation == 'orthogonal'
  horizon, num_states, num_actions = problem.shape

  def parameters_for(rewards: Array) -> Parameters:
    chosen = table_6(problem) if parameters is None else parameters
    return chosen._replace(sigma=by_stage(chosen.sigma, horizon).astype(rewards.dtype))

  def init(key: PRNGKey, rewards: Array) -> State:
    check_problem(problem, rewards)
    chosen = parameters_for(rewards)
    z0 = (
      laws.draw_prior(key, horizon * num_states * num_actions).reshape(*problem.shape, index_dim).astype(rewards.dtype)
    )
    sigma = jnp.asarray(chosen.sigma)[:, None, None, None]
    factor = chosen.beta**-0.5 * sigma * z0
    block = jnp.zeros((index_dim, index_dim), rewards.dtype) if in_blocks else None
    counts = jnp.zeros((*problem.shape, num_states), rewards.dtype)
    return State(rewards, counts, factor, block, jnp.zeros((), jnp.int32))

  def policy(state: State, key: PRNGKey) -> Array:
    index = laws.draw_xi(key, horizon * num_states if independent else 1, num_indices).astype(state.factor.dtype)
    index = jnp.broadcast_to(index, (horizon * num_states, num_indices, index_dim))
    index = index.reshape(horizon, num_states, num_indices, index_dim)
    bonus = jnp.max(jnp.einsum('hsam,hskm->hska', state.factor, index, precision='highest'), axis=2)
    return greedy(backward_values(state.rewards, state.counts, parameters_for(state.rewards), bonus))

  def draw_noise(state: State, key: PRNGKey) -> tuple[Array | None, Array]:
    """The block of perturbations from now on, and z [H, M] of an episode; orthogonal ones are dealt row by row."""
    if not in_blocks:
      return None, laws.draw_noise(key, horizon).astype(state.factor.dtype)
    row = state.num_steps % index_dim
    keys = jax.random.split(key, -(-horizon // index_dim) + 1)
    new = jax.vmap(haar_orthogonal, in_axes=(0, None))(keys, index_dim).astype(state.factor.dtype)
    assert state.noise_block is not None
    # At row 0 a block begins; otherwise the rest of the last one goes first.
    dealt = jnp.where(row == 0, new, jnp.concatenate([state.noise_block[None], new[:-1]])).reshape(-1, index_dim)
    rows = row + jnp.arange(horizon)
    last = (row + horizon - 1) // index_dim
    block = jax.lax.dynamic_slice_in_dim(dealt, last * index_dim, index_dim)
    return block, dealt[rows]

  def update(state: State, episode: Episode, key: PRNGKey) -> State:
    block, noise = draw_noise(state, key)
    where = (jnp.arange(horizon), episode.states[:-1], episode.actions)
    n = visits(state.counts[where])  # [H]
    chosen = parameters_for(state.rewards)
    visit = lambda m, n, z, sigma: update_factor(m, n, z, chosen._replace(sigma=sigma))
    sigma = chosen.sigma if perturbed else jnp.zeros_like(chosen.sigma)
    factor = state.factor.at[where].set(jax.vmap(visit)(state.factor[where], n, noise, sigma))
    return State(state.rewards, count(state.counts, episode), factor, block, state.num_steps + horizon)

  return TabularAgent(init, policy, update)
