"""Index dimension (figure 7 of the paper), with the prior's spread the same at every M.

Indices have second moment I and the rows of A0 length 1/2 whatever M is; b0 and the prior's scale are unchanged. At
M = 4 that is the preset, but for the scale on which the factor is learnt.
"""

from experiments.deep_sea.studies.study import ABLATION, REDUCED, Study, grid

FIXED_SPREAD = {'unit_variance_index': True, 'prior_row_length': 0.5}
_SERIES = {'exact expectation': {}, '20 sampled indices': {'update_indices': '20'}}

STUDY = Study(
  'index_dim',
  'Index dimension at a fixed spread of the prior',
  'index dimension M',
  settings=grid(_SERIES, 'index_dim', (1, 2, 4, 8, 16, 32), **ABLATION, **FIXED_SPREAD),
  reduced=grid(_SERIES, 'index_dim', (1, 4), **REDUCED, **FIXED_SPREAD),
  log_x=True,
)
