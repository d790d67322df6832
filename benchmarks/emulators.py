"""Atari's emulators alone, stepped from Python and from a compiled loop."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ale_py.vector_env import AtariVectorEnv

from benchmarks import timing
from hyperagent_jax.envs import atari
from hyperagent_jax.types import tree_index


def direct(game: str, num_games: int, num_threads: int, num_steps: int) -> Callable[[], float]:
  """Microseconds of `AtariVectorEnv.step` called from Python."""
  games = AtariVectorEnv(game, num_games, num_threads=num_threads, **atari.vector_options(atari.AtariConfig(), 4))
  games.reset(seed=np.arange(num_games))
  actions = np.random.default_rng(0).integers(0, atari.num_actions_in(games), (num_steps, num_games)).astype(np.int32)

  def run() -> float:
    start = time.perf_counter()
    for action in actions:
      games.step(action)
    return 1e6 * (time.perf_counter() - start) / num_steps

  return run


def inside(game: str, num_games: int, num_threads: int, num_steps: int) -> Callable[[], float]:
  """Microseconds of the same within a compiled loop."""
  config = atari.AtariConfig(num_threads=num_threads)
  games = atari.make_atari(game, config, 1, num_games, 1, num_groups=1)
  keys = jax.random.split(jax.random.key(0), num_games)
  params = tree_index(games.params, 0)
  environment = games.environment
  actions = np.random.default_rng(0).integers(0, environment.num_actions, (num_steps, num_games), np.int32)

  def body(i: jax.Array, env_state: atari.AtariState, data: jax.Array) -> atari.AtariState:
    return environment.step(params, env_state, data[i], keys)[0]

  return timing.loop(body, environment.reset(params, keys)[0], jnp.asarray(actions), num_steps)
