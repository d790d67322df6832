"""Episodes under a frozen posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperagent_jax.types import Agent, Array, Environment, LearnerState, PRNGKey, batched

MAX_EVAL_STEPS = 100_000  # ALE's own limit is 27,000 of four frames each


class Episodes(NamedTuple):
  """Evaluation episodes."""

  returns: Array  # [num_episodes] sums of rewards
  lengths: Array  # [num_episodes] int32 steps
  cut: Array  # [num_episodes] bool: whether it had not ended after the greatest number of steps


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
  environment = batched(environment, num_episodes)

  def evaluate(learner: LearnerState, env_params: Any, key: PRNGKey) -> Episodes:
    key_actor, key_reset, key_steps = jax.random.split(key, 3)
    actor = jax.vmap(agent.init_actor)(jax.random.split(key_actor, num_episodes))
    env_state, timestep = environment.reset(env_params, jax.random.split(key_reset, num_episodes))
    act = jax.vmap(lambda a, t, k: agent.act(learner, a, t, k, evaluation=True))

    def body(carry: Any) -> Any:
      t, actor, env_state, timestep, done, episodes = carry
      keys = jax.random.split(jax.random.fold_in(key_steps, t), 2 * num_episodes)
      actor, output = act(actor, timestep, keys[:num_episodes])
      env_state, timestep = environment.step(env_params, env_state, output.action, keys[num_episodes:])
      returns = episodes.returns + jnp.where(done, 0.0, timestep.reward)
      lengths = episodes.lengths + jnp.where(done, 0, 1)
      done = done | timestep.last()
      return t + 1, actor, env_state, timestep, done, Episodes(returns, lengths, ~done)

    none_done = jnp.zeros((num_episodes,), bool)
    nothing = Episodes(jnp.zeros((num_episodes,)), jnp.zeros((num_episodes,), jnp.int32), ~none_done)
    carry = (jnp.zeros((), jnp.int32), actor, env_state, timestep, none_done, nothing)
    return jax.lax.while_loop(lambda c: ~jnp.all(c[4]) & (c[0] < max_steps), body, carry)[5]

  return evaluate
