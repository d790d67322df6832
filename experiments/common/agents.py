"""Which agent a binary trains: `--agent`, its settings from a preset and flags, and the agent itself."""

import dataclasses
from typing import Any

from absl import flags

from experiments.common.settings import config_from_flags, config_to_dict, define_config_flags
from hyperagent_jax.baselines import SYSTEMS, RivalConfig
from hyperagent_jax.baselines.config import from_preset, refuse_unread
from hyperagent_jax.config import HyperAgentConfig


def define_flags(preset: HyperAgentConfig, flag_values: flags.FlagValues, skip: tuple[str, ...]) -> None:
  """Makes a flag of every setting that any agent has; help shows HyperAgent's defaults."""
  define_config_flags(from_preset(preset), flag_values, skip)


def read_settings(name: str, preset: HyperAgentConfig, flag_values: flags.FlagValues) -> HyperAgentConfig:
  """An agent's validated settings: its preset, and the flags given.

  Args:
    name: the agent.
    preset: its settings without flags.
    flag_values: parsed flags.

  Raises:
    ConfigError: on a flag that the agent does not read, or a value that it cannot use.
  """
  system = SYSTEMS[name]
  given = {f.name for f in dataclasses.fields(RivalConfig) if f.name in flag_values and flag_values[f.name].present}
  refuse_unread(given, system.fields, name)
  settings = config_from_flags(preset, flag_values)
  system.validate(settings)
  return settings


def to_dict(name: str, settings: HyperAgentConfig) -> dict[str, Any]:
  """The settings that an agent reads, for config.json."""
  return {k: v for k, v in config_to_dict(settings).items() if k in SYSTEMS[name].fields}
