"""bsuite's physical systems: cartpole, its swing-up, and mountain car.

Numbers are float32 where bsuite's are float64, so that trajectories agree to rounding, for as long as that stays small.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from hyperagent_jax.envs.bsuite.dynamics import Dynamics, Step, as_row, draws_nothing, spec_of
from hyperagent_jax.types import Array, PRNGKey

# ------------------------------------------------------------------------------------------------------------- cartpole


class CartpoleState(NamedTuple):
  """A cart with a pole on it."""

  x: Array  # []
  x_dot: Array  # []
  theta: Array  # [] in [0, 2 pi), 0 upright
  theta_dot: Array  # []
  num_steps: Array  # [] int32


MASS_CART, MASS_POLE, LENGTH, FORCE, GRAVITY = 1.0, 0.1, 0.5, 10.0, 9.8
TIMESCALE, MAX_TIME, X_THRESHOLD, INIT_RANGE = 0.01, 10.0, 3.0, 0.05
# The step after which bsuite's sum of time steps, in float64, first exceeds the time limit: 1,001 and not 1,000.
CARTPOLE_STEPS = int(np.argmax(np.cumsum(np.full(1100, TIMESCALE)) > MAX_TIME)) + 1


def move_cart(state: CartpoleState, action: Array) -> CartpoleState:
  """One time step of the physics; actions push left, not at all and right."""
  force = (action - 1) * FORCE
  cos, sin = jnp.cos(state.theta), jnp.sin(state.theta)
  pole, total = MASS_POLE * LENGTH, MASS_CART + MASS_POLE
  push = (force + pole * state.theta_dot**2 * sin) / total
  theta_acc = (GRAVITY * sin - cos * push) / (LENGTH * (4 / 3 - MASS_POLE * cos**2 / total))
  x_acc = push - pole * theta_acc * cos / total
  return CartpoleState(
    x=state.x + TIMESCALE * state.x_dot,
    x_dot=state.x_dot + TIMESCALE * x_acc,
    theta=jnp.remainder(state.theta + TIMESCALE * state.theta_dot, 2 * jnp.pi),
    theta_dot=state.theta_dot + TIMESCALE * theta_acc,
    num_steps=state.num_steps + 1,
  )


def _draw_cart(key: PRNGKey) -> Array:  # [4]
  return jax.random.uniform(key, (4,), minval=-INIT_RANGE, maxval=INIT_RANGE)


def _cart_at(draws: Array, theta: float) -> CartpoleState:
  return CartpoleState(draws[0], draws[1], theta + draws[2], draws[3], jnp.int32(0))


def _observe_cart(state: CartpoleState) -> tuple[Array, ...]:
  time = state.num_steps * (TIMESCALE / MAX_TIME)
  return (
    state.x / X_THRESHOLD,
    state.x_dot / X_THRESHOLD,
    jnp.sin(state.theta),
    jnp.cos(state.theta),
    state.theta_dot,
    time,
  )


def cartpole() -> Dynamics:
  """Balance the pole: reward 1 for every step with the pole up and the cart on the table. No params."""

  def reset(params: Any, draws: Array) -> CartpoleState:
    return _cart_at(draws, 0.0)

  def step(params: Any, state: CartpoleState, action: Array, draws: tuple[()]) -> Step:
    state = move_cart(state, action)
    up = (jnp.cos(state.theta) > 0.8) & (jnp.abs(state.x) < X_THRESHOLD)
    reward = jnp.where(up, 1.0, 0.0)
    last = ~up | (state.num_steps >= CARTPOLE_STEPS)
    return Step(state, reward, last, {'raw_return': reward})

  observe = lambda params, state: as_row(*_observe_cart(state))
  return Dynamics(_draw_cart, reset, draws_nothing, step, observe, 3, spec_of(1, 6), ('raw_return',), counts_best=True)


class SwingupParams(NamedTuple):
  """Where the pole counts as up."""

  height_threshold: Array  # [] of cos(theta)
  x_reward_threshold: Array  # []


def cartpole_swingup() -> Dynamics:
  """The pole hangs at first and moving costs 0.1; reward 1 while it is up, slow, and the cart near the middle."""
  theta_dot_threshold, move_cost = 1.0, 0.1

  def observe(params: SwingupParams, state: CartpoleState) -> Array:
    near = jnp.where(jnp.abs(state.x) < params.x_reward_threshold, 1.0, -1.0)
    slow = jnp.where(jnp.abs(state.theta_dot) < theta_dot_threshold, 1.0, -1.0)
    return as_row(*_observe_cart(state), near, slow)

  def reset(params: SwingupParams, draws: Array) -> CartpoleState:
    return _cart_at(draws, jnp.pi)

  def step(params: SwingupParams, state: CartpoleState, action: Array, draws: tuple[()]) -> Step:
    state = move_cart(state, action)
    up = (
      (jnp.cos(state.theta) > params.height_threshold)
      & (jnp.abs(state.theta_dot) < theta_dot_threshold)
      & (jnp.abs(state.x) < params.x_reward_threshold)
    ).astype(jnp.float32)
    reward = up - move_cost * jnp.abs(action - 1)
    last = (state.num_steps >= CARTPOLE_STEPS) | (jnp.abs(state.x) > X_THRESHOLD)
    return Step(state, reward, last, {'raw_return': reward, 'total_upright': up})

  spec = specs.Array((1, 8), np.float32, name='state')
  totals = ('raw_return', 'total_upright')
  return Dynamics(_draw_cart, reset, draws_nothing, step, observe, 3, spec, totals, counts_best=True)


# --------------------------------------------------------------------------------------------------------- mountain car


class CarState(NamedTuple):
  """A car in a valley."""

  position: Array  # [] in [-1.2, 0.6]
  velocity: Array  # [] in [-0.07, 0.07]
  num_steps: Array  # [] int32


def mountain_car(max_steps: int = 1000) -> Dynamics:
  """A weak car must swing up a hill; reward -1 a step until it is there or time is over. No params."""

  def observe(params: Any, state: CarState) -> Array:
    return as_row(state.position, state.velocity, state.num_steps / max_steps)

  def reset(params: Any, position: Array) -> CarState:
    return CarState(position, jnp.float32(0.0), jnp.int32(0))

  def step(params: Any, state: CarState, action: Array, draws: tuple[()]) -> Step:
    velocity = state.velocity + (action - 1) * 0.001 - 0.0025 * jnp.cos(3 * state.position)
    velocity = jnp.clip(velocity, -0.07, 0.07)
    position = jnp.clip(state.position + velocity, -1.2, 0.6)
    velocity = jnp.where(position <= -1.2, jnp.maximum(velocity, 0.0), velocity)  # stopped by the wall
    state = CarState(position, velocity, state.num_steps + 1)
    last = (position >= 0.5) | (state.num_steps >= max_steps)
    reward = jnp.float32(-1.0)
    return Step(state, reward, last, {'raw_return': reward})

  draw = lambda key: jax.random.uniform(key, minval=-0.6, maxval=-0.4)
  return Dynamics(draw, reset, draws_nothing, step, observe, 3, spec_of(1, 3), ('raw_return',))
