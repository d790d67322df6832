"""Files that are written whole or not at all, and the folder that one run owns."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from experiments.common.console import warn
from hyperagent_jax.config import ConfigError

try:
  import fcntl
except ImportError:  # not on Windows
  fcntl = None  # type: ignore[assignment]

LOCK = '.lock'


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Makes errors of the system name the file, which a failed write alone does not."""
  try:
    yield
  except OSError as e:
    if e.filename is None and e.errno is not None:
      raise OSError(e.errno, e.strerror, str(path)) from e
    raise


def write_atomically(path: pathlib.Path, data: bytes) -> None:
  """Writes a file whole or not at all."""
  temporary = path.with_name(path.name + '.tmp')
  try:
    with naming(path), open(temporary, 'wb') as f:
      f.write(data)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def owned(folder: pathlib.Path) -> Iterator[None]:
  """Makes a folder this process's own for as long as it lives, by a lock that dies with it.

  The folder is made if it is not there.

  Raises:
    ConfigError: if another process has it, or it cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
  except OSError as e:
    raise ConfigError(f'--output_dir={folder}: cannot be written: {e.strerror}') from None
  try:
    _lock(lock, folder)
    yield
  finally:
    os.close(lock)


def _lock(lock: int, folder: pathlib.Path) -> None:
  if fcntl is None:
    warn(f'--output_dir={folder}: this system has no locks; nothing keeps a second run out of it')
    return
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    owner = os.read(lock, 200).decode(errors='replace').strip() or 'which one is not known'
    raise ConfigError(f'--output_dir={folder}: another run is writing there ({owner})') from None
  except OSError as e:  # a network file system without them
    warn(f'--output_dir={folder}: cannot be locked ({e.strerror}); nothing keeps a second run out of it')
    return
  with contextlib.suppress(OSError):  # a full disk has no room for a name, but the lock holds
    os.ftruncate(lock, 0)
    os.write(lock, f'process {os.getpid()} on {os.uname().nodename}\n'.encode())
