"""The systems that HyperAgent is compared with, each an `Agent` for the same drivers, by the names of `--agent`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from hyperagent_jax import presets
from hyperagent_jax.baselines import ddqn, enn_dqn, ensemble, hyperdqn, hypermodel, langevin, noisy
from hyperagent_jax.baselines.config import RivalConfig, validate_rival
from hyperagent_jax.build import make
from hyperagent_jax.config import HyperAgentConfig, validate
from hyperagent_jax.types import Agent


class System(NamedTuple):
  """An agent by name."""

  deep_sea: Callable[[int], Any]  # size -> its settings
  atari: Callable[[HyperAgentConfig], Any] | None  # preset -> its settings; None where it cannot play screens
  make: Callable[[Any, int], Agent]  # settings, number of actions
  fields: frozenset[str]  # the settings that it reads
  validate: Callable[[Any], None]  # raises ConfigError on settings that it cannot use


def _rival(deep_sea: Any, atari: Any, make: Any, fields: frozenset[str]) -> System:
  return System(deep_sea, atari, make, fields, functools.partial(validate_rival, fields=fields))


SYSTEMS = {
  'hyperagent': System(
    presets.deep_sea,
    lambda preset: preset,
    make,
    frozenset(f.name for f in dataclasses.fields(HyperAgentConfig)),
    validate,
  ),
  'ddqn': _rival(ddqn.deep_sea, ddqn.atari, ddqn.make, ddqn.FIELDS),
  'ensemble_plus': _rival(ensemble.deep_sea, ensemble.atari, ensemble.make, ensemble.PLUS_FIELDS),
  'ensemble_plus_os': _rival(ensemble.deep_sea, ensemble.atari, ensemble.make_optimistic, ensemble.OPTIMISTIC_FIELDS),
  'hyperdqn': _rival(hyperdqn.deep_sea, hyperdqn.atari, hyperdqn.make, hyperdqn.FIELDS),
  'enn_dqn': _rival(enn_dqn.deep_sea, enn_dqn.atari, enn_dqn.make, enn_dqn.FIELDS),
  'hypermodel': _rival(hypermodel.deep_sea, None, hypermodel.make, hypermodel.FIELDS),
  'noisynet': _rival(noisy.deep_sea, noisy.atari, noisy.make, noisy.FIELDS),
  'sane': _rival(noisy.deep_sea_sane, noisy.atari_sane, noisy.make_sane, noisy.FIELDS),
  'langevin_dqn': _rival(langevin.deep_sea, langevin.atari, langevin.make, langevin.FIELDS),
  'adam_lmcdqn': _rival(langevin.deep_sea_adam, langevin.atari_adam, langevin.make_adam, langevin.ADAM_FIELDS),
  'bayes_ucbdqn': _rival(ensemble.deep_sea_ucb, ensemble.atari_ucb, ensemble.make_ucb, ensemble.UCB_FIELDS),
}

__all__ = ['SYSTEMS', 'RivalConfig', 'System']
