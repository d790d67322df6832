"""bsuite's stochastic DeepSea: actions that fail with probability 1/N, and noisy rewards."""

from experiments.deep_sea.studies.study import ABLATION, REDUCED, Series, Study, grid, without_size
from experiments.deep_sea.studies.tuning import TUNED

_SERIES: Series = {
  'HyperAgent': {},
  'HyperAgent, sigma 0.01': {'sigma': 0.01},
  'Ensemble+, M = 16': {**TUNED['ensemble_plus'], 'ensemble_size': 16},
}

STUDY = Study(
  'stochastic',
  'Stochastic DeepSea',
  'size N',
  settings=grid(_SERIES, 'size', (10, 20), **without_size(ABLATION), stochastic=True),
  reduced=grid(_SERIES, 'size', (6,), **without_size(REDUCED), stochastic=True),
)
