"""What `deep_sea_best` was chosen by: one thing changed at a time at size 50, on seeds that no figure reports.

The base is optimistic index sampling (K = 20), four updates a step, the target copied before every update. Until the
treasure is found an agent visits nearly every cell, so what counts is in which order: a lower discount makes it take
the nearest unknown first. Two seeds each, 500 to 700 episodes.
"""

from experiments.deep_sea.studies.study import Series, Setting, Study
from experiments.deep_sea.studies.tuning import FIRST_SEED

_COMMON = {'size': 50, 'num_seeds': 2, 'first_seed': FIRST_SEED, 'update_ratio': 4.0, 'target_period': 1}
_BASE = {**_COMMON, 'act_num_indices': 20, 'target_num_indices': 20, 'double_q': False}
_ONCE = {**_BASE, 'geometric_resampling': False, 'max_episodes': 500}
_NO_MEAN = {'prior_std': 0.05, 'prior_row_length': 1.0, 'max_episodes': 600}

_SETTINGS: Series = {
  'one index, dependent target': {
    **{**_COMMON, 'double_q': False},
    **{'target_index': 'dependent', 'update_indices': '4', 'max_episodes': 700},
  },
  'discount 0.99, learning rate 2e-3': {**_BASE, 'learning_rate': 2e-3, 'max_episodes': 700},
  'discount 0.99, prior mean near 0': {**_BASE, **_NO_MEAN},
  'discount 0.99, prior mean near 0, factor x 3': {**_BASE, **_NO_MEAN, 'prior_row_length': 3.0},
  'discount 0.99, prior mean near 0, index every step': {**_BASE, **_NO_MEAN, 'act_resampling': 'state_dependent'},
  'discount 0.95, prior mean near 0, factor x 3': {
    **{**_ONCE, **_NO_MEAN},
    **{'prior_row_length': 3.0, 'discount': 0.95},
  },
  'discount 0.95': {**_ONCE, 'discount': 0.95, 'max_episodes': 600},
  'discount 0.97': {**_ONCE, 'discount': 0.97},
  'discount 0.97, index every step': {**_ONCE, 'discount': 0.97, 'act_resampling': 'state_dependent'},
  'discount 0.97, learning rate 2e-3': {**_ONCE, 'discount': 0.97, 'learning_rate': 2e-3},
  'discount 0.97, learning rate 5e-4': {**_ONCE, 'discount': 0.97, 'learning_rate': 5e-4},
  'discount 0.97, eight updates a step': {**_ONCE, 'discount': 0.97, 'update_ratio': 8.0},
}

STUDY = Study(
  'best_tuning',
  'What the best preset was chosen by',
  'setting',
  settings=tuple(Setting('size 50', name, flags) for name, flags in _SETTINGS.items()),
  reduced=tuple(
    Setting('size 10', name, {**_SETTINGS[name], 'size': 10, 'max_episodes': 300})
    for name in ('discount 0.97', 'discount 0.97, eight updates a step')
  ),
)
