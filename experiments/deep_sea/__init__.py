"""DeepSea: the binary, its figures and the study."""

from experiments.common.extras import require

require(__name__, 'experiments')
