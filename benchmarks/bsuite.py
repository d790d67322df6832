"""bsuite in XLA against bsuite in Python: environments alone, and training.

    python -m benchmarks.bsuite [--quick]

Environments: thousands of instances side by side, under vmap and scan on every core, with random actions, against
one bsuite environment stepped by a loop with actions drawn beforehand. Observations are read, so that XLA makes them.
Training: the sweep's own program, one update on a mini-batch of 64 a step, against the host driver on bsuite's
environment. Compilation is not counted.
"""

import contextlib
import dataclasses
import io
import itertools
import pathlib
import time
from collections.abc import Callable

import bsuite
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from benchmarks import timing
from benchmarks.timing import Row, show
from experiments.bsuite.settings import BsuiteConfig, seed_of
from experiments.bsuite.training import Batch, make_batch_runner, spread
from hyperagent_jax import presets
from hyperagent_jax.agent import make_hyperagent, make_optimizer
from hyperagent_jax.envs import bsuite as envs
from hyperagent_jax.host import HostAgent, run_loop
from hyperagent_jax.networks import make_network
from hyperagent_jax.replay import make_replay
from hyperagent_jax.types import batched

_QUICK = flags.DEFINE_bool('quick', False, 'A rough look within a minute; writes no file.')
_OUTPUT_DIR = flags.DEFINE_string('output_dir', str(timing.RESULTS), 'Folder of bsuite.csv.')

STEPPED = ('catch/0', 'cartpole/0', 'deep_sea/5')  # the last of size 20
INSTANCES, SCANNED = 4_096, 200
HISTORIES = (1, 32, 101)  # observations; the last is a whole episode of memory_len/22
STEPPING_BAR, ALONE_BAR, BATCHED_BAR = 100.0, 3.0, 6.0


def _load(bsuite_id: str) -> bsuite.environments.base.Environment:
  with contextlib.redirect_stdout(io.StringIO()):  # it announces itself
    environment = bsuite.load_from_id(bsuite_id)
  return environment


def stepping_in_xla(bsuite_id: str) -> Callable[[], float]:
  """A case: steps per second of many instances on all devices."""
  task = envs.make_bsuite(bsuite_id)
  environment, devices = batched(task.environment, INSTANCES), jax.local_devices()
  one_hot = environment.observation_spec.num_values - 1 if bsuite_id.startswith('deep_sea') else 0

  def scan(key: jax.Array) -> jax.Array:
    key_reset, key_steps = jax.random.split(key)
    state, timestep = environment.reset(task.params, jax.random.split(key_reset, INSTANCES))

    def body(carry, key):
      state, total = carry
      key_action, key_step = jax.random.split(key)
      action = jax.random.randint(key_action, (INSTANCES,), 0, environment.num_actions)
      state, timestep = environment.step(task.params, state, action, jax.random.split(key_step, INSTANCES))
      observation = timestep.observation
      if one_hot:  # as bsuite has it
        observation = jax.nn.one_hot(observation, one_hot)
      observation = jax.lax.optimization_barrier(observation)  # made as an array, not fused away
      read = jnp.sum(observation.reshape(INSTANCES, -1), axis=1)
      return (state, total + timestep.reward + read), None

    start = (state, jnp.zeros(INSTANCES) + 0 * jnp.sum(timestep.reward))
    return jax.lax.scan(body, start, jax.random.split(key_steps, SCANNED))[0][1]

  mesh = Mesh(np.asarray(devices), ('d',))
  program = jax.jit(
    jax.shard_map(lambda keys: scan(keys[0])[None], mesh=mesh, in_specs=P('d'), out_specs=P('d'), check_vma=False)
  )
  keys = jax.random.split(jax.random.key(0), len(devices))

  def run() -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(keys))
    return len(devices) * INSTANCES * SCANNED / (time.perf_counter() - start)

  return run


def stepping_in_python(bsuite_id: str, num_steps: int) -> Callable[[], float]:
  """A case: steps per second of bsuite's environment."""
  environment = _load(bsuite_id)
  actions = np.random.RandomState(0).randint(environment.action_spec().num_values, size=num_steps).tolist()
  environment.reset()

  def run() -> float:
    start = time.perf_counter()
    for action in actions:
      environment.step(action)
    return num_steps / (time.perf_counter() - start)

  return run


def training_in_xla(ids: list[str], num_steps: int, history: int = 1) -> Callable[[], float]:
  """A case: time steps of all ids per second, of an agent that sees so many observations."""
  run_config = BsuiteConfig()
  batch = Batch(tuple(envs.make_bsuite(bsuite_id, log=True) for bsuite_id in ids))
  config = dataclasses.replace(presets.bsuite(), frame_stack=history)
  runner = make_batch_runner(batch.tasks[0], config, run_config.agent, jax.local_devices())
  tasks, wanted = spread(batch, len(jax.local_devices()))
  state = runner.init([seed_of(task, run_config) for task in tasks], envs.stack_params(tasks))
  state = runner.prefill(state, 1_000)

  def run() -> float:
    nonlocal state
    start = time.perf_counter()
    state = jax.block_until_ready(runner.run(state, num_steps, wanted))
    return len(ids) * num_steps / (time.perf_counter() - start)

  return run


def training_on_host(bsuite_id: str, num_steps: int) -> Callable[[], float]:
  """A case: time steps per second of the host driver on bsuite's environment."""
  config, environment = presets.bsuite(), _load(bsuite_id)
  num_actions = environment.action_spec().num_values
  agent = make_hyperagent(make_network(config, num_actions), make_optimizer(config), config)
  replay = make_replay(config.replay_capacity, 1, config.n_step, config.discount)
  steps = run_loop(HostAgent(agent, replay, num_actions, config, seed=0), environment)
  for _ in itertools.islice(steps, 1_000):  # as much in replay
    pass

  def run() -> float:
    start = time.perf_counter()
    for _ in itertools.islice(steps, num_steps):
      pass
    return num_steps / (time.perf_counter() - start)

  return run


def stepping_rows(quick: bool) -> list[Row]:
  """Environments alone."""
  rows = []
  for bsuite_id in STEPPED:
    cases = {
      'XLA': stepping_in_xla(bsuite_id),
      'bsuite': stepping_in_python(bsuite_id, 1_000 if quick else 10_000),
    }
    speed = {name: s.median for name, s in timing.alternate(cases, repeats=3 if quick else 9).items()}
    rows += [Row(f'{bsuite_id}, {name}', value, 'steps/s') for name, value in speed.items()]
    rows.append(Row(f'{bsuite_id}, XLA / bsuite', speed['XLA'] / speed['bsuite'], 'ratio', STEPPING_BAR))
  return rows


def training_rows(quick: bool) -> list[Row]:
  """Whole programs."""
  steps = 300 if quick else 2_000
  one, twenty, host = 'cartpole/0, fused', 'cartpole_noise, 20 ids, fused', 'cartpole/0, host driver'
  cases = {
    one: training_in_xla(['cartpole/0'], steps),
    twenty: training_in_xla(envs.parse_ids('cartpole_noise'), steps),
    host: training_on_host('cartpole/0', steps),
    **{f'memory_len/22, history of {n}, fused': training_in_xla(['memory_len/22'], steps, n) for n in HISTORIES},
  }
  speed = {name: s.median for name, s in timing.alternate(cases, repeats=3 if quick else 7).items()}
  rows = [Row(name, value, 'steps/s') for name, value in speed.items()]
  return [
    *rows,
    Row('one id, fused / host', speed[one] / speed[host], 'ratio', ALONE_BAR),
    Row('20 ids, fused / host', speed[twenty] / speed[host], 'ratio', BATCHED_BAR),
  ]


def main(argv: list[str]) -> None:
  """Measures, prints and writes."""
  del argv
  logging.set_verbosity(logging.ERROR)
  timing.use_all_cores()
  print(f'{timing.hardware()}\nMedians of several repeats, taken in turns.', flush=True)
  rows = []
  for title, measure in (('Environments alone', stepping_rows), ('Training', training_rows)):
    measured = measure(_QUICK.value)
    show(title, measured)
    rows += measured
  if not _QUICK.value:
    path = pathlib.Path(_OUTPUT_DIR.value) / 'bsuite.csv'
    bar = lambda row: '' if row.bar is None else row.bar
    table = [(row.what, row.value, row.unit, bar(row), timing.hardware()) for row in rows]
    timing.write_csv(path, ('what', 'value', 'unit', 'bar', 'hardware'), table)
    print(f'\n{path}')


if __name__ == '__main__':
  app.run(main)
