"""Parts of `benchmarks.accelerator` that run whole programs: Atari, DeepSea, and learning by experiments.atari."""

import csv
import dataclasses
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

import hyperagent_jax as ha
from benchmarks import emulators, programs, time_line, timing
from benchmarks.accelerator_parts import update_config
from benchmarks.accelerator_rows import Case, Session, run_cases, seconds_per_step
from experiments.common.errors import OUT_OF_TIME
from hyperagent_jax import scores
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.seeds import num_cores

GAME = 'pong'
TARGET = 8_000  # interactions per second of 16 seeds, each with an update, that are aimed at
_ROWS = 20_011  # of replay; a number that occurs nowhere else in a program
# Operations one by one: in a profile those that XLA puts into one graph cannot be told apart.
_NO_GRAPHS = {'xla_gpu_enable_command_buffer': ''}


def in_place(session: Session, name: str, setup: programs.Setup, compiled: jax.stages.Compiled) -> None:
  """Whether a compiled program writes replay where it lies."""
  copies = time_line.ring_copies(compiled.as_text() or '', setup.state.carry.replay.rows.step_type.shape[1])
  ring, memory = timing.num_bytes(setup.state.carry.replay), compiled.memory_analysis()
  note = copies[0][:120] if copies else f'replay {ring / 1e6:,.0f} MB'
  session.write(f'{name}: copies of rings', len(copies), 'copies', setup.num_seeds, note)
  if memory is not None:
    session.write(f'{name}: scratch memory', memory.temp_size_in_bytes / 1e6, 'MB', setup.num_seeds)


# ---------------------------------------------------------------------------------------------------------------- Atari


class Program(NamedTuple):
  """A case of `whole_atari`."""

  torso: str
  method: str
  num_seeds: int
  precision: str = 'default'


def emulators_alone(session: Session, num_games: int, num_threads: int, inside: bool) -> Case:
  """Emulators alone, called from Python or from a compiled loop."""
  how = 'in a compiled loop' if inside else 'called from Python'
  name, num = f'emulators alone, {num_threads} threads, {how}', 20 if session.reduced else 500

  def prepare() -> Callable[[], None]:
    make = emulators.inside if inside else emulators.direct
    run = make(GAME, num_games, num_threads, num)

    def measure() -> None:
      run()
      micros = timing.summary(run() for _ in range(3)).median
      session.write(name, 1e6 * num_games / micros, 'interactions/s', num_games, f'{micros:.0f} us a step of all')

    return measure

  return Case(f'{name}, {num_games} games', prepare)


def screens_config(session: Session, program: Program) -> ha.HyperAgentConfig:
  """The program's settings."""
  if session.reduced:
    config = update_config(program.torso, program.method, program.precision, batch_size=4)
    return dataclasses.replace(config, replay_capacity=503, min_replay=50)
  return dataclasses.replace(update_config(*program[:2], program.precision), replay_capacity=_ROWS)


def whole_program(session: Session, program: Program, lined: bool) -> Case:
  """Interactions per second of training, and of prefilling: all but updates and the trained network's acting."""
  torso, method, num_seeds, precision = program
  name = f'training, {torso}, {method}, {precision}'
  config = screens_config(session, program)

  def prepare() -> Callable[[], None]:
    setup = programs.make_atari_setup(GAME, config, num_seeds, fill=100)
    plain = time_line.lower_training(setup).compile()
    if not lined:
      return lambda: measure(setup, plain, None)
    has_graphs = jax.devices()[0].platform != 'cpu'
    one_by_one = time_line.lower_training(setup, _NO_GRAPHS).compile() if has_graphs else plain
    return lambda: measure(setup, plain, one_by_one)

  def measure(setup: programs.Setup, plain: jax.stages.Compiled, one_by_one: jax.stages.Compiled | None) -> None:
    train = time_line.training(setup)
    seconds = seconds_per_step(lambda num: train(plain, num), session.reduced)
    note = f'{1e6 * seconds:.0f} us a step' + (f', aim {TARGET}' if num_seeds == 16 else '')
    session.write(name, num_seeds / seconds, 'interactions/s', num_seeds, note)
    in_place(session, name, setup, plain)
    if one_by_one is None:
      return
    alone = seconds_per_step(lambda num: train(one_by_one, num), session.reduced, 0.4)
    session.write(f'{name}, operations one by one', 1e6 * alone, 'us a step', num_seeds)
    rest = seconds_per_step(lambda num: train(setup.runner.prefill, num), session.reduced, 0.4)
    session.write(f'{name}: emulators, prior, replay add', 1e6 * rest, 'us a step', num_seeds)
    run = lambda num: train(one_by_one, num)
    show_line(session, f'time line, {torso}, {method}, {precision}', num_seeds, run, one_by_one.as_text() or '')

  return Case(f'{name}, {num_seeds} seeds', prepare)


def show_line(session: Session, name: str, num_seeds: int, run: Callable[[int], ha.RunnerState], text: str) -> None:
  """Rows of a profile: device time by part, the rest of the time, the longest operations."""
  num = 3 if session.reduced else 60
  line = time_line.profile(lambda: run(num), text)
  micros = lambda seconds: 1e6 * seconds / num
  session.write(f'{name}: step', micros(line.wall), 'us a step', num_seeds, f'profile of {num} steps')
  session.write(f'{name}: device idle', micros(line.wall - line.busy), 'us a step', num_seeds)
  for part, seconds in sorted(line.parts.items(), key=lambda item: -item[1]):
    session.write(f'{name}: {part}', micros(seconds), 'us a step', num_seeds)
  for kernel, seconds in list(line.kernels.items())[: 4 if session.reduced else 12]:
    session.write(f'{name}: longest', micros(seconds), 'us a step', num_seeds, kernel[:90])


def whole_atari(session: Session) -> int:
  """Emulators, whole programs and time lines."""
  session.leave_out('26 games in one program', 'a program steps one game')
  if session.reduced:
    games = [(1, 1, False), (2, 1, True)]
    of_programs = [(Program('data_efficient', 'windows', 2), True), (Program('nature', 'products', 1), False)]
  else:
    threads = num_cores()
    games = [(16, threads, True), (16, threads // 2, True), (1, 1, True), (4, 4, True), (16, threads, False)]
    of_programs = [
      (Program('nature', 'products', 16), True),
      (Program('data_efficient', 'windows', 16), True),
      (Program('nature', 'convolutions', 16), False),
      (Program('nature', 'products', 16, 'bfloat16'), False),
      (Program('nature', 'products', 1), False),
      (Program('nature', 'convolutions', 1), False),
      (Program('data_efficient', 'windows', 1), False),
      (Program('data_efficient', 'windows', 16, 'bfloat16'), False),
      (Program('nature', 'products', 4), False),
      (Program('data_efficient', 'windows', 4), False),
      (Program('data_efficient', 'windows', 64), False),
      (Program('nature', 'products', 64), False),
    ]
  failed = run_cases(session, [emulators_alone(session, *x) for x in games])
  cases = [whole_program(session, *x) for x in of_programs]
  return failed + run_cases(session, cases, 1 if session.reduced else 4)


def groups_in_turns(session: Session, program: Program, num_groups: int) -> Case:
  """The seeds in groups, a thread and a program each: one group's emulators run while the device works for another."""
  torso, method, num_seeds, precision = program
  name = f'training, {torso}, {method}, {precision}, {num_groups} groups in turns'
  config = screens_config(session, program)

  def prepare() -> Callable[[], None]:
    setups = [programs.make_atari_setup(GAME, config, num_seeds // num_groups, fill=100) for _ in range(num_groups)]
    # A program each: what one keeps for its launches would be prepared anew for every other state.
    compiled = [time_line.lower_training(setup).compile() for setup in setups]
    return lambda: measure([functools.partial(time_line.training(s), c) for s, c in zip(setups, compiled, strict=True)])

  def measure(runs: list[Callable[[int], ha.RunnerState]]) -> None:
    with ThreadPoolExecutor(num_groups) as pool:
      run = lambda num: list(pool.map(lambda one: jax.block_until_ready(one(num)), runs))
      seconds = seconds_per_step(run, session.reduced)
    session.write(name, num_seeds / seconds, 'interactions/s', num_seeds, f'{1e6 * seconds:.0f} us a step')

  return Case(name, prepare)


def groups(session: Session) -> int:
  """Whether emulators and device can work at the same time."""
  if session.reduced:
    return run_cases(session, [groups_in_turns(session, Program('data_efficient', 'windows', 2), 2)])
  cases = [
    groups_in_turns(session, Program('nature', 'products', 16), 2),
    groups_in_turns(session, Program('nature', 'products', 16, 'bfloat16'), 2),
    groups_in_turns(session, Program('data_efficient', 'windows', 16), 2),
    groups_in_turns(session, Program('nature', 'products', 16), 4),
    groups_in_turns(session, Program('data_efficient', 'windows', 32), 2),
    groups_in_turns(session, Program('data_efficient', 'windows', 16), 4),
  ]
  return run_cases(session, cases[:3], 3) + run_cases(session, cases[3:], 3)


# -------------------------------------------------------------------------------------------------------------- DeepSea


def deep_sea_speed(session: Session, size: int, num_seeds: int) -> Case:
  """Interactions per second, an update on 128 transitions each."""

  def prepare() -> Callable[[], None]:
    setup = programs.make_setup(ha.presets.deep_sea(size), num_seeds, capacity=_ROWS)
    compiled = time_line.lower_training(setup).compile()
    return lambda: measure(setup, compiled)

  def measure(setup: programs.Setup, compiled: jax.stages.Compiled) -> None:
    seconds = seconds_per_step(functools.partial(time_line.training(setup), compiled), session.reduced)
    speed = num_seeds * size / (size + 1) / seconds  # every episode starts with a step that is no interaction
    session.write(f'DeepSea {size}', speed, 'interactions/s', num_seeds, f'{1e6 * seconds:.0f} us a step')
    in_place(session, f'DeepSea {size}', setup, compiled)

  return Case(f'DeepSea {size}, {num_seeds} seeds', prepare)


def deep_sea_solved(session: Session, size: int, num_seeds: int, best: bool) -> Case:
  """Episodes until 100 greedy episodes all end at the treasure."""
  name, chunk = f'DeepSea {size}, {"deep_sea_best" if best else "deep_sea"}', 50 if session.reduced else 20 * size
  most = 2 if session.reduced else 200

  def prepare() -> Callable[[], None]:
    config = (ha.presets.deep_sea_best if best else ha.presets.deep_sea)(size)
    return lambda: measure(programs.make_setup(config, num_seeds, capacity=100_000))

  def measure(setup: programs.Setup) -> None:
    state, done, episodes, start = setup.state, setup.num_interactions, np.full(num_seeds, -1), time.monotonic()
    for _ in range(most):
      state = setup.runner.run(state, ha.steps_for(done + chunk, size) - ha.steps_for(done, size))
      done += chunk
      returns = np.asarray(setup.runner.evaluate(state).returns).mean(1)
      new = (episodes < 0) & (returns >= deep_sea.solved_return(size))
      episodes[new] = np.asarray(state.statistics.num_episodes)[new]
      if np.all(episodes >= 0) or session.left() < 0:
        break
    solved = episodes[episodes >= 0]
    note = f'{len(solved)} of {num_seeds} solved within {done // size} episodes, {time.monotonic() - start:.0f} s'
    median = float(np.median(np.where(episodes < 0, np.inf, episodes)))
    session.write(f'{name}: median episodes to solve', median, 'episodes', num_seeds, note)

  return Case(f'{name}, solved', prepare)


def whole_deep_sea(session: Session) -> int:
  """Speed over sizes and numbers of seeds, and episodes to solve."""
  if session.reduced:
    speeds, solved = [(5, 1)], [(5, 1, False)]
  else:
    speeds = [(20, 1), (20, 16), (20, 128), (20, 1024), (50, 128), (100, 128), (100, 1024), (50, 1024)]
    speeds += [(100, 16), (50, 16), (100, 1), (50, 1)]
    solved = [(20, 16, False), (20, 16, True), (50, 16, True)]
  at_once = 1 if session.reduced else 4
  failed = run_cases(session, [deep_sea_speed(session, *x) for x in speeds[:4]], at_once)
  failed += run_cases(session, [deep_sea_solved(session, *x) for x in solved[:1]])
  failed += run_cases(session, [deep_sea_speed(session, *x) for x in speeds[4:]], at_once)
  return failed + run_cases(session, [deep_sea_solved(session, *x) for x in solved[1:]])


# ------------------------------------------------------------------------------------------------------------- learning


def training_command(game: str, folder: pathlib.Path, minutes: float, reduced: bool) -> list[str]:
  """experiments.atari on a game, to begin or to go on."""
  command = [sys.executable, '-m', 'experiments.atari', f'--game={game}', '--preset=fast_cpu', f'--output_dir={folder}']
  command += ['--nofigures', '--notensorboard', '--num_reference_episodes=0', f'--max_minutes={minutes:.3f}']
  if reduced:
    command += ['--num_seeds=1', '--max_interactions=200', '--min_replay=50', '--eval_period=100', '--batch_size=4']
    command += ['--num_eval_episodes=1', '--num_final_episodes=1', '--checkpoint_period=100', '--max_frames=200']
  else:
    command += ['--num_seeds=4', '--eval_period=10000', '--num_eval_episodes=2', '--num_final_episodes=8']
    command += [f'--num_threads={max(1, num_cores() // 4)}', '--checkpoint_period=50000']
  return [*command, '--resume'] if any((folder / 'checkpoints').glob('*/*.json')) else command


def learning_rows(session: Session, game: str, folder: pathlib.Path, note: str) -> None:
  """Rows of the latest evaluation of every seed."""
  path = folder / 'results.csv'
  rows = list(csv.DictReader(path.open(newline=''))) if path.exists() else []
  if not rows:
    session.leave_out(f'learning, {game}', f'no evaluation yet; {note}')
    return
  newest = {row['seed']: row for row in rows}.values()
  mean = lambda column: float(np.mean([float(row[column]) for row in newest]))
  session.write(f'learning, {game}: interactions of a seed', mean('env_step'), 'interactions', len(newest), note)
  session.write(f'learning, {game}: mean return', mean('eval_episode_return'), 'return', len(newest), note)
  session.write(f'learning, {game}: human-normalized', mean('normalized_return'), 'score', len(newest), note)
  if np.isfinite(mean('step_rate')):  # not before the first piece of training, whose time has compiling in it
    session.write(f'learning, {game}: latest speed', mean('step_rate'), 'interactions/s', len(newest), note)


def learning(session: Session) -> int:
  """100,000 interactions of as many of the 26 games as there is time for, several processes on one card.

  A process's emulators and its device work take turns; those of several overlap.
  """
  games = ['pong'] if session.reduced else ['pong', 'freeway', 'breakout', 'boxing', *scores.SUITES['suite26']]
  games, at_once, failed = list(dict.fromkeys(games)), 1 if session.reduced else 4, 0
  for start in range(0, len(games), at_once):
    if session.left() < (0 if session.reduced else 30):  # not worth compiling for
      rest = ', '.join(games[start:])
      session.leave_out(f'learning, {len(games) - start} games', f'the share of the time was over: {rest}')
      break
    failed += learn_together(session, games[start : start + at_once])
  return failed


def learn_together(session: Session, games: list[str]) -> int:
  """Trains games side by side."""
  environment = {**os.environ, 'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.2'}
  environment.pop('XLA_PYTHON_CLIENT_PREALLOCATE', None)
  folder, running = session.folder / 'runs', {}
  for game in games:
    (folder / game).mkdir(parents=True, exist_ok=True)
    command = training_command(game, folder / game, max(6.0, session.left() - 25) / 60, session.reduced)
    with open(folder / f'{game}.log', 'a') as log:
      running[game] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
  failed = 0
  for game, process in running.items():
    try:
      status = process.wait(timeout=max(30.0, session.left() + 10))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
      status = OUT_OF_TIME  # between two chances to stop by itself; its rows are written
    stopped = {0: '', OUT_OF_TIME: ', stopped when time was up'}.get(status, f', exit status {status}')
    note = f'{len(games)} games side by side{stopped}'
    learning_rows(session, game, folder / game, note)
    if status not in (0, OUT_OF_TIME):
      tail = (folder / f'{game}.log').read_text()[-300:]
      session.fail(f'learning, {game}', RuntimeError(f'exit status {status}: {tail}'))
      failed += 1
    if status == 0:  # what is finished needs no gigabytes of replay
      shutil.rmtree(folder / game / 'checkpoints')
  return failed
