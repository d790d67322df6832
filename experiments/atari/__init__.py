"""Atari: the binary, its tables and figures."""

from experiments.common.extras import require

require(__name__, 'experiments', 'atari')
