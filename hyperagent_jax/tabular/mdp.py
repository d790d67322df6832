"""The MDPs of the theory: random ones, DeepSea and RiverSwim."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.envs.deep_sea import UNSCALED_MOVE_COST
from hyperagent_jax.tabular.gamma import dirichlet
from hyperagent_jax.types import Array, PRNGKey


class MDP(NamedTuple):
  """Episodes of H stages, each with its own transitions and rewards."""

  transitions: Array  # [H, S, A, S] probabilities of the next state
  rewards: Array  # [H, S, A] known means
  initial: Array  # [S] probabilities of the first state


class DiscountedMDP(NamedTuple):
  """An MDP without an end."""

  transitions: Array  # [S, A, S]
  rewards: Array  # [S, A]
  discount: Array  # [] in [0, 1)


def random_mdp(key: PRNGKey, num_states: int, num_actions: int, horizon: int, beta: float = 3.0) -> MDP:
  """An MDP from the prior of Assumption D.9: independent Dirichlet distributions over next states.

  Args:
    key: draws everything.
    num_states, num_actions, horizon: S, A, H.
    beta: total of each Dirichlet's parameters, which are all beta / S; at least 3 in the theory, above 0 here.

  Returns:
    Transitions as said, rewards uniform in [0, 1), and state 0 as the first.
  """
  key_transitions, key_rewards = jax.random.split(key)
  shape = (horizon, num_states, num_actions)
  transitions = dirichlet(key_transitions, jnp.full((*shape, num_states), beta / num_states))
  return MDP(transitions, jax.random.uniform(key_rewards, shape), jax.nn.one_hot(0, num_states))


def random_discounted_mdp(
  key: PRNGKey, num_states: int, num_actions: int, discount: float | Array, beta: float = 3.0
) -> DiscountedMDP:
  """The discounted counterpart of `random_mdp`."""
  mdp = random_mdp(key, num_states, num_actions, 1, beta)
  return DiscountedMDP(mdp.transitions[0], mdp.rewards[0], jnp.asarray(discount))


def deep_sea(size: int, mapping_seed: int | None = None) -> MDP:
  """bsuite's deterministic DeepSea: N columns as states, N rows as stages, and at most 0.99 to gain.

  Moving right costs 0.01 / N: the one reward here outside [0, 1].

  Args:
    size: N, at least 2.
    mapping_seed: which of two actions goes right in which cell, drawn as bsuite does; None: always action 1.
  """
  shape = (size, size)
  # In bsuite the action equal to the cell's entry goes right.
  right = np.ones(shape, int) if mapping_seed is None else np.random.RandomState(mapping_seed).binomial(1, 0.5, shape)
  transitions, rewards = np.zeros((size, size, 2, size)), np.zeros((size, size, 2))
  for row, column, action in np.ndindex(size, size, 2):
    goes_right = action == right[row, column]
    transitions[row, column, action, min(column + 1, size - 1) if goes_right else max(column - 1, 0)] = 1.0
    if goes_right:
      rewards[row, column, action] = (column == size - 1) - UNSCALED_MOVE_COST / size
  initial = np.eye(size)[0]
  return MDP(*(jnp.asarray(x, jnp.result_type(float)) for x in (transitions, rewards, initial)))


def river_swim(num_states: int = 6, horizon: int = 20) -> MDP:
  """RiverSwim (Strehl and Littman 2008, in the numbers of Osband et al. 2013): swim right against the current.

  Action 0 swims left and always succeeds; in the leftmost state it earns 0.005. Action 1 swims right, which moves on
  with probability 0.35 and falls back with 0.05 (at the ends 0.6 and 0.4); in the rightmost state it earns 1.

  Args:
    num_states: S, at least 2.
    horizon: H; more than S, or the right end is out of reach.
  """
  last = num_states - 1
  transitions, rewards = np.zeros((num_states, 2, num_states)), np.zeros((num_states, 2))
  for state in range(num_states):
    transitions[state, 0, max(state - 1, 0)] = 1.0
    if state == 0:
      transitions[0, 1, :2] = 0.4, 0.6
    elif state == last:
      transitions[last, 1, last - 1 :] = 0.4, 0.6
    else:
      transitions[state, 1, state - 1 : state + 2] = 0.05, 0.6, 0.35
  rewards[0, 0], rewards[last, 1] = 0.005, 1.0
  every_stage = lambda x: jnp.asarray(np.broadcast_to(x, (horizon, *x.shape)), jnp.result_type(float))
  return MDP(every_stage(transitions), every_stage(rewards), jax.nn.one_hot(0, num_states))
