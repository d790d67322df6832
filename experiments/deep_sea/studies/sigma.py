"""Scale of the perturbation in the targets (figure 12 of the paper)."""

from experiments.deep_sea.studies.study import ABLATION, REDUCED, Study, grid

STUDY = Study(
  'sigma',
  'Perturbation of targets',
  'sigma',
  settings=grid({'HyperAgent': {}}, 'sigma', (0.0, 1e-4, 1e-3, 1e-2, 1e-1), **ABLATION),
  reduced=grid({'HyperAgent': {}}, 'sigma', (0.0, 1e-2), **REDUCED),
  log_x=True,
)
