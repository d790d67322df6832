"""Independent against dependent target indices (figure 14 of the paper), at 20 sampled update indices."""

from experiments.deep_sea.studies.study import ABLATION, REDUCED, Study, grid, without_size

_SERIES = {
  'independent, exact': {},
  'independent, 20 sampled': {'update_indices': '20'},
  'dependent, 20 sampled': {'update_indices': '20', 'target_index': 'dependent'},
}

STUDY = Study(
  'targets',
  'Independent and dependent target indices',
  'size N',
  settings=grid(_SERIES, 'size', (20, 30, 50), **{**without_size(ABLATION), 'num_seeds': 10}),
  reduced=grid(_SERIES, 'size', (10,), **without_size(REDUCED)),
)
