"""The DeepSea study: one file a figure, each a table of settings run through `experiments.deep_sea`."""

from experiments.common.extras import require

require(__name__, 'experiments', 'figures')
