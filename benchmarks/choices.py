"""What the library's design choices are worth, each compared with its alternatives on DeepSea.

    python -m benchmarks.choices [--studies=replay,prior] [--quick]

Alternatives take turns in one process. Times are microseconds per time step of one seed; `whole step` is the compiled
program of training, everything else a loop around the part in question. The first of each group is the library's way.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging

import hyperagent_jax as ha
from benchmarks import alternatives, charts, memory, parts, programs, timing
from benchmarks.programs import Inputs, Setup
from benchmarks.timing import pick
from hyperagent_jax.interaction import seed_key
from hyperagent_jax.types import Array, tree_index

_FRAME = (84, 84)


class Scale(NamedTuple):
  """How large everything is."""

  sizes: tuple[int, ...]  # of DeepSea
  fill: int  # interactions in replay before anything is timed
  capacity: int  # of replay
  rings: tuple[int, ...]  # rows of replay where it is the rings that matter
  seeds: int  # where several are trained
  steps: tuple[int, int]  # steps or interactions of a measurement, about a fifth of a second: below size 50, from there
  repeats: int

  def num_steps(self, size: int) -> int:
    """Steps or interactions of a measurement."""
    return self.steps[size >= 50]


WHOLE = Scale((20, 100), 20_000, programs.CAPACITY, (200_000, 1_000_000), 10, (600, 200), repeats=5)
QUICK = Scale((20,), 500, 2_000, (2_000,), 2, (60, 20), repeats=1)


class Comparison(NamedTuple):
  """Cases of `timing.alternate`; the first is the library's choice."""

  title: str
  unit: str
  cases: dict[str, Callable[[], float]]


@functools.cache
def _setup(size: int, scale: Scale) -> Setup:
  return programs.make_setup(ha.presets.deep_sea(size), fill=scale.fill, capacity=scale.capacity)


@functools.cache
def _inputs(size: int, scale: Scale) -> Inputs:
  return programs.make_inputs(_setup(size, scale))


def _step_time(setup: Setup, num: int) -> Callable[[], float]:
  run = programs.training(setup, num)
  return lambda: run().step_time


def _constant(value: float) -> Callable[[], float]:
  """A case that need not be measured."""
  return lambda: value


def _config(size: int, **changes: Any) -> ha.HyperAgentConfig:
  return dataclasses.replace(ha.presets.deep_sea(size), **changes)


# ------------------------------------------------------------------------------------------- what replay stores


def _replays(size: int, capacity: int) -> dict[str, Any]:
  config = _config(size)
  return {
    'time steps and a list of starts': ha.make_replay(capacity, 1, config.n_step, config.discount),
    'whole transitions': alternatives.make_transition_replay(capacity, config.discount),
  }


def _sample_and_add(size: int, replay: Any, scale: Scale) -> Callable[[], float]:
  inputs = _inputs(size, scale)

  def add(i: Array, state: Any, after: Array, data: Any) -> Any:
    timesteps, actions, _ = data
    return replay.add(state, pick(timesteps, i, after), pick(actions, i, after), ha.Extras(), after)

  def body(i: Array, carry: Any, data: Any) -> Any:
    state, after = carry
    batch = replay.sample(state, pick(data[2], i, after)[0])
    # What is written waits for all that is read, as for the loss in training.
    after = sum((jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(batch)), jnp.zeros(()))
    return add(i, state, after, data), after

  data = (inputs.timesteps, inputs.acting.explore, inputs.learning.replay)
  empty = replay.init(tree_index(inputs.timesteps, 0), inputs.acting.explore[0], ha.Extras())
  fill = jax.jit(lambda s, data: jax.lax.fori_loop(0, scale.fill, lambda i, s: add(i, s, jnp.zeros(()), data), s))
  return timing.loop(body, (fill(empty, data), jnp.zeros(())), data, 4 * scale.num_steps(size))


def _bytes_per_transition(size: int, name: str, shape: tuple[int, ...], dtype: Any) -> float:
  """Of a full ring; an episode of N transitions has N + 1 time steps."""
  capacity = 10_000
  example = ha.TimeStep(jnp.zeros(1, jnp.int8), jnp.zeros(1), jnp.zeros(1), jnp.zeros((1, *shape), dtype))
  replay = _replays(size, capacity)[name]
  state = jax.eval_shape(lambda: replay.init(example, jnp.zeros(1, jnp.int32), ha.Extras()))
  per_row = round(timing.num_bytes(state) / capacity)
  return per_row if name == 'whole transitions' else per_row * (size + 1) / size


def replay_study(scale: Scale) -> list[Comparison]:
  """Each state once, or twice."""
  times = []
  for n in scale.sizes:
    cases = {name: _sample_and_add(n, replay, scale) for name, replay in _replays(n, scale.capacity).items()}
    times.append(Comparison(f'size {n}, sample and add', 'µs', cases))
  observations = {'integer observations': ((), jnp.int32), '84 x 84 frames': (_FRAME, jnp.uint8)}
  sizes = []
  for title, (shape, dtype) in observations.items():
    values = {name: _bytes_per_transition(20, name, shape, dtype) for name in _replays(20, 10)}
    sizes.append(Comparison(title, 'bytes per transition', {k: _constant(v) for k, v in values.items()}))
  return times + sizes


# ----------------------------------------------------------------------------------------- where prior values are


def prior_study(scale: Scale) -> list[Comparison]:
  """A table of all states, beside each state in replay, or evaluated in every update."""
  times, sizes = [], []
  for n in scale.sizes:
    remembered = _config(n, prior_storage='replay')
    make = functools.partial(programs.make_setup, remembered, fill=scale.fill, capacity=scale.capacity)
    setups = {
      'table': _setup(n, scale),
      'beside each state in replay': make(),
      'evaluated in every update': make(network=alternatives.prior_in_update(remembered)),
    }
    cases = {name: _step_time(setup, scale.num_steps(n)) for name, setup in setups.items()}
    times.append(Comparison(f'size {n}, whole step', 'µs', cases))
    megabytes = {k: _prior_bytes(s, remembers=k.startswith('beside')) / 1e6 for k, s in setups.items()}
    title = f'size {n}, prior and replay of 1e6'
    sizes.append(Comparison(title, 'MB', {k: _constant(v) for k, v in megabytes.items()}))
  return times + sizes


def _prior_bytes(setup: Setup, remembers: bool) -> int:
  config = _config(setup.config.grid_size, prior_storage='replay' if remembers else 'table')
  return memory.replay_bytes(config) + timing.num_bytes(ha.select_seed(setup.state, 0).learner.prior_params)


# ------------------------------------------------------------------------------------------------------ optimizer


def optimizer_study(scale: Scale) -> list[Comparison]:
  """Clipping and Adam array by array, or on packed arrays."""
  config = ha.presets.deep_sea()
  chain = optax.chain(
    optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.learning_rate, eps=config.adam_eps)
  )
  transformations = {
    'clipped_adam, small arrays packed': ha.make_optimizer(config),
    'optax chain': chain,
    'optax chain, flattened': optax.flatten(chain),
  }

  def case(size: int, optimizer: optax.GradientTransformation) -> Callable[[], float]:
    setup, inputs = _setup(size, scale), _inputs(size, scale)
    learner = inputs.state.learner._replace(opt_state=optimizer.init(inputs.state.learner.params))
    inputs = inputs._replace(state=inputs.state._replace(carry=inputs.state.carry._replace(learner=learner)))
    setup = setup._replace(agent=ha.make_hyperagent(setup.network, optimizer, setup.config))
    return timing.loop(*parts.update(setup, inputs), scale.num_steps(size))

  cases = lambda n: {name: case(n, t) for name, t in transformations.items()}
  return [Comparison(f'size {n}, whole update', 'µs', cases(n)) for n in scale.sizes]


# --------------------------------------------------------------------------------------------- forward passes


def forward_study(scale: Scale) -> list[Comparison]:
  """The online network at s and s', one after the other or together."""

  def case(size: int, gradient: Callable[..., Any]) -> Callable[[], float]:
    setup, inputs = _setup(size, scale), _inputs(size, scale)

    def body(i: Array, carry: Any, data: Any) -> Any:
      learner, batches, index_t = data
      return gradient(setup, learner, pick(batches, i, carry[0]), pick(index_t, i, carry[0]))

    learner = inputs.state.learner
    data = (learner, inputs.batches, inputs.updates.index_t)
    return timing.loop(body, (jnp.zeros(()), learner.params), data, scale.num_steps(size))

  ways = {"s, then s'": alternatives.two_forwards, "s and s' together": alternatives.one_forward}
  for size in scale.sizes:
    inputs = _inputs(size, scale)
    example = (inputs.state.learner, tree_index(inputs.batches, 0), inputs.updates.index_t[0])
    two, one = (way(_setup(size, scale), *example) for way in ways.values())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), two, one)
  cases = lambda n: {name: case(n, way) for name, way in ways.items()}
  return [Comparison(f'size {n}, targets, loss and gradient', 'µs', cases(n)) for n in scale.sizes]


# ------------------------------------------------------------------------------------------- random numbers


def prng_study(scale: Scale) -> list[Comparison]:
  """Generators, where few and where many random numbers are drawn."""

  def case(size: int, impl: str, indices: str) -> Callable[[], float]:
    like = _setup(size, scale)
    like = like._replace(state=like.state._replace(key=seed_key(0, impl)[None]))
    config = _config(size, prng_impl=impl, update_indices=indices)
    return _step_time(programs.make_setup(config, capacity=scale.capacity, like=like), scale.num_steps(size))

  impls = ('threefry2x32', 'rbg', 'unsafe_rbg')
  cases = lambda size, indices: {impl: case(size, impl, indices) for impl in impls}
  exact = [Comparison(f'size {n}, exact, whole step', 'µs', cases(n, 'exact')) for n in scale.sizes]
  return exact + [Comparison(f'size {n}, 20 indices, whole step', 'µs', cases(n, '20')) for n in scale.sizes]


# ------------------------------------------------------------------------------------------- writing in place


def in_place_study(scale: Scale) -> list[Comparison]:
  """Replay written after it was read, or whenever XLA likes."""
  comparisons = []
  for rows in scale.rings:
    for size in scale.sizes:
      ordered = programs.make_setup(_config(size), capacity=rows)
      num = min(100, scale.num_steps(size))
      replay = alternatives.make_unordered_replay(rows, ordered.config)
      unordered = programs.make_setup(ordered.config, replay=replay, like=ordered)
      cases = {'after all reads': _step_time(ordered, num), 'in no given order': _step_time(unordered, num)}
      comparisons.append(Comparison(f'size {size}, {rows:,} rows, whole step', 'µs', cases))
  return comparisons


# ------------------------------------------------------------------------------------------------- several seeds


def seeds_study(scale: Scale) -> list[Comparison]:
  """Several seeds one after the other or as one batch, on a device per core or on one device."""
  devices = jax.local_devices()
  make = functools.partial(programs.make_setup, num_seeds=scale.seeds, capacity=scale.capacity)
  base = {n: make(_config(n)) for n in scale.sizes}

  def case(size: int, axis: str, num: int) -> Callable[[], float]:
    setup = make(base[size].config, devices=devices[:num], seed_axis=axis, like=base[size])
    run = programs.training(setup, scale.num_steps(size) // 3)
    return lambda: run().speed

  counts = sorted({len(devices), 1}, reverse=True)
  name = lambda axis, num: f'{axis}, {num} device{"s" if num > 1 else ""}'
  cases = lambda n: {name(axis, num): case(n, axis, num) for axis in ('map', 'vmap') for num in counts}
  return [Comparison(f'size {n}, {scale.seeds} seeds', 'steps/s (more is better)', cases(n)) for n in scale.sizes]


# ------------------------------------------------------------------------------------------------------ main

STUDIES: dict[str, tuple[str, Callable[[Scale], list[Comparison]]]] = {
  'replay': ('What replay stores', replay_study),
  'prior': ('Where the values of the fixed prior are kept', prior_study),
  'optimizer': ('Clipping and Adam', optimizer_study),
  'forward': ("The online network's forward passes", forward_study),
  'prng': ('Generator of random numbers', prng_study),
  'in_place': ('When replay is written', in_place_study),
  'seeds': ('How several seeds run', seeds_study),
}

_STUDIES = flags.DEFINE_list('studies', list(STUDIES), 'Which; choices.csv is written where all are run.')
_QUICK = flags.DEFINE_bool('quick', False, 'Everything small and once, to see that it works; writes no file.')
_OUTPUT_DIR = flags.DEFINE_string('output_dir', str(timing.RESULTS), 'Folder of choices.csv and the figures.')


def main(argv: list[str]) -> None:
  """Measures, prints, draws and writes."""
  del argv
  logging.set_verbosity(logging.ERROR)  # JAX reports platforms that it does not find
  timing.use_all_cores()
  folder, hardware = pathlib.Path(_OUTPUT_DIR.value), timing.hardware()
  quick = _QUICK.value
  scale = QUICK if quick else WHOLE
  print(f'{hardware}\nMedians of {scale.repeats} repeats, with the lowest and the highest.', flush=True)
  table = []
  for name in _STUDIES.value:
    title, study = STUDIES[name]
    print(f'\n{title}', flush=True)
    panels = []
    for comparison in study(scale):
      values = timing.alternate(comparison.cases, scale.repeats)
      panels.append(charts.Panel(comparison.title, comparison.unit, values))
      print(f'  {comparison.title}: {comparison.unit}')
      for choice, v in values.items():
        print(f'    {choice:36s}' + ''.join(f'{charts.format_value(x):>12s}' for x in v), flush=True)
        table.append((name, comparison.title, choice, *v, comparison.unit, scale.repeats, hardware))
    if not quick:
      charts.draw(folder / f'choices_{name}.png', title, panels)
  if not quick and list(_STUDIES.value) == list(STUDIES):
    columns = ('study', 'what', 'choice', 'median', 'min', 'max', 'unit', 'repeats', 'hardware')
    timing.write_csv(folder / 'choices.csv', columns, table)


if __name__ == '__main__':
  app.run(main)
