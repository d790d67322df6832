"""Studies of the tabular theory: random MDPs, exact regret, bandits; one file each."""

from experiments.common.extras import require

require(__name__, 'experiments', 'figures')
