"""When indices are drawn anew (figure 8 of the paper): for acting, and for targets."""

from experiments.deep_sea.studies.study import ABLATION, REDUCED, Series, Setting, Study

_ACTING: Series = {
  'every episode': {'geometric_resampling': False},
  'every episode, and at any step with 1 - gamma': {},
  'every step': {'act_resampling': 'state_dependent'},
}
_TARGETS: Series = {'every transition': {}, 'every update': {'target_resampling': 'state_independent'}}


def _settings(common: dict) -> tuple[Setting, ...]:
  return tuple(
    Setting(f'target index: {target}', acting, {**common, **act_flags, **target_flags})
    for target, target_flags in _TARGETS.items()
    for acting, act_flags in _ACTING.items()
  )


STUDY = Study(
  'sampling',
  'When indices are drawn anew',
  'acting index',
  settings=_settings(ABLATION),
  reduced=_settings(REDUCED)[:3],
)
