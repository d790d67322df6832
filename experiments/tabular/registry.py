"""The studies, by the names that --study takes."""

from experiments.tabular import (
  bandit,
  bridge,
  computation,
  contraction,
  index_dim,
  perturbation,
  posterior,
  regret,
  scaling,
  spreading,
  structured,
  tuning,
)
from experiments.tabular.study import Study

STUDIES: dict[str, Study] = {
  'regret': regret.STUDY,
  'tuning': tuning.STUDY,
  'scaling': scaling.STUDY,
  'structured': structured.STUDY,
  'bandit': bandit.STUDY,
  'index_dim': index_dim.STUDY,
  'perturbation': perturbation.STUDY,
  'posterior': posterior.STUDY,
  'contraction': contraction.STUDY,
  'spreading': spreading.STUDY,
  'computation': computation.STUDY,
  'bridge': bridge.STUDY,
}
