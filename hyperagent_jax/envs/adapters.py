"""Adapters to `dm_env.Environment`: of JAX environments, of Gymnasium's, and of one-hot observations to integers."""

from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from hyperagent_jax.types import FIRST, LAST, Environment, Observation, PRNGKey


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

  def observation_spec(self) -> Any:
    """The observations' spec, or a tree of them."""
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


class GymnasiumEnvironment(dm_env.Environment):
  """A `gymnasium.Env` with discrete actions behind dm_env's interface.

  What Gymnasium calls terminated ends an episode with discount 0; what it calls truncated ends it with discount 1, so
  that agents still bootstrap. Actions and discrete observations start from 0 here, whatever their `start` is there.
  Dict and Tuple observations become dicts and tuples.
  """

  def __init__(self, env: Any, seed: int | None = None):
    """Wraps an environment.

    Args:
      env: the `gymnasium.Env`.
      seed: given to its first `reset`, and to no other; None: it seeds itself.

    Raises:
      ValueError: if actions are not `Discrete`, or an observation is not numbers of a fixed shape.
    """
    from gymnasium import spaces  # optional: only who has such an environment has it

    if not isinstance(env.action_space, spaces.Discrete):
      problem = 'continuous actions are not supported; ' if isinstance(env.action_space, spaces.Box) else ''
      raise ValueError(f'actions are {env.action_space}: {problem}they must be discrete (gymnasium.spaces.Discrete)')
    self._env = env
    self._seed = seed
    self._needs_reset = True
    self._num_actions = int(env.action_space.n)
    self._first_action = int(env.action_space.start)
    self._spec = _spec_of(env.observation_space, 'observation')

  @property
  def frame_padding(self) -> str | None:
    """What the configuration's frame_padding must be: 'first' or 'blank' as `FrameStackObservation` does, else None."""
    env = self._env
    while env is not None:
      if type(env).__name__ == 'FrameStackObservation':
        return {'reset': 'first', 'zero': 'blank'}.get(str(getattr(env, 'padding_type', '')).lower())
      env = getattr(env, 'env', None)
    return None

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    observation, _ = self._env.reset(seed=self._seed)
    self._seed, self._needs_reset = None, False
    return dm_env.restart(_from_space(self._env.observation_space, observation))

  def step(self, action: int) -> dm_env.TimeStep:
    """Takes a step; the first call, and one after a LAST step, start an episode and ignore the action."""
    if self._needs_reset:
      return self.reset()
    if not 0 <= action < self._num_actions:
      raise ValueError(f'action={action}: must be in [0, {self._num_actions})')
    observation, reward, terminated, truncated, _ = self._env.step(self._first_action + int(action))
    observation = _from_space(self._env.observation_space, observation)
    self._needs_reset = bool(terminated or truncated)
    if terminated:
      return dm_env.termination(float(reward), observation)
    if truncated:
      return dm_env.truncation(float(reward), observation, discount=1.0)
    return dm_env.transition(float(reward), observation, discount=1.0)

  def observation_spec(self) -> Any:
    """The observations' spec, or dicts and tuples of specs."""
    return self._spec

  def action_spec(self) -> specs.DiscreteArray:
    """Actions 0 to A - 1."""
    return specs.DiscreteArray(self._num_actions, name='action')

  def close(self) -> None:
    """Closes the wrapped environment."""
    self._env.close()


def _spec_of(space: Any, name: str) -> Any:
  """The spec, or tree of specs, of a Gymnasium space; ValueError naming the entry that has none."""
  from gymnasium import spaces

  match space:
    case spaces.Dict():
      return {key: _spec_of(entry, f'{name}[{key!r}]') for key, entry in space.spaces.items()}
    case spaces.Tuple():
      return tuple(_spec_of(entry, f'{name}[{i}]') for i, entry in enumerate(space.spaces))
    case spaces.Discrete():
      return specs.DiscreteArray(int(space.n), np.int32, name)
    case spaces.MultiDiscrete():
      return specs.BoundedArray(space.shape, np.int32, 0, space.nvec - 1, name)
    case spaces.MultiBinary():
      return specs.BoundedArray(space.shape, np.int8, 0, 1, name)
    case spaces.Box():
      return specs.BoundedArray(space.shape, space.dtype, space.low, space.high, name)
  raise ValueError(f'{name} is {space}: must be Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of such')


def _from_space(space: Any, x: Any, name: str = 'observation') -> Observation:
  """An entry of a Gymnasium space as its spec has it; ValueError naming it if the spec's dtype cannot hold it."""
  from gymnasium import spaces

  match space:
    case spaces.Dict():
      return {key: _from_space(entry, x[key], f'{name}[{key!r}]') for key, entry in space.spaces.items()}
    case spaces.Tuple():
      entries = zip(space.spaces, x, strict=True)
      return tuple(_from_space(entry, y, f'{name}[{i}]') for i, (entry, y) in enumerate(entries))
    case spaces.Discrete() | spaces.MultiDiscrete():
      return np.asarray(_held(np.asarray(x) - space.start, np.dtype(np.int32), name))
  # A copy: some environments write their next observation into the same array.
  return np.array(_held(np.asarray(x), space.dtype, name))


def _held(x: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  """Numbers in a space's dtype, rounded only from floats to shorter floats."""
  if x.dtype == dtype:
    return x
  with np.errstate(invalid='ignore'):
    held = x.astype(dtype)
  if np.can_cast(x.dtype, dtype, 'same_kind') and dtype.kind == 'f':
    return held
  if not np.array_equal(held, x):
    raise ValueError(
      f"{name} is of dtype {x.dtype} and holds {x[held != x].flat[0]}, which its space's dtype {dtype} does not"
    )
  return held
