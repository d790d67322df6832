"""What a run writes down: results.csv and TensorBoard events."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from experiments.common.cli import check_installed
from experiments.common.extras import EVENTS
from experiments.common.tables import csv_text

# DQN Zoo's schema; environments add their own columns.
RESULT_COLUMNS = (
  'environment_name',
  'agent_name',
  'seed',
  'iteration',
  'frame',
  'env_step',
  'episode',
  'eval_episode_return',
  'eval_num_episodes',
  'train_episode_return',
  'normalized_return',
  'step_rate',
)


class ResultsWriter:
  """Appends rows to a CSV file so that a crash at any moment leaves whole rows, and resuming doubles none."""

  def __init__(self, path: str, columns: Sequence[str], length: int | None = None):
    """Opens the file, creating it with its header.

    Args:
      path: the CSV file.
      columns: its columns, in order.
      length: where to go on, as `length` returned it: what was written after that is cut off. None starts anew.

    Raises:
      OSError: if the file cannot be written, or is shorter than `length`.
    """
    self._columns = tuple(columns)
    if length is None:
      self._file: BinaryIO = open(path, 'wb')
      self._append([self._columns])
      return
    self._file = open(path, 'r+b')
    if self._file.seek(0, os.SEEK_END) < length:
      raise OSError(f'{path}: shorter than when the checkpoint was saved')
    self._file.truncate(length)
    self._file.seek(length)

  @property
  def length(self) -> int:
    """Bytes written so far."""
    return self._file.tell()

  def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends rows, all or none where the system lets one write be whole, and forces them to disk."""
    self._append([[row[c] for c in self._columns] for row in rows])

  def _append(self, lines: Sequence[Sequence[Any]]) -> None:
    start = self._file.tell()
    try:
      self._file.write(csv_text(*lines).encode())
      self._file.flush()
      os.fsync(self._file.fileno())
    except OSError:
      os.ftruncate(self._file.fileno(), start)
      raise

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


class TensorBoard:
  """TensorBoard events; a disabled one does nothing."""

  def __init__(self, directory: str, enabled: bool, purge_step: int | None = None):
    """Opens an event file.

    Args:
      directory: where event files go.
      enabled: whether to write at all.
      purge_step: when resuming, the step from which earlier events are void.

    Raises:
      ConfigError: if tensorboardX is not installed.
    """
    self._writer = None
    if not enabled:
      return
    check_installed('tensorboard', EVENTS)
    from tensorboardX import SummaryWriter

    self._writer = SummaryWriter(directory, purge_step=purge_step)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes scalars at a step."""
    if self._writer is not None:
      for name, value in scalars.items():
        self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes the file."""
    if self._writer is not None:
      self._writer.close()
