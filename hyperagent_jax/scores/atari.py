"""Atari scores: the published ones, human normalisation, and aggregates over games with bootstrap intervals.

The aggregates are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (arXiv 2108.13264; the library rliable). All take a mapping from game to the scores of its runs, and games
may have different numbers of runs.
"""

import csv
import difflib
import functools
from collections.abc import Callable, Mapping
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Game -> scores [..., runs] to aggregates [...]; leading axes are resamples and equal in all games.
Aggregate = Callable[[Mapping[str, ArrayLike]], np.ndarray]

# Games of hard exploration; the tables do not mark them.
_HARD8 = ('alien', 'freeway', 'gravitar', 'hero', 'pitfall', 'qbert', 'solaris', 'venture')


class GameScores(NamedTuple):
  """Raw scores of one game."""

  game: str  # ALE's name, such as ms_pacman
  random: float  # of the uniformly random policy
  human: float
  published: dict[str, float]  # method -> score after 2M interactions, without the methods that report none


class Interval(NamedTuple):
  """An estimate and its confidence interval."""

  point: float
  low: float
  high: float


def _read_rows() -> list[dict[str, str]]:
  with (resources.files('hyperagent_jax.scores.data') / 'atari_scores.csv').open() as file:
    return list(csv.DictReader(file))


@functools.cache
def atari_scores() -> dict[str, GameScores]:
  """The scores of 55 games as in Tables 7 and 9 of the HyperAgent paper (arXiv 2402.10228).

  Returns:
    Game -> scores, shared by all callers. The published methods are ddqn_dagger, der, rainbow, hyperdqn and
    hyperagent; der reports 26 games only.
  """
  table = {}
  for row in _read_rows():
    game, random, human = row.pop('game'), float(row.pop('random')), float(row.pop('human'))
    del row['suite']
    table[game] = GameScores(game, random, human, {method: float(x) for method, x in row.items() if x})
  return table


def _read_suites() -> dict[str, tuple[str, ...]]:
  rows = _read_rows()
  suites = {f'suite{n}': tuple(row['game'] for row in rows if row['suite'] == n) for n in ('26', '29')}
  return {**suites, 'suite55': suites['suite26'] + suites['suite29'], 'hard8': _HARD8}


# Name -> games: the 26 games of Table 7 (those of Atari 100k), the other 29 of Table 9, both, and the eight of hard
# exploration.
SUITES = _read_suites()


def human_normalized(game: str, score: ArrayLike) -> np.ndarray:
  """(score - random) / (human - random): 0 for the random policy, 1 for the human, unbounded both ways.

  Args:
    game: ALE's name, one of `SUITES['suite55']`.
    score: raw scores of any shape.

  Returns:
    Normalised scores of the same shape, NumPy scalars for plain numbers.

  Raises:
    ValueError: if the game has no reference scores; the message names similar games that have.
  """
  table = atari_scores()
  if game not in table:
    near = difflib.get_close_matches(game.lower(), table)
    raise ValueError(f'game {game!r}: no reference scores' + (f'; did you mean {", ".join(near)}?' if near else ''))
  reference = table[game]
  return (np.asarray(score, np.float64) - reference.random) / (reference.human - reference.random)


def _runs_by_game(scores: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
  """Scores as arrays; refuses those that have no aggregate."""
  if not scores:
    raise ValueError('scores: no games')
  arrays = {game: np.asarray(runs, np.float64) for game, runs in scores.items()}
  for game, runs in arrays.items():
    if runs.ndim == 0:
      raise ValueError(f'scores of {game}: a single number; must be a sequence of runs')
    if runs.size == 0:
      raise ValueError(f'scores of {game}: no runs')
    # Sorting puts NaN last, so that trimming would take it for a high score and drop it in silence.
    if np.isnan(runs).any():
      raise ValueError(f'scores of {game}: NaN')
  return arrays


def _mean_by_game(scores: Mapping[str, ArrayLike]) -> np.ndarray:
  """Each game's mean over its runs [..., games]."""
  return np.stack([runs.mean(axis=-1) for runs in _runs_by_game(scores).values()], axis=-1)


def interquartile_mean(scores: Mapping[str, ArrayLike]) -> np.ndarray:
  """IQM: the mean of the middle half of all runs of all games, flattened (Agarwal et al. 2021, section 4.3).

  Of n scores the int(n / 4) lowest and as many highest are cut, as `scipy.stats.trim_mean(x, 0.25)` does.

  Args:
    scores: game -> scores [..., runs], usually human-normalised.

  Returns:
    IQM [...], a NumPy scalar if each game has a flat sequence of runs.

  Raises:
    ValueError: if there are no games, a game has no runs, or a score is NaN.
  """
  flat = np.sort(np.concatenate(list(_runs_by_game(scores).values()), axis=-1), axis=-1)
  num = flat.shape[-1]
  cut = num // 4
  return flat[..., cut : num - cut].mean(axis=-1)


def median(scores: Mapping[str, ArrayLike]) -> np.ndarray:
  """The median over games of each game's mean over runs (Agarwal et al. 2021).

  Args:
    scores: game -> scores [..., runs], usually human-normalised.

  Returns:
    Median [...], a NumPy scalar if each game has a flat sequence of runs.

  Raises:
    ValueError: if there are no games, a game has no runs, or a score is NaN.
  """
  return np.median(_mean_by_game(scores), axis=-1)


def mean(scores: Mapping[str, ArrayLike]) -> np.ndarray:
  """The mean over games of each game's mean over runs (Agarwal et al. 2021): games count alike, whatever their runs.

  Args:
    scores: game -> scores [..., runs], usually human-normalised.

  Returns:
    Mean [...], a NumPy scalar if each game has a flat sequence of runs.

  Raises:
    ValueError: if there are no games, a game has no runs, or a score is NaN.
  """
  return _mean_by_game(scores).mean(axis=-1)


def stratified_bootstrap(
  scores: Mapping[str, ArrayLike],
  aggregate: Aggregate = interquartile_mean,
  num_samples: int = 2000,
  confidence: float = 0.95,
  seed: int = 0,
) -> Interval:
  """The percentile bootstrap interval of an aggregate, with games as strata (Agarwal et al. 2021, section 4.1).

  Each resample draws, game by game, as many runs as the game has, with replacement and independently of the other
  games. The interval is over runs for the given games: with a single run per game it has no width.

  Args:
    scores: game -> scores [runs], usually human-normalised.
    aggregate: `interquartile_mean`, `median`, `mean` or another function that aggregates the last axis.
    num_samples: resamples, at least 1.
    confidence: mass of the interval, in (0, 1).
    seed: seed of the resamples.

  Returns:
    The aggregate of the scores themselves, and the interval's ends.

  Raises:
    ValueError: if there are no games, a game has no runs or not a flat sequence of them, a score is NaN,
      `num_samples` or `confidence` is out of range, or the aggregate does not return one number per resample.
  """
  if num_samples < 1:
    raise ValueError(f'num_samples={num_samples}: must be at least 1')
  if not 0 < confidence < 1:
    raise ValueError(f'confidence={confidence}: must be in (0, 1)')
  arrays = _runs_by_game(scores)
  for game, runs in arrays.items():
    if runs.ndim != 1:
      raise ValueError(f'scores of {game}: shape {runs.shape}; must be a flat sequence of runs')
  rng = np.random.default_rng(seed)
  # [num_samples, runs] of each game: the aggregate takes all resamples at once.
  resamples = {game: runs[rng.integers(len(runs), size=(num_samples, len(runs)))] for game, runs in arrays.items()}
  estimates = aggregate(resamples)
  # A function that also aggregates over resamples would yield an interval of no width.
  if np.shape(estimates) != (num_samples,):
    raise ValueError(f'aggregate: returned shape {np.shape(estimates)} for {num_samples} resamples; see `Aggregate`')
  tail = (1 - confidence) / 2
  low, high = np.quantile(estimates, [tail, 1 - tail])
  return Interval(float(aggregate(arrays)), float(low), float(high))
