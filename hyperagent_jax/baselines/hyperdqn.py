"""HyperDQN (Li et al., 2022): HyperAgent's ancestor, with dependent target indices that a whole mini-batch shares.

A linear hypermodel of the last layer's weights and of its bias, on a torso that all indices share (Eq. 13):

    mean over indices of (Q(s, a, xi) - sigma <xi, z> - r - gamma Q_target(s', a*, xi))^2

With the published code's numbers for DeepSea: M = 2, 20 indices, mini-batches of 128 x 20 transitions, sigma 0, Adam
with eps 1e-8 and no clipping. Plain Q-learning, as published accounts of it say; the published code always uses double
Q-learning (`--double_q`). The bias is the weight of a constant feature.
"""

import flax.linen as nn
import jax.numpy as jnp

from hyperagent_jax.agent import make_optimizer
from hyperagent_jax.baselines.config import (
  ADAM,
  COMMON,
  PERTURBATION,
  PRIOR,
  SAMPLED_INDEX,
  RivalConfig,
  atari_preset,
  deep_sea_preset,
  validate_rival,
)
from hyperagent_jax.baselines.indexed_agent import make_indexed_agent, optax_step, sampled_indices
from hyperagent_jax.baselines.modules import with_index
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.networks import join_with_prior, make_torso
from hyperagent_jax.types import Agent, Array

FIELDS = (
  COMMON
  | ADAM
  | PRIOR
  | SAMPLED_INDEX
  | PERTURBATION
  | {'posterior_scale', 'prior_std', 'prior_row_length', 'bias_init'}
)

_PUBLISHED = {
  'target_index': 'dependent',
  'shared_indices': True,
  'update_indices': '20',
  'double_q': False,
  'adam_eps': 1e-8,
  'max_grad_norm': 1e9,  # that is, not at all
  'geometric_resampling': False,
}


def deep_sea(size: int) -> RivalConfig:
  """The published code's numbers."""
  return deep_sea_preset(size, index_dim=2, batch_size=2_560, min_replay=128, **_PUBLISHED)


def atari(preset: HyperAgentConfig) -> RivalConfig:
  """HyperAgent's numbers but for the index: dependent, shared, M = 32, ten of them (published code), sigma 0.01."""
  return atari_preset(preset, **{**_PUBLISHED, 'update_indices': '10', 'index_dim': 32, 'sigma': 0.01})


class WithOne(nn.Module):
  """A torso's features and a constant 1, whose weight is a bias."""

  torso: nn.Module

  def __call__(self, observation: Array) -> Array:  # -> [H + 1]
    """Features of one state."""
    return jnp.append(self.torso(observation), 1.0)


def make(config: RivalConfig, num_actions: int) -> Agent:
  """The agent."""
  validate_rival(config, FIELDS)
  network = join_with_prior(lambda: WithOne(make_torso(config)), config, num_actions)
  step = optax_step(make_optimizer(config))
  return make_indexed_agent(with_index(network), sampled_indices(config), step, config)
