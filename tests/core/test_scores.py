"""Published scores, human normalisation, aggregates and bootstrap intervals, against SciPy and by hand."""

import csv
from importlib import resources

import numpy as np
import pytest
import scipy.stats

from hyperagent_jax import scores

AGGREGATES = (scores.interquartile_mean, scores.median, scores.mean)


def published(method, suite):
  """Human-normalised published scores as one run per game."""
  table = scores.atari_scores()
  return {game: [scores.human_normalized(game, table[game].published[method])] for game in scores.SUITES[suite]}


def resampled(values, aggregate, **kwargs):
  """What the bootstrap hands to the aggregate, and what the aggregate makes of it."""
  calls = []

  def record(resamples):
    calls.append((resamples, aggregate(resamples)))
    return calls[-1][1]

  scores.stratified_bootstrap(values, record, **kwargs)
  return calls[0]


def test_table_is_complete():
  table = scores.atari_scores()
  assert len(table) == 55
  assert table['pong'] == scores.GameScores(
    'pong', -20.7, 14.6, {'ddqn_dagger': -15.4, 'der': 20.6, 'rainbow': 5.1, 'hyperdqn': 20.5, 'hyperagent': 20.5}
  )
  assert set(table['pitfall'].published) == {'ddqn_dagger', 'rainbow', 'hyperdqn', 'hyperagent'}
  assert all(game == row.game and row.human > row.random for game, row in table.items())
  assert scores.atari_scores() is table


def test_suites():
  sizes = {name: len(games) for name, games in scores.SUITES.items()}
  assert sizes == {'suite26': 26, 'suite29': 29, 'suite55': 55, 'hard8': 8}
  assert all(len(set(games)) == len(games) for games in scores.SUITES.values())
  assert set(scores.SUITES['suite55']) == set(scores.atari_scores())
  assert set(scores.SUITES['hard8']) <= set(scores.atari_scores())


def test_human_normalized():
  for game, row in scores.atari_scores().items():
    np.testing.assert_array_equal(scores.human_normalized(game, [row.random, row.human]), [0, 1])
  assert scores.human_normalized('breakout', 54.8) == pytest.approx(53.1 / 28.8)  # random 1.7, human 30.5
  assert scores.human_normalized('skiing', -29975.0) < -1


def test_unknown_games_are_refused_with_near_ones():
  with pytest.raises(ValueError, match=r"'MsPacman': no reference scores; did you mean ms_pacman\?"):
    scores.human_normalized('MsPacman', 0)
  with pytest.raises(ValueError, match=r"'zzz': no reference scores$"):
    scores.human_normalized('zzz', 0)


@pytest.mark.parametrize('num', [1, 2, 3, 4, 5, 7, 8, 30, 129, 130])
def test_iqm_is_scipys_trimmed_mean(num):
  x = np.random.default_rng(num).standard_t(2, num)
  split = num // 3
  games = {'a': x[:split], 'b': x[split:]} if split else {'a': x}
  assert scores.interquartile_mean(games) == pytest.approx(scipy.stats.trim_mean(x, 0.25))


def test_aggregates_by_hand():
  games = {'a': [0, 10], 'b': [1, 2, 3], 'c': [100], 'd': [4, 6]}
  # Sorted: 0 1 2 3 4 6 10 100; two are cut at each end.
  assert scores.interquartile_mean(games) == (2 + 3 + 4 + 6) / 4
  # Means by game: 5, 2, 100, 5.
  assert scores.median(games) == 5
  assert scores.mean(games) == 112 / 4
  assert scores.median({'a': [1], 'b': [2, 4]}) == 2


@pytest.mark.parametrize('aggregate', AGGREGATES)
def test_aggregates_keep_leading_axes(aggregate):
  rng = np.random.default_rng(0)
  games = {'a': rng.normal(size=(6, 3)), 'b': rng.normal(size=(6, 5)), 'c': rng.normal(size=(6, 1))}
  alone = [aggregate({game: x[i] for game, x in games.items()}) for i in range(6)]
  np.testing.assert_allclose(aggregate(games), alone)


@pytest.mark.parametrize('method', ['HyperAgent', 'DDQN-dagger'])
def test_published_games_give_the_published_aggregates(method):
  with (resources.files('hyperagent_jax.scores.data') / 'atari_aggregate.csv').open() as file:
    row = {row['method']: row for row in csv.DictReader(file)}[method]
  games = published(method.lower().replace('-', '_'), 'suite26')
  # Exact up to the two decimals of the paper's table.
  assert scores.median(games) == pytest.approx(float(row['median']), abs=0.005)
  assert scores.mean(games) == pytest.approx(float(row['mean']), abs=0.005)
  # The published IQM is over runs x games. Only each game's mean is published, and the IQM of those is higher (1.45
  # against 1.22, 0.150 against 0.13): the scores are skewed, and spread between runs moves the quartiles. So this
  # checks the scale and no more.
  assert scores.interquartile_mean(games) == pytest.approx(float(row['iqm']), rel=0.2)


@pytest.mark.parametrize(
  ('aggregate', 'statistic'),
  [(scores.mean, np.mean), (scores.interquartile_mean, lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis))],
)
@pytest.mark.parametrize('confidence', [0.8, 0.95])
def test_one_game_is_scipys_percentile_bootstrap(aggregate, statistic, confidence):
  x = np.random.default_rng(1).exponential(size=12)
  expected = scipy.stats.bootstrap(
    (x,), statistic, n_resamples=20000, confidence_level=confidence, method='percentile', rng=2
  )
  interval = scores.stratified_bootstrap({'a': x}, aggregate, 20000, confidence)
  # Four times the Monte Carlo error of the difference of two quantiles, whose density is about normal.
  tolerance = 4 * 2**0.5 * 2.7 * expected.standard_error / 20000**0.5
  np.testing.assert_allclose(interval[1:], expected.confidence_interval, atol=tolerance)
  assert interval.point == pytest.approx(statistic(x, axis=0))


def test_two_runs_have_all_resamples_at_their_frequencies():
  means = resampled({'a': [0, 1]}, scores.mean, num_samples=20000)[1]
  values, counts = np.unique(means, return_counts=True)
  np.testing.assert_array_equal(values, [0, 0.5, 1])
  np.testing.assert_allclose(counts / 20000, [1 / 4, 1 / 2, 1 / 4], atol=4 * 0.5 / 20000**0.5)
  # Quantiles 0.3 and 0.7 lie within the middle half, 0.2 and 0.8 outside.
  assert scores.stratified_bootstrap({'a': [0, 1]}, scores.mean, confidence=0.4) == (0.5, 0.5, 0.5)
  assert scores.stratified_bootstrap({'a': [0, 1]}, scores.mean, confidence=0.6) == (0.5, 0, 1)


def test_games_are_resampled_apart():
  constant = {'low': [0.0] * 3, 'high': [100.0] * 5}
  assert scores.stratified_bootstrap(constant, scores.mean) == (50, 50, 50)
  resamples, _ = resampled({'a': [0, 1], 'b': [10, 11, 12]}, scores.mean, num_samples=500)
  assert {game: (x.shape, set(x.ravel())) for game, x in resamples.items()} == {
    'a': ((500, 2), {0, 1}),
    'b': ((500, 3), {10, 11, 12}),
  }
  # Drawn independently: the sum of two games of two runs is binomial(4, 1/2).
  sums = 4 * resampled({'a': [0, 1], 'b': [0, 1]}, scores.mean, num_samples=20000)[1]
  np.testing.assert_allclose(
    np.bincount(sums.astype(int)) / 20000, np.array([1, 4, 6, 4, 1]) / 16, atol=4 * 0.5 / 20000**0.5
  )


@pytest.mark.parametrize('aggregate', AGGREGATES)
def test_interval_holds_the_point_repeats_and_widens_with_confidence(aggregate):
  rng = np.random.default_rng(3)
  games = {f'game{i}': rng.normal(i, 1, size=3 + i % 3) for i in range(26)}
  interval = scores.stratified_bootstrap(games, aggregate)
  assert interval.low < interval.point == aggregate(games) < interval.high
  assert scores.stratified_bootstrap(games, aggregate) == interval
  assert scores.stratified_bootstrap(games, aggregate, seed=1) != interval
  narrow = scores.stratified_bootstrap(games, aggregate, confidence=0.5)
  assert interval.low < narrow.low < narrow.high < interval.high
  equal = {game: [x[0]] * 4 for game, x in games.items()}
  np.testing.assert_allclose(scores.stratified_bootstrap(equal, aggregate), [aggregate(equal)] * 3)


@pytest.mark.parametrize(
  ('games', 'message'),
  [({}, 'no games'), ({'a': []}, 'of a: no runs'), ({'a': 1.0}, 'of a: a single'), ({'a': [np.nan]}, 'of a: NaN')],
)
def test_scores_without_an_aggregate_are_refused(games, message):
  for call in (*AGGREGATES, scores.stratified_bootstrap):
    with pytest.raises(ValueError, match=message):
      call(games)


def test_bad_arguments_of_the_bootstrap_are_refused():
  games = {'a': [0.0, 1.0]}
  with pytest.raises(ValueError, match='num_samples=0'):
    scores.stratified_bootstrap(games, num_samples=0)
  with pytest.raises(ValueError, match='confidence=95'):
    scores.stratified_bootstrap(games, confidence=95)
  with pytest.raises(ValueError, match=r'of a: shape \(1, 2\)'):
    scores.stratified_bootstrap({'a': [[0.0, 1.0]]})
  with pytest.raises(ValueError, match=r'returned shape \(\)'):
    scores.stratified_bootstrap(games, lambda resamples: np.mean(resamples['a']))
