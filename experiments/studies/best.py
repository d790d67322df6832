"""The preset `deep_sea_best` against HyperAgent as published, at every size."""

from experiments.studies.study import REDUCED, Setting, Study, without_size
from experiments.studies.systems import CAP

_SEEDS = {20: 10, 30: 10, 50: 10}  # size -> seeds
_SERIES = {'HyperAgent': {}, 'deep_sea_best': {'preset': 'deep_sea_best'}}


def _settings() -> tuple[Setting, ...]:
  settings = []
  for size, num_seeds in _SEEDS.items():
    for name, flags in _SERIES.items():
      settings.append(Setting(name, size, {**flags, 'size': size, 'num_seeds': num_seeds, 'max_episodes': CAP}))
  return tuple(settings)


STUDY = Study(
  'best',
  'The best preset against HyperAgent as published',
  'size N',
  settings=_settings(),
  reduced=tuple(Setting(name, 10, {**without_size(REDUCED), **flags, 'size': 10}) for name, flags in _SERIES.items()),
)
