"""Training on games, one after the other."""

import dataclasses
import io
import pathlib
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.atari.games import constant_returns, play, random_returns
from experiments.atari.report import normalized, read_scores, score_rows, write_scores
from experiments.atari.settings import Settings
from experiments.common import checkpoint, memory
from experiments.common.devices import chosen_devices
from experiments.common.files import write_atomically
from experiments.common.recording import RESULT_COLUMNS
from experiments.common.resumption import finished_record
from experiments.common.task import Files, History, Kept, Task, checkpoints_of
from experiments.common.training import stopped, train
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.build import make_replay_for
from hyperagent_jax.envs import atari
from hyperagent_jax.replay import Replay
from hyperagent_jax.runner import Runner, make_runner
from hyperagent_jax.seeds import default_seed_axis, num_devices_used
from hyperagent_jax.types import Agent

COLUMNS = (*RESULT_COLUMNS, 'game', 'loss', 'grad_norm', 'eval_num_cut')


@dataclasses.dataclass(frozen=True)
class Trainer:
  """One game's agent and compiled programs."""

  task: Task
  agent: Agent
  runner: Runner


def make_agent(game: str, s: Settings) -> tuple[Agent, Replay, int]:
  """A game's agent and replay, and its number of actions."""
  c, num_actions = s.agent, atari.num_actions_of(game, s.env)
  agent = SYSTEMS[s.run.agent].make(c, num_actions)
  replay = make_replay_for(c, s.capacity)
  return agent, replay, num_actions


def make_trainer(game: str, s: Settings) -> Trainer:
  """Builds everything for a game."""
  agent, replay, _ = make_agent(game, s)
  devices, seed_axis, num_devices = placement(s)
  num_groups = len(s.seeds) if seed_axis == 'map' else num_devices
  num_envs, num_eval_episodes = s.agent.num_envs, s.run.num_eval_episodes
  games = atari.make_atari(game, s.env, len(s.seeds), num_envs, num_eval_episodes, num_groups, s.agent.frame_stack)
  runner = make_runner(
    agent,
    games.environment,
    replay,
    s.agent,
    games.eval_environment,
    num_eval_episodes,
    s.run.max_eval_steps,
    devices,
    seed_axis,
  )
  task = Task(
    name=game,
    environment_name=games.environment.name,
    agent_name=s.run.agent,
    seeds=s.seeds,
    key_seeds=tuple(game_seed(game, seed) for seed in s.seeds),
    env_params=games.params,
    episode_length=None,
    num_envs=num_envs,
    min_replay=s.agent.min_replay,
    max_interactions=s.train.max_interactions,
    normalize=lambda x: normalized(game, x),
    columns={'game': game},
    on_evaluation=lambda *_: None,
    frames_per_step=s.env.frame_skip,
    num_final_episodes=s.train.num_final_episodes,
  )
  return Trainer(task, agent, runner)


def game_seed(game: str, seed: int) -> int:
  """What a seed's random numbers derive from: no two games share them, so that scores of games are independent."""
  return zlib.crc32(f'{game} {seed}'.encode())


def placement(s: Settings) -> tuple[list[jax.Device], str, int]:
  """The devices, how each runs its seeds, and how many of them serve."""
  devices = chosen_devices(s.output.num_devices)
  seed_axis = default_seed_axis(devices) if s.output.seed_axis == 'auto' else s.output.seed_axis
  return devices, seed_axis, num_devices_used(len(s.seeds), len(devices))


def check_memory(s: Settings) -> None:
  """Refuses, before anything is made, what would not fit.

  Raises:
    ConfigError: naming what it takes and what there is.
  """
  devices, seed_axis, num_devices = placement(s)
  screens = (s.agent.frame_stack, s.env.screen_size, s.env.screen_size)
  timestep = memory.first_step(s.agent.num_envs, screens, jnp.uint8)
  game = max(s.games, key=lambda game: atari.num_actions_of(game, s.env))
  agent, replay, num_actions = make_agent(game, s)
  sizes = memory.seed_bytes(agent, replay, s.agent, num_actions, timestep)
  flag = f'--replay_capacity={s.agent.replay_capacity}'
  memory.check(flag, len(s.seeds), devices, seed_axis == 'map', num_devices, sizes)


def save_best(folder: pathlib.Path, trainer: Trainer, kept: Kept) -> None:
  """Writes best/GAME.npz: every seed's best parameters and its prior, [S, ...] each."""
  trees = {'params': kept.best, 'prior_params': kept.run.learner.prior_params}
  leaves = jax.tree_util.tree_leaves_with_path(trees)
  arrays: dict[str, Any] = {jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(x) for path, x in leaves}
  data = io.BytesIO()
  np.savez_compressed(data, **arrays)
  (folder / 'best').mkdir(exist_ok=True)
  write_atomically(folder / 'best' / f'{trainer.task.name}.npz', data.getvalue())


def train_game(game: str, s: Settings, files: Files) -> tuple[History, list[dict[str, Any]]]:
  """Trains a game, and writes its best parameters and a GIF; returns also its rows of scores.csv."""
  started = time.monotonic()
  trainer = make_trainer(game, s)
  history, kept = train(trainer.task, trainer.runner, s.run, files, bool(s.output.resume), started)
  save_best(files.folder, trainer, kept)
  stop = files.signals.stop()
  if stop is not None:  # references can take minutes
    raise stopped(stop, files.folder, f'after the training of {game}')

  def between() -> None:
    stop = files.signals.stop()
    # Not for --max_minutes, which may be shorter than these games: they would never be over.
    if stop is not None and files.signals.received is not None:
      raise stopped(stop, files.folder, f'in the reference games of {game}')

  references = {}
  if s.train.num_reference_episodes:
    references = {'random': random_returns(game, s.env, s.train.num_reference_episodes, between)}
    references |= constant_returns(game, s.env, s.train.num_reference_episodes, between)
  if s.output.figures:
    from experiments.atari.figures import draw_game

    first = jax.tree.map(lambda x: x[0], {'params': kept.best, 'prior_params': kept.run.learner.prior_params})
    scene = play(trainer.agent, first, game, s.env, s.agent.frame_stack, s.seeds[0])
    print(draw_game(str(files.folder / f'{game}.gif'), **scene._asdict()))
  return history, score_rows(game, history, references, s.seeds)


def train_games(
  s: Settings, folder: pathlib.Path, files_of: Callable[[str], Files]
) -> tuple[dict[str, History], list[dict[str, Any]]]:
  """Trains the games that are not finished, one after the other; returns histories and rows of scores.csv of all."""
  rows: list[dict[str, Any]] = []
  histories: dict[str, History] = {}
  for game in s.games:
    record = finished_record(folder, game) if s.output.resume else None
    mine = [] if record is None else record.get('scores')
    if mine is None:  # a checkpoint of format 1 or 2
      mine = [row for row in read_scores(folder) if row['game'] == game]
    if record is not None and mine:
      history = History(**record['history'])
    else:
      files = files_of(game)
      stop = files.signals.stop()
      if stop is not None and histories:
        raise stopped(stop, folder, f'before {game}')
      history, mine = train_game(game, s, files)
      # What is left of a finished game is small, or a suite would fill the disk with replay.
      checkpoint.finish(checkpoints_of(folder, game), history.saved_step, {'scores': mine})
    histories[game] = history
    rows += mine
    write_scores(folder, rows)
  return histories, rows
