"""Network structures under one loss (figure 13 of the paper): 20 sampled indices, independent targets, double Q.

Each keeps its own prior; the hypermodel of all layers shares its indices over a mini-batch, as it must to be feasible.
"""

from experiments.deep_sea.studies.study import ABLATION, REDUCED, Series, Study, grid, without_size
from experiments.deep_sea.studies.tuning import TUNED

_SERIES: Series = {
  'HyperAgent: linear, last layer': {'update_indices': '20'},
  'HyperModel: linear, all layers': {'agent': 'hypermodel'},
  'epinet': {**TUNED['enn_dqn'], 'target_index': 'independent', 'double_q': True, 'geometric_resampling': True},
}

STUDY = Study(
  'networks',
  'Network structures under the same loss',
  'size N',
  settings=grid(_SERIES, 'size', (10, 20), **{**without_size(ABLATION), 'num_seeds': 10}),
  reduced=grid(_SERIES, 'size', (10,), **without_size(REDUCED)),
)
