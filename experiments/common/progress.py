"""A live progress line."""

import contextlib
import sys
import threading
import time
from typing import TextIO

from experiments.common.console import say


class Progress:
  """One line that is rewritten on a terminal, and repeated every few seconds elsewhere."""

  def __init__(self, stream: TextIO | None = None, seconds_between_lines: float = 10.0):
    """A progress line on a stream, standard error by default."""
    self._stream = stream or sys.stderr  # None where it was closed before the process started
    self._live = False
    with contextlib.suppress(AttributeError, OSError, ValueError):
      self._live = self._stream.isatty()
    self._period = seconds_between_lines
    self._last = -float('inf')
    self._width = 0
    self._lock = threading.Lock()

  def show(self, text: str, final: bool = False) -> None:
    """Shows a new text; a final one stays. Threads may share the line."""
    with self._lock:
      self._show(text, final)

  def _show(self, text: str, final: bool) -> None:
    now = time.monotonic()
    if self._live:
      say('\r' + text.ljust(self._width) + ('\n' if final else ''), self._stream)
      self._width = 0 if final else len(text)
    elif final or now - self._last >= self._period:
      say(text + '\n', self._stream)
      self._last = now


def format_duration(seconds: float) -> str:
  """1h02m, 3m07s or 12s."""
  seconds = round(seconds)
  if seconds >= 3600:
    return f'{seconds // 3600}h{seconds % 3600 // 60:02d}m'
  if seconds >= 60:
    return f'{seconds // 60}m{seconds % 60:02d}s'
  return f'{seconds}s'
