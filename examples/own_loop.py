"""HyperAgent in a loop of your own: two jitted functions, a replay of NumPy arrays, bsuite's catch.

`agent.act` chooses actions and `agent.update` learns from a batch; both are pure functions, and everything around them
is yours. Change the environment, the replay, when and how often to update, or what is logged. Run it with

    python -m examples.own_loop
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from bsuite.environments.catch import Catch

import hyperagent_jax as ha

CONFIG = dataclasses.replace(ha.presets.vector_observations(), prior_scale=1.0, batch_size=32, min_replay=100)


class RingBuffer:
  """The newest transitions, in arrays."""

  def __init__(self, capacity: int, observation: np.ndarray):
    """Makes room for `capacity` transitions with observations such as this one."""
    zeros: Any = lambda shape, dtype: np.zeros((capacity, *shape), dtype)  # an array of NumPy's does as well as JAX's
    number = lambda: zeros((), np.float32)
    o_tm1, o_t = (zeros(observation.shape, observation.dtype) for _ in range(2))
    # The extras that `act` returns may be kept as well. Without them `update` evaluates the fixed prior anew, which
    # gives the same numbers; only sigma > 0 needs them, for the noise of a transition.
    self._arrays = ha.Transition(o_tm1, a_tm1=zeros((), np.int32), r_t=number(), discount_t=number(), o_t=o_t)
    self._capacity = capacity
    self.num_added = 0

  def add(self, transition: ha.Transition) -> None:
    """Keeps a transition, in the oldest one's place once the buffer is full."""
    for array, x in zip(jax.tree.leaves(self._arrays), jax.tree.leaves(transition), strict=True):
      array[self.num_added % self._capacity] = x
    self.num_added += 1

  def sample(self, rng: np.random.Generator, batch_size: int) -> ha.Transition:
    """A batch drawn uniformly, every array [B, ...]."""
    chosen = rng.integers(min(self.num_added, self._capacity), size=batch_size)
    return jax.tree.map(lambda array: array[chosen], self._arrays)


def main(num_steps: int = 3_000, seed: int = 0) -> tuple[ha.LearnerState, list[float]]:
  """Trains for so many time steps; returns what was learnt and every episode's return."""
  environment = Catch(seed=seed)
  num_actions = environment.action_spec().num_values
  agent = ha.make_hyperagent(ha.make_network(CONFIG, num_actions), ha.make_optimizer(CONFIG), CONFIG)
  act, update = jax.jit(agent.act), jax.jit(agent.update)

  # A key is used once. Here every step has two of its own: 2 t for acting, 2 t + 1 for its update.
  key_learner, key_actor, key_steps = jax.random.split(jax.random.key(seed), 3)
  key = lambda i: jax.random.fold_in(key_steps, i)
  rng = np.random.default_rng(seed)

  timestep = environment.reset()
  replay = RingBuffer(10_000, timestep.observation)
  learner = agent.init(key_learner, timestep.observation)
  actor = agent.init_actor(key_actor)  # holds the index, that is, the sample of the posterior that is followed
  returns, episode_return = [], 0.0
  for t in range(num_steps):
    # `act` must see the FIRST step of each episode: there it draws a new index.
    actor, output = act(learner, actor, ha.from_dm_env(timestep), key(2 * t))
    after = environment.step(int(output.action))
    discount_t = CONFIG.discount * after.discount  # gamma times the environment's: 0 where an episode terminates
    replay.add(ha.Transition(timestep.observation, output.action, after.reward, discount_t, after.observation))
    if replay.num_added >= CONFIG.min_replay:
      learner, _ = update(learner, replay.sample(rng, CONFIG.batch_size), key(2 * t + 1))
    episode_return += after.reward
    if after.last():
      returns.append(episode_return)
      episode_return = 0.0
    if (t + 1) % 1_000 == 0:
      print(f'{t + 1} steps: mean return {np.mean(returns[-50:]):.2f}')
    timestep = environment.reset() if after.last() else after
  return learner, returns


if __name__ == '__main__':
  main()
