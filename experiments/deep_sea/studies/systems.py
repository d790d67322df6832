"""All systems against size (figure 2 of the paper), and what each costs in parameters and in time.

Within 10,000 episodes. HyperAgent has its published numbers at every size. Each rival has its published ones but for
those that were tuned at size 20 (`tuning.py`), where a change made it better. Those that do not solve size 20 are not
run at larger ones: a run that fails costs the whole budget.
"""

import dataclasses

from experiments.deep_sea.studies.study import REDUCED, Series, Setting, Study, grid, without_size
from experiments.deep_sea.studies.tuning import TUNED

SYSTEMS: Series = {
  'HyperAgent': {},
  'HyperAgent w. OIS': {'act_num_indices': 20, 'target_num_indices': 20},
  'Ensemble+, M = 16': {**TUNED['ensemble_plus'], 'ensemble_size': 16},
  'Ensemble+ w. OS, M = 16': {**TUNED['ensemble_plus_os'], 'ensemble_size': 16},
  'Bayes-UCBDQN, M = 16': {**TUNED['bayes_ucbdqn'], 'ensemble_size': 16},
  'ENN-DQN': TUNED['enn_dqn'],
  'HyperDQN': {'agent': 'hyperdqn'},
  'HyperModel': {'agent': 'hypermodel'},
  'Ensemble+, M = 4': {**TUNED['ensemble_plus'], 'ensemble_size': 4},
  'DDQN(ours)': {'agent': 'ddqn'},
  'NoisyNet': {'agent': 'noisynet'},
  'SANE': {'agent': 'sane'},
  'Langevin DQN': {'agent': 'langevin_dqn'},
  'Adam LMCDQN': {'agent': 'adam_lmcdqn'},
}
CAP = 10_000
_CAPS = {'HyperModel': 2_000}  # which takes ten times as long as HyperAgent for an update
_TO_20 = {10: 10, 20: 10}  # size -> seeds
_TO_40 = {**_TO_20, 30: 2, 40: 4}
_SEEDS = {
  'HyperAgent': {10: 10, 20: 10, 30: 10, 40: 10, 50: 10, 70: 4, 100: 4},
  'HyperAgent w. OIS': {**_TO_40, 50: 4},
  'Ensemble+, M = 16': _TO_40,
  'Ensemble+ w. OS, M = 16': _TO_40,
  'Bayes-UCBDQN, M = 16': {**_TO_20, 30: 2},
  'ENN-DQN': _TO_40,
  'NoisyNet': {10: 2, 20: 10},
  'SANE': {10: 10, 20: 2},
  'Adam LMCDQN': {10: 10, 20: 2},
}


def seeds_of(system: str) -> dict[int, int]:
  """Size -> number of seeds."""
  return _SEEDS.get(system, _TO_20)


def _settings() -> tuple[Setting, ...]:
  """Size by size, so that a study cut short has whole sizes."""
  return tuple(
    Setting(
      name, size, {**flags, 'size': size, 'num_seeds': seeds_of(name)[size], 'max_episodes': _CAPS.get(name, CAP)}
    )
    for size in _SEEDS['HyperAgent']
    for name, flags in SYSTEMS.items()
    if size in seeds_of(name)
  )


STUDY = Study(
  'systems',
  'Episodes to solve DeepSea',
  'size N',
  settings=_settings(),
  reduced=grid(SYSTEMS, 'size', (10,), **without_size(REDUCED)),
)
PARAMETERS = dataclasses.replace(STUDY, name='parameters', title='Trained parameters', y='parameters')
SECONDS = dataclasses.replace(STUDY, name='seconds', title='Time to solve', y='seconds')
