"""HyperAgent where one observation does not tell enough: the latest observations as one, in a JAX environment.

bsuite's memory_len shows a bit in the first step of an episode and asks for it in the last one. An agent that sees one
observation can only guess; one that sees as many as an episode has steps need not. Run it with

    python -m examples.with_history
"""

import dataclasses

import jax
import numpy as np

import hyperagent_jax as ha
from hyperagent_jax.envs import bsuite
from hyperagent_jax.envs.history import with_history

CONFIG = dataclasses.replace(ha.presets.bsuite(), min_replay=200, replay_capacity=20_000)


def learn(bsuite_id: str, length: int, num_steps: int, seed: int) -> float:
  """Trains for so many time steps with a history of `length` observations; the mean return of 200 episodes then."""
  task = bsuite.make_bsuite(bsuite_id)
  config = dataclasses.replace(CONFIG, frame_stack=length)  # replay stores each observation once
  environment = with_history(task.environment, length) if length > 1 else task.environment
  agent = ha.make(config, environment.num_actions)
  runner = ha.make_runner(agent, environment, ha.make_replay_for(config), config, num_eval_episodes=200)
  state = runner.init([seed], jax.tree.map(lambda x: x[None], task.params))
  state = runner.run(runner.prefill(state, config.min_replay), num_steps)
  return float(np.mean(runner.evaluate(state).returns))


def main(bsuite_id: str = 'memory_len/4', num_steps: int = 6_000, seed: int = 0) -> dict[int, float]:
  """Mean return, from -1 to 1, by the length of the history; the memory of memory_len/4 spans six observations."""
  returns = {}
  for length in (1, 6):
    returns[length] = learn(bsuite_id, length, num_steps, seed)
    print(f'{bsuite_id}, history of {length}: mean return {returns[length]:+.2f}')
  return returns


if __name__ == '__main__':
  main()
