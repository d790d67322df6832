"""The studies, by the names that --study takes."""

from experiments.tabular import bridge, index_dim, perturbation, posterior, regret, scaling, structured, tuning
from experiments.tabular.study import Study

STUDIES: dict[str, Study] = {
  'regret': regret.STUDY,
  'tuning': tuning.STUDY,
  'scaling': scaling.STUDY,
  'structured': structured.STUDY,
  'index_dim': index_dim.STUDY,
  'perturbation': perturbation.STUDY,
  'posterior': posterior.STUDY,
  'bridge': bridge.STUDY,
}
