"""Training of all seeds of one environment: chunks, evaluations, checkpoints, resumption."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import checkpoint
from experiments.common.cli import warn
from experiments.common.errors import Stopped
from experiments.common.evaluations import evaluate_and_write, final_evaluation
from experiments.common.progress import format_duration
from experiments.common.recording import ResultsWriter, TensorBoard
from experiments.common.runs import OutputConfig, RunConfig
from experiments.common.task import Files, History, Kept, Task, checkpoints_of
from hyperagent_jax.config import ConfigError
from hyperagent_jax.runner import Runner, RunnerState


def open_results(
  output: OutputConfig, folder: pathlib.Path, columns: Sequence[str], names: Sequence[str], settings: dict[str, Any]
) -> tuple[ResultsWriter, dict[str, int]]:
  """results.csv, cut back on resuming to what it was at the newest whole checkpoint.

  Args:
    output: whether to resume.
    folder: the run's folder.
    columns: of results.csv.
    names: the run's tasks.
    settings: what checkpoints must share.

  Returns:
    The file, and the interactions of each task's newest whole checkpoint (0 for none; empty unless resuming).

  Raises:
    ConfigError: if there is nothing to resume, or it was another configuration's.
  """
  path = str(folder / 'results.csv')
  if not output.resume:
    return ResultsWriter(path, columns), {}
  newest = {name: checkpoint.latest(checkpoints_of(folder, name)) for name in names}
  if not any(newest.values()):
    damaged = next((folder / 'checkpoints').glob('*/*'), None)
    why = f'no checkpoint there is whole ({damaged} is damaged)' if damaged else 'it has no checkpoint'
    raise ConfigError(f'--resume: {folder}: {why}; delete the folder or start in another')
  length, interactions = 0, dict.fromkeys(names, 0)
  for name, found in newest.items():
    if found is not None:
      checkpoint.check_config(checkpoints_of(folder, name), found[1], settings)
      record = found[1]['record']
      interactions[name], length = record['interactions'], max(length, record['results_length'])
  return ResultsWriter(path, columns, length), interactions


def open_tensorboard(
  output: OutputConfig, folder: pathlib.Path, name: str, resumed_at: Mapping[str, int]
) -> TensorBoard:
  """A task's events; on resuming, those after its newest whole checkpoint are void."""
  purge_step = None
  if output.resume:
    purge_step = resumed_at[name] + 1 if resumed_at[name] else 0
  return TensorBoard(str(folder / 'tensorboard' / name), output.tensorboard, purge_step)


def finished_history(folder: pathlib.Path, name: str) -> History | None:
  """The history of a task that an interrupted run had finished."""
  found = checkpoint.latest(checkpoints_of(folder, name))
  history = None if found is None else History(**found[1]['record']['history'])
  return history if history is not None and history.finished else None


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
    checkpoint.update_record(files.checkpoints(task), history.saved_step, _record(kept, history, files))
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
  shape = runner.shape(task.seeds, task.env_params)
  like = Kept(shape, shape.learner.params if task.num_final_episodes else None)
  restored = checkpoint.restore(files.checkpoints(task), like, files.settings, warn) if resume else None
  if restored is not None:
    run = runner.place(restored.state.run, task.env_params)
    return Kept(run, restored.state.best), History(**restored.record['history'])
  state = runner.prefill(runner.init(task.seeds, task.env_params), task.step_at(task.min_replay))
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
  if not all(np.isfinite(x).all() for x in jax.tree.leaves(kept.run.learner.params)):
    raise FloatingPointError(f'{task.name}: parameters are not finite at time step {step}; {_stands(task, files)}')
  history.saved_step = step
  checkpoint.save(files.checkpoints(task), step, kept, files.settings, _record(kept, history, files))


def _record(kept: Kept, history: History, files: Files) -> dict[str, Any]:
  return {
    'history': dataclasses.asdict(history),
    'results_length': files.results.length,
    'interactions': int(kept.run.statistics.num_interactions[0]),
  }


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
