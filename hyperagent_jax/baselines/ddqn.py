"""DDQN(ours): Double DQN on HyperAgent's torso, exploring by epsilon-greedy actions (section 6 and B.1 of the paper).

No index, no prior, and no scale on the head. Epsilon falls linearly from 1 to 0.1: on DeepSea within 10% of the budget
of 10,000 episodes, on Atari within 40,000 interactions. Evaluation on Atari acts with 0.05.
"""

import jax.numpy as jnp

from hyperagent_jax.agent import make_optimizer
from hyperagent_jax.baselines.config import ADAM, COMMON, RivalConfig, atari_preset, deep_sea_preset, validate_rival
from hyperagent_jax.baselines.indexed_agent import make_indexed_agent, no_indices, optax_step
from hyperagent_jax.baselines.modules import plain_network
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.types import Agent, Array

FIELDS = COMMON | ADAM | {'epsilon_final', 'epsilon_steps', 'epsilon_evaluation'}


def deep_sea(size: int) -> RivalConfig:
  """HyperAgent's own values; epsilon decays within 1,000 episodes; evaluation is greedy, or no size would be solved."""
  return deep_sea_preset(size, epsilon_steps=1_000 * size, epsilon_evaluation=0.0)


def atari(preset: HyperAgentConfig) -> RivalConfig:
  """HyperAgent's own values (the published code has 10-step returns); epsilon decays within 40,000 interactions."""
  return atari_preset(preset, epsilon_steps=40_000)


def epsilon_greedy(config: RivalConfig, num_acts: Array, evaluation: bool) -> Array:
  """Probability of a random action."""
  if evaluation:
    return jnp.float32(config.epsilon_evaluation)
  # Not optax.linear_schedule, which clips the count and not the result: it gives the same numbers outside of jit, but
  # XLA divides by multiplying with the inverse, and a compiled program would stay 2.2e-8 above `epsilon_final`.
  # Unsigned: a counter that has outgrown an int32 is not early again.
  left = jnp.maximum(0.0, 1.0 - num_acts.astype(jnp.uint32) / config.epsilon_steps)
  return config.epsilon_final + (1.0 - config.epsilon_final) * left


def make(config: RivalConfig, num_actions: int) -> Agent:
  """The agent."""
  validate_rival(config, FIELDS)
  return make_indexed_agent(
    plain_network(config, num_actions),
    no_indices(),
    optax_step(make_optimizer(config)),
    config,
    epsilon=lambda num_acts, evaluation: epsilon_greedy(config, num_acts, evaluation),
  )
