"""Tables: read from CSV files, written to them, and as plain text."""

import csv
import gzip
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.common.files import write_atomically


def csv_text(*lines: Iterable[Any]) -> str:
  """Lines of cells as CSV, each with a line feed at its end on every platform."""
  text = io.StringIO(newline='')
  csv.writer(text, lineterminator='\n').writerows(lines)
  return text.getvalue()


def write_table(path: pathlib.Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
  """Writes a CSV file, whole or not at all.

  Args:
    path: of the file.
    columns: its header.
    rows: cells in the order of `columns`; `cells` takes them from a mapping.
  """
  write_atomically(path, csv_text(columns, *rows).encode())


def cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
  """A row's values in the order of `columns`; KeyError if one is missing."""
  return [row[name] for name in columns]


def read_table(path: str, columns: Sequence[str]) -> list[dict[str, str]]:
  """Rows of a CSV file that has these columns, without lines torn by a run at work or killed."""
  with (gzip.open if path.endswith('.gz') else open)(path, 'rt', newline='') as file:
    text = file.read()
  reader = csv.DictReader(io.StringIO(text[: text.rfind('\n') + 1]))
  missing = [name for name in columns if name not in (reader.fieldnames or ())]
  if missing:
    raise ValueError(f'{path}: no column {", ".join(missing)}')
  return [row for row in reader if None not in row and None not in row.values()]


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """A plain-text table, columns aligned to the right."""
  lines = [[str(x) for x in line] for line in (header, *rows)]
  widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
  text = ['  '.join(x.rjust(w) for x, w in zip(line, widths, strict=True)) for line in lines]
  return '\n'.join([text[0], '-' * len(text[0]), *text[1:]])
