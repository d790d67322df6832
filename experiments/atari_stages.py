"""The Atari study on an accelerator, in calls of a few minutes each: call it again until it says that all is done.

    python -m experiments.atari_stages --output_dir=runs/atari_study --minutes=9

Three stages: throughput (`benchmarks.atari` with 1, 4 and 16 seeds, and the parts of a step), 100,000 interactions of
the 26 games, 2,000,000 of one game. Each call goes on where the last one stopped, also on another machine that has the
folder; what is finished is not repeated. CSV files, figures and best parameters are in the folder; checkpoints/ there
may be left behind once a stage is done.
"""

import dataclasses
import pathlib
import subprocess
import sys
import time

from absl import app, flags

from experiments.run import OUT_OF_TIME

_OUTPUT_DIR = flags.DEFINE_string('output_dir', 'runs/atari_study', 'Folder of the study.')
_MINUTES = flags.DEFINE_float('minutes', 9.0, 'How long this call may take; a started evaluation is finished.')
_GAMES = flags.DEFINE_string('games', 'suite26', 'Games of the second stage.')
_LONG_GAME = flags.DEFINE_string('long_game', 'freeway', 'Game of the third stage.')
_NUM_SEEDS = flags.DEFINE_integer('num_seeds', 4, 'Seeds of the second and third stage.')
_THROUGHPUT_SEEDS = flags.DEFINE_string('throughput_seeds', '1,4,16', 'Numbers of seeds of the first stage.')
_INTERACTIONS = flags.DEFINE_integer('interactions', 100_000, 'Interactions of the second stage.')
_LONG_INTERACTIONS = flags.DEFINE_integer('long_interactions', 2_000_000, 'Interactions of the third stage.')
_ARGUMENTS = flags.DEFINE_multi_string('argument', [], 'Passed on to experiments.atari, such as --preset=fast_cpu.')


@dataclasses.dataclass(frozen=True)
class Stage:
  """A command that is called until `done` exists."""

  name: str
  command: tuple[str, ...]
  resumable: bool  # whether it takes --max_minutes and --resume
  done: pathlib.Path  # written when the command has ended well


def plan(folder: pathlib.Path) -> list[Stage]:
  """The stages in their order."""
  python = (sys.executable, '-m')

  def training(name: str, games: str, interactions: int, checkpoint_period: int) -> Stage:
    command = (*python, 'experiments.atari', f'--game={games}', f'--num_seeds={_NUM_SEEDS.value}')
    command += (f'--max_interactions={interactions}', f'--checkpoint_period={checkpoint_period}')
    command += (f'--output_dir={folder / name}', *_ARGUMENTS.value)
    return Stage(name, command, resumable=True, done=folder / f'{name}.done')

  bench = (*python, 'benchmarks.atari', f'--num_seeds={_THROUGHPUT_SEEDS.value}', f'--output_dir={folder}')
  return [
    Stage('throughput', bench, resumable=False, done=folder / 'throughput.done'),
    # Every 100k run is short, so that a checkpoint on stopping is enough.
    training('games', _GAMES.value, _INTERACTIONS.value, checkpoint_period=1_000_000_000),
    training('long', _LONG_GAME.value, _LONG_INTERACTIONS.value, checkpoint_period=500_000),
  ]


def run(stage: Stage, folder: pathlib.Path, minutes: float) -> int:
  """Runs a stage for so long at most; its exit status."""
  command = list(stage.command)
  if stage.resumable:
    command.append(f'--max_minutes={minutes}')
    if any((folder / stage.name / 'checkpoints').glob('*/*.json')):
      command.append('--resume')
    elif (folder / stage.name / 'results.csv').exists():  # stopped before its first checkpoint
      (folder / stage.name / 'results.csv').unlink()
  print(' '.join(command), flush=True)
  return subprocess.run(command, check=False).returncode


def main(argv: list[str]) -> None:
  """Runs what is left, until the time is up."""
  if argv[1:]:
    sys.exit(f'atari_stages: {argv[1]}: not a flag')
  folder, deadline = pathlib.Path(_OUTPUT_DIR.value), time.monotonic() + 60 * _MINUTES.value
  folder.mkdir(parents=True, exist_ok=True)
  for stage in plan(folder):
    if stage.done.exists():
      continue
    left = (deadline - time.monotonic()) / 60
    if left < 0.1 * _MINUTES.value:  # not worth compiling for
      sys.exit(f'atari_stages: time is up before stage {stage.name}; call again')
    status = run(stage, folder, left)
    if status == OUT_OF_TIME:
      sys.exit(f'atari_stages: time is up in stage {stage.name}; call again')
    if status:
      sys.exit(f'atari_stages: stage {stage.name} ended with status {status}')
    stage.done.touch()
  print(f'atari_stages: all done, see {folder}')


if __name__ == '__main__':
  app.run(main)
