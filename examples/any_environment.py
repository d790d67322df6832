"""HyperAgent on any environment that is stepped from Python: dm_env's, or Gymnasium's through an adapter.

`HostAgent` does all that an agent does in a time step; `run_loop` steps the environment. Change the environment, whose
actions must be discrete, and `CONFIG`, of which prior_scale (how widely values are guessed before there are data; of
the size of returns), learning_rate, max_grad_norm, target_period and n_step matter most. Run it with

    python -m examples.any_environment
"""

import dataclasses
import itertools

import dm_env
import gymnasium
import numpy as np
from bsuite.environments.catch import Catch

import hyperagent_jax as ha
from hyperagent_jax.envs.adapters import GymnasiumEnvironment

CONFIG = dataclasses.replace(
  ha.presets.vector_observations(),
  prior_scale=1.0,
  learning_rate=5e-4,
  target_period=100,  # steadier on CartPole than 4, which suits DeepSea
  max_grad_norm=1e12,  # no clipping: with returns of some hundred, gradients are far longer than the usual limit of 10
  n_step=3,
  batch_size=64,
  min_replay=500,
)


def learn(
  environment: dm_env.Environment, config: ha.HyperAgentConfig, num_steps: int, seed: int, period: int = 1_000
) -> list[float]:
  """Trains for so many time steps; returns the mean return of the episodes that ended in each `period` of them."""
  num_actions = environment.action_spec().num_values
  agent = ha.make(config, num_actions)
  replay = ha.make_replay_for(config, capacity=50_000)
  host_agent = ha.HostAgent(agent, replay, num_actions, config, seed)

  means, finished, episode_return = [], [], 0.0
  for t, (timestep, _) in enumerate(itertools.islice(ha.run_loop(host_agent, environment), num_steps), start=1):
    episode_return = 0.0 if timestep.first() else episode_return + timestep.reward
    if timestep.last():
      finished.append(episode_return)
    if t % period == 0:
      means.append(float(np.mean(finished)) if finished else float('nan'))
      print(f'{t} steps: mean return {means[-1]:.1f} of {len(finished)} episodes')
      finished = []
  return means


def main(num_steps: int = 10_000, seed: int = 0, period: int = 1_000) -> dict[str, list[float]]:
  """Learns catch and CartPole, one after the other; returns both curves."""
  environments = {
    'catch': Catch(seed=seed),
    'CartPole-v1': GymnasiumEnvironment(gymnasium.make('CartPole-v1'), seed=seed),
  }
  curves = {}
  for name, environment in environments.items():
    print(name)
    curves[name] = learn(environment, CONFIG, num_steps, seed, period)
  return curves


if __name__ == '__main__':
  main()
