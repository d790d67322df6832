"""Exact planning and exact regret."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperagent_jax.tabular.mdp import MDP, DiscountedMDP
from hyperagent_jax.types import Array


class Plan(NamedTuple):
  """Optimal values."""

  q: Array  # [H, S, A]
  v: Array  # [H, S]


def expected(transitions: Array, values: Array) -> Array:  # [..., S], [S] -> [...]
  """The mean value of the next state; for counts in the place of probabilities, the sum.

  A product of matrices, several times faster than a sum of products here. Of thousands of values under one MDP jaxlib
  0.10.2 gets such sums wrong on CPU, and products right in the shapes that are used here.
  """
  return jnp.einsum('...s,s->...', transitions, values, precision='highest')


def backward_induction(transitions: Array, rewards: Array) -> Plan:
  """Optimal values of a finite-horizon MDP: Q_h = r_h + P_h max_a Q_{h+1}, from the last stage to the first.

  Args:
    transitions: [H, S, A, S], of a true or of an imagined MDP.
    rewards: [H, S, A].
  """

  def stage(v_next: Array, given: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    transition, reward = given
    q = reward + expected(transition, v_next)
    v = jnp.max(q, axis=-1)
    return v, (q, v)

  start = jnp.zeros(rewards.shape[1], rewards.dtype)
  return Plan(*jax.lax.scan(stage, start, (transitions, rewards), reverse=True)[1])


def greedy(q: Array) -> Array:  # [..., A] -> [..., A]
  """The policy that takes the best action, as probabilities; the first of equally good ones."""
  return jax.nn.one_hot(jnp.argmax(q, axis=-1), q.shape[-1], dtype=q.dtype)


def policy_value(mdp: MDP, policy: Array) -> Array:  # [H, S, A] -> [H, S]
  """Exact values of a policy."""

  def stage(v_next: Array, given: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    transition, reward, probabilities = given
    v = jnp.sum(probabilities * (reward + expected(transition, v_next)), axis=-1)
    return v, v

  start = jnp.zeros(mdp.rewards.shape[1], mdp.rewards.dtype)
  return jax.lax.scan(stage, start, (mdp.transitions, mdp.rewards, policy), reverse=True)[1]


def occupancy(mdp: MDP, policy: Array) -> Array:  # [H, S, A] -> [H, S]
  """Probability of being in each state at each stage under a policy."""

  def stage(here: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
    transition, probabilities = given
    taken = here[:, None] * probabilities  # [S, A]
    return jnp.einsum('sa,sat->t', taken, transition, precision='highest'), here

  return jax.lax.scan(stage, mdp.initial, (mdp.transitions, policy))[1]


def regret(mdp: MDP, plan: Plan, policy: Array) -> Array:
  """Exact expected loss of an episode, V*(s_0) - V_policy(s_0).

  Computed by the performance difference, the sum over visited states of V*(s) - Q*(s, a): every term is at least 0,
  so that rounding cannot make a regret negative, and an optimal policy's is 0.

  Args:
    mdp: the true MDP.
    plan: its `backward_induction`.
    policy: [H, S, A] probabilities.

  Returns:
    [] at least 0, at most H for rewards in [0, 1].
  """
  loss = jnp.sum(policy * (plan.v[..., None] - plan.q), axis=-1)  # [H, S]
  return jnp.sum(occupancy(mdp, policy) * loss)


def value_iteration(mdp: DiscountedMDP, tolerance: float = 1e-6, max_iterations: int = 100_000) -> Array:
  """Optimal action values [S, A] of a discounted MDP, each within `tolerance` of the truth and rounding.

  A change of at most tolerance (1 - gamma) / gamma between two iterations guarantees that. In float32 a tolerance below
  some 1e-7 of the values is never seen to be met, and `max_iterations` ends it.
  """
  bound = tolerance * (1.0 - mdp.discount) / jnp.maximum(mdp.discount, 1e-12)

  def iterate(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    q, _, count = carry
    new = mdp.rewards + mdp.discount * expected(mdp.transitions, jnp.max(q, axis=-1))
    return new, jnp.max(jnp.abs(new - q)), count + 1

  going_on = lambda carry: (carry[1] > bound) & (carry[2] < max_iterations)
  start = (jnp.zeros_like(mdp.rewards), jnp.asarray(jnp.inf, mdp.rewards.dtype), jnp.zeros((), jnp.int32))
  return jax.lax.while_loop(going_on, iterate, start)[0]


def discounted_policy_value(mdp: DiscountedMDP, policy: Array) -> Array:  # [S, A] -> [S]
  """Exact values of a policy, by solving (I - gamma P_policy) v = r_policy."""
  transition = jnp.sum(policy[..., None] * mdp.transitions, axis=1)  # [S, S]
  reward = jnp.sum(policy * mdp.rewards, axis=1)
  return jnp.linalg.solve(jnp.eye(reward.shape[0]) - mdp.discount * transition, reward)
