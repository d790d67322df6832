"""Logs of bsuite's ids, as its own CSV logger writes them."""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from experiments.common.tables import write_table
from hyperagent_jax.config import ConfigError
from hyperagent_jax.envs import bsuite as envs
from hyperagent_jax.runner import RunnerState
from hyperagent_jax.scores.bsuite import log_file, read_log


def log_path(folder: pathlib.Path, bsuite_id: str) -> pathlib.Path:
  """Where bsuite keeps the log of an id."""
  return folder / log_file(bsuite_id)


def write_log(path: pathlib.Path, columns: Sequence[str], rows: np.ndarray) -> None:
  """Writes an id's log, whole or not at all; whole numbers without a decimal point, as bsuite does."""
  whole = ('steps', 'episode', 'episode_len', 'total_perfect', 'total_upright', 'total_bad_episodes')
  as_logged = lambda row: [int(x) if c in whole else float(x) for c, x in zip(columns, row, strict=True)]
  write_table(path, columns, map(as_logged, rows))


def episodes_logged(path: pathlib.Path) -> int:
  """The last episode of a log, 0 without one.

  Raises:
    ConfigError: if the file is no log.
  """
  if not path.exists():
    return 0
  try:
    episodes = read_log(path).get('episode', np.zeros(0))  # none in an empty file
  except ValueError as e:
    raise ConfigError(f'{e}; move it away, and its id starts anew') from e
  return int(episodes[-1]) if len(episodes) else 0


def write_logs(
  folder: pathlib.Path, tasks: Sequence[envs.BsuiteTask], wanted: np.ndarray, state: RunnerState, targets: np.ndarray
) -> None:
  """Writes the logs of the wanted ids as far as they go, up to the episodes that are their targets.

  A log that goes further stands: its id was finished by another run while this one's checkpoint lay there.
  """
  log = jax.device_get(envs.log_of(state.env_state))
  for i, task in enumerate(tasks):
    if not wanted[i]:
      continue
    rows = log.rows[i, 0, : log.num_rows[i, 0]]
    rows = rows[rows[:, task.log_columns.index('episode')] <= targets[i]]  # others played on while this one rested
    path = log_path(folder, task.bsuite_id)
    if len(rows) and episodes_logged(path) <= rows[-1, task.log_columns.index('episode')]:
      write_log(path, task.log_columns, rows)
