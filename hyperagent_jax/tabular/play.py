"""Agents playing MDPs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hyperagent_jax.tabular.mdp import MDP
from hyperagent_jax.tabular.planning import backward_induction, regret
from hyperagent_jax.tabular.types import Episode, TabularAgent
from hyperagent_jax.types import Array, PRNGKey


def draw(probabilities: Array, uniform: Array) -> Array:  # [N], [] in [0, 1) -> []
  """The outcome that a uniform number stands for; the last possible one where rounding leaves a gap."""
  cumulative = jnp.cumsum(probabilities)
  # Strictly above: an outcome of probability 0 has the cumulative value of the one before it, and is passed over.
  return jnp.argmax(cumulative > uniform * cumulative[-1]).astype(jnp.int32)


def simulate(mdp: MDP, policy: Array, key: PRNGKey) -> Episode:
  """An episode of a policy [H, S, A]."""
  horizon = mdp.rewards.shape[0]
  uniforms = jax.random.uniform(key, (2 * horizon + 1,), mdp.initial.dtype)
  first = draw(mdp.initial, uniforms[-1])

  def step(state: Array, given: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
    transition, probabilities, of_action, of_state = given
    action = draw(probabilities[state], of_action)
    new = draw(transition[state, action], of_state)
    return new, (new, action)

  given = (mdp.transitions, policy, uniforms[:horizon], uniforms[horizon:-1])
  _, (states, actions) = jax.lax.scan(step, first, given)
  return Episode(jnp.concatenate([first[None], states]), actions)


def play(
  agent: TabularAgent,
  mdp: MDP,
  num_episodes: int,
  key: PRNGKey,
  observe: Callable[[Any, Episode], Any] = lambda state, episode: None,
) -> tuple[Array, Any]:
  """Plays an agent and computes what each of its policies loses.

  Args:
    agent: the agent.
    mdp: the MDP.
    num_episodes: K.
    key: of everything that is random.
    observe: what to keep of each episode, from the state that it led to and the episode.

  Returns:
    Regret [K] of each episode, exactly that of the policy played (see `planning.regret`), and what `observe` returned,
    with a leading axis of episodes.
  """
  plan = backward_induction(mdp.transitions, mdp.rewards)
  key_init, key_play = jax.random.split(key)

  def episode(state: Any, number: Array) -> tuple[Any, tuple[Array, Any]]:
    key_policy, key_simulate, key_update = jax.random.split(jax.random.fold_in(key_play, number), 3)
    policy = agent.policy(state, key_policy)
    seen = simulate(mdp, policy, key_simulate)
    state = agent.update(state, seen, key_update)
    return state, (regret(mdp, plan, policy), observe(state, seen))

  start = agent.init(key_init, mdp.rewards)
  return jax.lax.scan(episode, start, jnp.arange(num_episodes))[1]
