"""What a run that is gone on with takes up: results, events, finished tasks."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.common import checkpoint
from experiments.common.errors import CheckpointError
from experiments.common.files import naming
from experiments.common.recording import ResultsWriter, TensorBoard
from experiments.common.runs import OutputConfig
from experiments.common.task import History, checkpoints_of
from hyperagent_jax.config import ConfigError


class Resumed(NamedTuple):
  """Where a run that is gone on with stands."""

  interactions: dict[str, int]  # of each task's newest whole checkpoint, 0 for none
  events: dict[str, dict[str, int]]  # its event files and their lengths then


def open_results(
  output: OutputConfig, folder: pathlib.Path, columns: Sequence[str], names: Sequence[str], settings: dict[str, Any]
) -> tuple[ResultsWriter, Resumed]:
  """results.csv; on resuming as it was at each task's newest whole checkpoint.

  Args:
    output: whether to resume.
    folder: the run's folder.
    columns: of results.csv.
    names: the run's tasks.
    settings: what checkpoints must share.

  Returns:
    The file, and where the run stands (nothing unless resuming).

  Raises:
    ConfigError: if there is nothing to resume, or it was another configuration's.
  """
  path = str(folder / 'results.csv')
  if not output.resume:
    return ResultsWriter(path, columns), Resumed({}, {})
  newest = {name: checkpoint.latest(checkpoints_of(folder, name)) for name in names}
  for name, found in newest.items():
    if found is None and checkpoint.any_finished(checkpoints_of(folder, name)):
      # Before anything of what it has left is touched.
      raise CheckpointError(f'{checkpoints_of(folder, name)}: no checkpoint there is whole')
  if not any(newest.values()):
    damaged = next((folder / 'checkpoints').glob('*/*'), None)
    why = f'no checkpoint there is whole ({damaged} is damaged)' if damaged else 'it has no checkpoint'
    raise ConfigError(f'--resume: {folder}: {why}; delete the folder or start in another')
  records, old_length = {}, 0
  for name, found in newest.items():
    if found is not None:
      checkpoint.check_config(checkpoints_of(folder, name), found[1], settings)
      records[name] = found[1]['record']
      old_length = max(old_length, records[name].get('results_length', 0))
  # Of all tasks, so that one that is begun again keeps its place.
  parts, header = {name: records.get(name, {}).get('rows', '') for name in names}, list(columns)
  # Of formats 1 and 2, whose checkpoints know how long the file was: its rows stand before all others, and later
  # checkpoints hand them on.
  old_rows = max((record.get('old_rows', '') for record in records.values()), key=len)
  if old_length and not old_rows:
    header, old_rows = _old_results(pathlib.Path(path), old_length)
  if old_rows:
    parts = {'': old_rows, **parts}
  header = next((record['columns'] for record in records.values() if 'columns' in record), header)
  interactions = {name: records[name]['interactions'] if name in records else 0 for name in names}
  events = {name: record['events'] for name, record in records.items() if 'events' in record}
  return ResultsWriter(path, header, parts), Resumed(interactions, events)


def _old_results(path: pathlib.Path, length: int) -> tuple[list[str], str]:
  """Header and rows of a results.csv as it was when a checkpoint said so."""
  with naming(path):
    text = path.read_bytes()[:length].decode(errors='replace')
  if len(text) < length or not text.endswith('\n') or '\r' in text:
    raise CheckpointError(f'{path}: is not as it was when the checkpoint was saved, and that has no copy of its rows')
  header, _, rows = text.partition('\n')
  return header.split(','), rows


def open_tensorboard(output: OutputConfig, folder: pathlib.Path, name: str, resumed: Resumed) -> TensorBoard:
  """A task's events; on resuming, those after its newest whole checkpoint are cut off, or void."""
  path = str(folder / 'tensorboard' / name)
  if not output.resume:
    return TensorBoard(path, output.tensorboard)
  if name in resumed.events or not resumed.interactions[name]:
    return TensorBoard(path, output.tensorboard, kept=resumed.events.get(name, {}))
  return TensorBoard(path, output.tensorboard, purge_step=resumed.interactions[name] + 1)


def finished_history(folder: pathlib.Path, name: str) -> History | None:
  """The history of a task that an interrupted run had finished."""
  record = finished_record(folder, name)
  return None if record is None else History(**record['history'])


def finished_record(folder: pathlib.Path, name: str) -> dict[str, Any] | None:
  """What the newest checkpoint of a task remembers, if the task had finished."""
  found = checkpoint.latest(checkpoints_of(folder, name))
  record = None if found is None else found[1]['record']
  return record if record is not None and record['history']['finished'] else None
