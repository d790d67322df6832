"""What all binaries share: flags, errors as one line, and signals."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from absl import app, flags, logging

from experiments.common.errors import OUT_OF_TIME, CheckpointError, Stopped
from experiments.common.extras import missing
from hyperagent_jax.config import ConfigError


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


def start_main(main: Callable[[], None], program: str) -> None:
  """Runs a binary: every foreseen error is one line on standard error and exit status 1."""

  def parse(argv: list[str]) -> list[str]:
    _list_in_help(flags.FLAGS)
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
    except (ConfigError, CheckpointError, FloatingPointError) as e:
      sys.exit(f'{program}: {e}')
    except OSError as e:
      sys.exit(f'{program}: {e.filename or "output"}: {e.strerror or e}')
    except KeyboardInterrupt:
      sys.exit(f'{program}: stopped at once; the latest checkpoint stands')

  app.run(guarded, flags_parser=parse)
