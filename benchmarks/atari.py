"""HyperAgent on Atari: emulators inside and outside of XLA, whole programs, every part of a step.

    python -m benchmarks.atari [--quick]

One game, one update on a mini-batch of 32 after every step, one seed unless --num_seeds says more. Compilation,
prefilling and evaluation are not counted.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
from absl import app, flags, logging

import hyperagent_jax as ha
from benchmarks import emulators, parts, programs, timing
from benchmarks.timing import Row, show

_QUICK = flags.DEFINE_bool('quick', False, 'A rough look within two minutes; writes no file.')
_SHORT = flags.DEFINE_bool('short', False, 'Only the Nature torso and the parts of its step, as quickly as --quick.')
_NUM_SEEDS = flags.DEFINE_list('num_seeds', [], 'Also these numbers of seeds with the Nature torso, such as 1,4,16.')
_GAME = flags.DEFINE_string('game', 'pong', 'The game.')
_OUTPUT_DIR = flags.DEFINE_string('output_dir', str(timing.RESULTS), 'Folder of atari.csv.')

CAPACITY = 20_000  # time steps in replay; the ring is written in place, so its size costs nothing
BASE = dataclasses.replace(ha.presets.fast_cpu(), replay_capacity=CAPACITY)
PIXELS = dataclasses.replace(BASE, frame_layout='pixels')
FAST = 'data-efficient torso, windows in replay'
PROGRAMS = {
  FAST: BASE,
  'data-efficient torso, pixels in replay': PIXELS,
  'data-efficient torso, as convolutions': dataclasses.replace(PIXELS, convolution_method='convolutions'),
  'data-efficient torso, bfloat16': dataclasses.replace(BASE, compute_dtype='bfloat16'),
  'data-efficient torso, 4 environments, an update each': dataclasses.replace(BASE, num_envs=4),
  'data-efficient torso, 4 environments, an update for all': dataclasses.replace(BASE, num_envs=4, update_ratio=0.25),
  'data-efficient torso, 100,000 rows': dataclasses.replace(BASE, replay_capacity=100_000),
  'Nature torso, as products': dataclasses.replace(PIXELS, torso='nature'),
  'Nature torso, as convolutions': dataclasses.replace(PIXELS, torso='nature', convolution_method='convolutions'),
}
BARS = {FAST: 150.0}  # interactions per second that two cores of an ordinary CPU should reach
_TORSOS = {'data_efficient': BASE, 'nature': dataclasses.replace(PIXELS, torso='nature')}
_EMULATORS = ((1, 1), (4, 2), (10, 2))  # games, threads


def emulator_rows(game: str, quick: bool) -> list[Row]:
  """Stepping emulators inside compiled programs and from Python."""
  num_steps = 300 if quick else 1_000
  cases: dict[tuple[tuple[int, int], str], Callable[[], float]] = {}
  for size in _EMULATORS:
    cases[(size, 'direct')] = emulators.direct(game, *size, num_steps)
    cases[(size, 'inside')] = emulators.inside(game, *size, num_steps)
  each = {name: s.median for name, s in timing.alternate(cases, repeats=3 if quick else 9).items()}
  rows = []
  for size in _EMULATORS:
    what = f'{size[0]} games, {size[1]} thread{"s" if size[1] > 1 else ""}'
    rows.append(Row(f'{what}: AtariVectorEnv.step', each[(size, 'direct')], 'us'))
    rows.append(Row(f'{what}: inside a compiled loop', each[(size, 'inside')], 'us'))
    rows.append(Row(f'{what}: inside / direct', each[(size, 'inside')] / each[(size, 'direct')], 'ratio', 1.15))
  return rows


def program_rows(game: str, quick: bool) -> list[Row]:
  """Interactions per second of whole programs."""
  cases = {}
  for name, config in ({} if _SHORT.value else PROGRAMS).items():
    chunk = 8 if 'as convolutions' in name else 40 if 'Nature' in name else 400
    chunk = max(8, chunk // 4) if quick else chunk
    run = programs.training(programs.make_atari_setup(game, config), chunk * config.num_envs)
    cases[name] = lambda run=run: run().speed
  for num_seeds in map(int, _NUM_SEEDS.value):
    setup = programs.make_atari_setup(game, _TORSOS['nature'], num_seeds=num_seeds)
    run = programs.training(setup, 10 if quick else 40 if jax.devices()[0].platform == 'cpu' else 1_000)
    cases[f'Nature torso, {num_seeds} seeds'] = lambda run=run: run().speed
  each = timing.alternate(cases, repeats=3 if quick else 7)
  return [Row(name, s.median, 'steps/s', BARS.get(name)) for name, s in each.items()]


def part_rows(game: str, torso: str, quick: bool) -> list[Row]:
  """Microseconds of every part of a step beside the whole."""
  setup = programs.make_atari_setup(game, _TORSOS[torso])
  inputs = programs.make_inputs(setup)
  num_steps, cases = (20 if torso == 'nature' else 100) if quick else (60 if torso == 'nature' else 300), {}
  for name, make in parts.PARTS.items():
    is_draw = make is parts.draw
    run = timing.loop(*make(setup, inputs), 8 if is_draw else num_steps)
    cases[name] = (lambda run=run: run() / timing.BLOCK) if is_draw else run
  whole = programs.training(setup, num_steps)
  cases['whole step'] = lambda: whole().step_time
  each = {name: t.median for name, t in timing.alternate(cases, repeats=3 if quick else 9).items()}
  each['sum of parts'] = sum(each[name] for name in parts.SUMMED)
  return [Row(f'{torso}: {name}', value, 'us') for name, value in each.items()]


def main(argv: list[str]) -> None:
  """Measures, prints and writes."""
  del argv
  logging.set_verbosity(logging.ERROR)  # JAX reports platforms that it does not find
  quick, game, hardware = _QUICK.value or _SHORT.value, _GAME.value, timing.hardware()
  print(f'{hardware}\n{game}, medians of several repeats; bars: what two cores of an ordinary CPU should reach.')
  torsos = ['nature'] if _SHORT.value else _TORSOS
  measurements: list[tuple[str, Callable[[], list[Row]]]] = [
    ('Emulators, microseconds of a step of all games', lambda: emulator_rows(game, quick)),
    ('Whole programs, interactions', lambda: program_rows(game, quick)),
    *((f'Parts of a step, {torso} torso', lambda t=torso: part_rows(game, t, quick)) for torso in torsos),
  ]
  rows = []
  for title, measure in measurements:
    measured = measure()
    show(title, measured)
    rows += measured
  if _QUICK.value:
    return
  path = pathlib.Path(_OUTPUT_DIR.value) / 'atari.csv'
  table = [(row.what, row.value, row.unit, '' if row.bar is None else row.bar, hardware) for row in rows]
  timing.write_csv(path, ('what', 'value', 'unit', 'bar', 'hardware'), table)
  print(f'\n{path}')


if __name__ == '__main__':
  app.run(main)
