"""Training on ids of bsuite that share a program."""

import concurrent.futures
import pathlib
import queue
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments.bsuite.logs import episodes_logged, log_path, write_logs
from experiments.bsuite.settings import BsuiteConfig, num_episodes, seed_of, settings_for
from experiments.bsuite.task import Batch, Files, History
from experiments.common import checkpoint, memory
from experiments.common.console import warn
from experiments.common.devices import chosen_devices
from experiments.common.progress import format_duration
from experiments.common.runs import OutputConfig
from experiments.common.task import checkpoints_of
from experiments.common.training import adapted, stopped
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.build import make_replay_for
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.envs import bsuite as envs
from hyperagent_jax.envs.history import with_history
from hyperagent_jax.runner import Runner, RunnerState, make_runner
from hyperagent_jax.seeds import default_seed_axis
from hyperagent_jax.types import Environment

_FIRST_CHUNK, _CHUNK = 1_000, 10_000  # time steps between looks at what is done; they grow from one to the other


def batches(ids: Sequence[str], mnist_dir: str) -> Iterator[Batch]:
  """Ids that share a program, together, in the order of the first of each."""
  groups: dict[tuple[Any, ...], list[envs.BsuiteTask]] = {}
  for bsuite_id in ids:
    task = envs.make_bsuite(bsuite_id, log=True, mnist_dir=mnist_dir)
    groups.setdefault(task.batch_key, []).append(task)
  yield from (Batch(tuple(tasks)) for tasks in groups.values())


def spread(batch: Batch, num_devices: int) -> tuple[list[envs.BsuiteTask], np.ndarray]:
  """The ids of a batch as the program takes them: dealt out over devices, as many for each.

  Settings of an experiment grow longer, so that neighbours belong on different devices. The last id is repeated where
  the number does not fit.

  Returns:
    The ids, and whether each is wanted: a repeated one rests from the start.
  """
  num_devices = min(num_devices, len(batch.tasks))
  padding = -len(batch.tasks) % num_devices
  tasks = [*batch.tasks, *[batch.tasks[-1]] * padding]
  order = [i for first in range(num_devices) for i in range(first, len(tasks), num_devices)]
  return [tasks[i] for i in order], np.array([i < len(batch.tasks) for i in order])


def make_batch_runner(
  task: envs.BsuiteTask, agent: HyperAgentConfig, name: str, devices: Sequence[jax.Device], seed_axis: str = 'auto'
) -> Runner:
  """The compiled program of all ids that share one with this id."""
  settings, environment = settings_for(task, agent), task.environment
  if settings.frame_stack > 1:
    environment = with_history(environment, settings.frame_stack)
  replay = make_replay_for(settings)
  return make_runner(
    SYSTEMS[name].make(settings, environment.num_actions),
    environment,
    replay,
    settings,
    devices=devices,
    seed_axis=None if seed_axis == 'auto' else seed_axis,
  )


def check_memory(
  todo: Sequence[Batch], agent: HyperAgentConfig, run: BsuiteConfig, output: OutputConfig, side_by_side: bool = True
) -> None:
  """Refuses, before anything is made, a batch that would not fit; looks at the two that may take most.

  Args:
    todo: all batches.
    agent: settings of the agent.
    run: settings of the run.
    output: what devices there are.
    side_by_side: whether the ids of a batch are trained together, not one after the other.

  Raises:
    ConfigError: naming what it takes and what there is.
  """
  devices = chosen_devices(output.num_devices)
  seed_axis = default_seed_axis(devices) if output.seed_axis == 'auto' else output.seed_axis

  def measure(settings: HyperAgentConfig, environment: Environment) -> tuple[int, int]:
    spec = environment.observation_spec
    shape = spec.shape if settings.frame_stack == 1 else (settings.frame_stack, *spec.shape)
    timestep = memory.first_step(settings.num_envs, shape, spec.dtype)
    made = SYSTEMS[run.agent].make(settings, environment.num_actions)
    return memory.seed_bytes(made, make_replay_for(settings), settings, environment.num_actions, timestep)

  width = lambda batch: int(np.prod(batch.tasks[0].environment.observation_spec.shape))
  for batch in (max(todo, key=lambda batch: len(batch.tasks) * width(batch)), max(todo, key=width)):
    settings, num_ids = settings_for(batch.tasks[0], agent), len(batch.tasks) if side_by_side else 1
    sizes = measure(settings, batch.tasks[0].environment)
    flag = f'--bsuite_id={batch.tasks[0].bsuite_id} --replay_capacity={settings.replay_capacity}'
    memory.check(flag, num_ids, devices, seed_axis == 'map', min(len(devices), num_ids), sizes)


def is_finished(folder: pathlib.Path, task: envs.BsuiteTask, run: BsuiteConfig) -> bool:
  """Whether an id's log goes to its end, the last episode at which bsuite logs."""
  return episodes_logged(log_path(folder, task.bsuite_id)) >= envs.log_schedule(num_episodes(task, run))[-1]


def unfinished(todo: Sequence[Batch], run: BsuiteConfig, folder: pathlib.Path) -> list[Batch]:
  """What is left to do: ids with a checkpoint together as they were, the others without those that are finished."""
  left = []
  for batch in todo:
    missing = {task.bsuite_id: task for task in batch.tasks if not is_finished(folder, task, run)}
    for part in _with_checkpoints(batch, folder):
      ids = {task.bsuite_id for task in part.tasks}
      if ids & missing.keys():
        left.append(part)
        missing = {bsuite_id: task for bsuite_id, task in missing.items() if bsuite_id not in ids}
      elif all(is_finished(folder, task, run) for task in part.tasks):  # of a run killed just before it did this
        shutil.rmtree(checkpoints_of(folder, part.name), ignore_errors=True)
    if missing:
      left.append(Batch(tuple(missing.values())))
  return left


def _with_checkpoints(batch: Batch, folder: pathlib.Path) -> Iterator[Batch]:
  """The parts of a batch that have a checkpoint, those of most ids first.

  A part that has ids which are not in the batch is left where it is.
  """
  experiment = batch.tasks[0].bsuite_id.split('/')[0]
  parts = []
  for directory in sorted((folder / 'checkpoints').glob(f'{experiment}_*')):
    kept = checkpoint.latest(str(directory))
    ids = set(kept[1]['record']['ids']) if kept is not None else set()
    if ids and ids <= {task.bsuite_id for task in batch.tasks}:
      parts.append(Batch(tuple(task for task in batch.tasks if task.bsuite_id in ids)))
  yield from sorted(parts, key=lambda part: -len(part.tasks))


def train_batches(
  todo: Sequence[Batch], agent: HyperAgentConfig, run: BsuiteConfig, files: Files
) -> Iterator[tuple[Batch, History]]:
  """Trains on all batches and yields each as it is done.

  A batch of several ids uses all devices; batches of one id are trained side by side, one on each device.

  Raises:
    Whatever `train_batch` raises, once those that are under way have stopped.
  """
  devices = chosen_devices(files.output.num_devices)
  for batch in todo:
    if len(batch.tasks) > 1:
      yield batch, train_batch(batch, agent, run, files, devices)
  free: queue.SimpleQueue = queue.SimpleQueue()
  for device in devices:
    free.put(device)

  def train_alone(batch: Batch) -> tuple[Batch, History]:
    device = free.get()
    try:
      return batch, train_batch(batch, agent, run, files, [device])
    finally:
      free.put(device)

  with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
    under_way = [pool.submit(train_alone, batch) for batch in todo if len(batch.tasks) == 1]
    try:
      for future in concurrent.futures.as_completed(under_way):
        yield future.result()
    except BaseException:
      files.signals.ask_to_stop()
      pool.shutdown(cancel_futures=True)
      raise


def train_batch(
  batch: Batch, agent: HyperAgentConfig, run: BsuiteConfig, files: Files, devices: Sequence[jax.Device]
) -> History:
  """Trains on all ids of a batch until each has played its episodes, and writes their logs.

  An id whose loss is not finite is named and plays on, as it would for bsuite: it is scored as what it has become.
  Prefilling lasts until every id has its interactions. Where ids differ in the lengths of the first episodes (cartpole,
  memory_len, umbrella_length) the others of a batch thus decide with how many random steps an id starts, and so all its
  random numbers: it learns something else than alone, in the same way.

  Raises:
    Stopped: if asked to stop, with a checkpoint.
  """
  runner = make_batch_runner(batch.tasks[0], agent, run.agent, devices, files.output.seed_axis)
  directory = checkpoints_of(files.folder, batch.name)
  kept = checkpoint.latest(directory) if files.output.resume else None
  tasks, wanted = spread(batch, len(devices)) if kept is None else _recorded(batch, kept[1]['record'])
  targets = np.array([num_episodes(task, run) for task in tasks])
  with files.signals.nothing_to_save():
    state = _begin(tasks, directory, runner, agent, run, files)
    state = jax.block_until_ready(runner.run(state, 1, wanted))  # compiles
  history, saved_at, chunk = History(), time.monotonic(), _FIRST_CHUNK
  while True:
    played = np.asarray(envs.log_of(state.env_state).episode)[:, 0]
    active = (played < targets) & wanted
    if wanted.any():
      files.progress.show(_progress(batch, played[wanted], targets[wanted], history), final=not active.any())
    if not active.any():
      break
    start = time.monotonic()
    state = jax.block_until_ready(runner.run(state, chunk, active))
    seconds = time.monotonic() - start
    history.timed_seconds += seconds
    history.timed_steps += chunk * int(active.sum())
    chunk = min(adapted(chunk, seconds, files.output.chunk_seconds), _CHUNK)
    _name_nonfinite(tasks, active, state, history)
    stop = files.signals.stop()
    if stop is not None or time.monotonic() - saved_at > 60 * run.checkpoint_minutes:
      write_logs(files.folder, tasks, wanted, state, targets)
      record = {'ids': [task.bsuite_id for task in tasks], 'wanted': wanted.tolist()}
      with files.signals.saving():
        checkpoint.save(directory, checkpoint.free_name(directory, int(state.step)), state, files.settings, record)
      saved_at = time.monotonic()
    if stop is not None:
      raise stopped(stop, files.folder, f'in {batch.name}')
  write_logs(files.folder, tasks, wanted, state, targets)
  shutil.rmtree(directory, ignore_errors=True)
  return history


def _recorded(batch: Batch, record: dict[str, Any]) -> tuple[list[envs.BsuiteTask], np.ndarray]:
  """The ids in the order in which a checkpoint has them, which another number of devices would not give."""
  by_id = {task.bsuite_id: task for task in batch.tasks}
  return [by_id[bsuite_id] for bsuite_id in record['ids']], np.array(record['wanted'])


def _begin(
  tasks: Sequence[envs.BsuiteTask],
  directory: str,
  runner: Runner,
  agent: HyperAgentConfig,
  run: BsuiteConfig,
  files: Files,
) -> RunnerState:
  """A restored state, or a new one with replay filled by random actions."""
  seeds, params = [seed_of(task, run) for task in tasks], envs.stack_params(tasks)
  if files.output.resume:
    restored = checkpoint.restore(directory, runner.shape(seeds, params), files.settings, warn)
    if restored is not None:
      return runner.place(restored.state, params)
  # Blocking, so that whatever goes wrong does so here and not where a number is first looked at.
  state, missing = jax.block_until_ready(runner.init(seeds, params)), agent.min_replay
  while missing > 0:  # steps that start an episode are no interactions
    state = jax.block_until_ready(runner.prefill(state, missing))
    missing = agent.min_replay - int(np.min(state.statistics.num_interactions))
  return state


def _progress(batch: Batch, played: np.ndarray, targets: np.ndarray, history: History) -> str:
  slowest = int(np.argmin(played / targets))
  speed = f'{history.steps_per_second:,.0f} steps/s' if history.timed_seconds else 'compiling'
  done = int((played >= targets).sum())
  return (
    f'{batch.name}  {done}/{len(played)} ids done, the last at {min(played[slowest], targets[slowest]):,} of '
    f'{targets[slowest]:,} episodes  {speed}  {format_duration(history.timed_seconds)}'
  )


def _name_nonfinite(tasks: Sequence[envs.BsuiteTask], active: np.ndarray, state: RunnerState, history: History) -> None:
  """Warns of ids whose loss is not finite, once of each."""
  steps = np.asarray(state.statistics.nonfinite_step)
  for i in map(int, np.flatnonzero(active & (steps >= 0))):
    if tasks[i].bsuite_id not in history.nonfinite:
      history.nonfinite.append(tasks[i].bsuite_id)
      warn(f'{tasks[i].bsuite_id}: the loss is not finite from time step {int(steps[i])} on; it plays on as it is')
