"""What all binaries share: parsing flags, which are made of the fields of settings, and errors as one line."""

import sys
import threading
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

import jax
from absl import app, flags, logging
from jax.errors import JaxRuntimeError

from experiments.common.console import say, warn
from experiments.common.errors import CheckpointError, Stopped, first_line
from experiments.common.extras import missing
from hyperagent_jax.config import ConfigError

# Flags that absl itself defines when an application first runs.
_OF_ABSL = frozenset({'help', 'helpshort', 'helpfull', 'helpxml', '?'})


def check_installed(flag: str, modules: Collection[str]) -> None:
  """Looks, before anything is trained, for what an optional output is made with.

  Args:
    flag: the one that asks for it and can be turned off.
    modules: what does that, of the extra `figures`.

  Raises:
    ConfigError: if one is not installed.
  """
  text = missing('figures', modules=modules)
  if text:
    raise ConfigError(f'--{flag}: {text}, and --no{flag} does without')


def _list_in_help(values: flags.FlagValues) -> None:
  """Makes --help list the binary's flags, which other modules of it define; --helpfull lists absl's too."""
  for module, defined in list(values.flags_by_module_dict().items()):
    if module.startswith(__name__.split('.')[0]):
      for flag in defined:
        values.register_key_flag_for_module(sys.argv[0], flag)


def start_main(
  main: Callable[[], None],
  program: str,
  define_flags: Callable[[], None] = lambda: None,
  argv: Sequence[str] | None = None,
) -> None:
  """Runs a binary: every foreseen error is one line on standard error and exit status 1.

  It can be called again in the same process, for the same program or another one, and from any thread: the flags that
  it defines and what it changes of the interpreter are gone when it ends.

  Args:
    main: what the binary does once its flags are parsed.
    program: its name, before every line.
    define_flags: makes its flags.
    argv: the program and its arguments; by default those of the command line.
  """

  def parse(argv: list[str]) -> list[str]:
    _list_in_help(flags.FLAGS)
    try:
      rest = flags.FLAGS(argv)
    except flags.Error as e:
      sys.exit(f'{program}: {" ".join(str(e).split())}')
    except UnicodeDecodeError:
      sys.exit(f'{program}: --flagfile: is not a text file')
    folder = flags.FLAGS['output_dir'] if 'output_dir' in flags.FLAGS else None
    if folder is not None and folder.present and not (folder.value or '').strip():
      sys.exit(f'{program}: --output_dir={folder.value}: must name a folder')
    if rest[1:]:
      sys.exit(f'{program}: {rest[1]}: not a flag; flags are --name=value, and --help lists them')
    return rest

  def guarded(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.ERROR)  # orbax reports every save
    if jax.config.values['jax_enable_x64']:
      warn('JAX_ENABLE_X64 is on; this binary computes in 32 bits all the same')
      jax.config.update('jax_enable_x64', False)
    try:
      main()
    except Stopped as e:
      say(f'{program}: {e}\n')
      sys.exit(e.status)
    except (ConfigError, CheckpointError, FloatingPointError) as e:
      fail(program, str(e))
    except OSError as e:
      fail(program, f'{e.filename or "standard output"}: {e.strerror or e}')
    except KeyboardInterrupt:
      fail(program, 'stopped at once; the latest checkpoint stands')
    except (MemoryError, JaxRuntimeError) as e:
      if not is_out_of_memory(e):
        raise
      fail(program, f'out of memory; smaller sizes or fewer seeds take less ({first_line(e)})')

  defined, hook = set(flags.FLAGS), threading.excepthook
  # Errors in threads would be printed as tracebacks.
  threading.excepthook = lambda e: warn(f'in the background: {e.exc_type.__name__}: {e.exc_value}')
  try:
    define_flags()
    app.run(guarded, None if argv is None else list(argv), flags_parser=parse)
  finally:
    threading.excepthook = hook
    for name in set(flags.FLAGS) - defined - _OF_ABSL:
      if name in flags.FLAGS:  # a short name goes with its flag
        delattr(flags.FLAGS, name)


def fail(program: str, text: str) -> NoReturn:
  """Ends a binary with one line on standard error and exit status 1."""
  sys.exit(f'{program}: {text}')


def is_out_of_memory(e: BaseException) -> bool:
  """Whether an error says that there is not memory enough, of the host or of a device."""
  return isinstance(e, MemoryError) or 'RESOURCE_EXHAUSTED' in str(e) or 'out of memory' in str(e).lower()
