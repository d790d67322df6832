"""HyperAgent on DeepSea: trains, prints a table, draws figures.

    python -m experiments.deep_sea --size=20 --num_seeds=10

Episodes to solve follow the paper's protocol (B.1): every 1,000 interactions 100 evaluation episodes are played, and a
seed is solved when all of them end in the treasure's corner.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from experiments.common.cli import check_installed, start_main
from experiments.common.compilation import keep_compiled
from experiments.common.devices import set_num_devices
from experiments.common.extras import DRAWING
from experiments.common.progress import Progress
from experiments.common.resumption import finished_history, open_results, open_tensorboard
from experiments.common.runs import OutputConfig, RunConfig, open_folder
from experiments.common.signals import Signals
from experiments.common.task import Files, History
from experiments.common.training import end_of_training
from experiments.deep_sea.report import table, write_summary
from experiments.deep_sea.settings import AgentConfigs, DeepSeaConfig, define_flags, read_settings, to_dict
from experiments.deep_sea.snapshots import Snapshots
from experiments.deep_sea.training import COLUMNS, check_memory, task_name, train_size


def import_figures() -> Callable[[str], list[str]]:
  """`figures.draw_all`, looked up before training so that a missing package is known before.

  Raises:
    ConfigError: if what draws is not installed.
  """
  check_installed('figures', DRAWING)
  from experiments.deep_sea import figures

  return figures.draw_all


def main() -> None:
  """Trains all sizes in turn, prints the table and draws the figures."""
  agent_configs, run, output, env = read_settings()
  draw_all = import_figures() if output.figures else None
  keep_compiled(output.compilation_cache_dir)
  set_num_devices(output.num_devices, run.num_seeds)
  for size in env.size:
    check_memory(size, agent_configs[size], env, run, output)
  settings = to_dict(agent_configs, run, env)
  with (
    open_folder(output, 'deep_sea', settings) as (folder, output),
    Signals(output.max_minutes, output.grace_seconds) as signals,
  ):
    histories = train_sizes(agent_configs, run, output, env, settings, folder, signals)
    end_of_training(signals, folder)
    write_summary(folder / 'summary.csv', histories, agent_configs, run, env)
    print(table(histories, run.num_seeds))
    if draw_all is not None:
      for path in draw_all(str(folder)):
        print(path)
    print(f'results: {folder}')


def train_sizes(
  agent_configs: AgentConfigs,
  run: RunConfig,
  output: OutputConfig,
  env: DeepSeaConfig,
  settings: dict[str, Any],
  folder: pathlib.Path,
  signals: Signals,
) -> dict[int, History]:
  """Trains the sizes that are not finished, one after the other; returns the histories of all."""
  results, resumed = open_results(output, folder, COLUMNS, [task_name(size) for size in env.size], settings)
  for name, interactions in resumed.interactions.items():
    Snapshots.discard_after(folder / 'posterior' / name, interactions)
  progress, histories = Progress(), {}
  for size in env.size:
    done = finished_history(folder, task_name(size)) if output.resume else None
    if done is None:
      tensorboard = open_tensorboard(output, folder, task_name(size), resumed)
      files = Files(folder, results, tensorboard, settings, signals, progress, output.chunk_seconds)
      try:
        done = train_size(size, agent_configs[size], env, run, output, files)
      finally:
        tensorboard.close()
    histories[size] = done
  return histories


def start(argv: Sequence[str] | None = None) -> None:
  """Runs the binary with the flags of the command line, or of `argv` after the program's name; ends in SystemExit."""
  start_main(main, 'deep_sea', define_flags, argv)
