"""What all binaries share: flags to settings, errors as one line, signals, and the files of a run."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
from absl import app, flags, logging

from hyperagent_jax import checkpoint, config
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.config import ConfigError, field
from hyperagent_jax.seeds import SEED_AXES, num_cores, num_devices_used


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Settings of a run that are not the agent's."""

  agent: str = field('hyperagent', 'Which agent.', choices=tuple(SYSTEMS))
  num_seeds: int = field(10, 'Seeds trained side by side.', low=1)
  first_seed: int = field(0, 'The first of them; the others follow.', low=0)
  eval_period: int = field(1_000, 'Interactions between evaluations.', low=1)
  num_eval_episodes: int = field(100, 'Episodes of an evaluation.', low=1)
  checkpoint_period: int = field(50_000, 'Interactions per seed between checkpoints.', low=1)


@dataclasses.dataclass(frozen=True)
class OutputConfig:
  """Settings that may differ when a run is resumed."""

  output_dir: str = field('', "Folder of the run's files; by default a new one under runs/.")
  resume: bool = field(False, 'Go on from the newest checkpoint in --output_dir.')
  tensorboard: bool = field(True, 'Write TensorBoard events.')
  figures: bool = field(True, 'Draw figures at the end.')
  max_minutes: float = field(
    0.0, 'Stop with a checkpoint at the first opportunity after so many minutes, to be resumed; 0: never.', low=0.0
  )
  seed_axis: str = field(
    'auto',
    'Whether the seeds of a device run one after the other or as one batch; auto: map on CPU, vmap elsewhere.',
    choices=('auto', *SEED_AXES),
  )
  num_devices: int = field(
    0, 'Devices to spread seeds over, of which as many serve as divide their number; 0: all.', low=0
  )


OUT_OF_TIME = 75  # exit status of a run that stopped because of --max_minutes (EX_TEMPFAIL: try again)


class Stopped(Exception):
  """The run was asked to stop and has saved a checkpoint."""

  def __init__(self, status: int, text: str):
    super().__init__(text)
    self.status = status


class Signals:
  """Remembers SIGTERM and Ctrl-C, so that a run can stop between chunks; a second Ctrl-C stops at once."""

  def __init__(self, max_minutes: float = 0.0) -> None:
    """Listens; `max_minutes` above 0 asks for a stop too, after that time."""
    self.received: int | None = None
    self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else float('inf')
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._handle)

  def _handle(self, number: int, frame: Any) -> None:
    del frame
    if self.received is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.received = number
    print(f'{signal.Signals(number).name}: stopping after this chunk of steps', file=sys.stderr, flush=True)

  def ask_to_stop(self) -> None:
    """Makes everything that asks stop at its next chunk, as a signal would."""
    self._deadline = -float('inf')

  def stop(self) -> tuple[int, str] | None:
    """Exit status and reason if the run should stop now."""
    if self.received is not None:
      return 128 + self.received, f'signal {self.received}'
    if time.monotonic() > self._deadline:
      return OUT_OF_TIME, '--max_minutes'
    return None


def warn(text: str) -> None:
  """One line for the user."""
  print(f'warning: {text}', file=sys.stderr, flush=True)


def start_main(main: Callable[[], None], program: str) -> None:
  """Runs a binary: every foreseen error is one line on standard error and exit status 1."""

  def parse(argv: list[str]) -> list[str]:
    try:
      rest = flags.FLAGS(argv)
    except flags.Error as e:
      sys.exit(f'{program}: {" ".join(str(e).split())}')
    if rest[1:]:
      sys.exit(f'{program}: {rest[1]}: not a flag; flags are --name=value, and --help lists them')
    return rest

  def guarded(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.ERROR)  # orbax reports every save
    # TensorBoard events are written by a thread, whose errors would be printed as tracebacks.
    threading.excepthook = lambda e: warn(f'in the background: {e.exc_type.__name__}: {e.exc_value}')
    try:
      main()
    except Stopped as e:
      print(f'{program}: {e}', file=sys.stderr)
      sys.exit(e.status)
    except (ConfigError, checkpoint.CheckpointError, FloatingPointError) as e:
      sys.exit(f'{program}: {e}')
    except OSError as e:
      sys.exit(f'{program}: {e.filename or "output"}: {e.strerror or e}')
    except KeyboardInterrupt:
      sys.exit(f'{program}: stopped at once; the latest checkpoint stands')

  app.run(guarded, flags_parser=parse)


def make_devices(num_devices: int, most: int) -> int:
  """Makes a device of each CPU core, `most` at most; other platforms have theirs.

  Returns:
    How many there are.

  Raises:
    ConfigError: if more devices are asked for than there are.
  """
  jax.config.update('jax_num_cpu_devices', num_devices or min(num_cores(), most))
  available = len(jax.local_devices())
  if num_devices > available:
    raise ConfigError(f'--num_devices={num_devices}: must be at most {available}, the devices of this machine')
  return available


def set_num_devices(num_devices: int, num_seeds: int) -> None:
  """Makes devices for so many seeds to run in parallel; warns where they cannot be spread evenly.

  Raises:
    ConfigError: if more devices are asked for than there are.
  """
  # Not more than seeds: XLA moves the work of one seed between the threads of idle devices, which costs it a fifth.
  available = make_devices(num_devices, num_seeds)
  wanted = min(num_devices or available, num_seeds)
  used = num_devices_used(num_seeds, wanted)
  if used < wanted:
    warn(f'--num_seeds={num_seeds}: spread over {used} of {wanted} devices; a multiple of {wanted} would use all')


def devices(num_devices: int) -> list[jax.Device]:
  """The devices to use."""
  return jax.local_devices()[: num_devices or None]


def available_memory() -> int:
  """Bytes that a run may take on each device, or on all CPU devices together."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit']
  try:
    with open('/proc/meminfo') as file:
      kilobytes = next(int(line.split()[1]) for line in file if line.startswith('MemAvailable'))
    return kilobytes * 1024
  except (OSError, StopIteration):
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def open_folder(
  output: OutputConfig, program: str, settings: dict[str, Any], results: str = 'results.csv'
) -> pathlib.Path:
  """The run's folder with its config.json; `results` are the files by which a run is known.

  Raises:
    ConfigError: if it holds another run's results and resume is off, or cannot be written.
  """
  default = pathlib.Path('runs') / f'{program}_{time.strftime("%Y%m%d_%H%M%S")}_{os.getpid()}'
  folder = pathlib.Path(output.output_dir) if output.output_dir else default
  if output.resume and not output.output_dir:
    raise ConfigError('--resume: needs --output_dir, the folder of the run to go on with')
  if output.resume and not folder.is_dir():
    raise ConfigError(f'--resume: {folder} has no checkpoint; there is no such folder')
  if output.resume:
    _check_settings(folder, settings)
  if not output.resume and any(folder.glob(results)):
    raise ConfigError(f'--output_dir={folder}: already holds a run; pass --resume to go on with it, or another folder')
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if not output.resume:
      text = json.dumps({**settings, 'versions': _versions()}, indent=2) + '\n'
      checkpoint.write_atomically(folder / 'config.json', text.encode())
  except OSError as e:
    raise ConfigError(f'--output_dir={folder}: cannot be written: {e.strerror}') from None
  return folder


def _versions() -> dict[str, str]:
  """Of what the numbers of a run depend on, as far as it is installed."""
  versions = {}
  for name in ('hyperagent_jax', 'jax', 'jaxlib', 'flax', 'optax', 'ale-py'):
    with contextlib.suppress(metadata.PackageNotFoundError):
      versions[name] = metadata.version(name)
  return versions


def _check_settings(folder: pathlib.Path, settings: dict[str, Any]) -> None:
  """Refuses to go on in the folder of a run with other settings."""
  try:
    old = json.loads((folder / 'config.json').read_bytes())
  except (OSError, ValueError):
    return  # checkpoints carry the settings too
  old.pop('versions', None)  # a run may go on after an upgrade
  changed = config.differences(old, json.loads(json.dumps(settings)))
  if changed:
    raise ConfigError(f'--resume: {folder} was started with other settings: {"; ".join(changed)}')


def settings_of(*configs: Any) -> dict[str, Any]:
  """All fields of several configurations, for config.json and to compare on resuming."""
  return {k: v for c in configs for k, v in config.to_dict(c).items()}
