"""What a run writes down: results.csv and TensorBoard events."""

import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common.cli import check_installed
from experiments.common.console import warn
from experiments.common.extras import EVENTS
from experiments.common.files import naming, write_atomically
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
  """Appends rows to a CSV file so that a crash at any moment leaves whole rows, and resuming doubles none.

  Rows belong to tasks, and a task's checkpoint keeps them too: whatever happens to the file, it is made again from what
  the checkpoints have, in the order of the tasks.
  """

  def __init__(self, path: str, columns: Sequence[str], parts: Mapping[str, str] | None = None):
    """Opens the file.

    Args:
      path: the CSV file.
      columns: its columns, in order.
      parts: task -> its rows so far, as `part` returned them; what else is in the file is dropped. None starts anew.

    Raises:
      OSError: if the file cannot be written, or is there already where it should start anew.
    """
    self._path, self._columns = pathlib.Path(path), tuple(columns)
    self._header = csv_text(self._columns)
    self._parts = dict(parts or {})
    if parts is None:
      with naming(path), open(path, 'xb') as file:
        file.write(self._header.encode())
    else:
      self._keep_if_changed()
      self._write_anew()
    self._left = os.stat(path)

  @property
  def columns(self) -> tuple[str, ...]:
    """The file's columns, in order."""
    return self._columns

  def part(self, task: str) -> str:
    """A task's rows so far."""
    return self._parts.get(task, '')

  def write(self, task: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends rows of a task, all or none where the system lets one write be whole, and forces them to disk."""
    text = csv_text(*([row[c] for c in self._columns] for row in rows))
    later = list(self._parts)[list(self._parts).index(task) + 1 :] if task in self._parts else []
    at_the_end = not any(self._parts[other] for other in later)  # rows of a task stand together
    if self._is_as_left() and at_the_end:
      self._append(text.encode())
      self._parts[task] = self.part(task) + text
    else:
      self._parts[task] = self.part(task) + text
      self._write_anew()
    self._left = os.stat(self._path)

  def _append(self, data: bytes) -> None:
    with naming(self._path), open(self._path, 'ab') as file:
      start = file.tell()
      try:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
      except OSError:
        os.ftruncate(file.fileno(), start)
        raise

  def _text(self) -> str:
    return self._header + ''.join(self._parts.values())

  def _is_as_left(self) -> bool:
    """Whether nobody else has touched the file; one that was moved or changed is kept beside the new one."""
    try:
      found = os.stat(self._path)
    except OSError:
      warn(f'{self._path}: is gone; written anew')
      return False
    of = lambda s: (s.st_ino, s.st_size, s.st_mtime_ns)
    if of(found) == of(self._left):
      return True
    self._set_aside()
    return False

  def _keep_if_changed(self) -> None:
    """Looks for all rows in what is there: a run that was killed leaves them, and more after a task's last."""
    try:
      found = self._path.read_bytes()
    except OSError:
      warn(f'{self._path}: is gone; written anew from the checkpoints')
      return
    if not all(part.encode() in found for part in (self._header, *self._parts.values())):
      self._set_aside()

  def _set_aside(self) -> None:
    copies = len(list(self._path.parent.glob(f'{self._path.name}.changed*')))
    aside = self._path.with_name(f'{self._path.name}.changed{copies or ""}')
    os.replace(self._path, aside)
    warn(f'{self._path}: was changed by another program; kept as {aside.name}, and written anew')

  def _write_anew(self) -> None:
    write_atomically(self._path, self._text().encode())


class TensorBoard:
  """TensorBoard events; a disabled one does nothing."""

  def __init__(
    self, directory: str, enabled: bool, kept: Mapping[str, int] | None = None, purge_step: int | None = None
  ):
    """Opens an event file.

    Args:
      directory: where event files go.
      enabled: whether to write at all.
      kept: when resuming, the bytes of each file that stand, as `sizes` returned them: the rest is cut off.
      purge_step: when resuming without them, the step from which earlier events are void.

    Raises:
      ConfigError: if tensorboardX is not installed.
    """
    self._folder = pathlib.Path(directory)
    self._writer: Any = None
    if kept is not None:
      self._cut(kept)
    if not enabled:
      return
    check_installed('tensorboard', EVENTS)
    # Not its SummaryWriter, whose thread writes when it likes, also after `flush`.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import SessionLog

    self._folder.mkdir(parents=True, exist_ok=True)
    # Numbered: the name has seconds only, and a run that is resumed within one would write over its own file.
    self._writer = EventsWriter(str(self._folder / 'events'), f'.{len(self._files())}')
    if purge_step is not None:
      self._add(purge_step, session_log=SessionLog(status=SessionLog.START))

  def _add(self, step: int, **what: Any) -> None:
    from tensorboardX.proto.event_pb2 import Event

    self._writer.write_event(Event(step=step, wall_time=time.time(), **what))

  def _cut(self, kept: Mapping[str, int]) -> None:
    for path in self._files():
      if path.name not in kept:
        path.unlink()
      elif path.stat().st_size > kept[path.name]:
        os.truncate(path, kept[path.name])

  def _files(self) -> list[pathlib.Path]:
    return sorted(self._folder.glob('events.out.tfevents.*'))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes scalars at a step."""
    if self._writer is None:
      return
    from tensorboardX.summary import scalar

    for name, value in scalars.items():
      self._add(step, summary=scalar(name, value))
    self._writer.flush()

  def sizes(self) -> dict[str, int]:
    """Forces to disk what was written, and returns the bytes of each event file, for a checkpoint to remember."""
    if self._writer is not None:
      with naming(self._folder):
        self._writer.flush()
    return {path.name: path.stat().st_size for path in self._files()}

  def close(self) -> None:
    """Flushes and closes the file."""
    if self._writer is not None:
      self._writer.close()
