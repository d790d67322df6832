"""Networks that several rivals share: a plain Q-network, and layers on whatever an observation is."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperagent_jax.baselines.config import RivalConfig
from hyperagent_jax.baselines.indexed_agent import IndexedNetwork
from hyperagent_jax.networks import apply, make_torso
from hyperagent_jax.torsos import deep_sea_row, glorot_normal
from hyperagent_jax.types import Array, Network, Params, PRNGKey


class QNetwork(nn.Module):
  """A torso and a linear layer with a bias: the Q-network of DQN."""

  torso: nn.Module
  num_actions: int

  @nn.compact
  def __call__(self, observation: Array) -> Array:  # -> [A]
    """Action values of one state."""
    return nn.Dense(self.num_actions, kernel_init=glorot_normal)(self.torso(observation))


class ObservationProduct(nn.Module):
  """The first layer's product with a whole observation, without a bias: a row look-up for DeepSea's integers."""

  features: int
  grid_size: int | None  # of DeepSea; None for arrays, which are flattened

  @nn.compact
  def __call__(self, observation: Array) -> Array:  # -> [features]
    """W o, of one observation."""
    if self.grid_size is None:
      return nn.Dense(self.features, use_bias=False, kernel_init=glorot_normal)(
        jnp.ravel(observation).astype(jnp.float32)
      )
    std = (2.0 / (self.grid_size**2 + self.features)) ** 0.5
    shape = (self.grid_size * (self.grid_size + 1) // 2, self.features)
    rows = self.param('rows', nn.initializers.normal(std), shape)
    return rows.at[deep_sea_row(observation, self.grid_size)].get(mode='fill', fill_value=0.0)


def grid_size_of(config: RivalConfig) -> int | None:
  """N where observations are DeepSea's integers."""
  return config.grid_size if config.torso == 'deep_sea' else None


def without_prior(module: nn.Module, example: Array | None = None) -> IndexedNetwork:
  """A module without prior as a network.

  Args:
    module: called on an observation and an index, or on the observation alone.
    example: an index to initialise the module with; None if it takes none.
  """
  given = lambda xi: () if example is None else (xi,)

  def init(key: PRNGKey, observation: Array) -> tuple[Params, Params]:
    return module.init(key, observation, *given(example))['params'], ()

  def q(params: Params, prior_params: Params, observation: Array, prior_q: tuple[()], xi: Array) -> Array:
    return apply(module, params, observation, *given(xi))

  return IndexedNetwork(init, lambda prior_params, observation: (), q)


def plain_network(config: RivalConfig, num_actions: int) -> IndexedNetwork:
  """A Q-network without index or prior."""
  return without_prior(QNetwork(make_torso(config), num_actions))


def with_index(network: Network) -> IndexedNetwork:
  """A network that is affine in the index, such as HyperAgent's, as one of any kind."""
  return IndexedNetwork(network.init, network.prior_q, network.q, network.remember_prior)


def ensemble_init(module: nn.Module, num: int) -> Callable[[PRNGKey, Array], Params]:
  """Initial parameters of so many copies of a module, each drawn on its own; arrays have a leading axis [M]."""
  one = lambda key, observation: module.init(key, observation)['params']
  return lambda key, observation: jax.vmap(one, in_axes=(0, None))(jax.random.split(key, num), observation)


def ensemble_apply(module: nn.Module, params: Params, observation: Array) -> Array:  # -> [M, A]
  """Every member's values of one state."""
  return jax.vmap(lambda p: apply(module, p, observation))(params)
