"""What all figures share: reading tables, and the command that draws a run's figures again."""

import csv
import gzip
import io
import sys
from collections.abc import Callable, Sequence

from absl import app, flags


def read_table(path: str, columns: Sequence[str]) -> list[dict[str, str]]:
  """Rows of a CSV file that has these columns, without lines torn by a run at work or killed."""
  with (gzip.open if path.endswith('.gz') else open)(path, 'rt', newline='') as file:
    text = file.read()
  reader = csv.DictReader(io.StringIO(text[: text.rfind('\n') + 1]))
  missing = [name for name in columns if name not in (reader.fieldnames or ())]
  if missing:
    raise ValueError(f'{path}: no column {", ".join(missing)}')
  return [row for row in reader if None not in row and None not in row.values()]


def redraw(program: str, draw: Callable[[str], Sequence[str]], output_dir: str) -> None:
  """Draws what belongs into a folder and prints the paths; trouble with its files is one line and exit status 1."""
  try:
    for path in draw(output_dir):
      print(path)
  except (OSError, ValueError) as error:
    named = isinstance(error, OSError) and error.filename
    print(f'{program}: {f"{error.filename}: {error.strerror}" if named else error}', file=sys.stderr)
    sys.exit(1)


def redraw_main(program: str, draw: Callable[[str], Sequence[str]]) -> None:
  """`redraw` as a command with --output_dir."""
  # Not at import: an experiment that draws has an --output_dir of its own.
  flags.DEFINE_string('output_dir', None, 'Folder of a run, with its results.csv.', required=True)
  app.run(lambda argv: redraw(program, draw, flags.FLAGS.output_dir))
