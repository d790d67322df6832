"""Logs of bsuite's ids, as its own CSV logger writes them, and a checksum of each beside them."""

import json
import pathlib
import threading
import zlib
from collections.abc import Sequence

import jax
import numpy as np

from experiments.common.console import warn
from experiments.common.files import write_atomically
from experiments.common.tables import csv_text
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
  text = csv_text(columns, *map(as_logged, rows)).encode()
  with _ONE_AT_A_TIME:  # threads train ids side by side
    _remember(path, zlib.crc32(text))
    write_atomically(path, text)


CHECKSUMS = 'checksums.json'
_ONE_AT_A_TIME = threading.Lock()


def _remember(path: pathlib.Path, checksum: int) -> None:
  """Notes what a log will be beside what it is, so that a run killed in between leaves nothing that is not known."""
  checksums = _checksums(path.parent)
  known = [checksum, *([zlib.crc32(path.read_bytes())] if path.exists() else [])]
  files = {**checksums, path.name: known}
  text = json.dumps({'files': files, 'checksum': _checksum_of(files)}, indent=1)
  write_atomically(path.parent / CHECKSUMS, text.encode())


def _checksum_of(checksums: dict[str, list[int]]) -> int:
  return zlib.crc32(json.dumps(checksums, sort_keys=True).encode())


def _checksums(folder: pathlib.Path) -> dict[str, list[int]]:
  """Name of each log -> its CRC-32 and the one before; nothing where damaged or missing, as in runs of version 0.1."""
  try:
    found = json.loads((folder / CHECKSUMS).read_bytes())
    files = found['files']
    return files if found['checksum'] == _checksum_of(files) else {}
  except (OSError, ValueError, KeyError, TypeError):
    return {}


def episodes_logged(path: pathlib.Path) -> int:
  """The last episode of a log, 0 without one.

  Raises:
    ConfigError: if the file is no log, or not as it was written.
  """
  if not path.exists():
    return 0
  try:
    episodes = read_log(path).get('episode', np.zeros(0))  # none in an empty file
  except ValueError as e:
    raise ConfigError(f'{e}; move it away, and its id starts anew') from e
  checksum = zlib.crc32(path.read_bytes())
  if checksum not in _checksums(path.parent).get(path.name, [checksum]):
    raise ConfigError(f'{path}: is not as it was written; move it away, and its id starts anew')
  last = episodes[-1] if len(episodes) else 0.0
  if not np.isfinite(last):
    raise ConfigError(f'{path}: its last episode is {last}; move it away, and its id starts anew')
  return int(last)


def _episodes_standing(path: pathlib.Path) -> int:
  """The last episode of a log, 0 where it has been damaged since the run began: it is to be written again."""
  try:
    return episodes_logged(path)
  except ConfigError as e:
    warn(f'{e}; written anew')
    return 0


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
    if len(rows) and _episodes_standing(path) <= rows[-1, task.log_columns.index('episode')]:
      write_log(path, task.log_columns, rows)
