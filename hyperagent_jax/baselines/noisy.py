"""NoisyNet (Fortunato et al., 2018) and SANE (Aravindan and Lee, 2021): Gaussian noise in the weights of dense layers.

    NoisyNet   w = mu + sigma * (f(e_in) f(e_out)^T), a learnt sigma for every weight, sigma_0 / sqrt(inputs) at first
    SANE       the same with one learnt scale sigma(s) for all weights, a function of the state

with f(x) = sign(x) sqrt(|x|). The index is the seed from which a network draws all its noise. It is drawn anew for
every step, and for online and target network in every update, where a mini-batch shares it (the published SANE draws
it for each example). The policy is greedy. There is no prior. mu starts uniform in +-1 / sqrt(inputs). Convolutions
have no noise. In double Q-learning the selecting network has the target's noise, and evaluation has noise too.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.agent import make_optimizer
from hyperagent_jax.baselines.config import (
  ACTING_INDEX,
  ADAM,
  COMMON,
  RivalConfig,
  atari_preset,
  deep_sea_preset,
  validate_rival,
)
from hyperagent_jax.baselines.indexed_agent import (
  IndexedNetwork,
  Indices,
  make_indexed_agent,
  optax_step,
  sampled_indices,
)
from hyperagent_jax.baselines.modules import grid_size_of, without_prior
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.distributions import Distribution
from hyperagent_jax.networks import make_torso
from hyperagent_jax.torsos import deep_sea_row
from hyperagent_jax.types import Agent, Array

FIELDS = COMMON | ADAM | ACTING_INDEX | {'noise_init', 'update_indices', 'shared_indices'}

# A fresh network at every step and for every mini-batch.
_FRESH = {'act_resampling': 'state_dependent', 'update_indices': '1', 'shared_indices': True}


def deep_sea(size: int) -> RivalConfig:
  """NoisyNet with sigma_0 = 0.5 and HyperAgent's other values; nothing was published for DeepSea."""
  return deep_sea_preset(size, noise_init=0.5, **_FRESH)


def deep_sea_sane(size: int) -> RivalConfig:
  """SANE; its scale starts near 0.1 by choice, since the published one has no fixed start."""
  return deep_sea_preset(size, noise_init=0.1, **_FRESH)


def atari(preset: HyperAgentConfig) -> RivalConfig:
  """NoisyNet on HyperAgent's convolutions."""
  return atari_preset(preset, noise_init=0.5, **_FRESH)


def atari_sane(preset: HyperAgentConfig) -> RivalConfig:
  """SANE on HyperAgent's convolutions."""
  return atari_preset(preset, noise_init=0.1, **_FRESH)


def squashed(noise: Array) -> Array:
  """f(x) = sign(x) sqrt(|x|) of factorised noise."""
  return jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))


def _uniform(bound: float) -> Callable[..., Array]:
  return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Inputs(NamedTuple):
  """A layer's inputs x [I], which may be the one-hot that an integer stands for, by what is asked of them."""

  size: int  # I
  num_rows: int  # of its kernels: of a one-hot, only inputs that are ever 1 have a row
  times: Callable[[Array], Array]  # kernel [rows, O] -> x W
  dot: Callable[[Array], Array]  # [I] -> <x, e>
  times_noisy: Callable[[Array, Array], Array]  # noise [I], kernel [rows, O] -> (x * e) W


def dense_inputs(x: Array) -> Inputs:
  """An ordinary array [I] as inputs."""
  return Inputs(x.size, x.size, lambda w: x @ w, lambda e: jnp.dot(x, e), lambda e, w: (x * e) @ w)


def deep_sea_inputs(observation: Array, grid_size: int) -> Inputs:
  """The one-hot [N^2] that an integer stands for as inputs, or the zeros that the last observation's number means."""
  num_rows = grid_size * (grid_size + 1) // 2
  row = deep_sea_row(observation, grid_size)
  times = lambda w: w.at[row].get(mode='fill', fill_value=0.0)
  dot = lambda e: jnp.where(row < num_rows, e[jnp.minimum(observation, grid_size**2 - 1)], 0.0)
  return Inputs(grid_size**2, num_rows, times, dot, lambda e, w: dot(e) * times(w))


class NoisyLayers(nn.Module):
  """Dense layers with factorised noise on an observation, or on what a torso without dense layers makes of it."""

  widths: tuple[int, ...]  # of all layers, the last one the actions
  grid_size: int | None
  noise_init: float
  by_state: bool  # whether one scale for all weights is learnt as a function of the state (SANE)
  torso: nn.Module | None = None

  @nn.compact
  def __call__(self, observation: Array, seed: Array) -> Array:  # [...], [2] uint32 -> [A]
    """Values of one state under the noise that a seed gives."""
    x = self._inputs(observation)
    scale = self._scale(x) if self.by_state else None
    key = jax.random.wrap_key_data(seed, impl='threefry2x32')
    # One draw for all layers: inputs and outputs of the first, then of the second, and so on.
    sizes = [n for pair in zip((x.size, *self.widths), self.widths, strict=False) for n in pair]
    noise = jnp.split(squashed(jax.random.normal(key, (sum(sizes),))), np.cumsum(sizes)[:-1])
    for i, width in enumerate(self.widths):
      out = self._layer(i, x, width, noise[2 * i], noise[2 * i + 1], scale)
      x = dense_inputs(nn.relu(out))
    return out

  def _inputs(self, observation: Array) -> Inputs:
    """The inputs of the first layer."""
    if self.grid_size:
      return deep_sea_inputs(observation, self.grid_size)
    x = observation if self.torso is None else self.torso(observation)
    return dense_inputs(jnp.ravel(x).astype(jnp.float32))

  def _scale(self, x: Inputs) -> Array:
    """sigma(s): a hidden layer and one unit, near `noise_init` at first."""
    width = self.widths[0]
    hidden = nn.relu(x.times(self.param('scale_hidden', _uniform(x.size**-0.5), (x.num_rows, width))))
    kernel = self.param('scale_out', nn.initializers.normal(0.01), (width,))
    return jnp.dot(hidden, kernel) + self.param('scale_bias', nn.initializers.constant(self.noise_init), (1,))[0]

  def _layer(self, i: int, x: Inputs, width: int, e_in: Array, e_out: Array, scale: Array | None) -> Array:
    root = x.size**-0.5
    mean = x.times(self.param(f'mean_{i}', _uniform(root), (x.num_rows, width)))
    mean = mean + self.param(f'mean_bias_{i}', _uniform(root), (width,))
    if self.by_state:
      assert scale is not None
      return mean + scale * e_out * (x.dot(e_in) + 1.0)
    constant = nn.initializers.constant(self.noise_init * root)
    sigma = self.param(f'sigma_{i}', constant, (x.num_rows, width))
    return mean + e_out * (x.times_noisy(e_in, sigma) + self.param(f'sigma_bias_{i}', constant, (width,)))


def seeds(config: RivalConfig) -> Indices:
  """Indices that are seeds [2]."""
  sample = lambda key, num: jax.random.bits(key, (num, 2), jnp.uint32)
  return sampled_indices(config, Distribution(sample, mean=float('nan'), second_moment=float('nan')))


def noisy_network(config: RivalConfig, num_actions: int, by_state: bool) -> IndexedNetwork:
  """The network of either system."""
  is_screen = config.torso in ('nature', 'data_efficient')
  torso = make_torso(config, hidden_sizes=()) if is_screen else None
  widths = (*config.hidden_sizes, num_actions)
  module = NoisyLayers(widths, grid_size_of(config), config.noise_init, by_state, torso)
  return without_prior(module, jnp.zeros((2,), jnp.uint32))


def _make(config: RivalConfig, num_actions: int, by_state: bool) -> Agent:
  validate_rival(config, FIELDS)
  step = optax_step(make_optimizer(config))
  return make_indexed_agent(noisy_network(config, num_actions, by_state), seeds(config), step, config)


def make(config: RivalConfig, num_actions: int) -> Agent:
  """NoisyNet."""
  return _make(config, num_actions, by_state=False)


def make_sane(config: RivalConfig, num_actions: int) -> Agent:
  """SANE."""
  return _make(config, num_actions, by_state=True)
