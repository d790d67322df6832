"""Signals that ask a run to stop, and an end in bounded time when they do."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

from experiments.common.console import say
from experiments.common.errors import OUT_OF_TIME

# A closed terminal, a scheduler and Ctrl-C.
_ASKING = tuple(getattr(signal, name) for name in ('SIGHUP', 'SIGTERM', 'SIGINT') if hasattr(signal, name))


class Signals:
  """Remembers SIGTERM, SIGHUP and Ctrl-C, so that a run can stop between chunks; a second Ctrl-C stops at once.

  Whatever the run is doing then, its process ends within `grace_seconds`, the time that saving takes not counted: a
  thread of its own hears signals at once, where Python's handlers wait until the main thread is back from XLA. A
  process that is ended so keeps its latest checkpoint, as if it had been killed.

  As a context it listens until it is left, and then leaves every handler as it was. Python hands signals to the main
  thread only: in another one it listens to nothing, and `max_minutes` still works.
  """

  def __init__(self, max_minutes: float = 0.0, grace_seconds: float = 20.0) -> None:
    """Listens from `with` on.

    Args:
      max_minutes: above 0 it asks for a stop too, after that time.
      grace_seconds: for a run to come to the end of what it is doing, saving not counted.
    """
    self.received: int | None = None
    self._grace = grace_seconds
    self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else float('inf')
    self._handlers: dict[int, Any] = {}
    self._at_once, self._saving = False, 0
    self._pipe: tuple[int, int] | None = None
    self._fd_before = -1
    self._over = threading.Event()

  def __enter__(self) -> Self:
    """Listens."""
    if threading.current_thread() is threading.main_thread():
      for number in _ASKING:
        # Under nohup a closed terminal is to be ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
          self._handlers[number] = signal.signal(number, self._handle)
      self._pipe = os.pipe()
      os.set_blocking(self._pipe[1], False)
      self._fd_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
      threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()
    return self

  def __exit__(self, *args: Any) -> None:
    """Listens no more."""
    self.release()

  def release(self) -> None:
    """Gives signals back to whom they were: what is left to do can be done again, and need not be waited for."""
    for number, handler in self._handlers.items():
      signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    self._handlers = {}
    self._over.set()
    if self._pipe is not None:
      signal.set_wakeup_fd(self._fd_before)
      os.close(self._pipe[1])  # which ends the thread, and that closes the other end
      self._pipe = None

  @contextlib.contextmanager
  def nothing_to_save(self) -> Iterator[None]:
    """Marks what is begun again without a loss, such as compilation: a signal ends the process at once."""
    # In other threads something may be under way that is not to be lost.
    self._at_once = self._pipe is not None and threading.current_thread() is threading.main_thread()
    if self._at_once and self.received is not None:
      self._end(self.received)
    try:
      yield
    finally:
      self._at_once = False

  @contextlib.contextmanager
  def saving(self) -> Iterator[None]:
    """Marks the saving of a checkpoint, for which the end waits."""
    self._saving += 1
    try:
      yield
    finally:
      self._saving -= 1

  def _watch(self, pipe: int) -> None:
    """Waits for a signal, then for the run to end, and ends it if that takes too long."""
    asking = {int(number) for number in _ASKING}
    heard = 0
    while heard not in asking:
      byte = os.read(pipe, 1)
      if not byte:
        os.close(pipe)
        return
      heard = byte[0]
    waited, looked = 0.0, time.monotonic()
    while not self._over.wait(0.05):
      now = time.monotonic()
      waited, looked = waited + (0.0 if self._saving else now - looked), now
      if self._at_once or waited > self._grace:
        self._end(heard)
    os.close(pipe)

  @staticmethod
  def _end(number: int) -> None:
    """Ends the process, whatever it is doing."""
    with contextlib.suppress(OSError):
      os.write(
        2, f'{signal.Signals(number).name}: ended at once; the latest checkpoint, if there is one, stands\n'.encode()
      )
    os._exit(128 + number)

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
