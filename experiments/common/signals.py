"""Signals that ask a run to stop."""

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

from experiments.common.console import say
from experiments.common.errors import OUT_OF_TIME

# A closed terminal, a scheduler and Ctrl-C.
_ASKING = tuple(getattr(signal, name) for name in ('SIGHUP', 'SIGTERM', 'SIGINT') if hasattr(signal, name))


class Signals:
  """Remembers SIGTERM, SIGHUP and Ctrl-C, so that a run can stop between chunks; a second Ctrl-C stops at once.

  As a context it listens until it is left, and then leaves every handler as it was. Python hands signals to the main
  thread only: in another one it listens to nothing, and `max_minutes` still works.
  """

  def __init__(self, max_minutes: float = 0.0) -> None:
    """Listens from `with` on; `max_minutes` above 0 asks for a stop too, after that time."""
    self.received: int | None = None
    self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else float('inf')
    self._handlers: dict[int, Any] = {}

  def __enter__(self) -> Self:
    """Listens."""
    if threading.current_thread() is threading.main_thread():
      for number in _ASKING:
        # Under nohup a closed terminal is to be ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
          self._handlers[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *args: Any) -> None:
    """Listens no more."""
    self.release()

  def release(self) -> None:
    """Gives signals back to whom they were: what is left to do can be done again, and need not be waited for."""
    for number, handler in self._handlers.items():
      signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    self._handlers = {}

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self.received is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.received = number
    say(f'{signal.Signals(number).name}: stopping at the next opportunity, with a checkpoint\n')

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
