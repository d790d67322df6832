"""Published scores and how results are summed up: of Atari, and of bsuite in `bsuite`, which needs that package."""

from hyperagent_jax.scores.atari import (
  SUITES,
  GameScores,
  Interval,
  atari_scores,
  human_normalized,
  interquartile_mean,
  mean,
  median,
  stratified_bootstrap,
)

__all__ = [
  'SUITES',
  'GameScores',
  'Interval',
  'atari_scores',
  'human_normalized',
  'interquartile_mean',
  'mean',
  'median',
  'stratified_bootstrap',
]
