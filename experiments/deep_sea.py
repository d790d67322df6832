"""HyperAgent on DeepSea: trains, prints a table, draws figures.

    python -m experiments.deep_sea --size=20 --num_seeds=10

Episodes to solve follow the paper's protocol (B.1): every 1,000 interactions 100 evaluation episodes are played, and a
seed is solved when all of them end in the treasure's corner.
"""

import csv
import dataclasses
import io
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import agents
from experiments import run as run_lib
from experiments.run import OutputConfig, RunConfig
from experiments.training import Files, History, Task, finished_history, open_results, open_tensorboard, train
from hyperagent_jax import checkpoint, config, metrics, presets
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.config import ConfigError, HyperAgentConfig, field
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.networks import deep_sea_observations
from hyperagent_jax.replay import make_replay
from hyperagent_jax.runner import RunnerState, make_runner, select_seed, steps_for
from hyperagent_jax.types import Agent

COLUMNS = (*metrics.COLUMNS, 'size', 'solved', 'loss', 'grad_norm')
# What the environment fixes, and what is for screens only.
_NOT_FLAGS = (
  *('torso', 'grid_size', 'frame_stack', 'max_abs_reward'),
  *('pixel_divisor', 'normalize_features', 'convolution_method', 'compute_dtype', 'frame_layout'),
)


PRESETS = {'deep_sea': presets.deep_sea, 'deep_sea_best': presets.deep_sea_best}
NUM_ACTIONS = 2
AgentConfigs = dict[int, HyperAgentConfig]  # by size
# Of summary.csv: what came out for each seed of each size.
SUMMARY_COLUMNS = (
  *('agent', 'size', 'seed', 'solved', 'episodes', 'interactions', 'max_episodes'),
  *('seconds', 'steps_per_second', 'parameters'),
)


@dataclasses.dataclass(frozen=True)
class DeepSeaConfig:
  """Settings of the environment."""

  preset: str = field('deep_sea', "HyperAgent's settings from which the other flags depart.", choices=tuple(PRESETS))
  size: tuple[int, ...] = field((20,), 'Sides N of the grid, trained one after the other.', low=2, high=1000)
  stochastic: bool = field(False, "bsuite's windy variant with noisy rewards.")
  max_episodes: int = field(10_000, 'Episodes per seed after which an unsolved run ends.', low=1)
  stop_when_solved: bool = field(True, 'Stop when every seed is solved.')
  mapping_seed: int = field(-1, "Seed of the action map, such as bsuite's 42; -1: each run's own seed.", low=-1)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Makes a flag of every setting."""
  agents.define_flags(presets.deep_sea(), flag_values, skip=_NOT_FLAGS)
  for settings in (RunConfig(), OutputConfig(), DeepSeaConfig()):
    config.define_flags(settings, flag_values)
  flags.adopt_module_key_flags(config, flag_values)  # so that --help lists them


def _name(size: int) -> str:
  return f'size_{size}'


def make_task(size: int, env: DeepSeaConfig, run: RunConfig, agent: HyperAgentConfig, on_evaluation: Any) -> Task:
  """What is trained at one size."""
  seeds = tuple(range(run.first_seed, run.first_seed + run.num_seeds))
  kind = 'deep_sea_stochastic' if env.stochastic else 'deep_sea'
  return Task(
    name=_name(size),
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


def train_size(
  size: int, agent_config: HyperAgentConfig, env: DeepSeaConfig, run: RunConfig, output: OutputConfig, files: Files
) -> History:
  """Trains all seeds at one size."""
  started = time.monotonic()
  agent = SYSTEMS[run.agent].make(agent_config, NUM_ACTIONS)
  snapshots = Snapshots(files.folder / 'posterior' / _name(size), agent, agent_config)
  task = make_task(size, env, run, agent_config, snapshots.take)
  # One evaluation more than the budget: the last chunk may end after it.
  rows = steps_for((task.max_interactions + run.eval_period) // agent_config.num_envs + 1, size) + 1
  capacity = min(agent_config.replay_capacity, rows * agent_config.num_envs)
  runner = make_runner(
    agent,
    deep_sea.make_deep_sea(size, not env.stochastic),
    make_replay(capacity, agent_config.num_envs, agent_config.n_step, agent_config.discount),
    agent_config,
    # Whether it is solved is judged without reward noise.
    eval_environment=deep_sea.make_deep_sea(size, not env.stochastic, reward_noise=False),
    num_eval_episodes=run.num_eval_episodes,
    devices=run_lib.devices(output.num_devices),
    seed_axis=None if output.seed_axis == 'auto' else output.seed_axis,
  )
  return train(task, runner, run, files, output.resume, started)[0]


class Snapshots:
  """Saves the first seed's posterior and visit counts now and then, for the heat maps."""

  def __init__(self, folder: pathlib.Path, agent: Agent, agent_config: HyperAgentConfig):
    self._folder = folder
    self._size = agent_config.grid_size
    self._observations = deep_sea_observations(self._size)[:-1]
    self._posterior = jax.jit(jax.vmap(agent.posterior, in_axes=(None, 0)))

  @staticmethod
  def is_due(iteration: int) -> bool:
    """Every evaluation at first, then more and more rarely: about 16 for every doubling."""
    return iteration % max(1, 2 ** (iteration.bit_length() - 5)) == 0

  def take(self, state: RunnerState, iteration: int, interactions: int, episodes: int) -> None:
    """Saves one if it is due."""
    if not self.is_due(iteration):
      return
    seed = select_seed(state, 0)
    q = jax.device_get(self._posterior(seed.learner, jnp.asarray(self._observations)))
    ring = np.asarray(seed.carry.replay.rows.observation)[: int(seed.carry.replay.num_added)]
    visits = np.bincount(ring.ravel(), minlength=self._size**2 + 1)[self._observations]
    data = io.BytesIO()
    np.savez_compressed(
      data,
      observation=self._observations,
      visits=visits,
      mean=q.mean,
      std=q.std,
      right_action=np.asarray(seed.env_params.right_action),
      env_step=interactions,
      episode=episodes,
    )
    self._folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_atomically(self._folder / f'{interactions:09d}.npz', data.getvalue())

  @staticmethod
  def discard_after(folder: pathlib.Path, interactions: int) -> None:
    """Removes what a run that is resumed before them has yet to take again."""
    for path in folder.glob('*.npz'):
      if int(path.stem) > interactions:
        path.unlink()


def table(histories: dict[int, History], num_seeds: int) -> str:
  """Size, seeds solved, episodes to solve, wall-clock time, environment steps of all seeds per second."""
  header = ('size', 'seeds solved', 'episodes to solve', 'min', 'max', 'wall-clock', 'steps/s')
  lines = []
  for size, history in histories.items():
    episodes = [episodes for episodes, _ in history.solved.values()]
    spread = (f'{np.mean(episodes):,.0f}', f'{min(episodes):,}', f'{max(episodes):,}') if episodes else ('-',) * 3
    solved = f'{len(episodes)}/{num_seeds}'
    speed = f'{history.steps_per_second:,.0f}' if history.timed_seconds else '-'
    lines.append((size, solved, *spread, metrics.format_duration(history.seconds), speed))
  note = 'Episodes to solve: mean over the solved seeds. Steps/s: all seeds, without compilation and evaluation.'
  return metrics.format_table(header, lines) + '\n' + note


def num_parameters(agent: Agent) -> int:
  """Trained parameters of one seed."""
  learner = jax.eval_shape(agent.init, jax.random.key(0), jnp.int32(0))
  return sum(x.size for x in jax.tree.leaves(learner.params))


def write_summary(
  path: pathlib.Path, histories: dict[int, History], agent_configs: AgentConfigs, run: RunConfig, env: DeepSeaConfig
) -> None:
  """Writes summary.csv: a line for every size and seed, when all is done.

  An unsolved seed's episodes and interactions are those that it has played; seconds are the wall-clock time of all
  seeds together.
  """
  rows = []
  for size, history in histories.items():
    agent = SYSTEMS[run.agent].make(agent_configs[size], NUM_ACTIONS)
    parameters, speed = num_parameters(agent), history.steps_per_second
    for i, seed in enumerate(range(run.first_seed, run.first_seed + run.num_seeds)):
      played = history.num_episodes[i]
      episodes, interactions = history.solved.get(str(seed), (played, played * size))
      solved = int(str(seed) in history.solved)
      line = (run.agent, size, seed, solved, episodes, interactions, env.max_episodes)
      rows.append((*line, f'{history.seconds:.1f}', f'{speed:.0f}', parameters))
  text = io.StringIO(newline='')
  csv.writer(text, lineterminator='\n').writerows([SUMMARY_COLUMNS, *rows])
  checkpoint.write_atomically(path, text.getvalue().encode())


def read_settings(
  flag_values: flags.FlagValues = flags.FLAGS,
) -> tuple[AgentConfigs, RunConfig, OutputConfig, DeepSeaConfig]:
  """All flags as validated settings, the agent's for every size: a preset may depend on it.

  Raises:
    ConfigError: on the first that cannot be used.
  """
  run, output, env = (config.from_flags(c, flag_values) for c in (RunConfig(), OutputConfig(), DeepSeaConfig()))
  for settings in (run, output, env):
    config.validate_fields(settings)
  if not env.size or len(set(env.size)) < len(env.size):
    raise ConfigError(f'--size={",".join(map(str, env.size))}: must name one or more different sizes')
  if env.preset != 'deep_sea' and run.agent != 'hyperagent':
    raise ConfigError(f'--preset={env.preset}: is for --agent=hyperagent; {run.agent} has one preset, deep_sea')
  preset = PRESETS[env.preset] if run.agent == 'hyperagent' else SYSTEMS[run.agent].deep_sea
  agent_configs = {size: agents.read_settings(run.agent, preset(size), flag_values) for size in env.size}
  min_replay = max(c.min_replay for c in agent_configs.values())
  if min_replay > env.max_episodes * min(env.size):
    raise ConfigError(f'--min_replay={min_replay}: must be at most --max_episodes times --size')
  return agent_configs, run, output, env


def to_dict(agent_configs: AgentConfigs, run: RunConfig, env: DeepSeaConfig) -> dict[str, Any]:
  """All settings that bear on the results, for config.json and to compare on resuming; by size where that matters."""
  by_size = {str(size): agents.to_dict(run.agent, c) for size, c in agent_configs.items()}
  merged = dict(by_size[str(max(agent_configs))])
  for name in set(merged) - {'grid_size'}:
    values = {size: settings[name] for size, settings in by_size.items()}
    if any(value != merged[name] for value in values.values()):
      merged[name] = values
  return {**merged, **run_lib.settings_of(run, env)}


def import_figures() -> Callable[[str], list[str]]:
  """`figures.draw_all`, looked up before training so that a missing package is known before.

  Raises:
    ConfigError: if matplotlib or pillow is not installed.
  """
  try:
    from experiments import figures
  except ImportError as e:
    raise ConfigError(f'--figures: {e.name} is not installed; install it or pass --nofigures') from None
  return figures.draw_all


def main() -> None:
  """Trains all sizes in turn, prints the table and draws the figures."""
  agent_configs, run, output, env = read_settings()
  draw_all = import_figures() if output.figures else None
  run_lib.set_num_devices(output.num_devices, run.num_seeds)
  settings = to_dict(agent_configs, run, env)
  folder = run_lib.open_folder(output, 'deep_sea', settings)
  results, resumed_at = open_results(output, folder, COLUMNS, [_name(size) for size in env.size], settings)
  for name, interactions in resumed_at.items():
    Snapshots.discard_after(folder / 'posterior' / name, interactions)
  signals, progress = run_lib.Signals(output.max_minutes), metrics.Progress()
  histories = {}
  try:
    for size in env.size:
      done = finished_history(folder, _name(size)) if output.resume else None
      if done is None:
        tensorboard = open_tensorboard(output, folder, _name(size), resumed_at)
        files = Files(folder, results, tensorboard, settings, signals, progress)
        done = train_size(size, agent_configs[size], env, run, output, files)
        tensorboard.close()
      histories[size] = done
  finally:
    results.close()
  write_summary(folder / 'summary.csv', histories, agent_configs, run, env)
  print(table(histories, run.num_seeds))
  if draw_all is not None:
    for path in draw_all(str(folder)):
      print(path)
  print(f'results: {folder}')


if __name__ == '__main__':
  define_flags()
  run_lib.start_main(main, 'deep_sea')
