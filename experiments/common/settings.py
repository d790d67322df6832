"""Settings as command-line flags and as JSON."""

import dataclasses
from typing import Any

from absl import flags

from hyperagent_jax.config import ConfigError


def config_to_dict(config: Any) -> dict[str, Any]:
  """A configuration as JSON-ready values."""
  return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}


def config_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """'field: old -> new' for every entry that differs between two `config_to_dict` results."""
  names = sorted(set(old) | set(new))
  return [f'{k}: {old.get(k)} -> {new.get(k)}' for k in names if old.get(k) != new.get(k)]


def define_config_flags(config: Any, flag_values: flags.FlagValues = flags.FLAGS, skip: tuple[str, ...] = ()) -> None:
  """Defines a flag for every field of `config`, whose values are the defaults."""
  for f in dataclasses.fields(config):
    if f.name in skip:
      continue
    default, text = getattr(config, f.name), f.metadata['help']
    if f.metadata['choices']:
      text += f' One of {", ".join(f.metadata["choices"])}.'
    if isinstance(default, bool):
      flags.DEFINE_bool(f.name, default, text, flag_values=flag_values)
    elif isinstance(default, int):
      flags.DEFINE_integer(f.name, default, text, flag_values=flag_values)
    elif isinstance(default, float):
      flags.DEFINE_float(f.name, default, text, flag_values=flag_values)
    elif isinstance(default, tuple):
      flags.DEFINE_list(f.name, [str(x) for x in default], text + ' Comma-separated.', flag_values=flag_values)
    else:
      flags.DEFINE_string(f.name, default, text, flag_values=flag_values)


def config_from_flags(config: Any, flag_values: flags.FlagValues = flags.FLAGS) -> Any:
  """`config` with the fields whose flags were given on the command line set to the flags' values.

  Raises:
    ConfigError: if a list flag does not hold whole numbers.
  """
  changes = {}
  for f in dataclasses.fields(config):
    if f.name not in flag_values or not flag_values[f.name].present:
      continue
    value: Any = flag_values[f.name].value
    changes[f.name] = parse_ints(f.name, value) if isinstance(getattr(config, f.name), tuple) else value
  return dataclasses.replace(config, **changes)


def parse_ints(name: str, values: list[str]) -> tuple[int, ...]:
  """A list flag's entries as whole numbers.

  Raises:
    ConfigError: naming the flag, if an entry is not a whole number.
  """
  try:
    return tuple(int(v) for v in values)
  except ValueError:
    raise ConfigError(f'--{name}={",".join(values)}: must be whole numbers separated by commas') from None
