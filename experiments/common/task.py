"""What is trained, what it has done so far, and where it writes."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments.common.progress import Progress
from experiments.common.recording import ResultsWriter, TensorBoard
from experiments.common.signals import Signals
from hyperagent_jax.runner import RunnerState, steps_for
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
  # What each seed's random numbers derive from, where that is not the seed alone.
  key_seeds: tuple[int, ...] = ()
  num_final_episodes: int = 0  # with which the best parameters of each seed are evaluated at the end; 0: not at all

  def __post_init__(self) -> None:
    """Fills in what is not given."""
    object.__setattr__(self, 'key_seeds', self.key_seeds or self.seeds)

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
  saved_step: int = -1  # time step of the newest checkpoint
  finished: bool = False
  within: bool = False  # whether it stands within an interval between evaluations
  unevaluated: bool = False  # whether it stands at the end of one whose evaluation is yet to come

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
  """The files of a run, and what it asks whether to stop."""

  folder: pathlib.Path
  results: ResultsWriter
  tensorboard: TensorBoard
  settings: dict[str, Any]
  signals: Signals
  progress: Progress
  chunk_seconds: float = 5.0

  def checkpoints(self, task: Task) -> str:
    """The task's folder of checkpoints."""
    return checkpoints_of(self.folder, task.name)


def checkpoints_of(folder: pathlib.Path, name: str) -> str:
  """A task's folder of checkpoints."""
  return str(folder / 'checkpoints' / name)
