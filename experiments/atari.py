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

from experiments import agents
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
from experiments.task import Files, History, Kept, Task, checkpoints_of
from experiments.training import finished_history, open_results, open_tensorboard, stopped, train
from hyperagent_jax import checkpoint, config, metrics, presets, scores
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.config import ConfigError, HyperAgentConfig, field
from hyperagent_jax.envs import atari
from hyperagent_jax.envs.atari import AtariConfig
from hyperagent_jax.interaction import make_interaction, seed_key
from hyperagent_jax.networks import frame_layout
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
  agents.define_flags(presets.atari(), flag_values, skip=_NOT_FLAGS)
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
  def capacity(self) -> int:
    """Of replay: no more rows than a run can fill, one for each time step, the first one included."""
    return min(self.agent.replay_capacity, self.train.max_interactions + self.agent.num_envs)

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds trained side by side."""
    return tuple(range(self.run.first_seed, self.run.first_seed + self.run.num_seeds))

  def to_dict(self) -> dict[str, Any]:
    """For config.json and to compare on resuming."""
    options = {f'ale_{k}': v for k, v in atari.vector_options(self.env, self.agent.frame_stack).items()}
    settings = {**run_lib.settings_of(self.run, self.env, self.train), **options}
    settings = {**agents.to_dict(self.run.agent, self.agent), **settings}
    del settings['num_threads']  # it may differ where a run is resumed
    return settings


def read_settings(flag_values: flags.FlagValues = flags.FLAGS) -> Settings:
  """All flags as validated settings.

  Raises:
    ConfigError: on the first that cannot be used.
  """
  groups = (_RUN, OutputConfig(), AtariConfig(), TrainConfig())
  run, output, env, train_config = (config.from_flags(group, flag_values) for group in groups)
  for settings in (run, output, env, train_config):
    config.validate_fields(settings)
  settings_on_screens = SYSTEMS[run.agent].atari
  if settings_on_screens is None:
    raise ConfigError(f'--agent={run.agent}: cannot play screens; the others can')
  agent_config = agents.read_settings(run.agent, settings_on_screens(PRESETS[train_config.preset]()), flag_values)
  if agent_config.torso not in ('nature', 'data_efficient'):
    raise ConfigError(f'--torso={agent_config.torso}: must be nature or data_efficient for screens')
  if agent_config.min_replay >= train_config.max_interactions:
    raise ConfigError(f'--min_replay={agent_config.min_replay}: must be below --max_interactions')
  if train_config.max_interactions // agent_config.num_envs < agent_config.min_rows:
    raise ConfigError(
      f'--max_interactions={train_config.max_interactions}: must be at least num_envs * (n_step + frame_stack + 1) = '
      f'{agent_config.num_envs * agent_config.min_rows}'
    )
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


def make_agent(game: str, s: Settings) -> tuple[Agent, Replay, int]:
  """A game's agent and replay, and its number of actions."""
  c, num_actions = s.agent, atari.num_actions_of(game, s.env)
  agent = SYSTEMS[s.run.agent].make(c, num_actions)
  replay = make_replay(s.capacity, c.num_envs, c.n_step, c.discount, c.frame_stack, frame_layout(c))
  return agent, replay, num_actions


def make_trainer(game: str, s: Settings) -> Trainer:
  """Builds everything for a game."""
  agent, replay, _ = make_agent(game, s)
  devices, seed_axis, num_devices = placement(s)
  num_groups = len(s.seeds) if seed_axis == 'map' else num_devices
  num_envs, num_eval_episodes = s.agent.num_envs, s.run.num_eval_episodes
  games = atari.make_atari(game, s.env, len(s.seeds), num_envs, num_eval_episodes, num_groups, s.agent.frame_stack)
  runner = make_runner(
    agent, games.environment, replay, s.agent, games.eval_environment, num_eval_episodes, devices, seed_axis
  )
  task = Task(
    name=game,
    environment_name=games.environment.name,
    agent_name=s.run.agent,
    seeds=s.seeds,
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


def placement(s: Settings) -> tuple[list[jax.Device], str, int]:
  """The devices, how each runs its seeds, and how many of them serve."""
  devices = run_lib.devices(s.output.num_devices)
  seed_axis = default_seed_axis(devices) if s.output.seed_axis == 'auto' else s.output.seed_axis
  return devices, seed_axis, num_devices_used(len(s.seeds), len(devices))


def state_bytes(game: str, s: Settings) -> int:
  """Bytes of the state of all seeds, nearly all of it replay."""
  agent, replay, num_actions = make_agent(game, s)
  interaction = make_interaction(agent, replay, num_actions, s.agent)
  screens = jnp.zeros((s.agent.num_envs, s.agent.frame_stack, s.env.screen_size, s.env.screen_size), jnp.uint8)
  per_env = jnp.zeros((s.agent.num_envs,))
  timestep = TimeStep(per_env.astype(jnp.int32), per_env, per_env, screens)
  carry = jax.eval_shape(interaction.start, seed_key(0, s.agent.prng_impl), timestep)
  return len(s.seeds) * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carry))


def check_memory(s: Settings) -> None:
  """Refuses, before anything is made, what would not fit.

  Raises:
    ConfigError: naming what it takes and what there is.
  """
  devices, seed_axis, num_devices = placement(s)
  state = max(state_bytes(game, s) for game in s.games)
  if devices[0].platform == 'cpu':
    # Saving and restoring hold a copy; so does a loop over a device's seeds, of what goes in while it comes out.
    copies = 3 if seed_axis == 'map' and num_devices < len(s.seeds) else 2
    needed = copies * state + _SPARE_BYTES
  else:
    needed = state // num_devices + _SPARE_BYTES
  available = run_lib.available_memory()
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
  stop = files.signals.stop()
  if stop is not None:  # references can take minutes
    raise stopped(stop, files.folder, f'after the training of {game}')
  references = {}
  if s.train.num_reference_episodes:
    references = {'random': random_returns(game, s.env, s.train.num_reference_episodes)}
    references |= constant_returns(game, s.env, s.train.num_reference_episodes)
  if s.output.figures:
    from experiments.atari_figures import draw_game

    first = jax.tree.map(lambda x: x[0], {'params': kept.best, 'prior': kept.run.learner.prior})
    scene = play(trainer.agent, first, game, s.env, s.agent.frame_stack, s.seeds[0])
    print(draw_game(str(files.folder / f'{game}.gif'), **scene._asdict()))
  return history, score_rows(game, history, references, s.seeds)


def train_games(s: Settings, files_of: Callable[[str], Files]) -> tuple[dict[str, History], list[dict[str, Any]]]:
  """Trains the games that are not finished, one after the other; returns histories and rows of scores.csv of all."""
  folder = files_of('').folder
  rows = read_scores(folder) if s.output.resume else []
  histories = {}
  for game in s.games:
    history = finished_history(folder, game) if s.output.resume else None
    if history is None or not any(row['game'] == game for row in rows):
      files = files_of(game)
      stop = files.signals.stop()
      if stop is not None and histories:
        raise stopped(stop, folder, f'before {game}')
      history, mine = train_game(game, s, files)
      rows = [row for row in rows if row['game'] != game] + mine
      write_scores(folder, rows)
      # What is left of a finished game is small, or a suite would fill the disk with replay.
      checkpoint.drop_arrays(checkpoints_of(folder, game), history.saved_step)
    histories[game] = history
  return histories, [row for game in s.games for row in rows if row['game'] == game]


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
  check_memory(s)
  settings = s.to_dict()
  folder = run_lib.open_folder(s.output, 'atari', settings)
  results, resumed_at = open_results(s.output, folder, COLUMNS, s.games, settings)
  signals, progress = run_lib.Signals(s.output.max_minutes), metrics.Progress()
  tensorboards: dict[str, metrics.TensorBoard] = {}

  def files_of(game: str) -> Files:
    if game and game not in tensorboards:
      tensorboards[game] = open_tensorboard(s.output, folder, game, resumed_at)
    return Files(folder, results, tensorboards.get(game), settings, signals, progress)

  try:
    histories, rows = train_games(s, files_of)
  finally:
    results.close()
    for tensorboard in tensorboards.values():
      tensorboard.close()
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
