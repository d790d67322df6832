"""What a run writes down: results.csv, TensorBoard events and a live progress line."""

import csv
import io
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from hyperagent_jax.config import ConfigError

# DQN Zoo's schema; environments add their own columns.
COLUMNS = (
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
      self._file = open(path, 'wb')
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
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerows(lines)
    start = self._file.tell()
    try:
      self._file.write(text.getvalue().encode())
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
    try:
      from tensorboardX import SummaryWriter
    except ImportError:
      raise ConfigError('--tensorboard: tensorboardX is not installed; install it or pass --notensorboard') from None
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


class Progress:
  """One line that is rewritten on a terminal, and repeated every few seconds elsewhere."""

  def __init__(self, stream: TextIO | None = None, seconds_between_lines: float = 10.0):
    """A progress line on a stream, standard error by default."""
    self._stream = stream or sys.stderr
    self._live = self._stream.isatty()
    self._period = seconds_between_lines
    self._last = -float('inf')
    self._width = 0
    self._lock = threading.Lock()

  def show(self, text: str, final: bool = False) -> None:
    """Shows a new text; a final one stays. Threads may share the line."""
    with self._lock:
      self._show(text, final)

  def _show(self, text: str, final: bool) -> None:
    now = time.monotonic()
    if self._live:
      self._stream.write('\r' + text.ljust(self._width) + ('\n' if final else ''))
      self._width = 0 if final else len(text)
    elif final or now - self._last >= self._period:
      self._stream.write(text + '\n')
      self._last = now
    self._stream.flush()


def format_duration(seconds: float) -> str:
  """1h02m, 3m07s or 12s."""
  seconds = round(seconds)
  if seconds >= 3600:
    return f'{seconds // 3600}h{seconds % 3600 // 60:02d}m'
  if seconds >= 60:
    return f'{seconds // 60}m{seconds % 60:02d}s'
  return f'{seconds}s'


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """A plain-text table, columns aligned to the right."""
  lines = [[str(x) for x in line] for line in (header, *rows)]
  widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
  text = ['  '.join(x.rjust(w) for x, w in zip(line, widths, strict=True)) for line in lines]
  return '\n'.join([text[0], '-' * len(text[0]), *text[1:]])
