"""Settings of DeepSea's binary."""

import dataclasses
from typing import Any

from absl import flags

from experiments.common import agents
from experiments.common.runs import OutputConfig, RunConfig, settings_of, validate_run
from experiments.common.settings import config_from_flags, define_config_flags
from hyperagent_jax import config, presets
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.config import ConfigError, HyperAgentConfig, field
from hyperagent_jax.interaction import LAST_SEED

# What the environment fixes, and what is for screens only.
_NOT_FLAGS = (
  *('torso', 'grid_size', 'frame_stack', 'frame_padding', 'max_abs_reward'),
  *('pixel_divisor', 'normalize_features', 'convolution_method', 'compute_dtype', 'frame_layout'),
)
PRESETS = {'deep_sea': presets.deep_sea, 'deep_sea_best': presets.deep_sea_best}
NUM_ACTIONS = 2
AgentConfigs = dict[int, HyperAgentConfig]  # by size


@dataclasses.dataclass(frozen=True)
class DeepSeaConfig:
  """Settings of the environment."""

  preset: str = field('deep_sea', "HyperAgent's settings from which the other flags depart.", choices=tuple(PRESETS))
  size: tuple[int, ...] = field((20,), 'Sides N of the grid, trained one after the other.', low=2, high=1000)
  stochastic: bool = field(False, "bsuite's windy variant with noisy rewards.")
  max_episodes: int = field(10_000, 'Episodes per seed after which an unsolved run ends.', low=1, high=10**7)
  stop_when_solved: bool = field(True, 'Stop when every seed is solved.')
  mapping_seed: int = field(
    -1, "Seed of the action map, such as bsuite's 42; -1: each run's own seed.", low=-1, high=LAST_SEED
  )


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Makes a flag of every setting."""
  agents.define_flags(presets.deep_sea(), flag_values, skip=_NOT_FLAGS)
  for settings in (RunConfig(), OutputConfig(), DeepSeaConfig()):
    define_config_flags(settings, flag_values)


def read_settings(
  flag_values: flags.FlagValues = flags.FLAGS,
) -> tuple[AgentConfigs, RunConfig, OutputConfig, DeepSeaConfig]:
  """All flags as validated settings, the agent's for every size: a preset may depend on it.

  Raises:
    ConfigError: on the first that cannot be used.
  """
  run, output, env = (config_from_flags(c, flag_values) for c in (RunConfig(), OutputConfig(), DeepSeaConfig()))
  validate_run(run)
  for settings in (output, env):
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
  return {**merged, **settings_of(run, env)}
