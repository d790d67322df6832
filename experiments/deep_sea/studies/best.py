"""The preset `deep_sea_best` against HyperAgent as published, at every size."""

from experiments.deep_sea.studies.study import REDUCED, Study, grid, without_size
from experiments.deep_sea.studies.systems import CAP

_SERIES = {'HyperAgent': {}, 'deep_sea_best': {'preset': 'deep_sea_best'}}

STUDY = Study(
  'best',
  'The best preset against HyperAgent as published',
  'size N',
  settings=grid(_SERIES, 'size', (20, 30, 50), num_seeds=10, max_episodes=CAP),
  reduced=grid(_SERIES, 'size', (10,), **without_size(REDUCED)),
)
