"""What is trained together, what it has done, and where it writes: as `common/task.py` has it, for ids of bsuite."""

import dataclasses
import pathlib
from typing import Any

from experiments.common.progress import Progress
from experiments.common.runs import OutputConfig
from experiments.common.signals import Signals
from hyperagent_jax.envs import bsuite as envs


@dataclasses.dataclass(frozen=True)
class Batch:
  """Ids that share a program."""

  tasks: tuple[envs.BsuiteTask, ...]

  @property
  def name(self) -> str:
    """Names the batch's checkpoints, other ids otherwise: such as catch_0-19, or catch_0+3."""
    numbers = [int(task.bsuite_id.split('/')[1]) for task in self.tasks]
    experiment = self.tasks[0].bsuite_id.split('/')[0]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
      return f'{experiment}_{numbers[0]}-{numbers[-1]}'
    return f'{experiment}_{"+".join(map(str, numbers))}'


@dataclasses.dataclass
class History:
  """What a batch took, and what went wrong in it."""

  timed_steps: int = 0  # time steps of all ids, those that start an episode included
  timed_seconds: float = 0.0  # without the first step, which compiles
  nonfinite: list[str] = dataclasses.field(default_factory=list)  # ids whose loss was not finite

  @property
  def steps_per_second(self) -> float:
    """Time steps of all ids together per second."""
    return self.timed_steps / self.timed_seconds if self.timed_seconds else float('nan')


@dataclasses.dataclass(frozen=True)
class Files:
  """The files of a run, how it writes them, and what it asks whether to stop."""

  folder: pathlib.Path
  settings: dict[str, Any]  # what a run must share to be gone on with
  output: OutputConfig
  signals: Signals
  progress: Progress
