"""How fast HyperAgent runs, part by part, and what each design choice is worth."""

from experiments.common.extras import require

require(__name__, 'experiments', 'atari', 'bsuite', 'figures')
