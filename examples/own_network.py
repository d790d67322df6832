"""HyperAgent's head, prior and loss on a network of your own, with observations that are a dict.

`CarTorso` is any Flax module from one observation to features [H]. `join_with_prior` puts the linear hypermodel on it
and a fixed prior of the same architecture beside it. Observations pass through replay and drivers as they are. Change
the torso, what an observation consists of, the environment, or the optimizer, which is any of optax's. Run it with

    python -m examples.own_network
"""

import dataclasses
import itertools

import dm_env
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from dm_env import specs

import hyperagent_jax as ha
from hyperagent_jax.networks import join_with_prior

# With a torso of your own the fields torso, hidden_sizes and grid_size say nothing. prior_storage must be 'replay'.
CONFIG = dataclasses.replace(ha.presets.vector_observations(), prior_scale=0.3, batch_size=32, min_replay=100)
LENGTH, MAX_SPEED, MAX_STEPS = 12, 3, 20


class Parking(dm_env.Environment):
  """A car earns 1 for stopping in its bay, and every step costs 0.05.

  The image shows car and bay, and only `speed` how fast the car is. Driving past the bay terminates the episode; when
  time is up it is only truncated, since no observation tells the time.
  """

  def __init__(self, seed: int):
    """Makes a road whose bay lies elsewhere in every episode."""
    self._rng = np.random.default_rng(seed)
    self._ended = True

  def reset(self) -> dm_env.TimeStep:
    """Puts the car at the road's start."""
    self._car, self._speed, self._num_steps, self._ended = 0, 0, 0, False
    self._bay = int(self._rng.integers(4, LENGTH))
    return dm_env.restart(self._observe())

  def step(self, action: int) -> dm_env.TimeStep:
    """Brakes, rolls or accelerates; then the car moves by its speed."""
    if self._ended:
      return self.reset()
    self._speed = int(np.clip(self._speed + action - 1, 0, MAX_SPEED))
    self._car = min(self._car + self._speed, LENGTH - 1)
    self._num_steps += 1
    parked = self._car == self._bay and self._speed == 0
    terminated = parked or self._car > self._bay
    self._ended = terminated or self._num_steps == MAX_STEPS
    reward = parked - 0.05
    if terminated:
      return dm_env.termination(reward, self._observe())
    if self._ended:
      return dm_env.truncation(reward, self._observe())  # keeps a discount of 1, so that its last state has a value
    return dm_env.transition(reward, self._observe())

  def _observe(self) -> dict[str, np.ndarray]:
    image = np.zeros((LENGTH, 2), np.uint8)
    image[self._car, 0] = image[self._bay, 1] = 255
    return {'image': image, 'speed': np.asarray(self._speed, np.int32)}

  def observation_spec(self) -> dict[str, specs.Array]:
    """A tree of specs in the shape of the observations."""
    image = specs.BoundedArray((LENGTH, 2), np.uint8, 0, 255, name='image')
    return {'image': image, 'speed': specs.DiscreteArray(MAX_SPEED + 1, np.int32, name='speed')}

  def action_spec(self) -> specs.DiscreteArray:
    """Brake, roll, accelerate."""
    return specs.DiscreteArray(3, name='action')


class CarTorso(nn.Module):
  """A convolution along the road, an embedding of the speed, and a layer that joins them."""

  num_features: int = 64

  @nn.compact
  def __call__(self, observation: dict[str, jax.Array]) -> jax.Array:
    """One observation (no batch: callers vmap) to its features [H]."""
    image = observation['image'].astype(jnp.float32) / 255.0
    road = nn.relu(nn.Conv(8, kernel_size=(3,))(image)).ravel()
    speed = nn.Embed(MAX_SPEED + 1, 8)(observation['speed'])
    return nn.relu(nn.Dense(self.num_features)(jnp.concatenate([road, speed])))


def main(num_steps: int = 6_000, seed: int = 0) -> tuple[ha.HostAgent, list[float]]:
  """Trains for so many time steps; returns the agent and every episode's return."""
  environment = Parking(seed)
  num_actions = environment.action_spec().num_values
  network = join_with_prior(CarTorso, CONFIG, num_actions)
  optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(1e-3, eps=1e-4))
  agent = ha.make_hyperagent(network, optimizer, CONFIG)
  replay = ha.make_replay(10_000, 1, CONFIG.n_step, CONFIG.discount)
  host_agent = ha.HostAgent(agent, replay, num_actions, CONFIG, seed)

  returns, episode_return = [], 0.0
  for t, (timestep, _) in enumerate(itertools.islice(ha.run_loop(host_agent, environment), num_steps), start=1):
    episode_return = 0.0 if timestep.first() else episode_return + timestep.reward
    if timestep.last():
      returns.append(episode_return)
    if t % 1_000 == 0:
      print(f'{t} steps: mean return {np.mean(returns[-50:]):.2f} of the last 50 episodes')
  # What the agent believes of the first state, for every action: the posterior's mean and standard deviation.
  posterior = jax.jit(agent.posterior)(host_agent.learner, environment.reset().observation)
  print('brake, roll, accelerate:', np.round(posterior.mean, 2), '+-', np.round(posterior.std, 2))
  return host_agent, returns


if __name__ == '__main__':
  main()
