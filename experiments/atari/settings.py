"""Settings of Atari's binary."""

import dataclasses
from typing import Any

from absl import flags

from experiments.common import agents
from experiments.common.runs import OutputConfig, RunConfig, settings_of, validate_run
from experiments.common.settings import config_from_flags, define_config_flags
from hyperagent_jax import config, presets, scores
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.config import ConfigError, HyperAgentConfig, field
from hyperagent_jax.envs import atari
from hyperagent_jax.envs.atari import AtariConfig

PRESETS = {'atari': presets.atari, 'atari_published_code': presets.atari_published_code, 'fast_cpu': presets.fast_cpu}
_NOT_FLAGS = ('grid_size', 'prior_storage', 'frame_padding')  # of DeepSea only; the emulators pad with blank frames


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """What is trained and how it is judged."""

  game: str = field('pong', "Games, separated by commas, in ale-py's spelling, or a suite.")
  preset: str = field('atari', 'Settings from which the other flags depart.', choices=tuple(PRESETS))
  max_interactions: int = field(100_000, 'Interactions per seed, 4 frames each.', low=1, high=10**9)
  num_final_episodes: int = field(200, 'Games with the best parameters of each seed, at the end.', low=1, high=100_000)
  num_reference_episodes: int = field(
    10, 'Games with random and with each constant action, for comparison; 0: none.', low=0, high=1_000
  )


_RUN = dataclasses.replace(RunConfig(), num_seeds=4, eval_period=20_000, num_eval_episodes=10, checkpoint_period=50_000)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Makes a flag of every setting."""
  agents.define_flags(presets.atari(), flag_values, skip=_NOT_FLAGS)
  for settings in (_RUN, OutputConfig(), AtariConfig(), TrainConfig()):
    define_config_flags(settings, flag_values)


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
    """Time steps that replay holds: no more than a run can fill, the first one included."""
    return min(self.agent.replay_capacity, self.train.max_interactions + self.agent.num_envs)

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds trained side by side."""
    return self.run.seeds

  def to_dict(self) -> dict[str, Any]:
    """For config.json and to compare on resuming."""
    options = {f'ale_{k}': v for k, v in atari.vector_options(self.env, self.agent.frame_stack).items()}
    settings = {**settings_of(self.run, self.env, self.train), **options}
    settings = {**agents.to_dict(self.run.agent, self.agent), **settings}
    del settings['num_threads']  # it may differ where a run is resumed
    return settings


def read_settings(flag_values: flags.FlagValues = flags.FLAGS) -> Settings:
  """All flags as validated settings.

  Raises:
    ConfigError: on the first that cannot be used.
  """
  groups = (_RUN, OutputConfig(), AtariConfig(), TrainConfig())
  run, output, env, train_config = (config_from_flags(group, flag_values) for group in groups)
  validate_run(run)
  for settings in (output, env, train_config):
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
