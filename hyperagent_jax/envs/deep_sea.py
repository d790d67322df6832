"""DeepSea in JAX, step for step bsuite's `deep_sea` (Osband et al., 2020).

An N x N grid: the agent starts in the upper left corner, falls one row per step and moves left or right; which action
is right depends on the cell. Moving right costs 0.01 / N, moving right in the lower right corner pays 1. The best
return is 0.99, and a random policy finds it with probability 2^-N.

A state is observed as the integer row * N + column, and the end of an episode, bsuite's all-zero observation, as N^2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from hyperagent_jax.types import FIRST, LAST, MID, Array, Environment, PRNGKey, TimeStep, time_step

UNSCALED_MOVE_COST = 0.01
# 1e-4 below the best return of 0.99: a sum of float32 rewards does not reach the literal.
SOLVED_TOLERANCE = 1e-4


class DeepSeaParams(NamedTuple):
  """The setting that may differ from seed to seed."""

  right_action: Array  # [N, N] int32: the action that moves right in each cell


class DeepSeaState(NamedTuple):
  """Where the agent is; `row` = N after the last step of an episode."""

  row: Array  # [] int32
  column: Array  # [] int32


def make_params(size: int, mapping_seed: int) -> DeepSeaParams:
  """The action map that bsuite draws for a mapping seed (bsuite's own default is 42)."""
  mapping = np.random.RandomState(mapping_seed).binomial(1, 0.5, [size, size])
  return DeepSeaParams(jnp.asarray(mapping, jnp.int32))


def solved_return(size: int, deterministic: bool = True) -> float:
  """Mean evaluation return, without reward noise, from which DeepSea counts as solved.

  Deterministic: the best return, 0.99, so that every episode must end in the corner. Stochastic: 0.9 of the optimal
  policy's mean, (1 - 1/N)^(N-1) - 0.01.
  """
  if deterministic:
    return 1.0 - UNSCALED_MOVE_COST - SOLVED_TOLERANCE
  return 0.9 * ((1.0 - 1.0 / size) ** (size - 1) - UNSCALED_MOVE_COST)


def transition(
  params: DeepSeaParams, state: DeepSeaState, action: Array, slip: Array | float, reward_noise: Array | float
) -> tuple[DeepSeaState, Array]:
  """One move, with the randomness of the stochastic variant given.

  Args:
    params: the action map.
    state: a state with row < N.
    action: [] 0 or 1.
    slip: uniform in [0, 1); a move right fails where it is at most 1/N. 1 for no slip.
    reward_noise: added to the reward in the two lower corners. 0 for none.

  Returns:
    The next state and the reward.
  """
  size = params.right_action.shape[0]
  row, column = state
  right = action == params.right_action[row, column]
  reward = jnp.where(right & (column == size - 1), 1.0, 0.0)
  corner = (row == size - 1) & ((column == 0) | (column == size - 1))
  reward = reward + jnp.where(corner, reward_noise, 0.0)
  reward = reward - jnp.where(right, UNSCALED_MOVE_COST / size, 0.0)
  move = jnp.where(right, jnp.where(slip > 1.0 / size, 1, 0), -1)
  return DeepSeaState(row + 1, jnp.clip(column + move, 0, size - 1)), reward


def make_deep_sea(size: int, deterministic: bool = True, reward_noise: bool = True) -> Environment:
  """DeepSea as an `Environment`, whose `params` come from `make_params`.

  Args:
    size: side N of the grid, at least 2.
    deterministic: whether moves right always succeed and rewards have no noise. Otherwise a move right fails with
      probability 1/N and the two lower corners' rewards have N(0, 1) noise.
    reward_noise: False leaves the noise out of the stochastic variant's rewards, for evaluation.

  Raises:
    ValueError: if size is below 2.
  """
  if size < 2:
    raise ValueError(f'size={size}: must be at least 2')

  def observe(state: DeepSeaState) -> Array:
    # The first column of the row below the grid is N^2, the code of the all-zero observation.
    return jnp.where(state.row < size, state.row * size + state.column, size * size)

  def reset(params: DeepSeaParams, key: PRNGKey) -> tuple[DeepSeaState, TimeStep]:
    del params, key
    state = DeepSeaState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
    return state, time_step(FIRST, 0.0, 1.0, observe(state))

  def step(params: DeepSeaParams, state: DeepSeaState, action: Array, key: PRNGKey) -> tuple[DeepSeaState, TimeStep]:
    slip: Array | float = 1.0
    noise: Array | float = 0.0
    if not deterministic:
      key_slip, key_noise = jax.random.split(key)
      slip = jax.random.uniform(key_slip)
      if reward_noise:
        noise = jax.random.normal(key_noise)
    over = state.row >= size  # the step after LAST starts the next episode
    moved, reward = transition(params, state, action, slip, noise)
    state = jax.tree.map(lambda x: jnp.where(over, 0, x), moved)
    last = state.row >= size
    step_type = jnp.where(over, FIRST, jnp.where(last, LAST, MID))
    return state, time_step(step_type, jnp.where(over, 0.0, reward), jnp.where(last, 0.0, 1.0), observe(state))

  spec = specs.DiscreteArray(size * size + 1, dtype=np.int32, name='observation')
  name = f'deep_sea{"" if deterministic else "_stochastic"}/{size}'
  return Environment(name, reset, step, num_actions=2, observation_spec=spec, episode_length=size)
