"""What a run counts of each seed."""

from typing import NamedTuple

import jax.numpy as jnp

from hyperagent_jax.interaction import Losses
from hyperagent_jax.types import Array, TimeStep


class Statistics(NamedTuple):
  """What a seed has done; the second group counts from the start of the latest `run` that was told to be fresh."""

  num_interactions: Array  # [] int32 environment steps, resets not counted
  num_episodes: Array  # [] int32 finished episodes
  episode_return: Array  # [E] return of the episodes under way
  nonfinite_step: Array  # [] int32 first step with a loss that was not finite, -1 for none

  finished: Array  # [] int32 episodes finished
  return_sum: Array  # [] over these
  num_updates: Array  # [] int32
  loss_sum: Array  # []
  grad_norm_sum: Array  # []


def empty_statistics(num_envs: int) -> Statistics:
  """Nothing done yet by E environments."""
  count, total = lambda: jnp.zeros((), jnp.int32), lambda: jnp.zeros(())
  return Statistics(
    count(), count(), jnp.zeros((num_envs,)), -jnp.ones((), jnp.int32), count(), total(), count(), total(), total()
  )


def count_anew(s: Statistics, fresh: Array | bool) -> Statistics:
  """Sets the second group of numbers back to nothing if `fresh`."""
  empty = empty_statistics(s.episode_return.shape[0])
  again = ('finished', 'return_sum', 'num_updates', 'loss_sum', 'grad_norm_sum')
  return s._replace(**{name: jnp.where(fresh, getattr(empty, name), getattr(s, name)) for name in again})


def count_step(s: Statistics, timestep: TimeStep) -> Statistics:
  """Adds a time step [E]."""
  episode_return = jnp.where(timestep.first(), 0.0, s.episode_return + timestep.reward)
  last = timestep.last()
  num_last = jnp.sum(last, dtype=jnp.int32)
  return s._replace(
    num_interactions=s.num_interactions + jnp.sum(~timestep.first(), dtype=jnp.int32),
    num_episodes=s.num_episodes + num_last,
    episode_return=episode_return,
    finished=s.finished + num_last,
    return_sum=s.return_sum + jnp.sum(jnp.where(last, episode_return, 0.0)),
  )


def count_losses(s: Statistics, losses: Losses, step: Array) -> Statistics:
  """Adds the metrics of a step's updates."""
  first_bad = ~losses.finite & (s.nonfinite_step < 0)
  return s._replace(
    nonfinite_step=jnp.where(first_bad, step, s.nonfinite_step),
    num_updates=s.num_updates + losses.num_updates,
    loss_sum=s.loss_sum + losses.loss,
    grad_norm_sum=s.grad_norm_sum + losses.grad_norm,
  )
