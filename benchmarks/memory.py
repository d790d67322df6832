"""Memory: bytes of replay, and the peak of a whole program in a process of its own.

    python -m benchmarks.memory SIZE CAPACITY INTERACTIONS

trains one seed and prints the process's peak resident set in bytes.
"""

import dataclasses
import pathlib
import resource
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp

import hyperagent_jax as ha
from benchmarks import programs, timing


def replay_bytes(config: ha.HyperAgentConfig, num_transitions: int = 1_000_000) -> int:
  """Bytes of one seed's replay with room for so many DeepSea transitions; shapes only, nothing is allocated.

  Each state is stored once, so an episode of N transitions takes N + 1 rows.
  """
  size = config.grid_size
  num_rows = num_transitions + num_transitions // size
  environment = ha.make_deep_sea(size)
  network = ha.make_network(config, environment.num_actions)
  replay = ha.make_replay(num_rows, 1, config.n_step, config.discount)

  def init(key: jax.Array) -> Any:
    _, timestep = environment.reset(None, key)
    params, prior = network.init(key, timestep.observation)
    del params
    prior_q = network.prior_q(prior, timestep.observation) if network.remember_prior else None
    batched = jax.tree.map(lambda x: x[None], (timestep, jnp.int32(0), ha.Extras(prior_q=prior_q)))
    return replay.init(*batched)

  return timing.num_bytes(jax.eval_shape(init, jax.random.key(0)))


def peak_bytes() -> int:
  """This process's peak resident set."""
  try:  # getrusage would count what a parent held when it started this process.
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))
  except (OSError, StopIteration):
    unit = 1 if sys.platform == 'darwin' else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_of_training(size: int, capacity: int, num_interactions: int) -> int:
  """Peak resident set of a fresh process that trains one seed."""
  command = [sys.executable, '-m', 'benchmarks.memory', str(size), str(capacity), str(num_interactions)]
  root = pathlib.Path(__file__).parent.parent
  return int(subprocess.run(command, check=True, cwd=root, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def main(size: int, capacity: int, num_interactions: int) -> None:
  """Trains and prints the peak."""
  timing.use_all_cores()
  config = dataclasses.replace(ha.presets.deep_sea(size), replay_capacity=capacity)
  # Filled, so that every page of the ring has been touched.
  setup = programs.make_setup(config, capacity=capacity, fill=capacity)
  jax.block_until_ready(setup.runner.run(setup.state, ha.steps_for(num_interactions, size)))
  print(peak_bytes())


if __name__ == '__main__':
  main(*map(int, sys.argv[1:]))
