"""The Atari study on an accelerator, in calls of a few minutes each: call it again until it says that all is done.

    python -m experiments.atari.stages --output_dir=runs/atari_study --minutes=9

Three stages: throughput (`benchmarks.atari` with 1, 4 and 16 seeds, and the parts of a step), 100,000 interactions of
the 26 games, 2,000,000 of one game. Each call goes on where the last one stopped, also on another machine that has the
folder; what is finished is not repeated. Exit status 75 says that time is up and there is more to do. CSV files,
figures and best parameters are in the folder.
"""

import dataclasses
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from absl import flags

from experiments.atari.settings import parse_games
from experiments.common import compilation
from experiments.common.cli import start_main
from experiments.common.errors import OUT_OF_TIME
from experiments.common.runs import folder_named
from experiments.common.settings import config_from_flags, define_config_flags
from hyperagent_jax import config
from hyperagent_jax.config import ConfigError, field


@dataclasses.dataclass(frozen=True)
class StagesConfig:
  """What is studied, and for how long."""

  output_dir: str = field('runs/atari_study', 'Folder of the study.')
  minutes: float = field(
    9.0, 'How long this call may take, but for the evaluation that is under way.', low=0.1, high=1e6
  )
  games: str = field('suite26', 'Games of the second stage.')
  long_game: str = field('freeway', 'Game of the third stage.')
  num_seeds: int = field(4, 'Seeds of the second and the third stage.', low=1, high=10_000)
  throughput_seeds: tuple[int, ...] = field((1, 4, 16), 'Numbers of seeds of the first stage.', low=1, high=10_000)
  interactions: int = field(100_000, 'Interactions of the second stage.', low=1, high=10**9)
  long_interactions: int = field(2_000_000, 'Interactions of the third stage.', low=1, high=10**9)
  arguments: str = field('', "Passed on to experiments.atari, such as '--preset=fast_cpu'.")


@dataclasses.dataclass(frozen=True)
class Stage:
  """A command that is called until it ends well."""

  name: str
  command: tuple[str, ...]
  resumable: bool  # whether it takes --max_minutes and --resume


def words_of(text: str) -> list[str]:
  """The arguments that are passed on.

  Raises:
    ConfigError: if quotes do not match.
  """
  try:
    return shlex.split(text)
  except ValueError as e:
    raise ConfigError(f'--arguments={text}: cannot be split into words: {e}') from None


def plan(c: StagesConfig) -> list[Stage]:
  """The stages in their order.

  Raises:
    ConfigError: if there is no such game or folder, or the arguments cannot be read.
  """
  folder, python = folder_named(c.output_dir), (sys.executable, '-m')
  arguments = words_of(c.arguments)
  for games in (c.games, c.long_game):
    parse_games(games)

  def training(name: str, games: str, interactions: int, checkpoint_period: int) -> Stage:
    command = [*python, 'experiments.atari', f'--game={games}', f'--num_seeds={c.num_seeds}']
    command += [f'--max_interactions={interactions}', f'--checkpoint_period={checkpoint_period}']
    return Stage(name, (*command, f'--output_dir={folder / name}', *arguments), resumable=True)

  # A short look at each number of seeds, since this stage cannot be interrupted.
  seeds = ','.join(map(str, c.throughput_seeds))
  bench = (*python, 'benchmarks.atari', '--short', f'--num_seeds={seeds}', f'--output_dir={folder}')
  return [
    Stage('throughput', bench, resumable=False),
    training('games', c.games, c.interactions, checkpoint_period=50_000),
    training('long', c.long_game, c.long_interactions, checkpoint_period=500_000),
  ]


def command_of(stage: Stage, minutes: float) -> list[str]:
  """The stage's command, to begin or to go on."""
  command = list(stage.command)
  if stage.resumable:
    command.append(f'--max_minutes={minutes:.2f}')
    command.append('--resume=auto')
  return command


def run_stages(
  stages: Sequence[Stage], folder: pathlib.Path, minutes: float, call: Callable[[list[str]], int]
) -> tuple[int, str]:
  """Runs what is left until the time is up; the exit status and what to say."""
  folder.mkdir(parents=True, exist_ok=True)
  deadline = time.monotonic() + 60 * minutes
  for stage in stages:
    done = folder / f'{stage.name}.done'
    if done.exists():
      continue
    left = (deadline - time.monotonic()) / 60
    if left < 0.1 * minutes:  # not worth compiling for
      return OUT_OF_TIME, f'time is up before stage {stage.name}; call again'
    status = call(command_of(stage, left))
    if status == OUT_OF_TIME:
      return status, f'time is up in stage {stage.name}; call again'
    if status:
      return 1, f'stage {stage.name} ended with status {status}'
    done.touch()
  return 0, f'all done, see {folder}'


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Makes a flag of every setting."""
  define_config_flags(StagesConfig(), flag_values)
  compilation.define_flag(flag_values)


def main() -> None:
  """Runs the stages."""
  c = config_from_flags(StagesConfig())
  config.validate_fields(c)
  compilation.tell_children(flags.FLAGS.compilation_cache_dir)

  def call(command: list[str]) -> int:
    print(shlex.join(command), flush=True)
    return subprocess.run(command, check=False).returncode

  status, text = run_stages(plan(c), folder_named(c.output_dir), c.minutes, call)
  print(f'atari_stages: {text}', flush=True)
  sys.exit(status)


if __name__ == '__main__':
  start_main(main, 'atari_stages', define_flags)
