"""bsuite's own Python environments under the host driver, with the same logs."""

import contextlib
import io
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import bsuite
import dm_env
import numpy as np
from bsuite import sweep
from bsuite.environments import base, mnist
from bsuite.utils import wrappers

from experiments.bsuite.logs import log_path, write_log
from experiments.bsuite.settings import BsuiteConfig, num_episodes, seed_of, settings_for, shows_cells
from experiments.bsuite.task import Batch, Files, History
from experiments.bsuite.training import is_finished
from experiments.common.console import warn
from experiments.common.training import stopped
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.build import make_replay_for
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.envs import bsuite as envs
from hyperagent_jax.envs.adapters import IntegerObservations
from hyperagent_jax.envs.history import HistoryEnvironment
from hyperagent_jax.host import HostAgent, run_loop


class _Rows:
  """Takes bsuite's log in memory, in the order of our columns."""

  def __init__(self, columns: tuple[str, ...]):
    self._columns = columns
    self.rows: list[list[float]] = []

  def write(self, data: dict[str, Any]) -> None:
    """Takes a row."""
    self.rows.append([float(data[name]) for name in self._columns])


def _load(bsuite_id: str) -> dm_env.Environment:
  with contextlib.redirect_stdout(io.StringIO()):  # it announces itself
    return bsuite.load_from_id(bsuite_id)


class _LocalMNIST(mnist.MNISTBandit):
  """bsuite's bandit on images that are there: its own constructor would fetch them where they are not in its folder."""

  def __init__(self, images: np.ndarray, labels: np.ndarray, fraction: float = 1.0, seed: int | None = None):
    base.Environment.__init__(self)
    self._num_data = int(fraction * len(labels))
    self._images, self._labels = images[: self._num_data], labels[: self._num_data]
    self._image_shape = images.shape[1:]
    self._rng = np.random.RandomState(seed)
    self._correct_label, self._total_regret, self._optimal_return = None, 0.0, 1.0


def _load_mnist(bsuite_id: str, directory: str) -> dm_env.Environment:
  """An id of mnist, mnist_noise or mnist_scale with bsuite's own settings."""
  setting = dict(sweep.SETTINGS[bsuite_id])
  wrap = {'noise_scale': wrappers.RewardNoise, 'reward_scale': wrappers.RewardScale}
  scales = {name: setting.pop(name) for name in list(setting) if name in wrap}
  environment: dm_env.Environment = _LocalMNIST(*envs.load_mnist(directory), **setting)
  for name, value in scales.items():
    environment = wrap[name](env=environment, seed=setting.get('seed'), **{name: value})
  environment.bsuite_num_episodes = sweep.EPISODES[bsuite_id]
  return environment


def load(task: envs.BsuiteTask, history: int, mnist_dir: str) -> tuple[dm_env.Environment, _Rows]:
  """bsuite's environment of an id with its log, and observations as the agent takes them.

  bsuite seeds it, most of its experiments with nothing, so that runs differ.
  """
  raw = _load_mnist(task.bsuite_id, mnist_dir) if task.bsuite_id.startswith('mnist') else _load(task.bsuite_id)
  rows = _Rows(task.log_columns)
  environment: dm_env.Environment = wrappers.Logging(raw, rows)
  if shows_cells(task):
    environment = IntegerObservations(environment)
  return (HistoryEnvironment(environment, history) if history > 1 else environment), rows


def train_on_host(
  todo: Sequence[Batch], agent: HyperAgentConfig, run: BsuiteConfig, files: Files
) -> Iterator[tuple[Batch, History]]:
  """Trains on one id after the other and yields each batch as it is done; an id that is interrupted starts anew.

  Raises:
    Stopped: if asked to stop; the ids that are finished stand.
  """
  for batch in todo:
    history = History()
    for task in batch.tasks:
      if not is_finished(files.folder, task, run):
        _train_id(task, agent, run, files, history)
    yield batch, history


def _train_id(
  task: envs.BsuiteTask, agent: HyperAgentConfig, run: BsuiteConfig, files: Files, history: History
) -> None:
  settings, seed = settings_for(task, agent), seed_of(task, run)
  environment, rows = load(task, settings.frame_stack, run.mnist_dir)
  num_actions, target = task.environment.num_actions, num_episodes(task, run)
  replay = make_replay_for(settings)
  host = HostAgent(SYSTEMS[run.agent].make(settings, num_actions), replay, num_actions, settings, seed)
  episodes, start, compiled = 0, 0.0, 2 * settings.min_replay
  for step, (timestep, _) in zip(itertools.count(1), run_loop(host, environment), strict=False):
    if step == compiled:
      start = time.monotonic()
    episodes += timestep.last()
    if episodes == target:
      break
    if step % 1_000 == 0:
      _name_nonfinite(task, host, step, history)
      files.progress.show(f'{task.bsuite_id}  {episodes:,} of {target:,} episodes')
      stop = files.signals.stop()
      if stop is not None:
        raise stopped(stop, files.folder, f'in {task.bsuite_id}, which will start anew')
  _name_nonfinite(task, host, step, history)
  if start:
    history.timed_seconds += time.monotonic() - start
    history.timed_steps += step - compiled
  files.progress.show(f'{task.bsuite_id}  {episodes:,} episodes', final=True)
  write_log(log_path(files.folder, task.bsuite_id), task.log_columns, np.array(rows.rows))


def _name_nonfinite(task: envs.BsuiteTask, host: HostAgent, step: int, history: History) -> None:
  """Warns if the latest loss was not finite, once of each id; before the second time step there is none."""
  if host.losses is not None and not bool(host.losses.finite) and task.bsuite_id not in history.nonfinite:
    history.nonfinite.append(task.bsuite_id)
    warn(f'{task.bsuite_id}: the loss is not finite at time step {step:,}; it plays on as it is')
