"""The binaries as commands in processes of their own, forked from one that has imported what they need.

A fork starts in a tenth of the time that a new interpreter takes to import everything. No device is used before.
"""

import os
import pathlib
import runpy
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import IO, NamedTuple

from absl import flags

# Small enough for a run to take seconds.
DEEP_SEA = (
  *('--size=4,5', '--num_seeds=2', '--max_episodes=40', '--stop_when_solved=false', '--eval_period=20'),
  *('--num_eval_episodes=3', '--checkpoint_period=20', '--batch_size=4', '--min_replay=16', '--replay_capacity=300'),
  *('--hidden_sizes=8', '--index_dim=2', '--nofigures'),
)
ATARI = (
  *('--game=pong,breakout', '--preset=fast_cpu', '--num_seeds=1', '--max_interactions=240', '--min_replay=40'),
  *('--batch_size=2', '--hidden_sizes=8', '--eval_period=60', '--num_eval_episodes=1', '--num_final_episodes=2'),
  *('--num_reference_episodes=1', '--max_frames=160', '--checkpoint_period=60', '--nofigures'),
)
BSUITE = (
  *('--bsuite_id=catch/0,catch/1,bandit/0', '--num_episodes=120', '--checkpoint_minutes=0.001'),
  *('--batch_size=4', '--min_replay=16', '--replay_capacity=300', '--hidden_sizes=8', '--index_dim=2', '--nofigures'),
)
TABULAR = ('--study=regret', '--reduced', '--num_mdps=2', '--num_episodes=20', '--num_states=3', '--horizon=2')


class Outcome(NamedTuple):
  """How a process ended."""

  status: int  # negative: the signal that ended it
  out: str
  err: str
  seconds: float
  asked: tuple[int, ...] = ()  # signals that were sent because it took too long


_own_flags: set[str] = set()


def prepare(own_flags: Sequence[str]) -> None:
  """Imports what the binaries do, so that forks need not.

  Args:
    own_flags: of this process, which commands must not find.
  """
  _own_flags.update(own_flags)
  # Compiling is most of the work where sizes are tiny, and optimisations most of compiling.
  quick = ' --xla_backend_optimization_level=0'
  if tuple(map(int, metadata.version('jaxlib').split('.')[:2])) < (0, 11):  # later ones know no other way
    quick += ' --xla_cpu_use_fusion_emitters=false'
  os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + quick
  import experiments.atari.binary
  import experiments.bsuite.binary
  import experiments.bsuite.report
  import experiments.deep_sea.figures
  import experiments.deep_sea.studies.binary
  import experiments.tabular.binary  # noqa: F401


class Process:
  """A command that runs."""

  def __init__(self, module: str, arguments: Sequence[str], folder: pathlib.Path):
    """Starts `python -m module arguments` in a folder, as far as anybody can tell.

    Args:
      module: the command.
      arguments: of it.
      folder: where it runs.
    """
    self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    self.start = time.monotonic()
    self._status: int | None = None
    self.pid = os.fork()
    if not self.pid:
      _become(module, arguments, folder, (self.out, self.err))

  def kill(self, number: int = signal.SIGKILL) -> None:
    """Sends a signal."""
    os.kill(self.pid, number)

  def status(self) -> int | None:
    """The exit status, None while it runs."""
    if self._status is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      self._status = os.waitstatus_to_exitcode(status) if pid else None
    return self._status

  def wait(self, seconds: float) -> int | None:
    """The exit status as soon as there is one, None if there is none within so many seconds."""
    deadline = time.monotonic() + seconds
    while (status := self.status()) is None and time.monotonic() < deadline:
      time.sleep(0.005)
    return status

  def outcome(self, limit: float, grace: float = 60.0) -> Outcome:
    """Waits for its end, after a limit by asking for it: SIGTERM, Ctrl-C twice, and SIGKILL in the end."""
    asked: list[int] = []
    status = self.wait(limit)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGKILL):
      if status is not None:
        break
      self.kill(number)
      asked.append(number)
      status = self.wait(grace if number == signal.SIGTERM else 10.0)
    assert status is not None
    return Outcome(status, _text(self.out), _text(self.err), time.monotonic() - self.start, tuple(asked))


def _text(file: IO[bytes]) -> str:
  file.seek(0)
  return file.read().decode(errors='replace')


def _become(module: str, arguments: Sequence[str], folder: pathlib.Path, files: tuple[IO[bytes], IO[bytes]]) -> None:
  """Turns this fork into the command; never returns."""
  status = 1
  try:
    os.setpgid(0, 0)
    os.chdir(folder)
    for number, file in enumerate(files, 1):
      os.dup2(file.fileno(), number)
    sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    for name in _own_flags:
      delattr(flags.FLAGS, name)
    sys.argv = ['-m', *arguments]
    warnings.simplefilter('ignore', RuntimeWarning)  # runpy's, of modules that are imported already
    runpy.run_module(module, run_name='__main__', alter_sys=True)
    status = 0
  except SystemExit as e:
    status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    if isinstance(e.code, str):
      print(e.code, file=sys.stderr, flush=True)
  except BaseException:
    sys.excepthook(*sys.exc_info())
  finally:
    sys.stderr.flush()
    os._exit(status)


def call(
  module: str, arguments: Sequence[str], folder: pathlib.Path, limit: float = 120.0, grace: float = 60.0
) -> Outcome:
  """Runs a command to its end."""
  return Process(module, arguments, folder).outcome(limit, grace)


def complaint(outcome: Outcome) -> str:
  """What an outcome has that none may have; '' for a good one."""
  if 'Traceback (most recent call last)' in outcome.err or 'Traceback' in outcome.out:
    return 'traceback'
  if signal.SIGINT in outcome.asked:
    return 'hang'
  if outcome.status < 0 or outcome.status == 134:
    return f'killed by signal {-outcome.status}'
  if outcome.status and len(last_lines(outcome)) != 1:
    return f'{len(last_lines(outcome))} lines'
  return ''


def last_lines(outcome: Outcome) -> list[str]:
  """What a command said at its end: all of standard error but progress and warnings."""
  progress = ('steps/s', '  compiling', 'final episodes', 'ids done', 'warning: ', 'stopping at the next opportunity')
  return [line for line in outcome.err.strip().splitlines() if line and not any(text in line for text in progress)]
