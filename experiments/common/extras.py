"""Which optional packages an experiment needs, and what to say where they are missing.

Nothing else is imported here: a package's `__init__` asks before anything is imported that may be missing.
"""

import importlib.util
import os
import sys
from collections.abc import Collection

# What figures are drawn and TensorBoard events written with.
DRAWING, EVENTS = ('matplotlib', 'PIL'), ('tensorboardX',)
# Extra of the package -> the modules that an experiment imports of what it brings.
EXTRAS = {
  'experiments': ('absl', 'orbax.checkpoint', 'scipy'),
  'atari': ('ale_py', 'gymnasium'),
  'bsuite': ('bsuite',),
  'figures': (*DRAWING, *EVENTS),
}


def _is_installed(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:  # of the package around it
    return False


def missing(*extras: str, modules: Collection[str] | None = None) -> str:
  """One line that names what is not installed and the extra that brings it; empty if all is there.

  Args:
    *extras: names of extras, of which the first that lacks something is named.
    modules: of all that they bring, what is needed; by default all of it.
  """
  for extra in extras:
    needed = [name for name in EXTRAS[extra] if modules is None or name in modules]
    absent = [name for name in needed if not _is_installed(name)]
    if absent:
      return f"{', '.join(absent)}: not installed; pip install -e '.[{extra}]' in the checkout brings what is missing"
  return ''


def _is_command() -> bool:
  """Whether a command of the checkout is starting, such as `python -m experiments.atari`, and not somebody's import."""
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  # While the packages around a command are imported, the arguments begin with -m; afterwards its name is known.
  return sys.argv[0] == '-m' or (spec is not None and spec.name.partition('.')[0] in ('experiments', 'benchmarks'))


def _open_standard_streams() -> None:
  """Opens those that were closed, or the next file would take its number and whatever is written to the stream."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def require(program: str, *extras: str, modules: Collection[str] | None = None) -> None:
  """Ends a command with one line if something is `missing`; for a package's __init__.

  Raises:
    ModuleNotFoundError: with the same line, where the package is imported otherwise.
  """
  if _is_command():
    _open_standard_streams()
    # A notebook's own backend, which its commands inherit, may not even be there.
    os.environ['MPLBACKEND'] = 'Agg'
  text = missing(*extras, modules=modules)
  if text and _is_command():
    sys.exit(f'{program}: {text}')
  if text:
    raise ModuleNotFoundError(f'{program}: {text}')
