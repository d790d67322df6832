"""Adapters: a JAX environment as a `dm_env.Environment`, and one-hot observations as integers."""

from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from hyperagent_jax.types import FIRST, LAST, Environment, PRNGKey


class JaxEnvironment(dm_env.Environment):
  """A JAX environment behind dm_env's interface, for code that steps environments from Python."""

  def __init__(self, environment: Environment, env_params: Any, key: PRNGKey):
    """Compiles the environment.

    Args:
      environment: the environment.
      env_params: its parameters, for one instance.
      key: source of all its randomness.
    """
    self._environment = environment
    self._env_params = env_params
    self._key = key
    self._num_steps = 0
    self._state: Any = None
    self._reset_fn = jax.jit(environment.reset)
    self._step_fn = jax.jit(environment.step)

  def _next_key(self) -> PRNGKey:
    self._num_steps += 1
    return jax.random.fold_in(self._key, self._num_steps)

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    self._state, timestep = self._reset_fn(self._env_params, self._next_key())
    return _to_dm_env(timestep)

  def step(self, action: int) -> dm_env.TimeStep:
    """Takes a step; the first call, and one after a LAST step, start an episode and ignore the action."""
    if self._state is None:
      return self.reset()
    if not 0 <= action < self._environment.num_actions:
      raise ValueError(f'action={action}: must be in [0, {self._environment.num_actions})')
    self._state, timestep = self._step_fn(self._env_params, self._state, np.int32(action), self._next_key())
    return _to_dm_env(timestep)

  def observation_spec(self) -> specs.Array:
    """The observations' spec."""
    return self._environment.observation_spec

  def action_spec(self) -> specs.DiscreteArray:
    """Actions 0 to A - 1."""
    return specs.DiscreteArray(self._environment.num_actions, name='action')


def _to_dm_env(timestep: Any) -> dm_env.TimeStep:
  step_type, reward, discount, observation = jax.device_get(timestep)
  if step_type == FIRST:
    return dm_env.restart(observation)
  kind = dm_env.StepType.LAST if step_type == LAST else dm_env.StepType.MID
  return dm_env.TimeStep(kind, float(reward), float(discount), observation)


class IntegerObservations(dm_env.Environment):
  """Replaces one-hot observations by their position, and all-zero ones by their size.

  So bsuite's own DeepSea gives the observations of `make_deep_sea`: row * N + column, and N^2 after the last step.
  """

  def __init__(self, environment: dm_env.Environment):
    """Wraps an environment whose observations are arrays with at most one entry of 1, all others 0."""
    self._environment = environment
    self._size = int(np.prod(environment.observation_spec().shape))

  def _convert(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    flat = np.ravel(timestep.observation)
    position = int(flat.argmax())
    return timestep._replace(observation=np.int32(position if flat[position] else self._size))

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    return self._convert(self._environment.reset())

  def step(self, action: int) -> dm_env.TimeStep:
    """Takes a step."""
    return self._convert(self._environment.step(action))

  def observation_spec(self) -> specs.DiscreteArray:
    """One of size + 1 integers."""
    return specs.DiscreteArray(self._size + 1, dtype=np.int32, name='observation')

  def action_spec(self) -> specs.DiscreteArray:
    """The wrapped environment's."""
    return self._environment.action_spec()
