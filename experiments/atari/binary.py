"""HyperAgent on Atari: trains, evaluates, prints a table beside published scores, draws curves and a game.

    python -m experiments.atari --game=pong --preset=fast_cpu --num_seeds=2

The protocol is the paper's (B.1): every 20,000 interactions 10 whole games, and in the end 200 games with the best
parameters of each seed. --game also takes several games and the suites suite26, suite29, suite55 and hard8.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from experiments.atari.report import aggregate_table, game_table, published_table
from experiments.atari.settings import Settings, define_flags, read_settings
from experiments.atari.training import COLUMNS, check_memory, train_games
from experiments.common.cli import check_installed, start_main
from experiments.common.compilation import keep_compiled
from experiments.common.devices import set_num_devices
from experiments.common.extras import DRAWING
from experiments.common.progress import Progress
from experiments.common.recording import TensorBoard
from experiments.common.resumption import open_results, open_tensorboard
from experiments.common.runs import open_folder
from experiments.common.signals import Signals
from experiments.common.task import Files, History
from experiments.common.training import end_of_training


def import_figures() -> Callable[[str], str]:
  """`draw_learning_curves`, looked up before training so that a missing package is known before.

  Raises:
    ConfigError: if what draws is not installed.
  """
  check_installed('figures', DRAWING)
  from experiments.atari.figures import draw_learning_curves

  return draw_learning_curves


def main() -> None:
  """Trains all games in turn, prints the tables and draws the figures."""
  s = read_settings()
  draw = import_figures() if s.output.figures else None
  keep_compiled(s.output.compilation_cache_dir)
  set_num_devices(s.output.num_devices, s.run.num_seeds)
  check_memory(s)
  with (
    open_folder(s.output, 'atari', s.to_dict()) as (folder, output),
    Signals(s.output.max_minutes, s.output.grace_seconds) as signals,
  ):
    histories, rows = train_all(dataclasses.replace(s, output=output), folder, signals)
    end_of_training(signals, folder)
    tables = (
      game_table(rows, histories),
      published_table(rows, s.games, s.train.max_interactions),
      aggregate_table(rows),
    )
    print('\n\n'.join(tables))
    if draw is not None:
      print(draw(str(folder)))
    print(f'results: {folder}')


def train_all(s: Settings, folder: pathlib.Path, signals: Signals) -> tuple[dict[str, History], list[dict[str, Any]]]:
  """Trains all games; returns their histories and their rows of scores.csv."""
  settings, progress = s.to_dict(), Progress()
  results, resumed = open_results(s.output, folder, COLUMNS, s.games, settings)
  tensorboards: dict[str, TensorBoard] = {}

  def files_of(game: str) -> Files:
    if game not in tensorboards:
      tensorboards[game] = open_tensorboard(s.output, folder, game, resumed)
    return Files(folder, results, tensorboards[game], settings, signals, progress, s.output.chunk_seconds)

  try:
    return train_games(s, folder, files_of)
  finally:
    for tensorboard in tensorboards.values():
      tensorboard.close()


def start(argv: Sequence[str] | None = None) -> None:
  """Runs the binary with the flags of the command line, or of `argv` after the program's name; ends in SystemExit."""
  start_main(main, 'atari', define_flags, argv)
