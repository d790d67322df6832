"""Reference distributions of the index, all with the same spread of the prior.

Sphere and orthogonal are scaled to second moment I, which the others have; the rows of A0 have length 1/2. One-hot, the
choice of a member of an ensemble, has second moment I / M and rows of length 1, and a mean that is not zero.
"""

from experiments.deep_sea.studies.index_dim import FIXED_SPREAD
from experiments.deep_sea.studies.study import ABLATION, REDUCED, Setting, Study
from hyperagent_jax.distributions import REFERENCES


def _settings(common: dict, names: tuple[str, ...]) -> tuple[Setting, ...]:
  spread = lambda name: {} if name == 'one_hot' else FIXED_SPREAD
  sparse = lambda name: {'num_nonzero': 2} if name == 'sparse' else {}
  return tuple(
    Setting('M = 4', name, {**common, **spread(name), **sparse(name), 'reference_distribution': name}) for name in names
  )


STUDY = Study(
  'distributions',
  'Reference distributions',
  'distribution of the index',
  settings=_settings(ABLATION, REFERENCES),
  reduced=_settings(REDUCED, ('sphere', 'gaussian')),
)
