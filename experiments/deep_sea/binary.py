"""HyperAgent on DeepSea: trains, prints a table, draws figures.

    python -m experiments.deep_sea --size=20 --num_seeds=10

Episodes to solve follow the paper's protocol (B.1): every 1,000 interactions 100 evaluation episodes are played, and a
seed is solved when all of them end in the treasure's corner.
"""

from collections.abc import Callable

from experiments.common.cli import Signals, check_installed, start_main
from experiments.common.compilation import keep_compiled
from experiments.common.devices import set_num_devices
from experiments.common.extras import DRAWING
from experiments.common.progress import Progress
from experiments.common.runs import open_folder
from experiments.common.task import Files
from experiments.common.training import finished_history, open_results, open_tensorboard
from experiments.deep_sea.report import table, write_summary
from experiments.deep_sea.settings import define_flags, read_settings, to_dict
from experiments.deep_sea.snapshots import Snapshots
from experiments.deep_sea.training import COLUMNS, task_name, train_size


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
  settings = to_dict(agent_configs, run, env)
  folder = open_folder(output, 'deep_sea', settings)
  results, resumed_at = open_results(output, folder, COLUMNS, [task_name(size) for size in env.size], settings)
  for name, interactions in resumed_at.items():
    Snapshots.discard_after(folder / 'posterior' / name, interactions)
  signals, progress = Signals(output.max_minutes), Progress()
  histories = {}
  try:
    for size in env.size:
      done = finished_history(folder, task_name(size)) if output.resume else None
      if done is None:
        tensorboard = open_tensorboard(output, folder, task_name(size), resumed_at)
        files = Files(folder, results, tensorboard, settings, signals, progress)
        done = train_size(size, agent_configs[size], env, run, output, files)
        tensorboard.close()
      histories[size] = done
  finally:
    results.close()
  write_summary(folder / 'summary.csv', histories, agent_configs, run, env)
  print(table(histories, run.num_seeds))
  if draw_all is not None:
    for path in draw_all(str(folder)):
      print(path)
  print(f'results: {folder}')


def start() -> None:
  """Runs the binary with the flags of the command line."""
  define_flags()
  start_main(main, 'deep_sea')
