"""Standard error without the tracebacks that orbax and TensorStore print beside the error that they raise."""

import contextlib
import functools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from experiments.common.console import say

_STANDARD_ERROR = threading.Lock()  # there is one in a process
_LONGEST_WAIT = 60.0  # seconds, for threads whose disk no longer answers


def _join_threads_of(package: str) -> None:
  """Waits until a package's threads have ended, and those that they start meanwhile."""
  deadline = time.monotonic() + _LONGEST_WAIT
  of_package = lambda thread: type(thread).__module__.partition('.')[0] == package
  while threads := [t for t in threading.enumerate() if of_package(t) and t is not threading.current_thread()]:
    if time.monotonic() > deadline:
      return
    for thread in threads:
      # Not `thread.join`: orbax's raises what ended the thread.
      threading.Thread.join(thread, max(0.0, deadline - time.monotonic()))


def _report_unless_late_write(unraisable: Any, report: Callable[[Any], Any]) -> None:
  """Reports an error that nothing can catch, but for that of a write that ended when its event loop was closed."""
  is_late_write = (
    unraisable.object is None  # called by no Python code
    and isinstance(unraisable.exc_value, RuntimeError)
    and str(unraisable.exc_value) == 'Event loop is closed'
  )
  if not is_late_write:
    report(unraisable)


def _ignore_late_writes() -> None:
  """Drops, from now on, what TensorStore prints of writes that orbax no longer waits for.

  Orbax closes its event loop at the first write that fails. The others end whenever they like, in native threads that
  nobody can wait for, find the loop closed and print a traceback each.
  """
  hook = sys.unraisablehook
  if getattr(hook, 'func', None) is not _report_unless_late_write:
    sys.unraisablehook = functools.partial(_report_unless_late_write, report=hook)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
  """Holds standard error back until it is over, and drops it on an error, one thread at a time.

  When orbax fails, its threads print tracebacks beside the error that it raises: the one that writes arrays before it
  raises, and the one that waits for it to write metadata at any time after. What others print meanwhile comes a little
  later, or is lost with them. What TensorStore prints can come even later; see `_ignore_late_writes`.
  """
  with _STANDARD_ERROR, tempfile.TemporaryFile() as held:
    say('')
    kept = os.dup(2)
    os.dup2(held.fileno(), 2)
    try:
      yield
    except BaseException:
      _ignore_late_writes()
      _join_threads_of('orbax')
      raise
    finally:
      say('')
      os.dup2(kept, 2)
      os.close(kept)
    held.seek(0)
    with contextlib.suppress(OSError):  # it may be full, or a dead pipe
      os.write(2, held.read())
