"""What is said on standard error, which may be closed, full or a dead pipe: that is no reason for a run to end."""

import contextlib
import sys
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
  """Writes a text on standard error as far as it can be written."""
  stream = sys.stderr if stream is None else stream
  if stream is None:  # it was closed before the process started
    return
  with contextlib.suppress(OSError, ValueError):  # ValueError: closed since
    stream.write(text)
    stream.flush()


def warn(text: str) -> None:
  """One line for the user."""
  say(f'warning: {text}\n')
