"""The DeepSea study: one file a figure, each a table of settings run through `experiments.deep_sea`."""

from experiments.studies import (
  best,
  best_tuning,
  distributions,
  index_dim,
  networks,
  optimism,
  sampling,
  sigma,
  stochastic,
  systems,
  targets,
  tuning,
  update_indices,
  update_ratio,
)

_MODULES = (
  *(systems, best, optimism, targets, index_dim, update_indices, networks),
  *(distributions, sigma, sampling, update_ratio, stochastic, tuning, best_tuning),
)
_ALL = [module.STUDY for module in _MODULES]
STUDIES = {study.name: study for study in (*_ALL, systems.PARAMETERS, systems.SECONDS)}
