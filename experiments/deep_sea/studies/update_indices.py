"""Update indices N per transition, or their exact expectation, at several M (figures 10 and 11 of the paper).

The prior's spread is the same at every M, as in `index_dim.py`.
"""

from experiments.deep_sea.studies.index_dim import FIXED_SPREAD
from experiments.deep_sea.studies.study import ABLATION, REDUCED, Study, grid

_NUMBERS = ('1', '2', '4', '20', '64', 'exact')


def _series(dims: tuple[int, ...]) -> dict:
  return {f'M = {m}': {'index_dim': m} for m in dims}


STUDY = Study(
  'update_indices',
  'Update indices',
  'update indices N',
  settings=grid(_series((2, 4, 8, 16)), 'update_indices', _NUMBERS, **ABLATION, **FIXED_SPREAD),
  reduced=grid(_series((4,)), 'update_indices', ('1', 'exact'), **REDUCED, **FIXED_SPREAD),
)
