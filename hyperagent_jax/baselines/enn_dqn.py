"""ENN-DQN (Osband et al., 2023): an epinet beside a plain Q-network (Eq. 14).

    Q(s, a, xi) = base(phi(s))_a + <epinet([s, stop_grad(phi(s)), xi])_a, xi> + c_prior sum_m xi_m prior_m(s)_a

The epinet is an MLP without biases that puts out a vector of R^M for every action; the priors are M small fixed MLPs of
the observation. The epinet's first layer is a sum of products with its three inputs, so that an index costs only the
last of them; each product starts with Glorot's variance for its own input. On screens the epinet reads the features
only. No perturbation; the target index is the update index.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hyperagent_jax.agent import make_optimizer
from hyperagent_jax.baselines.config import (
  ADAM,
  COMMON,
  PRIOR,
  SAMPLED_INDEX,
  RivalConfig,
  atari_preset,
  deep_sea_preset,
  validate_rival,
)
from hyperagent_jax.baselines.indexed_agent import IndexedNetwork, make_indexed_agent, optax_step, sampled_indices
from hyperagent_jax.baselines.modules import (
  ObservationProduct,
  QNetwork,
  ensemble_apply,
  ensemble_init,
  grid_size_of,
)
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.networks import apply, make_torso, store_prior
from hyperagent_jax.torsos import glorot_normal
from hyperagent_jax.types import Agent, Array, Params, PRNGKey

FIELDS = COMMON | ADAM | PRIOR | SAMPLED_INDEX | {'epinet_hidden_sizes', 'prior_hidden_sizes'}

_PUBLISHED = {
  'reference_distribution': 'gaussian',
  'target_index': 'dependent',
  'update_indices': '20',
  'double_q': False,
  'geometric_resampling': False,
  'prior_scale': 1.0,
}


def deep_sea(size: int) -> RivalConfig:
  """An epinet of 50 units, priors of 5, M = 4, 20 indices."""
  return deep_sea_preset(size, **_PUBLISHED)


def atari(preset: HyperAgentConfig) -> RivalConfig:
  """The same on HyperAgent's Atari torso."""
  return atari_preset(preset, **_PUBLISHED)


class Epinet(nn.Module):
  """A base network and what an index adds to it."""

  torso: nn.Module
  num_actions: int
  index_dim: int
  hidden_sizes: tuple[int, ...]
  grid_size: int | None
  reads_observation: bool

  @nn.compact
  def __call__(self, observation: Array, xi: Array) -> Array:  # -> [A]
    """Action values of one state under one index, without the prior."""
    features = self.torso(observation)
    base = nn.Dense(self.num_actions, kernel_init=glorot_normal)(features)
    dense = lambda width: nn.Dense(width, use_bias=False, kernel_init=glorot_normal)
    width = self.hidden_sizes[0]
    x = dense(width)(jax.lax.stop_gradient(features)) + dense(width)(xi)
    if self.reads_observation:
      x = x + ObservationProduct(width, self.grid_size)(observation)
    for width in self.hidden_sizes[1:]:
      x = dense(width)(nn.relu(x))
    out = dense(self.num_actions * self.index_dim)(nn.relu(x))
    return base + out.reshape(self.num_actions, self.index_dim) @ xi


def make_epinet(config: RivalConfig, num_actions: int) -> IndexedNetwork:
  """The epinet and its priors, which are affine in the index and so are kept with a state as [M, A]."""
  is_screen = config.torso in ('nature', 'data_efficient')
  module = Epinet(
    make_torso(config),
    num_actions,
    config.index_dim,
    config.epinet_hidden_sizes,
    grid_size_of(config),
    reads_observation=not is_screen,
  )
  prior_module = QNetwork(make_torso(config, config.prior_hidden_sizes), num_actions)
  init_priors = ensemble_init(prior_module, config.index_dim)
  evaluate = lambda prior_params, observation: (
    config.prior_scale * ensemble_apply(prior_module, prior_params, observation)
  )
  store, look_up = store_prior(evaluate, config)

  def init(key: PRNGKey, observation: Array) -> tuple[Params, Params]:
    key_params, key_prior = jax.random.split(key)
    params = module.init(key_params, observation, jnp.zeros((config.index_dim,)))['params']
    return params, store(init_priors(key_prior, observation))

  def q(params: Params, prior_params: Params, observation: Array, prior_q: Array, xi: Array) -> Array:
    return apply(module, params, observation, xi) + xi @ prior_q

  return IndexedNetwork(init, look_up, q, config.prior_storage != 'table')


def make(config: RivalConfig, num_actions: int) -> Agent:
  """The agent."""
  validate_rival(config, FIELDS)
  step = optax_step(make_optimizer(config))
  return make_indexed_agent(make_epinet(config, num_actions), sampled_indices(config), step, config)
