"""Training of all seeds of one environment: chunks, evaluations, rows, checkpoints, the best parameters."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.run import OutputConfig, RunConfig, Signals, Stopped, warn
from hyperagent_jax import checkpoint
from hyperagent_jax.config import ConfigError
from hyperagent_jax.metrics import Progress, ResultsWriter, TensorBoard, format_duration
from hyperagent_jax.runner import Runner, RunnerState, Statistics, steps_for
from hyperagent_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Task:
  """What is trained, and how its progress is judged."""

  name: str  # names the task's checkpoints
  environment_name: str
  agent_name: str
  seeds: tuple[int, ...]
  env_params: Any  # [S, ...]
  episode_length: int | None  # of the environment
  num_envs: int
  min_replay: int
  max_interactions: int  # per seed
  normalize: Callable[[float], float]  # an evaluation return to a normalised one
  columns: Mapping[str, Any]  # the environment's own columns
  on_evaluation: Callable[[RunnerState, int, int, int], None]  # state, iteration, interactions, episodes
  frames_per_step: int = 1
  solved_return: float | None = None  # mean evaluation return from which a seed is solved, if there is one
  stop_when_solved: bool = False
  num_final_episodes: int = 0  # with which the best parameters of each seed are evaluated at the end; 0: not at all

  def step_at(self, interactions: int) -> int:
    """The time step by which a seed has done so many interactions (see `steps_for`)."""
    return steps_for(-(-interactions // self.num_envs), self.episode_length)


@dataclasses.dataclass
class History:
  """What a task has done so far; it travels with the checkpoint. Lists are by seed."""

  iteration: int = 0
  solved: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # seed -> episodes, interactions
  seconds: float = 0.0  # wall-clock time of everything, compilation included
  timed_seconds: float = 0.0  # of all chunks but each process's first, which compiles
  timed_interactions: int = 0
  num_episodes: list[int] = dataclasses.field(default_factory=list)  # at the latest evaluation
  mean_return: float = 0.0  # of all seeds, at the latest evaluation
  untrained: list[list[float]] = dataclasses.field(default_factory=list)  # returns before training
  best_return: list[float] = dataclasses.field(default_factory=list)  # the best evaluation's
  best_interactions: list[int] = dataclasses.field(default_factory=list)
  final: list[list[float]] = dataclasses.field(default_factory=list)  # returns of the best parameters
  finished: bool = False

  @property
  def steps_per_second(self) -> float:
    """Environment steps of all seeds per second of training, without compilation and evaluation."""
    return self.timed_interactions / self.timed_seconds if self.timed_seconds else float('nan')


class Kept(NamedTuple):
  """What a checkpoint holds."""

  run: RunnerState
  best: Params | None  # [S, ...] parameters of each seed's best evaluation, where they are asked for


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
    return checkpoints_of(self.folder, task.name)


def checkpoints_of(folder: pathlib.Path, name: str) -> str:
  """A task's folder of checkpoints."""
  return str(folder / 'checkpoints' / name)


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
      again = f'--resume --output_dir={files.folder}'
      raise Stopped(stop[0], f'stopped by {stop[1]} after {done:,} interactions; go on with {again}')
  if not history.finished:
    history.final = final_evaluation(task, runner, kept, run)
    history.seconds, history.finished = before + time.monotonic(), True
    checkpoint.update_record(files.checkpoints(task), int(kept.run.step), _record(kept, history, files))
  return history, kept


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


@jax.jit
def _select(improved: jax.Array, new: Params, old: Params) -> Params:
  """`new` of the seeds that improved [S], else `old`."""
  choose = lambda x, y: jnp.where(improved.reshape(-1, *(1,) * (x.ndim - 1)), x, y)
  return jax.tree.map(choose, new, old)


def evaluate_and_write(
  task: Task, runner: Runner, kept: Kept, run: RunConfig, history: History, files: Files, step_rate: float
) -> Kept:
  """Evaluates all seeds, writes a row for each and keeps the parameters of those that have never been better."""
  state = kept.run
  each = np.asarray(runner.evaluate(state).returns)  # [S, episodes]
  returns = each.mean(axis=1)
  s = jax.device_get(state.statistics)
  first = not history.num_episodes
  history.num_episodes = [int(n) for n in s.num_episodes]
  history.mean_return = float(returns.mean())
  for i, seed in enumerate(task.seeds):
    if task.solved_return is not None and returns[i] >= task.solved_return and str(seed) not in history.solved:
      history.solved[str(seed)] = [int(s.num_episodes[i]), int(s.num_interactions[i])]
  rows = [_row(task, run, history, s, i, float(returns[i]), step_rate) for i in range(len(task.seeds))]
  files.results.write(rows)
  files.tensorboard.write(int(np.min(s.num_interactions)), _means(history, rows))
  if kept.best is not None:
    if first:
      history.untrained = each.tolist()
      history.best_return, history.best_interactions = [-float('inf')] * len(returns), [0] * len(returns)
    improved = returns >= np.asarray(history.best_return)
    kept = kept._replace(best=_select(jnp.asarray(improved), state.learner.params, kept.best))
    history.best_return = np.maximum(returns, history.best_return).tolist()
    history.best_interactions = np.where(improved, s.num_interactions, history.best_interactions).tolist()
  task.on_evaluation(state, history.iteration, int(s.num_interactions[0]), int(s.num_episodes[0]))
  return kept


def _row(
  task: Task, run: RunConfig, history: History, s: Statistics, i: int, episode_return: float, step_rate: float
) -> dict[str, Any]:
  """Seed i's row of results.csv."""
  seed, num_updates, done = task.seeds[i], max(1, int(s.num_updates[i])), int(s.num_interactions[i])
  return {
    'environment_name': task.environment_name,
    'agent_name': task.agent_name,
    'seed': seed,
    'iteration': history.iteration,
    'frame': task.frames_per_step * done,
    'env_step': done,
    'episode': int(s.num_episodes[i]),
    'eval_episode_return': f'{episode_return:.6f}',
    'eval_num_episodes': run.num_eval_episodes,
    'train_episode_return': f'{s.return_sum[i] / s.finished[i]:.6f}' if s.finished[i] else 'nan',
    'normalized_return': f'{task.normalize(episode_return):.6f}',
    'step_rate': f'{step_rate:.0f}',
    **task.columns,
    'solved': int(str(seed) in history.solved),
    'loss': f'{s.loss_sum[i] / num_updates:.6g}',
    'grad_norm': f'{s.grad_norm_sum[i] / num_updates:.6g}',
  }


def _means(history: History, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Means over seeds, for TensorBoard."""
  mean = lambda name: float(np.mean([float(row[name]) for row in rows]))
  return {
    'eval_return': history.mean_return,
    'normalized_return': mean('normalized_return'),
    'solved': len(history.solved) / len(rows),
    'loss': mean('loss'),
    'grad_norm': mean('grad_norm'),
  }


def final_evaluation(task: Task, runner: Runner, kept: Kept, run: RunConfig) -> list[list[float]]:
  """Returns of `num_final_episodes` episodes of every seed under its best parameters."""
  best = kept.run._replace(carry=kept.run.carry._replace(learner=kept.run.learner._replace(params=kept.best)))
  rounds = -(-task.num_final_episodes // run.num_eval_episodes)
  each = [np.asarray(runner.evaluate(best, repeat=r + 1).returns) for r in range(rounds)]
  return np.concatenate(each, axis=1)[:, : task.num_final_episodes].tolist()


def save(task: Task, kept: Kept, history: History, files: Files) -> None:
  """Saves a checkpoint of everything, the length of results.csv included.

  Raises:
    FloatingPointError: if a parameter is not finite, as one big last step can make it before any loss shows it.
  """
  step = int(kept.run.step)
  if not all(np.isfinite(x).all() for x in jax.tree.leaves(kept.run.learner.params)):
    raise FloatingPointError(f'{task.name}: parameters are not finite at time step {step}; {_stands(task, files)}')
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
