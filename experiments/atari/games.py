"""Playing Atari from Python: reference scores of simple policies, and a trained agent's game to look at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ale_py.vector_env import AtariVectorEnv

from hyperagent_jax.envs.atari import AtariConfig, AtariEnvironment, num_actions_in, vector_options
from hyperagent_jax.types import Agent, LearnerState, from_dm_env

_SCREEN = {'grayscale': False, 'img_height': 210, 'img_width': 160, 'stack_num': 1}


class Scene(NamedTuple):
  """A game as it was played."""

  screens: np.ndarray  # [T, 210, 160, 3] uint8
  mean: np.ndarray  # [T, A] posterior mean of the action values
  std: np.ndarray  # [T, A] posterior standard deviation
  actions: np.ndarray  # [T] int
  action_names: list[str]  # [A]
  rewards: np.ndarray  # [T] of the action


def action_names(games: AtariVectorEnv) -> list[str]:
  """Such as NOOP and FIRE."""
  return [action.name for action in games.ale.get_action_set()]


def policy_returns(
  game: str,
  config: AtariConfig,
  num_episodes: int,
  policy: Callable[[int, int], np.ndarray],
  between: Callable[[], None] = lambda: None,
) -> list[float]:
  """Unclipped returns of whole games, played side by side; of each emulator its first game counts.

  Args:
    game: the game.
    config: preprocessing.
    num_episodes: how many games.
    policy: step number, number of actions -> actions [num_episodes].
    between: called now and then; may raise something to give up.
  """
  games = AtariVectorEnv(game, num_episodes, num_threads=config.num_threads, **vector_options(config, 1))
  games.reset(seed=np.arange(num_episodes))
  returns, done, t = np.zeros(num_episodes), np.zeros(num_episodes, bool), 0
  while not done.all():
    actions = policy(t, num_actions_in(games)).astype(np.int32)
    _, reward, terminated, truncated, _ = games.step(actions)
    if t % 100 == 0:
      between()
    returns += np.where(done, 0, reward)
    done, t = done | terminated | truncated, t + 1
  return returns.tolist()


def random_returns(
  game: str, config: AtariConfig, num_episodes: int, between: Callable[[], None] = lambda: None
) -> list[float]:
  """Returns of uniformly random actions."""
  rng = np.random.default_rng(0)
  return policy_returns(game, config, num_episodes, lambda _, n: rng.integers(0, n, num_episodes), between)


def constant_returns(
  game: str, config: AtariConfig, num_episodes: int, between: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
  """Returns of each action when nothing else is ever done, by the action's name."""
  names = action_names(AtariVectorEnv(game, 1, num_threads=1, **vector_options(config, 1)))
  always = lambda action: lambda *_: np.full(num_episodes, action)
  return {
    name: policy_returns(game, config, num_episodes, always(action), between) for action, name in enumerate(names)
  }


def play(
  agent: Agent,
  trained: dict[str, Any],
  game: str,
  config: AtariConfig,
  frame_stack: int,
  seed: int,
  num_steps: int = 300,
) -> Scene:
  """The first steps of a game played under one index, with the posterior over all action values at each.

  Two emulators with the same seed and actions play the same game: one shows what the agent sees, one the screen.

  Args:
    agent: the agent.
    trained: `params` and `prior`, of one seed.
    game: the game.
    config: preprocessing.
    frame_stack: frames of an observation.
    seed: of emulators and index.
    num_steps: how long at most; shorter if the game ends.
  """
  key = jax.random.key(seed)
  learner = LearnerState(trained['params'], trained['prior_params'], (), (), jnp.zeros((), jnp.int32))
  environment = AtariEnvironment(game, config, seed, frame_stack, training=False)
  shown = AtariVectorEnv(game, 1, num_threads=1, **{**vector_options(config, 1), **_SCREEN})
  act = jax.jit(lambda learner, actor, timestep, key: agent.act(learner, actor, timestep, key, evaluation=True))
  posterior = jax.jit(agent.posterior)
  actor, timestep = agent.init_actor(key), environment.reset()
  screen = shown.reset(seed=np.asarray([seed]))[0]
  steps = []
  for t in range(num_steps):
    actor, output = act(learner, actor, from_dm_env(timestep), jax.random.fold_in(key, t))
    q = jax.device_get(posterior(learner, timestep.observation))
    action, picture = int(output.action), screen[0, 0].copy()
    timestep = environment.step(action)
    screen = shown.step(np.asarray([action], np.int32))[0]
    steps.append((picture, q.mean, q.std, action, timestep.reward))
    if timestep.last():
      break
  screens, means, stds, actions, rewards = (np.stack(x) for x in zip(*steps, strict=True))
  return Scene(screens, means, stds, actions, action_names(shown), rewards)
