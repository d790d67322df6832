"""Torsos, the linear hypermodel head, the fixed prior, and `make_network` which joins them (section 2, Eq. 1 and 10).

    Q(s, a, xi) = c_post <A_a xi + b_a, phi_w(s)>  +  c_prior <A0_a xi + b0_a, phi0_{w0}(s)>

The head's weights A [A, H, M] and b [A, H] are kept as one array [H, A, 1 + M], b first, so that one matrix product
gives mean and factor of every action. The hypermodel generates last-layer weights only; there is no last-layer bias.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.types import Array, HyperQ, Network, Params, PRNGKey

# Untruncated, as in the published code.
glorot_normal = nn.initializers.variance_scaling(1.0, 'fan_avg', 'normal')


def deep_sea_row(observation: Array, size: int) -> Array:
  """The look-up row of a DeepSea state: its rank among the N (N + 1) / 2 reachable cells.

  A cell row * N + column is reachable where column <= row. Anything else, such as the code N^2 of the all-zero
  observation, maps to the rank one past the end, which look-ups with `mode='fill'` answer with zeros.
  """
  row, column = observation // size, observation % size
  num_cells = size * (size + 1) // 2
  return jnp.where((row < size) & (column <= row), row * (row + 1) // 2 + column, num_cells)


def deep_sea_observations(size: int) -> np.ndarray:
  """The integer observation of every look-up row in order, and last the all-zero observation's, N^2."""
  row, column = np.tril_indices(size)
  return np.append(row * size + column, size * size).astype(np.int32)


class DeepSeaTorso(nn.Module):
  """An MLP on the one-hot N x N observation, given as an integer: the first layer is a row look-up.

  Only reachable cells have a row. Unreachable inputs are never 1, so leaving them out is exact; the initial variance
  2 / (N^2 + H) is that of the whole N^2 x H Glorot matrix.
  """

  size: int
  hidden_sizes: tuple[int, ...]

  @nn.compact
  def __call__(self, observation: Array) -> Array:  # [] int32 -> [H]
    """Features of one state."""
    width = self.hidden_sizes[0]
    init = nn.initializers.normal((2.0 / (self.size**2 + width)) ** 0.5)
    rows = self.param('rows', init, (self.size * (self.size + 1) // 2, width))
    bias = self.param('bias', nn.initializers.zeros, (width,))
    x = nn.relu(rows.at[deep_sea_row(observation, self.size)].get(mode='fill', fill_value=0.0) + bias)
    for width in self.hidden_sizes[1:]:
      x = nn.relu(nn.Dense(width, kernel_init=glorot_normal)(x))
    return x


class MLPTorso(nn.Module):
  """An MLP on the flattened observation, ReLU after every layer."""

  hidden_sizes: tuple[int, ...]

  @nn.compact
  def __call__(self, observation: Array) -> Array:  # [...] -> [H]
    """Features of one observation."""
    x = jnp.ravel(observation).astype(jnp.float32)
    for width in self.hidden_sizes:
      x = nn.relu(nn.Dense(width, kernel_init=glorot_normal)(x))
    return x


def _unit_rows(key: PRNGKey, num: int, dim: int) -> Array:
  x = jax.random.normal(key, (num, dim))
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class LinearHypermodel(nn.Module):
  """A torso and a head whose weights are affine in the index.

  The trained part (`is_prior=False`) draws A from a normal of variance 2 / (A H + M), the prior each row of A0 in R^M
  uniformly on the sphere of radius prior_std. Both draw b, flattened over actions and features, uniformly on the
  sphere of radius prior_std.
  """

  torso: nn.Module
  num_actions: int
  index_dim: int
  prior_std: float
  is_prior: bool

  @nn.compact
  def __call__(self, observation: Array) -> HyperQ:
    """Mean [A] and factor [A, M] of one state, unscaled."""
    features = self.torso(observation)  # [H]
    head = self.param('head', self._init_head, features.shape[-1])  # [H, A, 1 + M]
    q = (features @ head.reshape(head.shape[0], -1)).reshape(head.shape[1:])  # [A, 1 + M]
    return HyperQ(mean=q[:, 0], factor=q[:, 1:])

  def _init_head(self, key: PRNGKey, num_features: int) -> Array:
    key_a, key_b = jax.random.split(key)
    num_rows = num_features * self.num_actions
    if self.is_prior:
      a = self.prior_std * _unit_rows(key_a, num_rows, self.index_dim)
    else:
      a = (2.0 / (num_rows + self.index_dim)) ** 0.5 * jax.random.normal(key_a, (num_rows, self.index_dim))
    b = self.prior_std * _unit_rows(key_b, 1, num_rows)
    return jnp.concatenate([b.T, a], axis=1).reshape(num_features, self.num_actions, 1 + self.index_dim)


def scale(q: HyperQ, c: float) -> HyperQ:
  """c Q."""
  return HyperQ(c * q.mean, c * q.factor)


def add(q: HyperQ, other: HyperQ) -> HyperQ:
  """The sum of two parts of one value."""
  return HyperQ(q.mean + other.mean, q.factor + other.factor)


def head_regularizer(head: Array, index_mean: Array, second_moment: Array) -> Array:
  """R = E_xi |A xi + b|^2 = |b|^2 + 2 <b, A E xi> + v |A|^2 (Eq. 4) of a head [H, A, 1 + M]."""
  b, a = head[..., 0], head[..., 1:]
  cross = 2.0 * index_mean * jnp.sum(b * jnp.sum(a, axis=-1))
  return jnp.sum(jnp.square(b)) + cross + second_moment * jnp.sum(jnp.square(a))


def make_network(config: HyperAgentConfig, num_actions: int) -> Network:
  """The linear hypermodel with its fixed prior (Eq. 1, 10).

  Args:
    config: reads torso, grid_size, hidden_sizes, index_dim, posterior_scale, prior_scale, prior_std, prior_storage.
    num_actions: A, at least 1.

  Returns:
    A `Network`. With `prior_storage='table'`, `prior` is the array [rows + 1, A, 1 + M] of the scaled prior's mean and
    factor of every state, and `cache` reads it; otherwise `prior` holds the prior network's weights.
  """

  def make_module(is_prior: bool) -> nn.Module:
    if config.torso == 'deep_sea':
      torso: nn.Module = DeepSeaTorso(config.grid_size, config.hidden_sizes)
    else:
      torso = MLPTorso(config.hidden_sizes)
    return LinearHypermodel(torso, num_actions, config.index_dim, config.prior_std, is_prior)

  posterior, prior_network = make_module(is_prior=False), make_module(is_prior=True)
  in_table = config.prior_storage == 'table'

  def evaluate_prior(prior: Params, observation: Array) -> HyperQ:
    return scale(prior_network.apply({'params': prior}, observation), config.prior_scale)

  def init(key: PRNGKey, observation: Array) -> tuple[Params, Params]:
    key_posterior, key_prior = jax.random.split(key)
    params = posterior.init(key_posterior, observation)['params']
    prior = prior_network.init(key_prior, observation)['params']
    if in_table:
      q = jax.vmap(evaluate_prior, in_axes=(None, 0))(prior, jnp.asarray(deep_sea_observations(config.grid_size)))
      prior = jnp.concatenate([q.mean[..., None], q.factor], axis=-1)
    return params, prior

  def cache(prior: Params, observation: Array) -> HyperQ:
    if not in_table:
      return evaluate_prior(prior, observation)
    q = prior[deep_sea_row(observation, config.grid_size)]
    return HyperQ(q[:, 0], q[:, 1:])

  def hyper_q(params: Params, observation: Array, prior_q: HyperQ) -> HyperQ:
    return add(scale(posterior.apply({'params': params}, observation), config.posterior_scale), prior_q)

  def q(params: Params, prior: Params, observation: Array, prior_q: HyperQ | None, index: Array) -> Array:
    prior_q = cache(prior, observation) if prior_q is None else prior_q
    return hyper_q(params, observation, prior_q).at(index)

  def regularizer(params: Params, index_mean: Array, second_moment: Array) -> Array:
    return head_regularizer(params['head'], index_mean, second_moment)

  return Network(init, cache, hyper_q, q, regularizer, in_table)
