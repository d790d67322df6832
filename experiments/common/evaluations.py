"""Evaluations of a task: rows of results.csv, the best parameters of each seed, and their final evaluation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.console import warn
from experiments.common.runs import RunConfig
from experiments.common.task import Files, History, Kept, Task
from hyperagent_jax.runner import Runner, Statistics
from hyperagent_jax.types import Params


@jax.jit
def _select(improved: jax.Array, new: Params, old: Params) -> Params:
  """`new` of the seeds that improved [S], else `old`."""
  choose = lambda x, y: jnp.where(improved.reshape(-1, *(1,) * (x.ndim - 1)), x, y)
  return jax.tree.map(choose, new, old)


def evaluate_and_write(
  task: Task,
  runner: Runner,
  kept: Kept,
  run: RunConfig,
  history: History,
  files: Files,
  step_rate: float,
  between: Callable[[], None],
) -> Kept:
  """Evaluates all seeds, writes a row for each and keeps the parameters of those that have never been better.

  `between` is called now and then while episodes are played; what it raises leaves everything as it was.
  """
  state = kept.run
  played = jax.device_get(runner.evaluate(state, between=between))
  each = played.returns  # [S, episodes]
  returns = each.mean(axis=1)
  s = jax.device_get(state.statistics)
  first = not history.num_episodes
  history.num_episodes = [int(n) for n in s.num_episodes]
  history.mean_return = float(returns.mean())
  for i, seed in enumerate(task.seeds):
    if task.solved_return is not None and returns[i] >= task.solved_return and str(seed) not in history.solved:
      history.solved[str(seed)] = [int(s.num_episodes[i]), int(s.num_interactions[i])]
  num_cut = played.cut.sum(axis=1)
  if num_cut.any():
    warn(f'{task.name}: {num_cut.sum()} evaluation episodes cut after --max_eval_steps={run.max_eval_steps:,} steps')
  rows = []
  for i in range(len(task.seeds)):
    row = _row(task, run, history, s, i, float(returns[i]), step_rate)
    rows.append({**row, 'eval_num_cut': int(num_cut[i])})
  files.results.write(task.name, rows)
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


def final_evaluation(
  task: Task,
  runner: Runner,
  kept: Kept,
  run: RunConfig,
  history: History,
  after_round: Callable[[], None],
  between: Callable[[], None],
) -> None:
  """Adds the returns of `num_final_episodes` episodes of every seed under its best parameters to `history.final`.

  Rounds of `num_eval_episodes` that are there already are not played again; `after_round` is called after each
  other one, and `between` now and then within one.
  """
  history.final = history.final or [[] for _ in task.seeds]
  while (done := len(history.final[0])) < task.num_final_episodes:
    repeat = 1 + done // run.num_eval_episodes  # 0 is the evaluation that chose these parameters
    missing = task.num_final_episodes - done
    played = jax.device_get(runner.evaluate(kept.run, repeat=repeat, params=kept.best, between=between))
    if played.cut.any():
      warn(f'{task.name}: {played.cut.sum()} final episodes cut after --max_eval_steps={run.max_eval_steps:,} steps')
    returns = played.returns[:, :missing]
    history.final = [[*old, *new.tolist()] for old, new in zip(history.final, returns, strict=True)]
    after_round()
