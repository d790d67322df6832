"""bsuite: the binary, its logs, tables and report."""

from experiments.common.extras import require

require(__name__, 'experiments', 'bsuite')
