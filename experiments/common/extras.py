"""Which optional packages an experiment needs, and what to say where they are missing."""

import importlib.util
import sys

# Extra of pyproject.toml -> the modules that it brings.
EXTRAS = {
  'experiments': ('absl', 'orbax'),
  'atari': ('ale_py', 'gymnasium'),
  'bsuite': ('bsuite',),
  'figures': ('matplotlib', 'PIL', 'tensorboardX'),
}


def missing(*extras: str) -> str:
  """One line that names what is not installed of these extras and how to install it; empty if all is there."""
  for extra in extras:
    absent = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if absent:
      return f"{', '.join(absent)}: not installed; pip install 'hyperagent_jax[{extra}]' brings what is missing"
  return ''


def require(program: str, *extras: str) -> None:
  """Ends the process with one line unless all modules of these extras are installed; for a package's __init__."""
  text = missing(*extras)
  if text:
    sys.exit(f'{program}: {text}')
