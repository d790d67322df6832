"""Episodes under a frozen posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperagent_jax.types import Agent, Array, Environment, LearnerState, PRNGKey, TimeStep, batched

MAX_EVAL_STEPS = 100_000  # ALE's own limit is 27,000 of four frames each


class Episodes(NamedTuple):
  """Evaluation episodes."""

  returns: Array  # [num_episodes] sums of rewards
  lengths: Array  # [num_episodes] int32 steps
  cut: Array  # [num_episodes] bool: whether it had not ended after the greatest number of steps


class Playing(NamedTuple):
  """An evaluation under way."""

  step: Array  # [] int32
  key: PRNGKey
  actor: Any  # [num_episodes, ...]
  env_state: Any
  timestep: TimeStep  # [num_episodes]
  done: Array  # [num_episodes] bool
  episodes: Episodes  # so far


class Evaluator(NamedTuple):
  """Evaluation in parts, as pure functions; `make_evaluator` is the whole in one."""

  start: Callable[[LearnerState, Any, PRNGKey], Playing]  # learner, env_params, key
  # The learner, env_params and what `start` or `go_on` returned -> the same at most so many steps later.
  go_on: Callable[[LearnerState, Any, Playing, Array | int], Playing]
  is_over: Callable[[Playing], Array]


def make_parts(agent: Agent, environment: Environment, num_episodes: int, max_steps: int = MAX_EVAL_STEPS) -> Evaluator:
  """Evaluation by `num_episodes` whole episodes, run side by side, a number of steps at a time.

  How it is divided does not change it. See `make_evaluator`.
  """
  environment = batched(environment, num_episodes)

  def start(learner: LearnerState, env_params: Any, key: PRNGKey) -> Playing:
    del learner
    key_actor, key_reset, key_steps = jax.random.split(key, 3)
    actor = jax.vmap(agent.init_actor)(jax.random.split(key_actor, num_episodes))
    env_state, timestep = environment.reset(env_params, jax.random.split(key_reset, num_episodes))
    none_done = jnp.zeros((num_episodes,), bool)
    nothing = Episodes(jnp.zeros((num_episodes,)), jnp.zeros((num_episodes,), jnp.int32), ~none_done)
    return Playing(jnp.zeros((), jnp.int32), key_steps, actor, env_state, timestep, none_done, nothing)

  def is_over(playing: Playing) -> Array:
    return jnp.all(playing.done, axis=-1) | (playing.step >= max_steps)  # also of [S, ...]

  def go_on(learner: LearnerState, env_params: Any, playing: Playing, num_steps: Array | int) -> Playing:
    act = jax.vmap(lambda a, t, k: agent.act(learner, a, t, k, evaluation=True))
    end = playing.step + jnp.minimum(num_steps, max_steps - playing.step)  # which is no more than an int32 holds

    def body(p: Playing) -> Playing:
      keys = jax.random.split(jax.random.fold_in(p.key, p.step), 2 * num_episodes)
      actor, output = act(p.actor, p.timestep, keys[:num_episodes])
      env_state, timestep = environment.step(env_params, p.env_state, output.action, keys[num_episodes:])
      returns = p.episodes.returns + jnp.where(p.done, 0.0, timestep.reward)
      lengths = p.episodes.lengths + jnp.where(p.done, 0, 1)
      done = p.done | timestep.last()
      return Playing(p.step + 1, p.key, actor, env_state, timestep, done, Episodes(returns, lengths, ~done))

    return jax.lax.while_loop(lambda p: ~jnp.all(p.done) & (p.step < end), body, playing)

  return Evaluator(start, go_on, is_over)


def make_evaluator(
  agent: Agent, environment: Environment, num_episodes: int, max_steps: int = MAX_EVAL_STEPS
) -> Callable[[LearnerState, Any, PRNGKey], Episodes]:
  """Evaluation by `num_episodes` whole episodes, run side by side.

  Each episode is played greedily under an index of its own, drawn at its start and never redrawn; nothing is learnt.
  Of each environment its first episode counts, up to `max_steps` steps: an environment may have no end.

  Returns:
    A pure function (learner, env_params, key) -> Episodes.

  Raises:
    ValueError: if the environment is batched for another number of episodes.
  """
  parts = make_parts(agent, environment, num_episodes, max_steps)

  def evaluate(learner: LearnerState, env_params: Any, key: PRNGKey) -> Episodes:
    return parts.go_on(learner, env_params, parts.start(learner, env_params, key), max_steps).episodes

  return evaluate
