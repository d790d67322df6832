"""HyperAgent on Atari: trains, evaluates, prints a table beside published scores, draws curves and a game.

    python -m experiments.atari --game=pong --preset=fast_cpu --num_seeds=2

The protocol is the paper's (B.1): every 20,000 interactions 10 whole games, and in the end 200 games with the best
parameters of each seed. --game also takes several games and the suites suite26, suite29, suite55 and hard8.
"""

import dataclasses
import io
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import run as run_lib
from experiments.atari_games import constant_returns, play, random_returns
from experiments.atari_report import (
  aggregate_table,
  game_table,
  normalized,
  published_table,
  read_scores,
  score_rows,
  write_scores,
)
from experiments.run import OutputConfig, RunConfig
from experiments.training import Files, History, Kept, Task, finished_history, open_results, open_tensorboard, train
from hyperagent_jax import checkpoint, config, metrics, presets, scores
from hyperagent_jax.agent import make_hyperagent, make_optimizer, reference_of
from hyperagent_jax.config import ConfigError, HyperAgentConfig, field
from hyperagent_jax.envs import atari
from hyperagent_jax.envs.atari import AtariConfig
from hyperagent_jax.interaction import make_interaction, seed_key
from hyperagent_jax.networks import frame_layout, make_network
from hyperagent_jax.replay import Replay, make_replay
from hyperagent_jax.runner import Runner, make_runner
from hyperagent_jax.seeds import default_seed_axis, num_devices_used
from hyperagent_jax.types import Agent, TimeStep

COLUMNS = (*metrics.COLUMNS, 'game', 'loss', 'grad_norm')
PRESETS = {'atari': presets.atari, 'atari_published_code': presets.atari_published_code, 'fast_cpu': presets.fast_cpu}
_NOT_FLAGS = ('grid_size', 'prior_storage')  # of DeepSea only
_SPARE_BYTES = 1 << 30  # for programs, batches and the emulators


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """What is trained and how it is judged."""

  game: str = field('pong', "Games, separated by commas, in ale-py's spelling, or a suite.")
  preset: str = field('atari', 'Settings from which the other flags depart.', choices=tuple(PRESETS))
  max_interactions: int = field(100_000, 'Interactions per seed, 4 frames each.', low=1)
  num_final_episodes: int = field(200, 'Games with the best parameters of each seed, at the end.', low=1)
  num_reference_episodes: int = field(
    10, 'Games with random and with each constant action, for comparison; 0: none.', low=0
  )


_RUN = dataclasses.replace(RunConfig(), num_seeds=4, eval_period=20_000, num_eval_episodes=10, checkpoint_period=50_000)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Makes a flag of every setting."""
  config.define_flags(presets.atari(), flag_values, skip=_NOT_FLAGS)
  for settings in (_RUN, OutputConfig(), AtariConfig(), TrainConfig()):
    config.define_flags(settings, flag_values)
  flags.adopt_module_key_flags(config, flag_values)  # so that --help lists them


@dataclasses.dataclass(frozen=True)
class Settings:
  """All flags."""

  agent: HyperAgentConfig
  run: RunConfig
  output: OutputConfig
  env: AtariConfig
  train: TrainConfig
  games: tuple[str, ...]

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds trained side by side."""
    return tuple(range(self.run.first_seed, self.run.first_seed + self.run.num_seeds))

  def to_dict(self) -> dict[str, Any]:
    """For config.json and to compare on resuming."""
    options = {f'ale_{k}': v for k, v in atari.vector_options(self.env, self.agent.frame_stack).items()}
    return {**run_lib.settings_of(self.agent, self.run, self.env, self.train), **options}


def read_settings(flag_values: flags.FlagValues = flags.FLAGS) -> Settings:
  """All flags as validated settings.

  Raises:
    ConfigError: on the first that cannot be used.
  """
  groups = (_RUN, OutputConfig(), AtariConfig(), TrainConfig())
  run, output, env, train_config = (config.from_flags(group, flag_values) for group in groups)
  for settings in (run, output, env, train_config):
    config.validate_fields(settings)
  agent_config = config.from_flags(PRESETS[train_config.preset](), flag_values)
  config.validate(agent_config)
  if agent_config.torso not in ('nature', 'data_efficient'):
    raise ConfigError(f'--torso={agent_config.torso}: must be nature or data_efficient for screens')
  if agent_config.min_replay >= train_config.max_interactions:
    raise ConfigError(f'--min_replay={agent_config.min_replay}: must be below --max_interactions')
  games = parse_games(train_config.game)
  return Settings(agent_config, run, output, env, train_config, games)


def parse_games(text: str) -> tuple[str, ...]:
  """Games from a list of games and suites.

  Raises:
    ConfigError: on a name that is neither, with near matches, or a game named twice.
  """
  names = [game for name in text.split(',') for game in scores.SUITES.get(name.strip(), (name.strip(),))]
  for name in names:
    atari.check_game(name)
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise ConfigError(f'--game={text}: names {twice[0]} twice')
  return tuple(names)


@dataclasses.dataclass(frozen=True)
class Trainer:
  """One game's agent and compiled programs."""

  task: Task
  agent: Agent
  runner: Runner


def make_trainer(game: str, s: Settings) -> Trainer:
  """Builds everything for a game.

  Raises:
    ConfigError: if it takes more memory than there is.
  """
  devices = run_lib.devices(s.output.num_devices)
  seed_axis = default_seed_axis(devices) if s.output.seed_axis == 'auto' else s.output.seed_axis
  num_devices = num_devices_used(len(s.seeds), len(devices))
  agent_config = s.agent
  num_actions = atari.num_actions_of(game, s.env)
  agent = make_hyperagent(make_network(agent_config, num_actions), make_optimizer(agent_config), agent_config)
  # No more rows than a run can fill: one for each step, its first one included.
  capacity = min(agent_config.replay_capacity, s.train.max_interactions + agent_config.num_envs)
  replay = make_replay(
    capacity,
    agent_config.num_envs,
    agent_config.n_step,
    agent_config.discount,
    agent_config.frame_stack,
    frame_layout(agent_config),
  )
  check_memory(agent, replay, num_actions, s, one_by_one=seed_axis == 'map' and num_devices < len(s.seeds))
  games = atari.make_atari(
    game,
    s.env,
    len(s.seeds),
    agent_config.num_envs,
    s.run.num_eval_episodes,
    num_groups=len(s.seeds) if seed_axis == 'map' else num_devices,
    frame_stack=agent_config.frame_stack,
  )
  runner = make_runner(
    agent, games.environment, replay, agent_config, games.eval_environment, s.run.num_eval_episodes, devices, seed_axis
  )
  task = Task(
    name=game,
    environment_name=games.environment.name,
    agent_name=s.run.agent,
    seeds=s.seeds,
    env_params=games.params,
    episode_length=None,
    num_envs=agent_config.num_envs,
    min_replay=agent_config.min_replay,
    max_interactions=s.train.max_interactions,
    normalize=lambda x: normalized(game, x),
    columns={'game': game},
    on_evaluation=lambda *_: None,
    frames_per_step=s.env.frame_skip,
    num_final_episodes=s.train.num_final_episodes,
  )
  return Trainer(task, agent, runner)


def check_memory(agent: Agent, replay: Replay, num_actions: int, s: Settings, one_by_one: bool) -> None:
  """Refuses, before anything is allocated, what would not fit.

  Raises:
    ConfigError: naming what it takes and what there is.
  """
  interaction = make_interaction(agent, replay, num_actions, s.agent)
  screens = jnp.zeros((s.agent.num_envs, s.agent.frame_stack, s.env.screen_size, s.env.screen_size), jnp.uint8)
  per_env = jnp.zeros((s.agent.num_envs,))
  timestep = TimeStep(per_env.astype(jnp.int32), per_env, per_env, screens)
  carry = jax.eval_shape(interaction.start, seed_key(0, s.agent.prng_impl), timestep)
  state = len(s.seeds) * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carry))
  # Saving gathers what lies on several devices; a loop over a device's seeds holds what goes in and what comes out.
  copies = 1 if len(s.seeds) == 1 else 3 if one_by_one else 2
  needed, available = copies * state + _SPARE_BYTES, run_lib.available_memory()
  if needed > available:
    raise ConfigError(
      f'--replay_capacity={s.agent.replay_capacity}: {len(s.seeds)} seeds take about {needed / 1e9:.1f} GB of memory '
      f'({state / 1e9:.1f} GB of state) and {available / 1e9:.1f} GB are free; must be lower, or --num_seeds'
    )


def save_best(folder: pathlib.Path, trainer: Trainer, kept: Kept) -> None:
  """Writes best/GAME.npz: every seed's best parameters and its prior, [S, ...] each."""
  trees = {'params': kept.best, 'prior': kept.run.learner.prior}
  leaves = jax.tree_util.tree_leaves_with_path(trees)
  arrays = {jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(x) for path, x in leaves}
  data = io.BytesIO()
  np.savez_compressed(data, **arrays)
  (folder / 'best').mkdir(exist_ok=True)
  checkpoint.write_atomically(folder / 'best' / f'{trainer.task.name}.npz', data.getvalue())


def train_game(game: str, s: Settings, files: Files) -> tuple[History, list[dict[str, Any]]]:
  """Trains a game, and writes its best parameters and a GIF; returns also its rows of scores.csv."""
  started = time.monotonic()
  trainer = make_trainer(game, s)
  history, kept = train(trainer.task, trainer.runner, s.run, files, s.output.resume, started)
  save_best(files.folder, trainer, kept)
  references = {}
  if s.train.num_reference_episodes:
    references = {'random': random_returns(game, s.env, s.train.num_reference_episodes)}
    references |= constant_returns(game, s.env, s.train.num_reference_episodes)
  if s.output.figures:
    from experiments.atari_figures import draw_game

    first = jax.tree.map(lambda x: x[0], {'params': kept.best, 'prior': kept.run.learner.prior})
    scene = play(trainer.agent, first, reference_of(s.agent), game, s.env, s.agent.frame_stack, s.seeds[0])
    print(draw_game(str(files.folder / f'{game}.gif'), **scene._asdict()))
  return history, score_rows(game, history, references, s.seeds)


def import_figures() -> Callable[[str], str]:
  """`draw_learning_curves`, looked up before training so that a missing package is known before.

  Raises:
    ConfigError: if matplotlib or pillow is not installed.
  """
  try:
    from experiments.atari_figures import draw_learning_curves
  except ImportError as e:
    raise ConfigError(f'--figures: {e.name} is not installed; install it or pass --nofigures') from None
  return draw_learning_curves


def main() -> None:
  """Trains all games in turn, prints the tables and draws the figures."""
  s = read_settings()
  draw = import_figures() if s.output.figures else None
  run_lib.set_num_devices(s.output.num_devices, s.run.num_seeds)
  settings = s.to_dict()
  folder = run_lib.open_folder(s.output, 'atari', settings)
  results, resumed_at = open_results(s.output, folder, COLUMNS, s.games, settings)
  signals, progress = run_lib.Signals(s.output.max_minutes), metrics.Progress()
  histories: dict[str, History] = {}
  rows: list[dict[str, Any]] = []
  try:
    for game in s.games:
      done = finished_history(folder, game) if s.output.resume else None
      mine = read_scores(folder, [game]) if done else []
      if done is None or not mine:
        tensorboard = open_tensorboard(s.output, folder, game, resumed_at)
        files = Files(folder, results, tensorboard, settings, signals, progress)
        done, mine = train_game(game, s, files)
        tensorboard.close()
      histories[game] = done
      rows += mine
      write_scores(folder, rows)
  finally:
    results.close()
  tables = (
    game_table(rows, histories),
    published_table(rows, s.games, s.train.max_interactions),
    aggregate_table(rows),
  )
  print('\n\n'.join(tables))
  if draw is not None:
    print(draw(str(folder)))
  print(f'results: {folder}')


if __name__ == '__main__':
  define_flags()
  run_lib.start_main(main, 'atari')
