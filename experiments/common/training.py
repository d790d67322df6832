"""Training of all seeds of one environment: chunks, evaluations, checkpoints, resumption."""

import contextlib
import dataclasses
import pathlib
import time
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import checkpoint
from experiments.common.console import warn
from experiments.common.errors import CheckpointError, Stopped
from experiments.common.evaluations import evaluate_and_write, final_evaluation
from experiments.common.progress import format_duration
from experiments.common.runs import RunConfig
from experiments.common.signals import Signals
from experiments.common.task import Files, History, Kept, Task
from hyperagent_jax.runner import Runner, RunnerState


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
    CheckpointError, ConfigError, OSError: see `checkpoint.py` and `recording.py`.
  """
  with files.signals.nothing_to_save():
    kept, history = _begin(task, runner, files, resume)
  training = _Training(task, runner, run, files, kept, history, history.seconds - started)
  if (task.num_final_episodes and not history.untrained) or history.unevaluated:
    training.evaluate(float('nan'))
    training.settle()
  while not training.is_over():
    step_rate = training.train_interval()
    training.evaluate(step_rate)
    training.settle()
  if not history.finished:
    training.evaluate_best()
  return history, training.kept


class _Asked(Exception):
  """The run was asked to stop in the middle of an evaluation, which has nothing to show yet."""

  def __init__(self, stop: tuple[int, str]):
    super().__init__(stop)
    self.stop = stop


class _Training:
  """The training of a task: intervals, each with its evaluation, and checkpoints between them or within."""

  def __init__(
    self, task: Task, runner: Runner, run: RunConfig, files: Files, kept: Kept, history: History, before: float
  ):
    self.kept = kept
    self._task, self._runner, self._run, self._files, self._history = task, runner, run, files, history
    self._before = before  # what is added to the monotonic time to give that of the whole run
    self._end = task.step_at(task.max_interactions)
    self._saved_at = _interactions(kept.run)
    self._chunks = Chunks(files.chunk_seconds, files.signals)
    self._has_compiled = False

  def is_over(self) -> bool:
    """Whether the budget is spent, or every seed solved."""
    return int(self.kept.run.step) >= self._end or _all_solved(self._task, self._history)

  def train_interval(self) -> float:
    """Trains to the next evaluation; interactions of all seeds per second.

    Raises:
      Stopped: within it, after saving a checkpoint.
    """
    task, history, start = self._task, self._history, time.monotonic()
    if not history.within:
      numbers = range(history.iteration, self._end + 2)
      history.iteration = next(k for k in numbers if _target(task, self._run, k) > self.kept.run.step)
    target, last = _target(task, self._run, history.iteration), _interactions(self.kept.run)
    while (left := target - int(self.kept.run.step)) > 0:
      # Not `kept.run` to the end of the statement: its arrays are donated.
      state = self._chunks.run(self._runner, self.kept.run, left, fresh=not history.within)
      self.kept, history.within = Kept(state, self.kept.best), True
      stop = self._files.signals.stop()
      if stop is not None and int(state.step) < target:
        _check_finite(state, task, self._files)
        self._stop(stop, f'after {_interactions(state):,} interactions')
    history.within = False
    _check_finite(self.kept.run, task, self._files)
    seconds = time.monotonic() - start
    done = (_interactions(self.kept.run) - last) * len(task.seeds)
    if self._has_compiled:
      history.timed_seconds += seconds
      history.timed_interactions += done
    self._has_compiled = True
    return done / seconds

  def evaluate(self, step_rate: float) -> None:
    """Evaluates and writes rows.

    Raises:
      Stopped: in the middle of it, after saving a checkpoint that says that the evaluation is yet to come.
    """
    history = self._history
    try:
      self.kept = evaluate_and_write(
        self._task, self._runner, self.kept, self._run, history, self._files, step_rate, self._between
      )
      history.unevaluated = False
    except _Asked as e:
      history.unevaluated = True
      self._stop(e.stop, 'in an evaluation')

  def settle(self) -> None:
    """Shows where the run stands after an evaluation, and saves a checkpoint if one is due.

    Raises:
      Stopped: after saving a checkpoint.
    """
    history, done = self._history, _interactions(self.kept.run)
    history.seconds = self._before + time.monotonic()
    history.finished = self.is_over() and not self._task.num_final_episodes
    _show(self._task, history, self._files, done, final=self.is_over())
    stop = self._files.signals.stop()
    if stop is not None and not history.finished:
      self._stop(stop, f'after {done:,} interactions')
    if self.is_over() or done - self._saved_at >= self._run.checkpoint_period:
      save(self._task, self.kept, history, self._files)
      self._saved_at = done

  def evaluate_best(self) -> None:
    """The final evaluation, remembered round by round.

    Raises:
      Stopped: between rounds or within one, which is then played again.
    """
    task, history, files = self._task, self._history, self._files

    def remember() -> None:
      played = len(history.final[0])
      text = f'{task.name}  final episodes {played}/{task.num_final_episodes}'
      files.progress.show(text, played == task.num_final_episodes)
      history.seconds = self._before + time.monotonic()
      history.finished = played == task.num_final_episodes
      checkpoint.update_record(files.checkpoints(task), history.saved_step, _record(task, self.kept, history, files))
      stop = files.signals.stop()
      if stop is not None and not history.finished:
        raise _Asked(stop)

    try:
      final_evaluation(task, self._runner, self.kept, self._run, history, remember, self._between)
    except _Asked as e:
      raise stopped(e.stop, files.folder, f'after {len(history.final[0])} final episodes') from None

  def _between(self) -> None:
    # Not for --max_minutes, which may be shorter than an evaluation: a run that is cut up would never come past it.
    if self._files.signals.received is not None:
      raise _Asked((128 + self._files.signals.received, f'signal {self._files.signals.received}'))

  def _stop(self, stop: tuple[int, str], where: str) -> NoReturn:
    self._history.seconds = self._before + time.monotonic()
    save(self._task, self.kept, self._history, self._files)
    raise stopped(stop, self._files.folder, where)


def adapted(steps: int, took: float, wanted: float) -> int:
  """The size of the next chunk, after one of so many steps took so many seconds."""
  return 2 * steps if took < wanted / 2 else max(1, steps // 2) if took > wanted else steps


FIRST_CHUNK = 64  # steps, before it is known how long they take


class Chunks:
  """Runs of so many steps that each takes about as long as asked for; the run itself does not depend on it."""

  def __init__(self, seconds: float, signals: Signals) -> None:
    """Aims at so many seconds; while it compiles a signal ends the process at once."""
    self._seconds, self._signals = seconds, signals
    self._steps, self._has_compiled = FIRST_CHUNK, False

  def run(self, runner: Runner, state: RunnerState, most: int, **how: Any) -> RunnerState:
    """The state some steps later, at most so many; the one given is donated."""
    steps, start = min(most, self._steps), time.monotonic()
    with contextlib.nullcontext() if self._has_compiled else self._signals.nothing_to_save():
      state = jax.block_until_ready(runner.run(state, steps, **how))
    seconds = time.monotonic() - start
    if self._has_compiled and steps == self._steps:
      self._steps = adapted(steps, seconds, self._seconds)
    self._has_compiled = True
    return state


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
  history.saved_step = checkpoint.free_name(files.checkpoints(task), step)
  with files.signals.saving():
    record = _record(task, kept, history, files)
    checkpoint.save(files.checkpoints(task), history.saved_step, kept, files.settings, record)


def _is_finite(state: RunnerState) -> bool:
  return all(np.isfinite(x).all() for x in jax.tree.leaves(state.learner.params))


def _record(task: Task, kept: Kept, history: History, files: Files) -> dict[str, Any]:
  return {
    'history': dataclasses.asdict(history),
    'columns': list(files.results.columns),
    'rows': files.results.part(task.name),
    'old_rows': files.results.part(''),
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
