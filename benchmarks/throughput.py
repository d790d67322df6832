"""Throughput of HyperAgent on DeepSea: whole programs, and every part of a step.

    python -m benchmarks.throughput [--quick]

One update on a mini-batch of 128 follows every time step. Compilation, prefilling and evaluation are not counted.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from absl import app, flags, logging

import hyperagent_jax as ha
from benchmarks import memory, parts, programs, timing
from benchmarks.timing import Row, show

_QUICK = flags.DEFINE_bool('quick', False, 'A rough look within a minute; writes no file.')
_OUTPUT_DIR = flags.DEFINE_string('output_dir', str(timing.RESULTS), 'Folder of throughput.csv.')

SIZES = (20, 100)
_FILL = 20_000  # interactions in replay before anything is timed
EXACT_20, SAMPLED_20, TEN_SEEDS = 'size 20, 1 seed, exact', 'size 20, 1 seed, 20 indices', 'size 20, 10 seeds, exact'
EXACT_100, HOST = 'size 100, 1 seed, exact', 'size 20, 1 seed, exact, host driver'
# What two cores of an ordinary CPU should reach.
BARS = {EXACT_20: 5_000, SAMPLED_20: 2_800, TEN_SEEDS: 9_000, EXACT_100: 1_200, HOST: 1_000}
REPLAY_BAR, PEAK_BAR = 128.0, 1200.0  # MB


def make_programs(setups: dict[int, programs.Setup], quick: bool) -> dict[str, Callable[[], float]]:
  """Whole programs, each a case that returns environment steps of all seeds per second."""
  chunk = 300 if quick else programs.CHUNK
  config = setups[20].config
  ten = programs.make_setup(config, num_seeds=10, fill=_FILL)
  each = {
    EXACT_20: setups[20],
    SAMPLED_20: programs.make_setup(dataclasses.replace(config, update_indices='20'), like=setups[20]),
    TEN_SEEDS: ten,
    EXACT_100: setups[100],
  }
  if not quick:
    others: dict[str, dict[str, Any]] = {
      'one device': {'devices': jax.local_devices()[:1]},
      'vmap': {'seed_axis': 'vmap'},
    }
    for name, options in others.items():
      each[f'{TEN_SEEDS}, {name}'] = programs.make_setup(config, num_seeds=10, like=ten, **options)
  runs = {name: programs.training(setup, chunk) for name, setup in each.items()}
  runs[HOST] = programs.host_training(config, chunk, _FILL)
  return {name: speed_of(run) for name, run in runs.items()}


def speed_of(run: Callable[[], programs.Chunk]) -> Callable[[], float]:
  """A case that trains and returns its speed."""
  return lambda: run().speed


def make_parts(setup: programs.Setup, size: int, quick: bool) -> dict[str, Callable[[], float]]:
  """Parts of a step and the whole step of one seed, each a case that returns microseconds."""
  inputs = programs.make_inputs(setup)
  num_steps = (100 if quick else 400) if size > 50 else (200 if quick else 1000)
  cases = {}
  for name, make in parts.PARTS.items():
    run = timing.loop(*make(setup, inputs), max(8, num_steps // timing.BLOCK) if make is parts.draw else num_steps)
    # An iteration of it draws for a whole block.
    cases[name] = (lambda run=run: run() / timing.BLOCK) if make is parts.draw else run
  whole = programs.training(setup, num_steps)
  cases['whole step'] = lambda: whole().step_time
  return cases


def part_rows(setup: programs.Setup, size: int, quick: bool) -> list[Row]:
  """Microseconds of every part beside the whole."""
  times = timing.alternate(make_parts(setup, size, quick), repeats=3 if quick else 9)
  each = {name: t.median for name, t in times.items()}
  each['sum of parts'] = sum(each[name] for name in parts.SUMMED)
  rows = [Row(f'size {size}: {name}', value, 'us') for name, value in each.items()]
  return [*rows, Row(f'size {size}: whole step / sum of parts', each['whole step'] / each['sum of parts'], 'ratio')]


def program_rows(setups: dict[int, programs.Setup], quick: bool) -> list[Row]:
  """Environment steps per second of whole programs, and their ratios."""
  speeds = timing.alternate(make_programs(setups, quick), repeats=3 if quick else 5)
  each = {name: s.median for name, s in speeds.items()}
  rows = [Row(name, value, 'steps/s', BARS.get(name)) for name, value in each.items()]
  ratio = lambda what, a, b: Row(what, each[a] / each[b], 'ratio')
  return [
    *rows,
    ratio('exact / 20 indices', EXACT_20, SAMPLED_20),
    ratio('runner / host driver', EXACT_20, HOST),
    ratio('10 seeds / 1 seed', TEN_SEEDS, EXACT_20),
  ]


def memory_rows(peak: int | None) -> list[Row]:
  """Megabytes of replay and of a whole process."""
  rows = [
    Row(f'size {n}: replay of 1e6 transitions', memory.replay_bytes(ha.presets.deep_sea(n)) / 1e6, 'MB', REPLAY_BAR)
    for n in SIZES
  ]
  if peak is not None:
    rows.append(Row('size 100, 1 seed, replay of 1e6: peak resident set', peak / 1e6, 'MB', PEAK_BAR))
  return rows


def main(argv: list[str]) -> None:
  """Measures, prints and writes."""
  del argv
  logging.set_verbosity(logging.ERROR)  # JAX reports platforms that it does not find
  timing.use_all_cores()
  quick, hardware = _QUICK.value, timing.hardware()
  print(f'{hardware}\nMedians of several repeats; bars: what two cores of an ordinary CPU should reach.', flush=True)
  rows = []
  peak = None if quick else memory.peak_of_training(size=100, capacity=1_000_000, num_interactions=3_000)
  setups = {n: programs.make_setup(ha.presets.deep_sea(n), fill=_FILL) for n in SIZES}
  measurements: list[tuple[str, Callable[[], list[Row]]]] = [
    ('Memory', lambda: memory_rows(peak)),
    ('Whole programs, environment steps of all seeds', lambda: program_rows(setups, quick)),
    *((f'Parts of a step, size {n}, one seed', lambda n=n: part_rows(setups[n], n, quick)) for n in SIZES),
  ]
  for title, measure in measurements:
    measured = measure()
    show(title, measured)
    rows += measured
  if quick:
    return
  path = pathlib.Path(_OUTPUT_DIR.value) / 'throughput.csv'
  bar = lambda row: '' if row.bar is None else row.bar
  table = [(row.what, row.value, row.unit, bar(row), hardware) for row in rows]
  timing.write_csv(path, ('what', 'value', 'unit', 'bar', 'hardware'), table)
  print(f'\n{path}')


if __name__ == '__main__':
  app.run(main)
