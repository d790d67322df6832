"""HyperModel (Dwaracherla et al., 2020): a linear hypermodel of every layer, so not affine in the index as a whole.

    w_l(xi) = A_l xi + b_l for the weights and biases of each layer l;   Q = f(s; w(xi)) + c_prior f(s; w0(xi))

b_l starts as Glorot's matrix, A_l as HyperAgent's: normal, of variance 2 / (number of generated weights + M). The
prior's w0(xi) has Glorot's variance in all, half of it from b0 and half from A0 xi. There are no published numbers for
DeepSea: HyperAgent's are used, with indices that a mini-batch shares, since each generates a whole network. The index
is on the sphere as HyperAgent's is; with a Gaussian one, as in the source, some of a hundred indices are so long that
DeepSea does not stay solved.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperagent_jax.agent import make_optimizer, reference_of
from hyperagent_jax.baselines.config import (
  ADAM,
  COMMON,
  PERTURBATION,
  PRIOR,
  SAMPLED_INDEX,
  RivalConfig,
  deep_sea_preset,
  validate_rival,
)
from hyperagent_jax.baselines.indexed_agent import IndexedNetwork, make_indexed_agent, optax_step, sampled_indices
from hyperagent_jax.baselines.modules import grid_size_of
from hyperagent_jax.config import ConfigError
from hyperagent_jax.networks import apply
from hyperagent_jax.torsos import deep_sea_row
from hyperagent_jax.types import Agent, Array, Params, PRNGKey

FIELDS = (COMMON | ADAM | PRIOR | SAMPLED_INDEX | PERTURBATION) - {'prior_storage'}


def deep_sea(size: int) -> RivalConfig:
  """HyperAgent's numbers with 20 shared update indices."""
  return deep_sea_preset(size, update_indices='20', shared_indices=True)


class HyperLayers(nn.Module):
  """An MLP whose weights and biases are all affine in the index."""

  widths: tuple[int, ...]  # of all layers, the last one the actions
  grid_size: int | None
  is_prior: bool
  index_variance: float = 1.0  # of each component

  @nn.compact
  def __call__(self, observation: Array, xi: Array) -> Array:  # -> [A]
    """Values of one state under one index."""
    x = observation if self.grid_size else jnp.ravel(observation).astype(jnp.float32)
    num_in = self.grid_size**2 if self.grid_size else x.size
    for i, width in enumerate(self.widths):
      num_weights = num_in * width
      if i == 0 and self.grid_size:
        num_rows = self.grid_size * (self.grid_size + 1) // 2
        kernel = self._generated(f'kernel_{i}', (num_rows, width), num_in + width, num_weights, xi)
        x = kernel.at[deep_sea_row(x, self.grid_size)].get(mode='fill', fill_value=0.0)
      else:
        x = x @ self._generated(f'kernel_{i}', (num_in, width), num_in + width, num_weights, xi)
      x = x + self._generated(f'bias_{i}', (width,), None, width, xi)
      x = x if i == len(self.widths) - 1 else nn.relu(x)
      num_in = width
    return x

  def _generated(self, name: str, shape: tuple[int, ...], fans: int | None, num_weights: int, xi: Array) -> Array:
    """A xi + b of one layer; `fans` are its inputs and outputs together, None for a bias, which starts at 0."""
    dim = xi.shape[0]

    def init(key: PRNGKey) -> Array:  # [..., 1 + M], b first
      key_b, key_a = jax.random.split(key)
      share = 0.5 if self.is_prior else 1.0
      b_std = (2.0 * share / fans) ** 0.5 if fans else 0.0
      a_std = (2.0 / (num_weights + dim)) ** 0.5
      if self.is_prior:
        a_std = b_std / (dim * self.index_variance) ** 0.5  # times the index: as large as b
      b = b_std * jax.random.normal(key_b, (*shape, 1))
      return jnp.concatenate([b, a_std * jax.random.normal(key_a, (*shape, dim))], axis=-1)

    both = self.param(name, init)
    return both[..., 0] + both[..., 1:] @ xi


def make_network(config: RivalConfig, num_actions: int) -> IndexedNetwork:
  """The hypermodel and its prior; the prior's value depends on the index and is not kept."""
  if config.torso not in ('deep_sea', 'mlp'):
    raise ConfigError(f'--torso={config.torso}: hypermodel generates the weights of an MLP; must be deep_sea or mlp')
  widths = (*config.hidden_sizes, num_actions)
  variance = reference_of(config).second_moment
  modules = [HyperLayers(widths, grid_size_of(config), is_prior, variance) for is_prior in (False, True)]

  def init(key: PRNGKey, observation: Array) -> tuple[Params, Params]:
    xi = jnp.zeros((config.index_dim,))
    keys = jax.random.split(key)
    params, prior_params = (m.init(k, observation, xi)['params'] for m, k in zip(modules, keys, strict=True))
    return params, prior_params

  def q(params: Params, prior_params: Params, observation: Array, prior_q: tuple[()], xi: Array) -> Array:
    trained, fixed = (apply(m, p, observation, xi) for m, p in zip(modules, (params, prior_params), strict=True))
    return trained + config.prior_scale * fixed

  return IndexedNetwork(init, lambda prior_params, observation: (), q)


def make(config: RivalConfig, num_actions: int) -> Agent:
  """The agent."""
  validate_rival(config, FIELDS)
  step = optax_step(make_optimizer(config))
  return make_indexed_agent(make_network(config, num_actions), sampled_indices(config), step, config)
