"""The studies, by the names that --study takes."""

from experiments.deep_sea.studies import (
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
