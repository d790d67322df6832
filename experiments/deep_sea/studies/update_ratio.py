"""Updates per time step."""

from experiments.deep_sea.studies.study import ABLATION, REDUCED, Study, grid

STUDY = Study(
  'update_ratio',
  'Updates per time step',
  'updates per time step',
  settings=grid({'HyperAgent': {}}, 'update_ratio', (1.0, 2.0, 4.0, 8.0), **ABLATION),
  reduced=grid({'HyperAgent': {}}, 'update_ratio', (1.0, 4.0), **REDUCED),
  log_x=True,
)
