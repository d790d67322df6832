"""Environments that show their last observations, for tasks that must be remembered: oldest first, zeros at first.

With `frame_stack` of the same number the replay keeps each observation once and puts the history together again.
"""

from typing import Any, NamedTuple

import dm_env
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from hyperagent_jax.types import Array, Environment, PRNGKey, TimeStep


class HistoryState(NamedTuple):
  """An environment's state and what it has shown in this episode."""

  inner: Any
  frames: Array  # [F, ...] oldest first


def _spec(spec: specs.Array, length: int) -> specs.Array:
  """The spec of a history of observations.

  Raises:
    ValueError: if it would be empty, or an observation is a pytree, or a category: zero is one of them and would not
      mean 'nothing yet'.
  """
  if length < 1:
    raise ValueError(f'a history of {length} observations: must be at least 1')
  if not isinstance(spec, specs.Array):
    raise ValueError(f'a history needs observations that are one array each; these are {type(spec).__name__}s')
  if isinstance(spec, specs.DiscreteArray):
    raise ValueError('a history needs observations that are arrays; these are one of a number of states')
  return specs.Array((length, *spec.shape), spec.dtype, name=spec.name)


def with_history(environment: Environment, length: int) -> Environment:
  """The environment with observations [F, ...] in place of [...].

  Args:
    environment: of one instance.
    length: F, at least 1.

  Raises:
    ValueError: if the length is below 1, or observations are states' numbers or pytrees.
  """

  def reset(params: Any, key: PRNGKey) -> tuple[HistoryState, TimeStep]:
    inner, timestep = environment.reset(params, key)
    nothing = jnp.zeros((length - 1, *timestep.observation.shape), timestep.observation.dtype)
    frames = jnp.concatenate([nothing, timestep.observation[None]])
    return HistoryState(inner, frames), timestep._replace(observation=frames)

  def step(params: Any, state: HistoryState, action: Array, key: PRNGKey) -> tuple[HistoryState, TimeStep]:
    inner, timestep = environment.step(params, state.inner, action, key)
    before = jnp.where(timestep.first(), jnp.zeros_like(state.frames[1:]), state.frames[1:])
    frames = jnp.concatenate([before, timestep.observation[None]])
    return HistoryState(inner, frames), timestep._replace(observation=frames)

  return environment._replace(reset=reset, step=step, observation_spec=_spec(environment.observation_spec, length))


class HistoryEnvironment(dm_env.Environment):
  """The same for a `dm_env.Environment`."""

  def __init__(self, environment: dm_env.Environment, length: int):
    """Wraps an environment.

    Args:
      environment: whose observations are arrays.
      length: F, at least 1.

    Raises:
      ValueError: if the length is below 1, or observations are states' numbers or pytrees.
    """
    self._environment = environment
    self._spec = _spec(environment.observation_spec(), length)
    self._frames = np.zeros(self._spec.shape, self._spec.dtype)

  def _shown(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    before = np.zeros_like(self._frames[1:]) if timestep.first() else self._frames[1:]
    self._frames = np.concatenate([before, np.asarray(timestep.observation)[None]])
    return timestep._replace(observation=self._frames)

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    return self._shown(self._environment.reset())

  def step(self, action: int) -> dm_env.TimeStep:
    """Takes a step."""
    return self._shown(self._environment.step(action))

  def observation_spec(self) -> specs.Array:
    """The spec of [F, ...]."""
    return self._spec

  def action_spec(self) -> specs.Array:
    """The wrapped environment's spec."""
    return self._environment.action_spec()


def without_history(state: Any) -> Any:
  """The environment's own state, whether or not it has a history."""
  return state.inner if isinstance(state, HistoryState) else state
