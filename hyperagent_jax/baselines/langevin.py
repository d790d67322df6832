"""Langevin DQN (Dwaracherla and Van Roy, 2020) and Adam LMCDQN (Ishfaq et al., 2024): noise in the gradient steps.

The parameters are a point estimate that never settles; acting is greedy, there is no index. With g the gradient of the
mean squared TD error and e standard Gaussian noise, an update is J steps towards the same targets:

    Langevin     w <- w - lr g + sqrt(2 lr / T) e
    Adam LMC     w <- w - lr (g + a m / (sqrt(v) + eps)) + sqrt(2 lr / T) e

where m and v are the moving averages of g and g^2, without bias correction. `noise_scale` is 1 / sqrt(T), T the inverse
temperature. The published Langevin agent steps with Adam, and its noise is preconditioned alike; here it is the plain
algorithm. The published Adam LMCDQN has J = 1 and a fresh mini-batch for every step (`--update_ratio`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from hyperagent_jax.baselines.config import COMMON, RivalConfig, atari_preset, deep_sea_preset, validate_rival
from hyperagent_jax.baselines.indexed_agent import Step, make_indexed_agent, no_indices
from hyperagent_jax.baselines.modules import plain_network
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.types import Agent, Array, Params, PRNGKey

FIELDS = COMMON | {'noise_scale', 'num_inner_steps'}
ADAM_FIELDS = FIELDS | {'bias_factor', 'adam_eps'}


def deep_sea(size: int) -> RivalConfig:
  """Plain steps of 1e-2 as in the published point estimate."""
  return deep_sea_preset(size, learning_rate=1e-2, noise_scale=1e-3, double_q=False)


def deep_sea_adam(size: int) -> RivalConfig:
  """The published optimizer's eps of 1e-8, a of 1 and J = 1."""
  return deep_sea_preset(size, noise_scale=1e-4, bias_factor=1.0, adam_eps=1e-8, double_q=False)


def atari(preset: HyperAgentConfig) -> RivalConfig:
  """The published numbers for Atari, on HyperAgent's torso."""
  return atari_preset(preset, noise_scale=1e-7, double_q=False)


def atari_adam(preset: HyperAgentConfig) -> RivalConfig:
  """The published numbers for Atari, on HyperAgent's torso."""
  return atari_preset(preset, noise_scale=1e-7, bias_factor=0.1, adam_eps=1e-8, double_q=False)


class Moments(NamedTuple):
  """Moving averages of the gradient and of its square."""

  mu: Params
  nu: Params


def _noise(key: PRNGKey, params: Params, std: float) -> Params:
  flat, unflatten = ravel_pytree(params)
  return unflatten(std * jax.random.normal(key, flat.shape))


def langevin_step(config: RivalConfig) -> Step:
  """Stochastic gradient Langevin dynamics."""
  lr = config.learning_rate
  std = config.noise_scale * (2.0 * lr) ** 0.5

  def update(grads: Params, state: tuple[()], params: Params, key: PRNGKey) -> tuple[Params, tuple[()]]:
    return jax.tree.map(lambda g, e: -lr * g + e, grads, _noise(key, params, std)), state

  return Step(lambda params: (), update)


def adam_lmc_step(config: RivalConfig, b1: float = 0.9, b2: float = 0.999) -> Step:
  """Langevin dynamics with an adaptive bias of the drift."""
  lr, a, eps = config.learning_rate, config.bias_factor, config.adam_eps
  std = config.noise_scale * (2.0 * lr) ** 0.5

  def init(params: Params) -> Moments:
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    return Moments(zeros(), zeros())

  def update(grads: Params, state: Moments, params: Params, key: PRNGKey) -> tuple[Params, Moments]:
    mu = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * g * g, state.nu, grads)

    def change(g: Array, m: Array, v: Array, e: Array) -> Array:
      return -lr * (g + a * m / (jnp.sqrt(v) + eps)) + e

    return jax.tree.map(change, grads, mu, nu, _noise(key, params, std)), Moments(mu, nu)

  return Step(init, update)


def _make(config: RivalConfig, num_actions: int, fields: frozenset[str], step: Step) -> Agent:
  validate_rival(config, fields)
  return make_indexed_agent(plain_network(config, num_actions), no_indices(), step, config)


def make(config: RivalConfig, num_actions: int) -> Agent:
  """Langevin DQN."""
  return _make(config, num_actions, FIELDS, langevin_step(config))


def make_adam(config: RivalConfig, num_actions: int) -> Agent:
  """Adam LMCDQN."""
  return _make(config, num_actions, ADAM_FIELDS, adam_lmc_step(config))
