"""A figure of the latest values in accelerator.csv.

python -m benchmarks.accelerator_figure [FOLDER]
"""

import pathlib
import sys

from benchmarks import charts, timing
from benchmarks.accelerator_rows import FILE, read

_PROGRAMS = {  # what a row is called, and its bar; first what the preset for 100,000 interactions does
  'training, data_efficient, windows, default': 'data-efficient',
  'training, data_efficient, windows, default, 2 groups in turns': 'data-efficient, 2 groups',
  'training, nature, products, default': 'Nature',
  'training, nature, products, default, 2 groups in turns': 'Nature, 2 groups',
  'training, nature, products, bfloat16': 'Nature, bfloat16',
  'training, nature, products, bfloat16, 2 groups in turns': 'Nature, bfloat16, 2 groups',
  'training, nature, convolutions, default': 'Nature, as convolutions',
}
_UPDATES = {
  'update, data_efficient, windows, tf32': 'data-efficient',
  'update, data_efficient, convolutions, tf32': 'data-efficient, as convolutions',
  'update, nature, products, tf32': 'Nature',
  'update, nature, products, bfloat16': 'Nature, bfloat16',
  'update, nature, products, float32': 'Nature, float32 throughout',
  'update, nature, convolutions, tf32': 'Nature, as convolutions',
}


def main(folder: pathlib.Path) -> None:
  """Draws accelerator.png."""
  rows = [row for row in read(folder / FILE) if row['value']]
  latest = {(row['what'], row['seeds']): float(row['value']) for row in rows if row['what'] != 'device'}
  bar = lambda value: timing.Summary(value, value, value)
  panels = [
    charts.Panel('Atari, 16 seeds', 'interactions/s', {n: bar(latest[w, '16']) for w, n in _PROGRAMS.items()}),
    charts.Panel('Update of 16 seeds', 'µs', {n: bar(latest[w, '16']) for w, n in _UPDATES.items()}),
  ]
  hardware = next(row['hardware'] for row in rows if row['what'] == 'device')
  charts.draw(folder / 'accelerator.png', hardware.split(' on ')[-1], panels)
  print(folder / 'accelerator.png')


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else timing.RESULTS)
