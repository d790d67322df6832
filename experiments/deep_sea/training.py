"""Training HyperAgent, or a rival, on DeepSea.

A seed is solved from a mean return of `envs.deep_sea.solved_return` on, which `common/evaluations.py` looks for.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.common import memory
from experiments.common.devices import chosen_devices
from experiments.common.recording import RESULT_COLUMNS
from experiments.common.runs import OutputConfig, RunConfig
from experiments.common.task import Files, History, Task
from experiments.common.training import train
from experiments.deep_sea.settings import NUM_ACTIONS, DeepSeaConfig
from experiments.deep_sea.snapshots import Snapshots
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.build import make_replay_for
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.runner import make_runner, steps_for
from hyperagent_jax.seeds import default_seed_axis, num_devices_used

COLUMNS = (*RESULT_COLUMNS, 'size', 'solved', 'loss', 'grad_norm', 'eval_num_cut')


def task_name(size: int) -> str:
  """Names the checkpoints, the events and the snapshots of a size."""
  return f'size_{size}'


def make_task(size: int, env: DeepSeaConfig, run: RunConfig, agent: HyperAgentConfig, on_evaluation: Any) -> Task:
  """What is trained at one size."""
  seeds = run.seeds
  kind = 'deep_sea_stochastic' if env.stochastic else 'deep_sea'
  return Task(
    name=task_name(size),
    environment_name=f'{kind}/{size}',
    agent_name=run.agent,
    seeds=seeds,
    env_params=env_params(size, env, seeds),
    episode_length=size,
    num_envs=agent.num_envs,
    min_replay=agent.min_replay,
    max_interactions=env.max_episodes * size,
    normalize=lambda x: x / (1.0 - deep_sea.UNSCALED_MOVE_COST),
    columns={'size': size},
    on_evaluation=on_evaluation,
    solved_return=deep_sea.solved_return(size, not env.stochastic),
    stop_when_solved=env.stop_when_solved,
  )


def env_params(size: int, env: DeepSeaConfig, seeds: Sequence[int]) -> deep_sea.DeepSeaParams:
  """The action map of every seed, [S, N, N]."""
  maps = [deep_sea.make_params(size, s if env.mapping_seed < 0 else env.mapping_seed) for s in seeds]
  return jax.tree.map(lambda *x: jnp.stack(x), *maps)


def replay_capacity(size: int, agent: HyperAgentConfig, env: DeepSeaConfig, run: RunConfig) -> int:
  """Time steps that replay holds: no more than a run can fill.

  That is one evaluation more than the budget: the last chunk may end after it.
  """
  rows = steps_for((env.max_episodes * size + run.eval_period) // agent.num_envs + 1, size) + 1
  return min(agent.replay_capacity, rows * agent.num_envs)


def check_memory(
  size: int, agent_config: HyperAgentConfig, env: DeepSeaConfig, run: RunConfig, output: OutputConfig
) -> None:
  """Refuses, before anything is made, what would not fit.

  Raises:
    ConfigError: naming what it takes and what there is.
  """
  devices = chosen_devices(output.num_devices)
  seed_axis = default_seed_axis(devices) if output.seed_axis == 'auto' else output.seed_axis
  replay = make_replay_for(agent_config, replay_capacity(size, agent_config, env, run))
  agent = SYSTEMS[run.agent].make(agent_config, NUM_ACTIONS)
  timestep = memory.first_step(agent_config.num_envs, (), jnp.int32)
  state, array = memory.seed_bytes(agent, replay, agent_config, NUM_ACTIONS, timestep)
  sizes = (state + size**2, array)  # with the action map
  num_devices = num_devices_used(run.num_seeds, len(devices))
  memory.check(f'--size={size}', run.num_seeds, devices, seed_axis == 'map', num_devices, sizes)


def train_size(
  size: int, agent_config: HyperAgentConfig, env: DeepSeaConfig, run: RunConfig, output: OutputConfig, files: Files
) -> History:
  """Trains all seeds at one size."""
  started = time.monotonic()
  agent = SYSTEMS[run.agent].make(agent_config, NUM_ACTIONS)
  snapshots = Snapshots(files.folder / 'posterior' / task_name(size), agent, agent_config)
  task = make_task(size, env, run, agent_config, snapshots.take)
  runner = make_runner(
    agent,
    deep_sea.make_deep_sea(size, not env.stochastic),
    make_replay_for(agent_config, replay_capacity(size, agent_config, env, run)),
    agent_config,
    # Whether it is solved is judged without reward noise.
    eval_environment=deep_sea.make_deep_sea(size, not env.stochastic, reward_noise=False),
    num_eval_episodes=run.num_eval_episodes,
    max_eval_steps=run.max_eval_steps,
    devices=chosen_devices(output.num_devices),
    seed_axis=None if output.seed_axis == 'auto' else output.seed_axis,
  )
  return train(task, runner, run, files, bool(output.resume), started)[0]
