"""Keeps compiled programs between processes, so that only the first run of some settings waits for the compiler."""

import os
import pathlib
import tempfile

import jax
from absl import flags

from experiments.common.console import warn

DEFAULT_DIR = '~/.cache/hyperagent_jax/compiled'
HELP = (
  'Folder where compiled programs are kept for later runs; ~/.cache is $XDG_CACHE_HOME where that is set; empty: none.'
)


def define_flag(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """--compilation_cache_dir, for a binary that has no other settings of its output."""
  flags.DEFINE_string('compilation_cache_dir', DEFAULT_DIR, HELP, flag_values=flag_values)


def folder_of(directory: str) -> pathlib.Path:
  """The folder that a flag's value means."""
  cache = os.environ.get('XDG_CACHE_HOME')
  if cache and pathlib.PurePath(directory).is_relative_to('~/.cache'):
    return pathlib.Path(cache) / pathlib.PurePath(directory).relative_to('~/.cache')
  return pathlib.Path(os.path.expanduser(directory))


def tell_children(directory: str) -> None:
  """Makes the binaries that this process starts keep what they compile in this folder, or nowhere if it is empty."""
  if not directory:
    os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
  elif directory != DEFAULT_DIR:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder_of(directory))


def keep_compiled(directory: str) -> None:
  """Makes JAX keep what it compiles, and look there first; call it before the first compilation.

  A program is looked up by its text, its options and the versions of jax and XLA. On CPU it is the same, bit for bit,
  as if it were compiled anew; elsewhere XLA may choose other kernels when it compiles anew. A folder that cannot be
  written is a warning, and programs are compiled as ever.

  Args:
    directory: where; empty: nowhere. JAX's own setting, JAX_COMPILATION_CACHE_DIR, goes before the default.
  """
  if not directory:
    jax.config.update('jax_enable_compilation_cache', False)
    return
  if directory == DEFAULT_DIR and jax.config.values['jax_compilation_cache_dir']:
    return
  folder = folder_of(directory)
  if folder.parts[0] == '~':
    warn(f'--compilation_cache_dir={directory}: there is no home folder; nothing is kept of what is compiled')
    jax.config.update('jax_enable_compilation_cache', False)
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  except OSError as e:
    warn(f'--compilation_cache_dir={folder}: cannot be written: {e.strerror}; nothing is kept of what is compiled')
    jax.config.update('jax_enable_compilation_cache', False)
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # Programs that compile in a moment too: a run has dozens.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
