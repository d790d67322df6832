"""HyperAgent, or a rival, on bsuite: all of it, a tag, an experiment or an id; writes bsuite's own CSV files.

    python -m experiments.bsuite --bsuite_id=SWEEP
    python -m experiments.bsuite --bsuite_id=cartpole_noise,deep_sea/0 --agent=ensemble_plus

Ids of one experiment run in one XLA program where their observations have one shape. As bsuite prescribes, what is
scored is training itself: so many episodes for each id, no separate evaluation.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from experiments.bsuite.host import train_on_host
from experiments.bsuite.settings import (
  define_flags,
  ids_of,
  num_episodes,
  read_settings,
  shows_cells,
  without_mnist_if_missing,
)
from experiments.bsuite.task import Files, History
from experiments.bsuite.training import batches, check_memory, train_batches, unfinished
from experiments.common import agents
from experiments.common.cli import check_installed, start_main
from experiments.common.compilation import keep_compiled
from experiments.common.devices import make_devices
from experiments.common.extras import DRAWING
from experiments.common.progress import Progress, format_duration
from experiments.common.runs import OutputConfig, open_folder, settings_of
from experiments.common.signals import Signals
from experiments.common.tables import format_table
from experiments.common.training import end_of_training
from hyperagent_jax.baselines.config import refuse_unread
from hyperagent_jax.config import ConfigError
from hyperagent_jax.scores.bsuite import LOG_FILES
from hyperagent_jax.seeds import num_cores


def import_report() -> Callable[[Mapping[str, pathlib.Path], pathlib.Path], list[str]]:
  """`bsuite_report.write_report`, looked up before training so that a missing package is known before.

  Raises:
    ConfigError: if what draws is not installed.
  """
  check_installed('figures', DRAWING)
  from experiments.bsuite import report as bsuite_report

  return bsuite_report.write_report


def summary(histories: dict[str, History]) -> str:
  """What each batch took."""
  lines = [
    (
      name,
      f'{t.timed_steps:,}',
      format_duration(t.timed_seconds),
      f'{t.steps_per_second:,.0f}' if t.timed_seconds else '-',
    )
    for name, t in histories.items()
  ]
  note = 'Time steps of all ids of a batch, some after the last episode, and the time they took without compilation.'
  return format_table(('batch', 'time steps', 'wall-clock', 'steps/s'), lines) + '\n' + note


def _use_cores(output: OutputConfig) -> None:
  """Makes a device of each CPU core: most batches have more ids than that, and any number can be spread."""
  make_devices(output.num_devices, num_cores())


def main() -> None:
  """Trains on all ids that are not finished, batch by batch, then scores and draws them.

  Raises:
    FloatingPointError: in the end, if the loss of an id was not finite.
  """
  values = flags.FLAGS
  agent, run, output = read_settings()
  if values.driver == 'host':
    unread = {name for name in ('seed_axis', 'num_devices', 'checkpoint_minutes') if values[name].present}
    refuse_unread(unread, frozenset(), '--driver=host')
  ids = without_mnist_if_missing(ids_of(values.bsuite_id, values.every), run.mnist_dir)
  keep_compiled(output.compilation_cache_dir)
  _use_cores(output)
  todo = list(batches(ids, run.mnist_dir))
  for batch in todo:
    num_episodes(batch.tasks[0], run)
  if agent.frame_stack > 1 and all(shows_cells(batch.tasks[0]) for batch in todo):
    first = todo[0].tasks[0].bsuite_id
    raise ConfigError(f'--frame_stack={agent.frame_stack}: must be 1 on {first}, whose cells hide nothing')
  write_report = import_report() if output.figures else None
  settings = {**agents.to_dict(run.agent, agent), **settings_of(run), 'driver': values.driver}
  del settings['checkpoint_minutes']  # may change when a run is gone on with
  check_memory(todo, agent, run, output, side_by_side=values.driver == 'fused')
  opened = open_folder(output, 'bsuite', settings, results=LOG_FILES)
  with opened as (folder, output), Signals(output.max_minutes, output.grace_seconds) as signals:
    files = Files(folder, settings, output, signals, Progress())
    left = unfinished(todo, run, folder)
    train = train_on_host if values.driver == 'host' else train_batches
    histories = {batch.name: took for batch, took in train(left, agent, run, files)}
    end_of_training(signals, folder)
    print(summary(histories))
    if write_report is not None:
      for path in write_report({run.agent: folder}, folder):
        print(path)
    print(f'results: {folder}')
  diverged = ', '.join(bsuite_id for took in histories.values() for bsuite_id in took.nonfinite)
  if diverged:
    raise FloatingPointError(f'{diverged}: the loss was not finite; the scores are of what was played all the same')


def start(argv: Sequence[str] | None = None) -> None:
  """Runs the binary with the flags of the command line, or of `argv` after the program's name; ends in SystemExit."""
  start_main(main, 'bsuite', define_flags, argv)
