"""Optimistic index sampling (OIS) against one index, and all members of an ensemble against one."""

from experiments.deep_sea.studies.study import ABLATION, REDUCED, Series, Study, grid, without_size
from experiments.deep_sea.studies.tuning import TUNED

OIS = {'act_num_indices': 20, 'target_num_indices': 20}
_SYSTEMS: Series = {
  'HyperAgent': {},
  'HyperAgent w. OIS': OIS,
  'HyperAgent, all indices': {'optimism': 'supremum'},
  'Ensemble+': TUNED['ensemble_plus'],
  'Ensemble+ w. OS': TUNED['ensemble_plus_os'],
}
_SERIES = {
  f'{name}, M = {m}': {**flags, 'ensemble_size' if 'agent' in flags else 'index_dim': m}
  for name, flags in _SYSTEMS.items()
  for m in (4, 16)
}

STUDY = Study(
  'optimism',
  'Optimistic sampling',
  'size N',
  settings=grid(_SERIES, 'size', (20,), **without_size(ABLATION)),
  reduced=grid({k: v for k, v in _SERIES.items() if k.endswith(' 4')}, 'size', (10,), **without_size(REDUCED)),
)
