"""Linear bandits: one state, one stage, and actions with features, so that HyperAgent's factor covers all of them.

A reward is <x, theta> + noise, with theta ~ N(0, prior_std^2 I) and noise ~ N(0, noise_std^2). After k steps theta is
N(mu, Sigma). HyperAgent keeps a factor A with A A^T close to Sigma and acts greedily under mu + A xi; for one-hot
features this is Eq. 5. Shapes:

  A  actions         d  features of an action
  M  index dimension, or members of an ensemble
  K  indices of a step
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperagent_jax.distributions import make_reference
from hyperagent_jax.tabular.laws import make_laws
from hyperagent_jax.types import Array, PRNGKey


class LinearBandit(NamedTuple):
  """A bandit whose mean rewards are linear in known features."""

  features: Array  # [A, d] the same at every step
  theta: Array  # [d] unknown to agents
  noise_std: float | Array  # of a reward


class BanditAgent(NamedTuple):
  """A learner for linear bandits as pure functions of one run."""

  init: Callable[[PRNGKey, Array], Any]  # key, features [A, d] -> state
  act: Callable[[Any, PRNGKey], Array]  # state, key -> action [] int32
  update: Callable[[Any, Array, Array, PRNGKey], Any]  # state, action, reward [], key -> state


class Posterior(NamedTuple):
  """Bayesian linear regression so far: theta is N(mean, covariance)."""

  features: Array  # [A, d]
  covariance: Array  # [d, d] Sigma
  mean: Array  # [d] mu


class Factored(NamedTuple):
  """A posterior and HyperAgent's approximate root of its covariance."""

  posterior: Posterior
  factor: Array  # [d, M]


class Confident(NamedTuple):
  """A posterior and what the radius of its confidence ellipsoid depends on."""

  posterior: Posterior
  log_det: Array  # [] log det of the prior's covariance over the posterior's, at least 0


class Langevin(NamedTuple):
  """Sufficient statistics, and where the chain is."""

  features: Array  # [A, d]
  precision: Array  # [d, d] inverse of Sigma
  moment: Array  # [d] precision times mu
  theta: Array  # [d]


def random_bandit(key: PRNGKey, num_actions: int, dim: int, noise_std: float = 1.0) -> LinearBandit:
  """A bandit with theta ~ N(0, I) and the features of each action uniform on the unit sphere.

  Args:
    key: draws both.
    num_actions, dim: A and d.
    noise_std: of a reward, above 0.
  """
  key_features, key_theta = jax.random.split(key)
  features = make_reference('sphere', dim).sample(key_features, num_actions)
  return LinearBandit(features, jax.random.normal(key_theta, (dim,)), noise_std)


def play_bandit(agent: BanditAgent, bandit: LinearBandit, num_steps: int, key: PRNGKey) -> Array:
  """Plays a bandit.

  Args:
    agent: the agent.
    bandit: the bandit.
    num_steps: steps, one action each.
    key: of everything that is random.

  Returns:
    [num_steps] exact expected regret of each action, max_a <x_a, theta> - <x_chosen, theta>. Both are entries of one
    array, so that rounding cannot make it negative.
  """
  key_init, key_noise, key_agent = jax.random.split(key, 3)
  values = bandit.features @ bandit.theta  # [A]
  # All at once: drawing them step by step would take longer to compile than everything else.
  noises = bandit.noise_std * jax.random.normal(key_noise, (num_steps,), values.dtype)
  keys = jax.random.split(key_agent, (num_steps, 2))

  def step(state: Any, given: tuple[Array, Array]) -> tuple[Any, Array]:
    noise, (key_act, key_update) = given
    action = agent.act(state, key_act)
    return agent.update(state, action, values[action] + noise, key_update), jnp.max(values) - values[action]

  return jax.lax.scan(step, agent.init(key_init, bandit.features), (noises, keys))[1]


def init_posterior(features: Array, prior_std: float) -> Posterior:
  """The prior N(0, prior_std^2 I)."""
  dim = features.shape[1]
  return Posterior(features, prior_std**2 * jnp.eye(dim, dtype=features.dtype), jnp.zeros(dim, features.dtype))


def observe(posterior: Posterior, action: Array, reward: Array, noise_std: float) -> tuple[Posterior, Array]:
  """The posterior after a reward, by Sherman and Morrison's formula.

      Sigma_k = Sigma - g (Sigma x)^T,   mu_k = mu + g (r - <x, mu>),   g = Sigma x / (noise_std^2 + x^T Sigma x)

  Args:
    posterior: the one before.
    action: [] whose features are x.
    reward: [] r.
    noise_std: of the reward.

  Returns:
    The new posterior, and the gain g [d], which is also Sigma_k x / noise_std^2.
  """
  features, covariance, mean = posterior
  x = features[action]
  spread = covariance @ x
  gain = spread / (noise_std**2 + x @ spread)
  return Posterior(features, covariance - jnp.outer(gain, spread), mean + gain * (reward - x @ mean)), gain


def observe_factor(factor: Array, x: Array, gain: Array, noise: Array, noise_std: float) -> Array:
  """Eq. 5 with features: Sigma_k^-1 A_k = Sigma^-1 A + (x / noise_std) z^T, or A_k = A + g (noise_std z - A^T x)^T.

  This is the mean's own update, where noise_std z stands for the reward.

  Args:
    factor: [d, M] A before the step.
    x: [d] features of the action.
    gain: [d] g as `observe` returned it.
    noise: [M] the step's perturbation z.
    noise_std: of a reward.
  """
  return factor + jnp.outer(gain, noise_std * noise - x @ factor)


def best(values: Array) -> Array:  # [A] -> []
  """The best action, the first of equally good ones."""
  return jnp.argmax(values).astype(jnp.int32)


def make_linear_hyperagent(
  dim: int,
  index_dim: int,
  noise_std: float,
  prior_std: float = 1.0,
  reference: str = 'gaussian',
  perturbation: str = 'sphere',
  num_indices: int = 1,
) -> BanditAgent:
  """HyperAgent for linear bandits: greedy under mu + A xi, one index xi for a step.

  A starts as prior_std times rows of unit length. E[A A^T] is then Sigma at every step, as long as actions do not
  depend on the perturbations.

  Args:
    dim: d.
    index_dim: M.
    noise_std, prior_std: of a reward and of each entry of theta, above 0.
    reference: distribution of the index, one of `distributions.REFERENCES`.
    perturbation: distribution of z, one of `distributions.PERTURBATIONS`; `make_laws` scales both. Steps draw on their
      own, so that orthogonal is sphere here.
    num_indices: K of optimistic index sampling; an action's value is its best under any of them (Eq. 8-9).

  Returns:
    A `BanditAgent` whose state is a `Factored`.

  Raises:
    ValueError: on a distribution that does not exist, or a number out of its range.
  """
  _check(dim=dim, index_dim=index_dim, num_indices=num_indices, noise_std=noise_std, prior_std=prior_std)
  laws = make_laws(reference, perturbation, index_dim)

  def init(key: PRNGKey, features: Array) -> Factored:
    factor = prior_std * laws.draw_prior(key, dim).astype(features.dtype)
    return Factored(init_posterior(features, prior_std), factor)

  def act(state: Factored, key: PRNGKey) -> Array:
    index = laws.draw_xi(key, 1, num_indices)[0]  # [K, M]
    theta = state.posterior.mean[:, None] + state.factor @ index.T  # [d, K]
    return best(jnp.max(state.posterior.features @ theta, axis=-1))

  def update(state: Factored, action: Array, reward: Array, key: PRNGKey) -> Factored:
    noise = laws.draw_noise(key, 1)[0]
    posterior, gain = observe(state.posterior, action, reward, noise_std)
    x = posterior.features[action]
    return Factored(posterior, observe_factor(state.factor, x, gain, noise, noise_std))

  return BanditAgent(init, act, update)


def make_linear_ensemble(dim: int, num_members: int, noise_std: float, prior_std: float = 1.0) -> BanditAgent:
  """Ensemble sampling (Lu and Van Roy 2017): M regressions on perturbed rewards, one of them followed for a step.

  Each starts at its own draw from the prior and adds its own N(0, noise_std^2) to every reward, so that each is a draw
  from the posterior. It is HyperAgent with a one-hot index and Gaussian perturbations.

  Args:
    dim, noise_std, prior_std: as for `make_linear_hyperagent`, which also says what is raised.
    num_members: M, each as likely to be followed.
  """
  return make_linear_hyperagent(dim, num_members, noise_std, prior_std, 'one_hot', 'gaussian')


def make_lin_ts(dim: int, noise_std: float, prior_std: float = 1.0) -> BanditAgent:
  """Linear Thompson sampling: greedy under a draw from the exact posterior.

  Args:
    dim, noise_std, prior_std: as for `make_linear_hyperagent`.

  Returns:
    A `BanditAgent` whose state is a `Posterior`.

  Raises:
    ValueError: on a number out of its range.
  """
  _check(dim=dim, noise_std=noise_std, prior_std=prior_std)

  def act(state: Posterior, key: PRNGKey) -> Array:
    noise = jax.random.normal(key, (dim,), state.mean.dtype)
    return best(state.features @ (state.mean + jnp.linalg.cholesky(state.covariance) @ noise))

  def update(state: Posterior, action: Array, reward: Array, key: PRNGKey) -> Posterior:
    del key
    return observe(state, action, reward, noise_std)[0]

  return BanditAgent(lambda key, features: init_posterior(features, prior_std), act, update)


def make_lin_ucb(
  dim: int, noise_std: float, prior_std: float = 1.0, scale: float = 1.0, delta: float = 0.05
) -> BanditAgent:
  """LinUCB, or OFUL: the best action under any theta of a confidence ellipsoid (Abbasi-Yadkori et al. 2011, Theorem 2).

  With V = noise_std^2 Sigma^-1 and lambda = noise_std^2 / prior_std^2, an action's value is
      <x, mu> + scale radius |x|_{V^-1},
      radius = noise_std sqrt(log(det V / lambda^d) + 2 log(2 / delta)) + sqrt(lambda) S.
  S must bound |theta|. That of a Gaussian theta is below prior_std (sqrt(d) + sqrt(2 log(2 / delta))) with probability
  1 - delta / 2; the other half of delta is the ellipsoid's.

  Args:
    dim, noise_std, prior_std: as for `make_linear_hyperagent`.
    scale: times the radius, at least 0. The theorem needs 1; 0 is the greedy agent.
    delta: probability with which any confidence set of a run may fail, in (0, 1).

  Returns:
    A `BanditAgent` whose state is a `Confident`.

  Raises:
    ValueError: on a number out of its range.
  """
  _check(dim=dim, noise_std=noise_std, prior_std=prior_std)
  if scale < 0 or not 0 < delta < 1:
    raise ValueError(f'scale={scale}, delta={delta}: must be at least 0, and between 0 and 1')
  twice_log = 2.0 * math.log(2.0 / delta)
  longest = dim**0.5 + twice_log**0.5  # S / prior_std

  def init(key: PRNGKey, features: Array) -> Confident:
    del key
    return Confident(init_posterior(features, prior_std), jnp.zeros((), features.dtype))

  def act(state: Confident, key: PRNGKey) -> Array:
    del key
    features, covariance, mean = state.posterior
    # In units of noise_std: |x|_{V^-1} = sqrt(x^T Sigma x) / noise_std, sqrt(lambda) = noise_std / prior_std.
    radius = jnp.sqrt(state.log_det + twice_log) + longest
    width = jnp.sqrt(jnp.sum(features @ covariance * features, axis=-1))
    return best(features @ mean + scale * radius * width)

  def update(state: Confident, action: Array, reward: Array, key: PRNGKey) -> Confident:
    del key
    posterior, gain = observe(state.posterior, action, reward, noise_std)
    # det Sigma falls by 1 + x^T Sigma x / noise_std^2, which is 1 / (1 - <x, g>).
    return Confident(posterior, state.log_det - jnp.log1p(-(posterior.features[action] @ gain)))

  return BanditAgent(init, act, update)


def make_lmc_ts(dim: int, noise_std: float, prior_std: float = 1.0, num_inner_steps: int = 20) -> BanditAgent:
  """Langevin Monte Carlo Thompson sampling (Xu et al. 2022): noisy gradient steps from the last sample on.

  The loss is the posterior's, sum (r - <x, theta>)^2 / (2 noise_std^2) + |theta|^2 / (2 prior_std^2), whose gradient
  P theta - P mu needs only two sums over the past. After each reward J steps
      theta <- theta - eta (P theta - P mu) + sqrt(2 eta) N(0, I),   eta = 1 / (2 |P|),
  approach N(mu, P^-1). The paper's step size has the largest eigenvalue of P where |P| is its Frobenius norm here:
  an upper bound that costs no decomposition, and close to it once one direction is known best. With such steps the
  chain settles on at most 4/3 of the posterior's variance.

  Args:
    dim, noise_std, prior_std: as for `make_linear_hyperagent`; the paper's inverse temperature is the posterior's.
    num_inner_steps: J, at least 1.

  Returns:
    A `BanditAgent` whose state is a `Langevin`; its first theta is a draw from the prior.

  Raises:
    ValueError: on a number out of its range.
  """
  _check(dim=dim, num_inner_steps=num_inner_steps, noise_std=noise_std, prior_std=prior_std)

  def init(key: PRNGKey, features: Array) -> Langevin:
    theta = prior_std * jax.random.normal(key, (dim,), features.dtype)
    return Langevin(features, prior_std**-2 * jnp.eye(dim, dtype=features.dtype), jnp.zeros_like(theta), theta)

  def update(state: Langevin, action: Array, reward: Array, key: PRNGKey) -> Langevin:
    x = state.features[action]
    precision = state.precision + jnp.outer(x, x) / noise_std**2
    moment = state.moment + x * reward / noise_std**2
    step = 0.5 / jnp.linalg.norm(precision)

    def move(theta: Array, noise: Array) -> tuple[Array, None]:
      return theta - step * (precision @ theta - moment) + jnp.sqrt(2.0 * step) * noise, None

    noise = jax.random.normal(key, (num_inner_steps, dim), moment.dtype)
    return Langevin(state.features, precision, moment, jax.lax.scan(move, state.theta, noise)[0])

  return BanditAgent(init, lambda state, key: best(state.features @ state.theta), update)


def _check(noise_std: float, prior_std: float, **at_least_one: int) -> None:
  for name, value in at_least_one.items():
    if value < 1:
      raise ValueError(f'{name}={value}: must be at least 1')
  if noise_std <= 0 or prior_std <= 0:
    raise ValueError(f'noise_std={noise_std}, prior_std={prior_std}: must be above 0')
