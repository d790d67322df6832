"""Training of all seeds of one environment: chunks, evaluations, rows, checkpoints."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.run import RunConfig, Signals, StoppedBySignal, warn
from hyperagent_jax import checkpoint
from hyperagent_jax.metrics import Progress, ResultsWriter, TensorBoard, format_duration
from hyperagent_jax.runner import Runner, RunnerState, steps_for


@dataclasses.dataclass(frozen=True)
class Task:
  """What is trained, and how its progress is judged."""

  name: str  # names the task's checkpoints
  environment_name: str
  agent_name: str
  seeds: tuple[int, ...]
  episode_length: int | None  # of the environment
  num_envs: int
  min_replay: int
  max_interactions: int  # per seed
  solved_return: float  # mean evaluation return from which a seed is solved
  best_return: float
  columns: Mapping[str, Any]  # the environment's own columns
  on_evaluation: Callable[[RunnerState, int, int, int], None]  # state, iteration, interactions, episodes


@dataclasses.dataclass
class History:
  """What a task has done so far; it travels with the checkpoint."""

  iteration: int = 0
  solved: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # seed -> episodes, interactions
  seconds: float = 0.0  # wall-clock time of everything, compilation included
  timed_seconds: float = 0.0  # of all chunks but each process's first, which compiles
  timed_interactions: int = 0
  num_episodes: list[int] = dataclasses.field(default_factory=list)  # by seed, at the latest evaluation
  mean_return: float = 0.0  # of all seeds, at the latest evaluation
  finished: bool = False

  @property
  def steps_per_second(self) -> float:
    """Environment steps of all seeds per second of training, without compilation and evaluation."""
    return self.timed_interactions / self.timed_seconds if self.timed_seconds else float('nan')


@dataclasses.dataclass
class Files:
  """Where a run writes."""

  folder: pathlib.Path
  results: ResultsWriter
  tensorboard: TensorBoard
  settings: dict[str, Any]
  signals: Signals
  progress: Progress

  def checkpoints(self, task: Task) -> str:
    """The task's folder of checkpoints."""
    return str(self.folder / 'checkpoints' / task.name)


def train(
  task: Task, runner: Runner, initial: RunnerState, run: RunConfig, files: Files, resume: bool, started: float
) -> History:
  """Trains until every seed is solved or the budget is spent.

  Args:
    task: what is trained.
    runner: compiled programs.
    initial: the state to start from, and the shape of a checkpoint.
    run: settings of the run.
    files: where to write.
    resume: whether to go on from the task's newest checkpoint, if it has one.
    started: the monotonic time from which this run's wall-clock time counts.

  Returns:
    The task's history.

  Raises:
    StoppedBySignal: after saving a checkpoint.
    FloatingPointError: if a loss is not finite; the latest checkpoint stands.
    CheckpointError, ConfigError, OSError: see `checkpoint.py` and `metrics.py`.
  """
  state, history = initial, History()
  restored = checkpoint.restore(files.checkpoints(task), initial, files.settings, warn) if resume else None
  if restored is not None:
    state, history = runner.place(restored.state), History(**restored.record['history'])
    for x in jax.tree.leaves(initial):
      x.delete()  # it was the shape to read into; its replay would double the memory
  else:
    state = runner.prefill(state, steps_for(_per_env(task, task.min_replay), task.episode_length))

  before, saved_at, compiled = history.seconds - started, _interactions(state), False
  while not history.finished:
    last = _interactions(state)
    history.iteration = last // run.eval_period + 1
    state, seconds = _advance(runner, state, task, history, run)
    done = _interactions(state)
    _check_finite(state, task, files)
    evaluate_and_write(task, runner, state, run, history, files, (done - last) * len(task.seeds) / seconds)
    history.seconds = before + time.monotonic()
    if compiled:
      history.timed_seconds += seconds
      history.timed_interactions += (done - last) * len(task.seeds)
    compiled = True

    all_solved = len(history.solved) == len(task.seeds) and run.stop_when_solved
    history.finished = all_solved or done >= task.max_interactions
    _show(task, history, files, done, final=history.finished)
    stopped = files.signals.received
    if history.finished or stopped is not None or done - saved_at >= run.checkpoint_period:
      save(task, state, history, files)
      saved_at = done
    if stopped is not None and not history.finished:
      again = f'--resume --output_dir={files.folder}'
      raise StoppedBySignal(stopped, f'stopped by signal {stopped} after {done:,} interactions; go on with {again}')
  return history


def _per_env(task: Task, interactions: int) -> int:
  return -(-interactions // task.num_envs)


def _interactions(state: RunnerState) -> int:
  """Interactions of the seed that has fewest."""
  return int(np.min(jax.device_get(state.statistics.num_interactions)))


def _advance(
  runner: Runner, state: RunnerState, task: Task, history: History, run: RunConfig
) -> tuple[RunnerState, float]:
  """Trains to the next evaluation; returns also the seconds it took."""
  target = steps_for(_per_env(task, run.eval_period * history.iteration), task.episode_length)
  start = time.monotonic()
  state = jax.block_until_ready(runner.run(state, target - int(state.step)))
  return state, time.monotonic() - start


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


def evaluate_and_write(
  task: Task, runner: Runner, state: RunnerState, run: RunConfig, history: History, files: Files, step_rate: float
) -> None:
  """Evaluates all seeds and writes a row for each."""
  returns = np.asarray(runner.evaluate(state).returns).mean(axis=1)  # [S]
  s = jax.device_get(state.statistics)
  history.num_episodes = [int(n) for n in s.num_episodes]
  history.mean_return = float(returns.mean())
  rows = []
  for i, seed in enumerate(task.seeds):
    if returns[i] >= task.solved_return and str(seed) not in history.solved:
      history.solved[str(seed)] = [int(s.num_episodes[i]), int(s.num_interactions[i])]
    num_updates = max(1, int(s.num_updates[i]))
    rows.append(
      {
        'environment_name': task.environment_name,
        'agent_name': task.agent_name,
        'seed': seed,
        'iteration': history.iteration,
        'frame': int(s.num_interactions[i]),
        'env_step': int(s.num_interactions[i]),
        'episode': int(s.num_episodes[i]),
        'eval_episode_return': f'{returns[i]:.6f}',
        'eval_num_episodes': run.num_eval_episodes,
        'train_episode_return': f'{s.return_sum[i] / s.finished[i]:.6f}' if s.finished[i] else 'nan',
        'normalized_return': f'{returns[i] / task.best_return:.6f}',
        'step_rate': f'{step_rate:.0f}',
        **task.columns,
        'solved': int(str(seed) in history.solved),
        'loss': f'{s.loss_sum[i] / num_updates:.6g}',
        'grad_norm': f'{s.grad_norm_sum[i] / num_updates:.6g}',
      }
    )
  files.results.write(rows)
  means = {
    'eval_return': history.mean_return,
    'solved': len(history.solved) / len(task.seeds),
    'loss': float(np.mean([float(r['loss']) for r in rows])),
    'grad_norm': float(np.mean([float(r['grad_norm']) for r in rows])),
  }
  done = int(np.min(s.num_interactions))
  files.tensorboard.write(done, means)
  task.on_evaluation(state, history.iteration, int(s.num_interactions[0]), int(s.num_episodes[0]))


def save(task: Task, state: RunnerState, history: History, files: Files) -> None:
  """Saves a checkpoint of everything, the length of results.csv included.

  Raises:
    FloatingPointError: if a parameter is not finite, as one big last step can make it before any loss shows it.
  """
  if not all(np.isfinite(x).all() for x in jax.tree.leaves(state.learner.params)):
    raise FloatingPointError(
      f'{task.name}: parameters are not finite at time step {int(state.step)}; {_stands(task, files)}'
    )
  record = {
    'history': dataclasses.asdict(history),
    'results_length': files.results.length,
    'interactions': int(state.statistics.num_interactions[0]),
  }
  checkpoint.save(files.checkpoints(task), int(state.step), state, files.settings, record)


def _show(task: Task, history: History, files: Files, done: int, final: bool) -> None:
  """The progress line; the time left is a bound, since a run ends when all seeds are solved."""
  left = (task.max_interactions - done) * history.seconds / done
  parts = [
    task.name,
    f'{done:,} steps',
    f'{history.steps_per_second:,.0f} steps/s' if history.timed_seconds else 'compiling',
    f'{min(history.num_episodes):,} episodes',
    f'eval return {history.mean_return:.3f}',
    f'solved {len(history.solved)}/{len(task.seeds)}',
    f'took {format_duration(history.seconds)}' if final else f'at most {format_duration(left)} left',
  ]
  files.progress.show('  '.join(parts), final=final)
