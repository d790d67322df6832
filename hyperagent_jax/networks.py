"""The linear hypermodel head, the fixed prior, and `make_network` which joins them to a torso (section 2, Eq. 1, 10).

    Q(s, a, xi) = c_post <A_a xi + b_a, phi_w(s)>  +  c_prior <A0_a xi + b0_a, phi0_{w0}(s)>

The head's weights A [A, H, M] and b [A, H] are kept as one array [H, A, 1 + M], b first, so that one matrix product
gives mean and factor of every action. The hypermodel generates last-layer weights only; there is no last-layer bias.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.torsos import (
  DATA_EFFICIENT,
  NATURE,
  DeepSeaTorso,
  MLPTorso,
  ScreenTorso,
  deep_sea_observations,
  deep_sea_row,
  glorot_normal,
  nested_windows,
)
from hyperagent_jax.types import PIXELS, Array, FrameLayout, HyperQ, Network, Observation, Params, PRNGKey


def _unit_rows(key: PRNGKey, num: int, dim: int) -> Array:
  x = jax.random.normal(key, (num, dim))
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class LinearHypermodel(nn.Module):
  """A torso and a head whose weights are affine in the index.

  The trained part (`is_prior=False`) draws A from a normal of variance 2 / (A H + M), the prior each row of A0 in R^M
  uniformly on the sphere of radius prior_std (or prior_row_length, if above 0). Both draw b alike: `bias_init='sphere'`
  flattened over actions and features, uniformly on the sphere of radius prior_std; 'glorot' as a Glorot normal A x H
  matrix.
  """

  torso: nn.Module
  num_actions: int
  index_dim: int
  prior_std: float
  is_prior: bool
  bias_init: str = 'sphere'
  prior_row_length: float = 0.0  # of A0, if above 0

  @nn.compact
  def __call__(self, observation: Observation) -> HyperQ:
    """Mean [A] and factor [A, M] of one state, unscaled; ValueError if its features are not of one axis."""
    features = self.torso(observation)  # [H]
    if features.ndim != 1:
      raise ValueError(
        f'{type(self.torso).__name__} gave features of shape {features.shape}: must be [H], of one observation'
      )
    head = self.param('head', self._init_head, features.shape[-1])  # [H, A, 1 + M]
    q = (features @ head.reshape(head.shape[0], -1)).reshape(head.shape[1:])  # [A, 1 + M]
    return HyperQ(mean=q[:, 0], factor=q[:, 1:])

  def _init_head(self, key: PRNGKey, num_features: int) -> Array:
    key_a, key_b = jax.random.split(key)
    num_rows = num_features * self.num_actions
    if self.is_prior:
      a = (self.prior_row_length or self.prior_std) * _unit_rows(key_a, num_rows, self.index_dim)
    else:
      a = (2.0 / (num_rows + self.index_dim)) ** 0.5 * jax.random.normal(key_a, (num_rows, self.index_dim))
    if self.bias_init == 'glorot':
      b = glorot_normal(key_b, (num_features, self.num_actions)).reshape(num_rows, 1)
    else:
      b = self.prior_std * _unit_rows(key_b, 1, num_rows).T
    return jnp.concatenate([b, a], axis=1).reshape(num_features, self.num_actions, 1 + self.index_dim)


def apply(module: nn.Module, params: Params, *args: Any) -> Any:
  """What a Flax module without mutable collections gives; the type of its own `apply` covers those too."""
  return module.apply({'params': params}, *args)


def scale(q: HyperQ, c: float) -> HyperQ:
  """c Q."""
  return HyperQ(c * q.mean, c * q.factor)


def add(q: HyperQ, other: HyperQ) -> HyperQ:
  """The sum of two parts of one value."""
  return HyperQ(q.mean + other.mean, q.factor + other.factor)


def head_regularizer(head: Array, index_mean: Array | float, second_moment: Array | float) -> Array:
  """R = E_xi |A xi + b|^2 = |b|^2 + 2 <b, A E xi> + v |A|^2 (Eq. 4) of a head [H, A, 1 + M]."""
  b, a = head[..., 0], head[..., 1:]
  cross = 2.0 * index_mean * jnp.sum(b * jnp.sum(a, axis=-1))
  return jnp.sum(jnp.square(b)) + cross + second_moment * jnp.sum(jnp.square(a))


def make_torso(config: HyperAgentConfig, hidden_sizes: tuple[int, ...] | None = None) -> nn.Module:
  """The configured torso, a Flax module from one observation to its features [H]; other layers' widths may be given."""
  hidden_sizes = config.hidden_sizes if hidden_sizes is None else hidden_sizes
  match config.torso:
    case 'deep_sea':
      return DeepSeaTorso(config.grid_size, hidden_sizes)
    case 'mlp':
      return MLPTorso(hidden_sizes)
  layers = NATURE if config.torso == 'nature' else DATA_EFFICIENT
  return ScreenTorso(
    layers,
    hidden_sizes,
    config.pixel_divisor,
    config.normalize_features,
    config.convolution_method,
    config.compute_dtype,
  )


def frame_layout(config: HyperAgentConfig) -> FrameLayout:
  """How replay keeps the frames of the configured torso."""
  if config.frame_layout == 'pixels':
    return PIXELS
  return FrameLayout(lambda frame: nested_windows(frame[None], DATA_EFFICIENT)[:, 0], 1)


def store_prior(
  evaluate: Callable[[Params, Array], Array], config: HyperAgentConfig
) -> tuple[Callable[[Params], Params], Callable[[Params, Array], Array]]:
  """Two functions, from a prior's weights to what is stored of it, and from that and an observation to its value.

  With `prior_storage='table'` the value of every state is evaluated once, and looked up; otherwise the weights are
  kept, and it is for the caller to remember values.

  Args:
    evaluate: weights, observation -> the prior's value, one array.
    config: reads prior_storage and grid_size.
  """
  if config.prior_storage != 'table':
    return lambda prior_params: prior_params, evaluate
  observations = deep_sea_observations(config.grid_size)
  tabulate = lambda prior_params: jax.vmap(evaluate, in_axes=(None, 0))(prior_params, jnp.asarray(observations))
  return tabulate, lambda table, observation: table[deep_sea_row(observation, config.grid_size)]


def _is_integer(observation: Observation) -> bool:
  leaves = jax.tree.leaves(observation)
  return len(leaves) == 1 and jnp.shape(leaves[0]) == () and jnp.issubdtype(jnp.result_type(leaves[0]), jnp.integer)


def make_network(config: HyperAgentConfig, num_actions: int) -> Network:
  """The linear hypermodel with its fixed prior (Eq. 1, 10).

  Args:
    config: reads the fields under "The network".
    num_actions: A, at least 1.

  Returns:
    A `Network`. With `prior_storage='table'`, `prior_params` is the array [rows + 1, A, 1 + M] of the scaled
    prior's mean and factor of every state, and `prior_q` reads it; otherwise it holds the prior network's weights.
  """
  return join_with_prior(lambda: make_torso(config), config, num_actions)


def join_with_prior(torso: Callable[[], nn.Module], config: HyperAgentConfig, num_actions: int) -> Network:
  """A linear hypermodel on any torso, and a fixed prior of the same architecture; see `make_network`.

  Args:
    torso: makes a module from one observation, an array or a pytree of arrays, to features [H]; called once for the
      trained network and once for the prior.
    config: reads index_dim, posterior_scale, prior_scale, prior_std, prior_row_length, prior_storage, bias_init and
      mean_regularizer. A table as prior_storage is for DeepSea's integers only.
    num_actions: A.
  """

  def make_module(is_prior: bool) -> nn.Module:
    return LinearHypermodel(
      torso(),
      num_actions,
      config.index_dim,
      config.prior_std,
      is_prior,
      config.bias_init,
      config.prior_row_length,
    )

  posterior, prior_network = make_module(is_prior=False), make_module(is_prior=True)

  def evaluate_prior(prior_params: Params, observation: Observation) -> Array:  # -> [A, 1 + M], mean first
    q = scale(apply(prior_network, prior_params, observation), config.prior_scale)
    return jnp.concatenate([q.mean[:, None], q.factor], axis=-1)

  store, look_up = store_prior(evaluate_prior, config)

  def init(key: PRNGKey, observation: Observation) -> tuple[Params, Params]:
    if config.prior_storage == 'table' and not _is_integer(observation):
      raise ValueError("prior_storage='table': observations must be DeepSea's integers; for others it must be 'replay'")
    key_posterior, key_prior = jax.random.split(key)
    params = posterior.init(key_posterior, observation)['params']
    return params, store(prior_network.init(key_prior, observation)['params'])

  def prior_q_of(prior_params: Params, observation: Observation) -> HyperQ:
    q = look_up(prior_params, observation)
    return HyperQ(q[:, 0], q[:, 1:])

  def hyper_q(params: Params, observation: Observation, prior_q: HyperQ) -> HyperQ:
    return add(scale(apply(posterior, params, observation), config.posterior_scale), prior_q)

  def q(params: Params, prior_params: Params, observation: Observation, prior_q: HyperQ | None, xi: Array) -> Array:
    prior_q = prior_q_of(prior_params, observation) if prior_q is None else prior_q
    return hyper_q(params, observation, prior_q).at(xi)

  def regularizer(params: Params, index_mean: Array | float, second_moment: Array | float) -> Array:
    r = head_regularizer(params['head'], index_mean, second_moment)
    num_features, num_actions = params['head'].shape[:2]
    return r / (num_features * num_actions) if config.mean_regularizer else r

  remember_prior = config.prior_storage != 'table'  # looking a table up costs less than storing what it says
  return Network(init, prior_q_of, hyper_q, q, regularizer, remember_prior)
