"""Training of all seeds of one environment: chunks, evaluations, checkpoints, resumption."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import checkpoint
from experiments.common.console import warn
from experiments.common.errors import CheckpointError, Stopped
from experiments.common.evaluations import evaluate_and_write, final_evaluation
from experiments.common.files import naming
from experiments.common.progress import format_duration
from experiments.common.recording import ResultsWriter, TensorBoard
from experiments.common.runs import OutputConfig, RunConfig
from experiments.common.signals import Signals
from experiments.common.task import Files, History, Kept, Task, checkpoints_of
from hyperagent_jax.config import ConfigError
from hyperagent_jax.runner import Runner, RunnerState


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
  parts, header = {name: record['rows'] for name, record in records.items() if 'rows' in record}, list(columns)
  if old_length:
    # Of formats 1 and 2, whose checkpoints know how long the file was: its rows stand before all others.
    header, rows = _old_results(pathlib.Path(path), old_length)
    parts = {'': rows, **parts}
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


def train(
  task: Task, runner: Runner, run: RunConfig, files: Files, resume: bool, started: float
) -> tuple[History, Kept]:
  """Trains until every seed is solved or the budget is spent, then evaluates the best parameters if that is asked for.

  Args:
    task: what is trained.
    runner: compiled programs.
    run: settings of the run.
    files: where to write.
    resume: whether to go on from the task's newest checkpoint, if it has one.
    started: the monotonic time from which this run's wall-clock time counts.

  Returns:
    The task's history and its last state.

  Raises:
    Stopped: after saving a checkpoint.
    FloatingPointError: if a loss is not finite; the latest checkpoint stands.
    CheckpointError, ConfigError, OSError: see `checkpoint.py` and `metrics.py`.
  """
  kept, history = _begin(task, runner, files, resume)
  end = task.step_at(task.max_interactions)
  before, saved_at, compiled = history.seconds - started, _interactions(kept.run), False
  if task.num_final_episodes and not history.untrained:
    kept = evaluate_and_write(task, runner, kept, run, history, files, float('nan'))

  while int(kept.run.step) < end and not _all_solved(task, history):
    last = _interactions(kept.run)
    history.iteration = next(k for k in range(history.iteration, end + 2) if _target(task, run, k) > kept.run.step)
    start = time.monotonic()
    # Not `kept.run` to the end of the statement: its arrays are donated.
    state = jax.block_until_ready(runner.run(kept.run, _target(task, run, history.iteration) - int(kept.run.step)))
    seconds = time.monotonic() - start
    done = _interactions(state)
    _check_finite(state, task, files)
    kept = evaluate_and_write(
      task, runner, Kept(state, kept.best), run, history, files, (done - last) * len(task.seeds) / seconds
    )
    history.seconds = before + time.monotonic()
    if compiled:
      history.timed_seconds += seconds
      history.timed_interactions += (done - last) * len(task.seeds)
    compiled = True

    over = int(state.step) >= end or _all_solved(task, history)
    history.finished = over and not task.num_final_episodes
    _show(task, history, files, done, final=over)
    stop = files.signals.stop()
    if over or stop is not None or done - saved_at >= run.checkpoint_period:
      save(task, kept, history, files)
      saved_at = done
    if stop is not None and not history.finished:
      raise stopped(stop, files.folder, f'after {done:,} interactions')
  if not history.finished:
    _finish(task, runner, kept, run, history, files, before)
  return history, kept


def _finish(
  task: Task, runner: Runner, kept: Kept, run: RunConfig, history: History, files: Files, before: float
) -> None:
  """The final evaluation, remembered round by round."""

  def remember() -> None:
    played = len(history.final[0])
    files.progress.show(
      f'{task.name}  final episodes {played}/{task.num_final_episodes}', played == task.num_final_episodes
    )
    history.seconds = before + time.monotonic()
    history.finished = played == task.num_final_episodes
    checkpoint.update_record(files.checkpoints(task), history.saved_step, _record(task, kept, history, files))
    stop = files.signals.stop()
    if stop is not None and not history.finished:
      raise stopped(stop, files.folder, f'after {played} final episodes')

  final_evaluation(task, runner, kept, run, history, remember)


def stopped(stop: tuple[int, str], folder: pathlib.Path, where: str) -> Stopped:
  """The exception that ends a run which was asked to stop and has saved everything."""
  status, reason = stop
  return Stopped(status, f'stopped by {reason} {where}; go on with --resume --output_dir={folder}')


def _begin(task: Task, runner: Runner, files: Files, resume: bool) -> tuple[Kept, History]:
  """A restored state, or a new one with replay filled by random actions."""
  shape = runner.shape(task.key_seeds, task.env_params)
  like = Kept(shape, shape.learner.params if task.num_final_episodes else None)
  restored = checkpoint.restore(files.checkpoints(task), like, files.settings, warn) if resume else None
  if restored is not None:
    if not _is_finite(restored.state.run):
      path = f'{files.checkpoints(task)}/{restored.step:012d}'
      raise CheckpointError(f'{path}: its parameters are not finite; delete it, and the one before is gone on with')
    run = runner.place(restored.state.run, task.env_params)
    return Kept(run, restored.state.best), History(**restored.record['history'])
  # Blocking, so that whatever goes wrong does so here and not where a number is first looked at.
  state = jax.block_until_ready(runner.init(task.key_seeds, task.env_params))
  state = jax.block_until_ready(runner.prefill(state, task.step_at(task.min_replay)))
  # A copy: the learner's own parameters are donated.
  best = jax.tree.map(jnp.copy, state.learner.params) if task.num_final_episodes else None
  return Kept(state, best), History()


def _target(task: Task, run: RunConfig, iteration: int) -> int:
  """The time step of an iteration's end."""
  return task.step_at(min(run.eval_period * iteration, task.max_interactions))


def _all_solved(task: Task, history: History) -> bool:
  return task.stop_when_solved and len(history.solved) == len(task.seeds)


def _interactions(state: RunnerState) -> int:
  """Interactions of the seed that has fewest."""
  return int(np.min(jax.device_get(state.statistics.num_interactions)))


def _check_finite(state: RunnerState, task: Task, files: Files) -> None:
  steps = np.asarray(state.statistics.nonfinite_step)
  if not np.any(steps >= 0):
    return
  i = int(np.argmax(steps >= 0))
  raise FloatingPointError(
    f'{task.name}: the loss of seed {task.seeds[i]} or its gradient is not finite from time step {int(steps[i])} on; '
    f'{_stands(task, files)}'
  )


def _stands(task: Task, files: Files) -> str:
  kept = checkpoint.latest(files.checkpoints(task))
  return 'there is no checkpoint yet' if kept is None else f'the checkpoint of step {kept[0]} stands'


def save(task: Task, kept: Kept, history: History, files: Files) -> None:
  """Saves a checkpoint of everything, the length of results.csv included.

  Raises:
    FloatingPointError: if a parameter is not finite, as one big last step can make it before any loss shows it.
  """
  step = int(kept.run.step)
  if not _is_finite(kept.run):
    raise FloatingPointError(f'{task.name}: parameters are not finite at time step {step}; {_stands(task, files)}')
  history.saved_step = step
  checkpoint.save(files.checkpoints(task), step, kept, files.settings, _record(task, kept, history, files))


def _is_finite(state: RunnerState) -> bool:
  return all(np.isfinite(x).all() for x in jax.tree.leaves(state.learner.params))


def _record(task: Task, kept: Kept, history: History, files: Files) -> dict[str, Any]:
  return {
    'history': dataclasses.asdict(history),
    'columns': list(files.results.columns),
    'rows': files.results.part(task.name),
    'events': files.tensorboard.sizes(),
    'interactions': int(kept.run.statistics.num_interactions[0]),
  }


def end_of_training(signals: Signals, folder: pathlib.Path) -> None:
  """What is left, tables and figures, can be done again: from here on signals end the process at once.

  Raises:
    Stopped: if one came before.
  """
  stop = signals.stop() if signals.received is not None else None
  signals.release()
  if stop is not None:
    raise stopped(stop, folder, 'after training, before the figures')


def _show(task: Task, history: History, files: Files, done: int, final: bool) -> None:
  """The progress line; the time left is a bound where a run ends when all seeds are solved."""
  left = (task.max_interactions - done) * history.seconds / done
  time_left = f'{"at most " if task.stop_when_solved else ""}{format_duration(left)} left'
  parts = [
    task.name,
    f'{done:,} steps',
    f'{history.steps_per_second:,.0f} steps/s' if history.timed_seconds else 'compiling',
    f'{min(history.num_episodes):,} episodes',
    f'eval return {history.mean_return:.3f}',
    *([] if task.solved_return is None else [f'solved {len(history.solved)}/{len(task.seeds)}']),
    f'took {format_duration(history.seconds)}' if final else time_left,
  ]
  files.progress.show('  '.join(parts), final=final)
