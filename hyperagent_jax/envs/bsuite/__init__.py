"""bsuite (Osband et al., 2020) in JAX: all 23 experiments, constructed from a bsuite id, equal to bsuite step for step.

    task = make_bsuite('cartpole_noise/7')
    task.environment.reset(task.params, key)

Settings are bsuite's own (`bsuite.sweep`). Three things differ from its Python environments. DeepSea's observation is
the cell's number, not the N x N one-hot array that holds the same (`adapters.IntegerObservations` makes one of the
other). Where bsuite seeds a generator (memory, umbrella and noise have seed 0 or none), keys are given here. And cart,
pole and car move in float32, not float64, so that their paths part by rounding, slowly.

Imported by its name, since it needs bsuite.
"""

from hyperagent_jax.envs.bsuite.tasks import (
  MNIST_DIR,
  BsuiteParams,
  BsuiteState,
  BsuiteTask,
  Log,
  experiments,
  load_mnist,
  log_columns,
  log_of,
  log_schedule,
  make_bsuite,
  make_environment,
  parse_ids,
  stack_params,
)

__all__ = [
  'MNIST_DIR',
  'BsuiteParams',
  'BsuiteState',
  'BsuiteTask',
  'Log',
  'experiments',
  'load_mnist',
  'log_columns',
  'log_of',
  'log_schedule',
  'make_bsuite',
  'make_environment',
  'parse_ids',
  'stack_params',
]
