"""A run's settings and its folder."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from experiments.common import compilation
from experiments.common.console import warn
from experiments.common.files import owned, write_atomically
from experiments.common.settings import config_differences, config_to_dict
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.config import ConfigError, field, validate_fields
from hyperagent_jax.evaluation import MAX_EVAL_STEPS
from hyperagent_jax.interaction import LAST_SEED, MAX_COUNT
from hyperagent_jax.seeds import SEED_AXES


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Settings of a run that are not the agent's."""

  agent: str = field('hyperagent', 'Which agent.', choices=tuple(SYSTEMS))
  num_seeds: int = field(10, 'Seeds trained side by side.', low=1, high=10_000)
  first_seed: int = field(0, 'The first of them; the others follow.', low=0, high=LAST_SEED)
  eval_period: int = field(1_000, 'Interactions between evaluations.', low=1, high=MAX_COUNT)
  num_eval_episodes: int = field(100, 'Episodes of an evaluation.', low=1, high=100_000)
  max_eval_steps: int = field(
    MAX_EVAL_STEPS, 'Steps after which an evaluation cuts the episodes that have not ended.', low=1, high=MAX_COUNT
  )
  checkpoint_period: int = field(50_000, 'Interactions per seed between checkpoints.', low=1, high=MAX_COUNT)

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds trained side by side."""
    return tuple(range(self.first_seed, self.first_seed + self.num_seeds))


def validate_run(run: RunConfig) -> None:
  """Checks each field, and that there are so many seeds.

  Raises:
    ConfigError: one line that names the flag, its value and what is allowed.
  """
  validate_fields(run)
  if run.seeds[-1] > LAST_SEED:
    raise ConfigError(f'--first_seed={run.first_seed}: the last of {run.num_seeds} seeds must be at most {LAST_SEED}')


@dataclasses.dataclass(frozen=True)
class OutputConfig:
  """Settings that may differ when a run is resumed."""

  output_dir: str = field('', "Folder of the run's files; by default a new one under runs/.")
  resume: bool | str = field(
    False,
    'Go on from the newest checkpoint in --output_dir; auto: if there is one, else start there, so that one command '
    'does both.',
    choices=('auto',),
  )
  tensorboard: bool = field(True, 'Write TensorBoard events.')
  figures: bool = field(True, 'Draw figures at the end.')
  max_minutes: float = field(
    0.0,
    'Stop with a checkpoint at the first opportunity after so many minutes, to be resumed; 0: never.',
    low=0.0,
    high=1e9,
  )
  grace_seconds: float = field(
    20.0,
    'Seconds after SIGTERM, SIGHUP or Ctrl-C within which a run comes to a checkpoint, saving not counted; a run that '
    'takes longer is ended without.',
    low=0.1,
    high=1e6,
  )
  chunk_seconds: float = field(
    5.0, 'Seconds of training between looks at signals and time; a run does not depend on it.', low=0.01, high=1e6
  )
  seed_axis: str = field(
    'auto',
    'Whether the seeds of a device run one after the other or as one batch; auto: map on CPU, vmap elsewhere.',
    choices=('auto', *SEED_AXES),
  )
  num_devices: int = field(
    0, 'Devices to spread seeds over, of which as many serve as divide their number; 0: all.', low=0, high=10_000
  )
  compilation_cache_dir: str = field(compilation.DEFAULT_DIR, compilation.HELP)


def folder_named(text: str, flag: str = 'output_dir') -> pathlib.Path:
  """The folder that a flag names; ~ is the user's home.

  Raises:
    ConfigError: if it names nothing, or there is no such home.
  """
  if not text.strip():
    raise ConfigError(f'--{flag}={text}: must name a folder')
  if '\0' in text:
    raise ConfigError(f'--{flag}: must not have a zero byte in it')
  folder = pathlib.Path(os.path.expanduser(text))
  if folder.parts[:1] and folder.parts[0].startswith('~'):
    raise ConfigError(f'--{flag}={text}: there is no such home folder')
  return folder


@contextlib.contextmanager
def open_folder(
  output: OutputConfig, program: str, settings: dict[str, Any], results: str = 'results.csv'
) -> Iterator[tuple[pathlib.Path, OutputConfig]]:
  """The run's folder with its config.json, for this process alone.

  Args:
    output: where, and whether to go on.
    program: names a folder where none is given.
    settings: for config.json, or to compare with it.
    results: the files by which a run is known.

  Yields:
    The folder, and `output` with `resume` as it has been found to be.

  Raises:
    ConfigError: if it holds another run's results and resume is off, another run is writing there, or it cannot be
      written.
  """
  default = pathlib.Path('runs') / f'{program}_{time.strftime("%Y%m%d_%H%M%S")}_{os.getpid()}'
  folder = folder_named(output.output_dir) if output.output_dir else default
  if output.resume and not output.output_dir:
    raise ConfigError('--resume: needs --output_dir, the folder of the run to go on with')
  if output.resume is True and not folder.is_dir():
    raise ConfigError(f'--resume: {folder} has no checkpoint; there is no such folder')
  with owned(folder):
    if output.resume == 'auto':
      output = dataclasses.replace(output, resume=_has_begun(folder, settings, results))
    if output.resume:
      _check_settings(folder, settings)
    elif any(folder.glob(results)):
      advice = 'pass --resume to go on with it, or another folder'
      raise ConfigError(f'--output_dir={folder}: already holds a run; {advice}')
    else:
      text = json.dumps({**settings, 'versions': _versions()}, indent=2) + '\n'
      write_atomically(folder / 'config.json', text.encode())
    yield folder, output


# What a run makes before its first checkpoint, besides config.json; and what it has when it is done.
_YOUNG, _DONE = ('checkpoints', 'posterior', 'tensorboard'), ('summary.csv', 'scores.csv')


def _has_begun(folder: pathlib.Path, settings: dict[str, Any], results: str) -> bool:
  """Whether there is something to go on from; if not, what a run left that was killed before is cleared away.

  Its results.csv is kept as results.csv.abandoned, should somebody have removed the checkpoints.

  Raises:
    ConfigError: if that run had other settings, or it cannot be known which, or it has finished.
  """
  if any(folder.glob('checkpoints/*/*.json')) or (results != 'results.csv' and any(folder.glob(results))):
    return True
  if (folder / 'config.json').exists():
    if not _check_settings(folder, settings):
      raise ConfigError(
        f'--resume=auto: {folder} has no checkpoint, and its config.json is damaged; name another folder'
      )
    for name in _DONE:
      if (folder / name).exists():
        raise ConfigError(f'--resume=auto: {folder} has a {name} but no checkpoint; name another folder')
    for name in _YOUNG:
      shutil.rmtree(folder / name, ignore_errors=True)
    table = folder / 'results.csv'
    if table.exists() and table.read_bytes().count(b'\n') > 1:
      table.replace(folder / 'results.csv.abandoned')
    table.unlink(missing_ok=True)
  return False


def _versions() -> dict[str, str]:
  """The versions of what a run's numbers depend on, as far as it is installed."""
  versions = {}
  for name in ('hyperagent_jax', 'jax', 'jaxlib', 'flax', 'optax', 'ale-py'):
    with contextlib.suppress(metadata.PackageNotFoundError):
      versions[name] = metadata.version(name)
  return versions


def _check_settings(folder: pathlib.Path, settings: dict[str, Any]) -> bool:
  """Refuses to go on in the folder of a run with other settings; whether there are any to compare with."""
  try:
    old = json.loads((folder / 'config.json').read_bytes())
  except (OSError, ValueError):
    old = None
  if not isinstance(old, dict):
    warn(f'{folder / "config.json"}: is gone or damaged; the checkpoints have the settings too')
    return False
  old.pop('versions', None)  # a run may go on after an upgrade
  changed = config_differences(old, json.loads(json.dumps(settings)))
  if changed:
    raise ConfigError(f'--resume: {folder} was started with other settings: {"; ".join(changed)}')
  return True


def settings_of(*configs: Any) -> dict[str, Any]:
  """All fields of several configurations, for config.json and to compare on resuming."""
  return {k: v for c in configs for k, v in config_to_dict(c).items()}
