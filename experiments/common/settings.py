"""Settings as command-line flags and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from hyperagent_jax.config import ConfigError


def config_to_dict(config: Any) -> dict[str, Any]:
  """A configuration as JSON-ready values."""
  return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}


# Settings that came after version 0.1, with the value that means what runs did before there was one.
_ADDED = {'frame_padding': 'blank', 'max_eval_steps': 100_000}


def config_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """'field: old -> new' for every entry that differs between two `config_to_dict` results."""
  old = {**{name: value for name, value in _ADDED.items() if name in new}, **old}
  names = sorted(set(old) | set(new))
  return [f'{k}: {old.get(k)} -> {new.get(k)}' for k in names if old.get(k) != new.get(k)]


def define_config_flags(config: Any, flag_values: flags.FlagValues = flags.FLAGS, skip: tuple[str, ...] = ()) -> None:
  """Defines a flag for every field of `config`, whose values are the defaults."""
  for f in dataclasses.fields(config):
    if f.name in skip:
      continue
    default, text = getattr(config, f.name), f.metadata['help']
    if f.metadata['choices'] and not isinstance(default, bool):
      text += f' One of {", ".join(f.metadata["choices"])}.'
    if isinstance(default, bool) and f.metadata['choices']:
      parser = _BooleanOrWordParser(f.metadata['choices'])
      flag = flags.Flag(parser, _SERIALIZER, f.name, default, text, boolean=True)
      flags.DEFINE_flag(flag, flag_values)
    elif isinstance(default, bool):
      flags.DEFINE_bool(f.name, default, text, flag_values=flag_values)
    elif isinstance(default, int):
      define_integer(f.name, default, text, flag_values)
    elif isinstance(default, float):
      flags.DEFINE(_FloatParser(), f.name, default, text, flag_values, _SERIALIZER)
    elif isinstance(default, tuple):
      flags.DEFINE_list(f.name, [str(x) for x in default], text + ' Comma-separated.', flag_values=flag_values)
    else:
      flags.DEFINE_string(f.name, default, text, flag_values=flag_values)


def define_integer(name: str, default: int, text: str, flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """A flag of a whole number in ASCII digits."""
  flags.DEFINE(_IntegerParser(), name, default, text, flag_values, _SERIALIZER)


_SERIALIZER: Any = flags.ArgumentSerializer()


def _check_ascii(value: Any) -> None:
  """Python reads digits of every script."""
  if isinstance(value, str) and not value.isascii():
    raise ValueError(f'must be a number in digits 0 to 9, not {value}')


class _IntegerParser(flags.IntegerParser):
  """Whole numbers in ASCII digits."""

  def parse(self, argument: Any) -> int:
    """The number; ValueError if it is none."""
    _check_ascii(argument)
    return super().parse(argument)


class _BooleanOrWordParser(flags.BooleanParser):
  """True, false, or one of some words."""

  def __init__(self, words: Sequence[str]):
    super().__init__()
    self._words = tuple(words)

  def parse(self, argument: Any) -> Any:
    """The truth value or the word; ValueError if it is neither."""
    if argument in self._words:
      return argument
    try:
      return super().parse(argument)
    except ValueError:
      raise ValueError(f'must be true, false or {", ".join(self._words)}') from None


class _FloatParser(flags.FloatParser):
  """Numbers in ASCII digits."""

  def parse(self, argument: Any) -> float:
    """The number; ValueError if it is none."""
    _check_ascii(argument)
    return super().parse(argument)


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
    for v in values:
      _check_ascii(v)
    return tuple(int(v) for v in values)
  except ValueError:
    raise ConfigError(f'--{name}={",".join(values)}: must be whole numbers separated by commas') from None
