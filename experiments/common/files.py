"""Files that are written whole or not at all."""

import os
import pathlib


def write_atomically(path: pathlib.Path, data: bytes) -> None:
  """Writes a file whole or not at all."""
  temporary = path.with_name(path.name + '.tmp')
  try:
    with open(temporary, 'wb') as f:
      f.write(data)
      f.flush()
      os.fsync(f.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
