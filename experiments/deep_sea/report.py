"""What came out: the table and summary.csv."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.progress import format_duration
from experiments.common.runs import RunConfig
from experiments.common.tables import format_table, write_table
from experiments.common.task import History
from experiments.deep_sea.settings import NUM_ACTIONS, AgentConfigs, DeepSeaConfig
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.types import Agent

# The columns of summary.csv: what came out for each seed of each size.
SUMMARY_COLUMNS = (
  *('agent', 'size', 'seed', 'solved', 'episodes', 'interactions', 'max_episodes'),
  *('seconds', 'steps_per_second', 'parameters'),
)


def table(histories: dict[int, History], num_seeds: int) -> str:
  """Size, seeds solved, episodes to solve, wall-clock time, environment steps of all seeds per second."""
  header = ('size', 'seeds solved', 'episodes to solve', 'min', 'max', 'wall-clock', 'steps/s')
  lines = []
  for size, history in histories.items():
    episodes = [episodes for episodes, _ in history.solved.values()]
    spread = (f'{np.mean(episodes):,.0f}', f'{min(episodes):,}', f'{max(episodes):,}') if episodes else ('-',) * 3
    solved = f'{len(episodes)}/{num_seeds}'
    speed = f'{history.steps_per_second:,.0f}' if history.timed_seconds else '-'
    lines.append((size, solved, *spread, format_duration(history.seconds), speed))
  note = 'Episodes to solve: mean over the solved seeds. Steps/s: all seeds, without compilation and evaluation.'
  return format_table(header, lines) + '\n' + note


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
    for i, seed in enumerate(run.seeds):
      played = history.num_episodes[i]
      episodes, interactions = history.solved.get(str(seed), (played, played * size))
      solved = int(str(seed) in history.solved)
      line = (run.agent, size, seed, solved, episodes, interactions, env.max_episodes)
      rows.append((*line, f'{history.seconds:.1f}', f'{speed:.0f}', parameters))
  write_table(path, SUMMARY_COLUMNS, rows)
