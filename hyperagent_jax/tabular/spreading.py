"""How uncertainty spreads through value iteration (Example D.7 and Fig. 6, after Osband et al. 2019).

Four states in a line, 1 at the top, two actions, six stages, rewards of 0. Everything is known but one thing: what the
action down does in the lowest state has been tried once. The paper leaves open where the actions lead, at which stages
that was, and the prior. Our reading:

  up leads to the state above (the top one: to itself) and down to the one below (the lowest: to itself), always;
  a pair's number of tries is the same at every stage;
  the prior's mean is 0, the reward of all that is known, so that what grows is uncertainty and not optimism.

An array's state 0 is the paper's state 1, and its stage 0 the first.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.distributions import make_perturbation, make_reference
from hyperagent_jax.tabular.hyperagent import Parameters, backup, update_factor, visits
from hyperagent_jax.types import Array, PRNGKey

UP, DOWN = 0, 1


def chain_counts(num_often: int = 1000, num_once: int = 1, num_states: int = 4, horizon: int = 6) -> Array:
  """What has been seen of the example's chain.

  Args:
    num_often: tries of every pair but the one, at each stage.
    num_once: tries of (lowest state, down) at each stage.
    num_states: S, at least 2.
    horizon: H.

  Returns:
    [H, S, A, S] transitions seen, with A = 2.
  """
  counts = np.zeros((num_states, 2, num_states))
  for state in range(num_states):
    counts[state, UP, max(state - 1, 0)] = num_often
    counts[state, DOWN, min(state + 1, num_states - 1)] = num_often
  counts[-1, DOWN, -1] = num_once
  return jnp.asarray(np.broadcast_to(counts, (horizon, *counts.shape)), jnp.result_type(float))


def sample_factor(key: PRNGKey, n: Array, index_dim: int, parameters: Parameters) -> Array:
  """HyperAgent's factor after so many visits: Eq. 5, one visit of every pair after the other.

  Args:
    key: draws z0 and every z, all uniform on the unit sphere.
    n: [...] visits N of each pair.
    index_dim: M.
    parameters: sigma and beta.

  Returns:
    [..., M], of squared length close to sigma^2 / (N + beta) (Lemma 5.1).
  """
  wanted = n.reshape(-1, 1)  # [P, 1]
  key_prior, key_noise = jax.random.split(key)
  prior = make_reference('sphere', index_dim).sample(key_prior, wanted.size)
  noise_of = make_perturbation('sphere', index_dim)

  def visit(carry: tuple[Array, Array]) -> tuple[Array, Array]:
    count, factor = carry
    noise = noise_of.sample(jax.random.fold_in(key_noise, count), wanted.size)
    new = update_factor(factor, count.astype(factor.dtype), noise, parameters)
    return count + 1, jnp.where(count < wanted, new, factor)

  start = jnp.zeros((), jnp.int32), parameters.sigma * parameters.beta**-0.5 * prior
  factor = jax.lax.while_loop(lambda carry: carry[0] < jnp.max(wanted), visit, start)[1]
  return factor.reshape(*n.shape, index_dim)


def iterate_values(rewards: Array, counts: Array, parameters: Parameters, bonus: Array, carried: bool = True) -> Array:
  """Sampled values after each application of F (Eq. 6-7) to all stages at once, from a table of mu0.

  The last i stages are final after i applications.

  Args:
    rewards: [H, S, A].
    counts: [H, S, A, S].
    parameters: beta, and a mu0 that all stages share.
    bonus: [H, S, A] what the index adds.
    carried: whether a sampled value is what the stage before it backs up; if not, the mean without `bonus` is, and a
      pair's uncertainty stays where it is.

  Returns:
    [H + 1, H, S] max_a Q_h(s, a) after 0, 1, ..., H applications.
  """

  def apply(q: Array, added: Array) -> Array:
    v = jnp.max(q, axis=-1)
    v_next = jnp.concatenate([v[1:], jnp.zeros_like(v[:1])])  # nothing comes after the last stage
    return jax.vmap(lambda r, c, v, x: backup(r, c, v, parameters, x))(rewards, counts, v_next, added)

  def iterate(q: Array, _: None) -> tuple[Array, Array]:
    new = apply(q, bonus if carried else jnp.zeros_like(bonus))
    return new, jnp.max(new if carried else new + bonus, axis=-1)

  start = jnp.full_like(rewards, parameters.prior_mean)
  values = jax.lax.scan(iterate, start, None, rewards.shape[0])[1]
  return jnp.concatenate([jnp.max(start, axis=-1)[None], values])


def value_spread(
  key: PRNGKey,
  counts: Array,
  parameters: Parameters,
  factor: Array | None,
  num_samples: int,
  independent: bool = True,
  carried: bool = True,
) -> Array:
  """Variance of max_a Q_h(s, a) over sampled indices, after each application of F.

  Args:
    key: draws the indices, Gaussian.
    counts: [H, S, A, S]; rewards are 0.
    parameters: sigma, beta and mu0.
    factor: [H, S, A, M] of `sample_factor`, or None for RLSVI's independent noise N(0, sigma^2 / (N + beta)).
    num_samples: indices drawn, at least 2.
    independent: whether each state and stage has its own index, or all share one; RLSVI has no index.
    carried: as for `iterate_values`.

  Returns:
    [H + 1, H, S].
  """
  n = visits(counts)

  def sample(key: PRNGKey) -> Array:
    if factor is None:
      bonus = parameters.sigma * jax.lax.rsqrt(n + parameters.beta) * jax.random.normal(key, n.shape, n.dtype)
    else:
      shape = (*n.shape[:-1], 1) if independent else (1, 1, 1)
      bonus = jnp.sum(factor * jax.random.normal(key, (*shape, factor.shape[-1]), n.dtype), axis=-1)
    return iterate_values(jnp.zeros_like(n), counts, parameters, bonus, carried)

  return jnp.var(jax.vmap(sample)(jax.random.split(key, num_samples)), axis=0, ddof=1)
