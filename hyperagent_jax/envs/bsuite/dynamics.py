"""bsuite's environments as pure functions of their random numbers (Osband et al., 2020).

Each is a `Dynamics`: what it draws, how an episode begins and what a step does. Nothing here decides when an episode
begins, counts them or changes rewards; that is `tasks.py`. `control.py` has the physical systems.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from hyperagent_jax.envs import deep_sea
from hyperagent_jax.types import Array, PRNGKey


class Step(NamedTuple):
  """What came of an action."""

  state: Any
  reward: Array  # []
  last: Array  # [] bool; bsuite's episodes always end with a discount of 0
  totals: dict[str, Array]  # what is added to the totals that bsuite scores


class Dynamics(NamedTuple):
  """An environment without a loop; `params` is the setting, which may differ from instance to instance."""

  draw_reset: Callable[[PRNGKey], Any]
  reset: Callable[[Any, Any], Any]  # params, draws -> state
  draw_step: Callable[[PRNGKey], Any]
  step: Callable[[Any, Any, Array, Any], Step]  # params, state, action, draws
  observe: Callable[[Any, Any], Array]  # params, state -> observation
  num_actions: int
  observation_spec: specs.Array
  totals: tuple[str, ...] = ()  # names that every step adds to
  counts_best: bool = False  # whether bsuite also scores the best episode


def draws_nothing(key: PRNGKey) -> tuple[()]:
  """No random numbers."""
  del key
  return ()


def spec_of(*shape: int) -> specs.Array:
  """The spec of observations of this shape."""
  return specs.Array(shape, np.float32, name='observation')


def as_row(*values: Any) -> Array:
  """A row of numbers, [1, n] float32."""
  return jnp.stack([jnp.asarray(x, jnp.float32) for x in values])[None]


def _below(key: PRNGKey, limit: int) -> Array:
  """A whole number in [0, limit); its bias of limit / 2^24 is far below what an experiment can show."""
  return (jax.random.uniform(key) * limit).astype(jnp.int32)


# --------------------------------------------------------------------------------------------------------------- bandit


def bandit_rewards(mapping_seed: int, num_actions: int = 11) -> np.ndarray:
  """The rewards 0, 0.1 ... 1 in the order that bsuite draws for a seed, [A]."""
  order = np.random.RandomState(mapping_seed).choice(range(num_actions), size=num_actions, replace=False)
  return np.linspace(0, 1, num_actions)[order].astype(np.float32)


def bandit() -> Dynamics:
  """Eleven arms with fixed rewards, params: those rewards [11]. An episode is one step."""

  def step(rewards: Array, state: tuple[()], action: Array, draws: tuple[()]) -> Step:
    reward = rewards[action]
    return Step(state, reward, jnp.array(True), {'total_regret': 1.0 - reward})

  observe = lambda rewards, state: jnp.ones((1, 1))
  return Dynamics(
    draws_nothing, lambda rewards, draws: (), draws_nothing, step, observe, 11, spec_of(1, 1), ('total_regret',)
  )


# ---------------------------------------------------------------------------------------------------------------- catch


class CatchState(NamedTuple):
  """Where ball and paddle are; the paddle is in the lowest row."""

  ball_x: Array  # [] int32
  ball_y: Array  # [] int32
  paddle_x: Array  # [] int32


def catch(rows: int = 10, columns: int = 5) -> Dynamics:
  """A ball falls, a paddle moves left, stays or moves right; reward 1 if it is caught, else -1. No params."""
  cells = jnp.arange(rows * columns).reshape(rows, columns)

  def observe(params: Any, state: CatchState) -> Array:
    ball = cells == state.ball_y * columns + state.ball_x
    return (ball | (cells == (rows - 1) * columns + state.paddle_x)).astype(jnp.float32)

  def reset(params: Any, ball_x: Array) -> CatchState:
    return CatchState(ball_x, jnp.int32(0), jnp.int32(columns // 2))

  def step(params: Any, state: CatchState, action: Array, draws: tuple[()]) -> Step:
    state = CatchState(state.ball_x, state.ball_y + 1, jnp.clip(state.paddle_x + action - 1, 0, columns - 1))
    last = state.ball_y == rows - 1
    reward = jnp.where(last, jnp.where(state.paddle_x == state.ball_x, 1.0, -1.0), 0.0)
    return Step(state, reward, last, {'total_regret': jnp.where(last, 1.0 - reward, 0.0)})

  spec = specs.BoundedArray((rows, columns), np.float32, 0, 1, name='observation')
  return Dynamics(lambda key: _below(key, columns), reset, draws_nothing, step, observe, 3, spec, ('total_regret',))


# ---------------------------------------------------------------------------------------------------- discounting chain


class ChainState(NamedTuple):
  """The chain chosen by an episode's first action."""

  context: Array  # [] int32, -1 before it
  num_steps: Array  # [] int32


def discounting_rewards(mapping_seed: int) -> np.ndarray:
  """The reward of each chain, [5]: 1, but 1.1 for the one that the seed names."""
  return (1.0 + 0.1 * (np.arange(5) == mapping_seed % 5)).astype(np.float32)


def discounting_chain(episode_length: int = 100) -> Dynamics:
  """The first action chooses when the one reward comes: after 1, 3, 10, 30 or 100 steps; params: rewards [5]."""
  times = jnp.array([1, 3, 10, 30, 100])

  def observe(rewards: Array, state: ChainState) -> Array:
    return as_row(state.context, state.num_steps / episode_length)

  def reset(rewards: Array, draws: tuple[()]) -> ChainState:
    return ChainState(jnp.int32(-1), jnp.int32(0))

  def step(rewards: Array, state: ChainState, action: Array, draws: tuple[()]) -> Step:
    context = jnp.where(state.num_steps == 0, action, state.context)
    state = ChainState(context, state.num_steps + 1)
    reward = jnp.where(state.num_steps == times[context], rewards[context], 0.0)
    return Step(state, reward, state.num_steps == episode_length, {})

  return Dynamics(draws_nothing, reset, draws_nothing, step, observe, 5, spec_of(1, 2))


# --------------------------------------------------------------------------------------------------------- memory chain


class MemoryState(NamedTuple):
  """What is to be remembered."""

  context: Array  # [bits] int32, 0 or 1
  query: Array  # [] int32: which bit is asked for
  num_steps: Array  # [] int32


def memory_chain(num_bits: int) -> Dynamics:
  """Bits are shown at first, one of them is asked for in the end; params: [] int32, the steps between.

  As in bsuite, the first observation comes twice: a step shows what was so before it.
  """

  def observe(length: Array, state: MemoryState) -> Array:
    shown = jnp.maximum(state.num_steps - 1, 0)
    time = 1.0 - shown / length
    query = jnp.where(shown == length - 1, state.query, 0)
    context = jnp.where(shown == 0, 2 * state.context - 1, 0)
    return jnp.concatenate([as_row(time, query), context[None].astype(jnp.float32)], axis=1)

  def draw(key: PRNGKey) -> tuple[Array, Array]:
    numbers = jax.random.uniform(key, (num_bits + 1,))
    return (numbers[:-1] < 0.5).astype(jnp.int32), (numbers[-1] * num_bits).astype(jnp.int32)

  def reset(length: Array, draws: tuple[Array, Array]) -> MemoryState:
    return MemoryState(*draws, jnp.int32(0))

  def step(length: Array, state: MemoryState, action: Array, draws: tuple[()]) -> Step:
    last = state.num_steps == length
    right = action == state.context[state.query]
    reward = jnp.where(last, jnp.where(right, 1.0, -1.0), 0.0)
    totals = {'total_perfect': (last & right).astype(jnp.float32), 'total_regret': jnp.where(last & ~right, 2.0, 0.0)}
    return Step(state._replace(num_steps=state.num_steps + 1), reward, last, totals)

  return Dynamics(
    draw, reset, draws_nothing, step, observe, 2, spec_of(1, num_bits + 2), ('total_perfect', 'total_regret')
  )


# ------------------------------------------------------------------------------------------------------- umbrella chain


class UmbrellaState(NamedTuple):
  """Whether an umbrella is needed and there."""

  need: Array  # [] int32
  has: Array  # [] int32
  num_steps: Array  # [] int32
  distractors: Array  # [n] int32, 0 or 1, new at every step


def umbrella_chain(num_distractors: int) -> Dynamics:
  """The first action takes the umbrella or not, only the last reward tells; params: [] int32, steps of an episode."""

  def observe(length: Array, state: UmbrellaState) -> Array:
    known = as_row(state.need, state.has, 1.0 - state.num_steps / length)
    return jnp.concatenate([known, state.distractors[None].astype(jnp.float32)], axis=1)

  def draw(num: int) -> Callable[[PRNGKey], tuple[Array, Array]]:
    """So many coins, and the distractors."""

    def draw(key: PRNGKey) -> tuple[Array, Array]:
      coins = (jax.random.uniform(key, (num + num_distractors,)) < 0.5).astype(jnp.int32)
      return coins[:num], coins[num:]

    return draw

  def reset(length: Array, draws: tuple[Array, Array]) -> UmbrellaState:
    (need, has), distractors = draws
    return UmbrellaState(need, has, jnp.int32(0), distractors)

  def step(length: Array, state: UmbrellaState, action: Array, draws: tuple[Array, Array]) -> Step:
    (coin,), distractors = draws
    has = jnp.where(state.num_steps == 0, action, state.has)
    state = UmbrellaState(state.need, has, state.num_steps + 1, distractors)
    last, right = state.num_steps == length, has == state.need
    reward = jnp.where(last, jnp.where(right, 1.0, -1.0), 2.0 * coin - 1.0)
    return Step(state, reward, last, {'total_regret': jnp.where(last & ~right, 2.0, 0.0)})

  return Dynamics(draw(2), reset, draw(1), step, observe, 2, spec_of(1, 3 + num_distractors), ('total_regret',))


# ------------------------------------------------------------------------------------------------------------- deep sea


class SeaState(NamedTuple):
  """Where the diver is, and whether the way to the treasure was left."""

  position: deep_sea.DeepSeaState
  bad: Array  # [] bool


def deep_sea_dynamics(size: int, deterministic: bool) -> Dynamics:
  """`make_deep_sea` with bsuite's totals: observations are integers, see there."""

  def observe(params: deep_sea.DeepSeaParams, state: SeaState) -> Array:
    row, column = state.position
    return jnp.where(row < size, row * size + column, size * size)

  def draw_step(key: PRNGKey) -> tuple[Any, Any]:
    if deterministic:
      return 1.0, 0.0
    key_slip, key_noise = jax.random.split(key)
    return jax.random.uniform(key_slip), jax.random.normal(key_noise)

  def reset(params: deep_sea.DeepSeaParams, draws: tuple[()]) -> SeaState:
    return SeaState(deep_sea.DeepSeaState(jnp.int32(0), jnp.int32(0)), jnp.array(False))

  def step(params: deep_sea.DeepSeaParams, state: SeaState, action: Array, draws: tuple[Any, Any]) -> Step:
    row, column = state.position
    right = action == params.right_action[row, column]
    treasure = (right & (column == size - 1)).astype(jnp.float32)
    bad = state.bad | (~right & (row == column))
    position, reward = deep_sea.transition(params, state.position, action, *draws)
    last = position.row == size
    totals = {'total_bad_episodes': (bad & last).astype(jnp.float32), 'denoised_return': treasure}
    return Step(SeaState(position, bad), reward, last, totals)

  spec = specs.DiscreteArray(size * size + 1, dtype=np.int32, name='observation')
  return Dynamics(draws_nothing, reset, draw_step, step, observe, 2, spec, ('total_bad_episodes', 'denoised_return'))


# ---------------------------------------------------------------------------------------------------------------- mnist


class DigitState(NamedTuple):
  """Which image is asked for."""

  number: Array  # [] int32
  shown: Array  # [] bool: it is blank once the answer is given


def mnist(images: np.ndarray, labels: np.ndarray) -> Dynamics:
  """Which digit is it; reward 1 if right, else -1, and the episode is over. No params.

  Args:
    images: [n, 28, 28] int8, in which bsuite keeps pixels (so bright ones are negative).
    labels: [n] in 0 to 9.
  """
  pixels, classes = jnp.asarray(images), jnp.asarray(labels, jnp.int32)

  def observe(params: Any, state: DigitState) -> Array:
    return jnp.where(state.shown, pixels[state.number].astype(jnp.float32) / 255, 0.0)

  def reset(params: Any, number: Array) -> DigitState:
    return DigitState(number, jnp.array(True))

  def step(params: Any, state: DigitState, action: Array, draws: tuple[()]) -> Step:
    reward = jnp.where(action == classes[state.number], 1.0, -1.0)
    return Step(state._replace(shown=jnp.array(False)), reward, jnp.array(True), {'total_regret': 1.0 - reward})

  draw = lambda key: jax.random.randint(key, (), 0, len(images))
  return Dynamics(draw, reset, draws_nothing, step, observe, 10, spec_of(*images.shape[1:]), ('total_regret',))
