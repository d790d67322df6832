"""bsuite's scores against bsuite's own analysis of made-up logs, and by hand."""

import csv

import numpy as np
import pandas as pd
import pytest
from bsuite import sweep
from bsuite.experiments import summary_analysis
from bsuite.logging import csv_load, csv_logging, logging_utils

from hyperagent_jax.envs import bsuite
from hyperagent_jax.scores import bsuite as lib

# Base name -> what a random agent to a perfect one adds to each total in an episode.
TOTALS = {
  'bandit': {'total_regret': (0.6, 0.0)},
  'catch': {'total_regret': (1.8, 0.0)},
  'mnist': {'total_regret': (2.0, 0.0)},
  'mountain_car': {'raw_return': (-1100.0, -90.0)},
  'cartpole': {'raw_return': (0.0, 1000.0), 'best_episode': (300.0, 900.0)},
  'cartpole_swingup': {'total_return': (0.0, 700.0), 'best_episode': (0.0, 300.0)},
  'deep_sea': {'total_bad_episodes': (1.0, 0.0)},
  'deep_sea_stochastic': {'total_bad_episodes': (1.0, 0.0)},
  'discounting_chain': {'total_return': (0.98, 1.1)},
  'memory_len': {'total_perfect': (0.4, 1.0)},
  'memory_size': {'total_perfect': (0.4, 1.0)},
  'umbrella_length': {'total_regret': (1.0, 0.0)},
  'umbrella_distract': {'total_regret': (1.0, 0.0)},
}


def totals_of(experiment):
  return TOTALS[experiment.removesuffix('_noise').removesuffix('_scale')]


def random_log(rng, bsuite_id, num_episodes=None):
  """The log of an agent that learns as fast as it happens."""
  experiment = bsuite_id.split('/')[0]
  episode = bsuite.log_schedule(sweep.EPISODES[bsuite_id])
  episode = episode[episode <= (num_episodes or sweep.EPISODES[bsuite_id])]
  size = len(episode)
  log = {'steps': episode * 10, 'episode': episode, 'total_return': np.zeros(size), 'episode_len': np.full(size, 10)}
  log['episode_return'] = np.zeros(size)
  # Some agents never learn, some at once.
  skill = np.clip(rng.uniform(-0.5, 1.5) + rng.uniform(-0.5, 1.0) * np.linspace(0, 1, size), 0, 1)
  for name, (worst, best) in totals_of(experiment).items():
    rate = worst + skill * (best - worst)
    log[name] = np.maximum.accumulate(rate) if name == 'best_episode' else np.cumsum(rate * np.diff(episode, prepend=0))
  return log


def random_logs(experiment, seed, fraction=1.0, partial=None, num_whole=0):
  """Logs of some of the ids, of which all but the first have not got farther than a number of episodes."""
  rng = np.random.default_rng(seed)
  ids = [i for i in bsuite.parse_ids(experiment) if rng.uniform() < fraction] or [f'{experiment}/0']
  return {i: random_log(rng, i, partial if k >= num_whole else None) for k, i in enumerate(ids)}


def data_frame(logs):
  """The logs as bsuite's loaders have them."""
  frames = [pd.DataFrame({'bsuite_id': bsuite_id, **log}) for bsuite_id, log in logs.items()]
  return logging_utils.join_metadata(pd.concat(frames, sort=False))


@pytest.fixture
def oracle(monkeypatch):
  """bsuite's score; its deep sea needs a method that pandas has dropped."""
  monkeypatch.setattr(pd.Series, 'append', lambda self, other: pd.concat([self, other]), raising=False)
  return lambda experiment, logs: float(summary_analysis.BSUITE_INFO[experiment].score(data_frame(logs)))


def constant_log(episodes, **totals):
  """A log that adds the same to each total in every episode."""
  episode = np.array(episodes)
  return {'episode': episode, **{name: rate * episode for name, rate in totals.items()}}


@pytest.mark.parametrize('experiment', bsuite.experiments())
def test_scores_are_bsuites(experiment, oracle):
  expected, ours = [], []
  cases = [(1.0, None), (0.4, None), (1.0, 900), (1.0, 170, 7), (0.5, 130), (1.0, 70, 2)]
  for seed, case in enumerate(cases):
    logs = random_logs(experiment, seed, *case)
    ours.append(lib.score(experiment, logs))
    expected.append(oracle(experiment, logs))
  np.testing.assert_allclose(ours, expected, rtol=1e-12)
  assert len(set(expected)) > 2 and 0 < expected[0] < 1  # or little would have been compared


def test_experiments_and_tags_are_bsuites():
  assert list(lib.IDS) == list(summary_analysis.BSUITE_INFO)
  assert [i for ids in lib.IDS.values() for i in ids] == list(sweep.SWEEP)
  for experiment, info in summary_analysis.BSUITE_INFO.items():
    assert lib.tags_of(experiment) == info.tags and lib.tags_of(experiment)[0] == info.type


def test_tags_are_bsuites():
  logs = {}
  for seed, experiment in enumerate(['bandit', 'cartpole', 'catch_scale', 'memory_len', 'deep_sea_stochastic']):
    logs |= random_logs(experiment, seed, 0.5)
  scores = lib.scores(logs)
  frame = pd.DataFrame([{'score': x.score, 'tags': str(x.tags)} for x in scores.values()])
  expected = summary_analysis.ave_score_by_tag(frame, []).set_index('tag')['score']
  ours = lib.scores_by_tag(scores)
  assert list(ours) == list(sweep.TAGS)
  assert ours == pytest.approx(expected.to_dict())
  assert 0 < ours['basic'] < 1


def test_tags_leave_out_what_has_no_score():
  score = lambda value, *tags: lib.Score(value, True, 1, tags)
  scores = {'a': score(0.2, 'basic'), 'b': score(0.6, 'basic', 'noise'), 'c': score(np.nan, 'noise', 'memory')}
  assert lib.scores_by_tag(scores) == pytest.approx({'basic': 0.4, 'noise': 0.6})


def test_scores_say_what_they_rest_on():
  logs = random_logs('catch', 0) | random_logs('memory_len', 0, partial=900) | random_logs('bandit', 0, 0.5)
  # Everything that there is of bandit is finished, but it is not all ids.
  assert all(log['episode'][-1] == 10_000 for i, log in logs.items() if i.startswith('bandit/'))
  scores = lib.scores(logs)
  assert list(scores) == ['bandit', 'catch', 'memory_len']  # the sweep's order
  assert {name: (x.finished, x.num_ids, x.tags) for name, x in scores.items()} == {
    'bandit': (False, sum(i.startswith('bandit/') for i in logs), ('basic',)),
    'catch': (True, 20, ('basic', 'credit_assignment')),
    'memory_len': (False, 23, ('memory',)),
  }
  assert all(x.score == lib.score(name, logs) for name, x in scores.items())
  assert all(type(x.score) is float and type(x.finished) is bool for x in scores.values())


def test_regret_by_hand():
  # Of the ids, only those at the last episode count: (0.2 + 0.4) / 2 of a base of 1.6.
  logs = {f'catch/{i}': constant_log([1, 10, 100], total_regret=rate) for i, rate in enumerate([0.2, 0.4])}
  logs['catch/2'] = constant_log([1, 10], total_regret=1.6)
  assert lib.score('catch', logs) == pytest.approx(1 - 0.3 / 1.6)
  assert lib.score('catch', {'catch/2': logs['catch/2']}) == 0
  assert lib.score('bandit', {'bandit/0': constant_log([5], total_regret=2.0)}) == 0  # not below
  assert lib.score('mountain_car', {'mountain_car/0': constant_log([1000], raw_return=-350)}) == pytest.approx(0.75)


def test_episodes_beyond_the_last_do_not_count():
  logs = {'catch/0': {'episode': [9000, 10_000, 12_000], 'total_regret': [16_000, 16_000, 16_000]}}
  assert lib.score('catch', logs) == 0
  logs = {'catch/0': {'episode': [5000, 12_000], 'total_regret': [4000, 0]}}
  assert lib.score('catch', logs) == pytest.approx(0.5)


def test_cartpole_by_hand():
  logs = {
    'cartpole/0': {'episode': [1, 1000], 'raw_return': [20, 600_000], 'best_episode': [20, 1000]},
    'cartpole/1': {'episode': [1, 1000], 'raw_return': [20, 200_000], 'best_episode': [20, 500]},
  }
  assert lib.score('cartpole', logs) == pytest.approx(0.5 * (0.4 + 0.5))
  # Thresholds have a weight each: swingup/1 is of another than swingup/0.
  logs = {
    'cartpole_swingup/0': {'episode': [1000], 'total_return': [350_000], 'best_episode': [600]},
    'cartpole_swingup/1': {'episode': [500], 'total_return': [35_000], 'best_episode': [100]},
  }
  assert lib.score('cartpole_swingup', logs) == pytest.approx(((0.5 + 1) / 2 + (0.1 + 0) / 2) / 2)


def test_scales_by_hand():
  # Noise 0.1 is scored 1, noise 0.3 is scored 0.5: the mean is 0.75, the standard deviation 0.25.
  logs = {
    'catch_noise/0': constant_log([10_000], total_regret=0.0),
    'catch_noise/4': constant_log([10_000], total_regret=0.8),
  }
  assert sweep.SETTINGS['catch_noise/4']['noise_scale'] == 0.3
  assert lib.score('catch_noise', logs) == pytest.approx((0.75 + 0.5) / 2)
  # The other ids of a scale count within it.
  logs['catch_noise/5'] = constant_log([10_000], total_regret=0.0)
  assert lib.score('catch_noise', logs) == pytest.approx((0.875 + 0.75) / 2)
  # The lower bound is clipped at 0: mean 0.5, standard deviation above it.
  each = [1, 0, 0, 0, 0]
  logs = {f'catch_scale/{4 * i}': constant_log([10_000], total_regret=1.6 * (1 - x)) for i, x in enumerate(each)}
  assert lib.score('catch_scale', logs) == pytest.approx(0.2 / 2)


def test_deep_sea_by_hand():
  sizes = [sweep.SETTINGS[f'deep_sea/{i}']['size'] for i in range(4)]
  assert sizes == [10, 12, 14, 16]
  log = lambda solved: {'episode': [1, solved, 10_000], 'total_bad_episodes': [1, 0.8 * solved, 9999]}
  # 2^10 + 100 = 1124.
  assert lib.score('deep_sea', {'deep_sea/0': log(1100)}) == 1
  assert lib.score('deep_sea', {'deep_sea/0': log(1124)}) == 0
  assert lib.score('deep_sea', {'deep_sea/0': log(1200), 'deep_sea/1': log(1200)}) == 0.5
  # A tenth of good episodes is not enough, and the stochastic one wants a fifth.
  exact = {'episode': [500], 'total_bad_episodes': [450]}
  assert lib.score('deep_sea', {'deep_sea/0': exact}) == 0
  fewer = {'episode': [500], 'total_bad_episodes': [449]}
  assert lib.score('deep_sea', {'deep_sea/0': fewer}) == 1
  assert lib.score('deep_sea_stochastic', {'deep_sea_stochastic/0': fewer}) == 0
  # Nor does it believe anything before episode 100; ids that have not got there do not count.
  early = {'episode': [50, 2000], 'total_bad_episodes': [0, 0]}
  begun = {'episode': [50], 'total_bad_episodes': [0]}
  assert lib.score('deep_sea', {'deep_sea/0': early}) == 1
  assert lib.score('deep_sea_stochastic', {'deep_sea_stochastic/0': early}) == 0
  assert lib.score('deep_sea_stochastic', {'deep_sea_stochastic/0': begun, 'deep_sea_stochastic/3': early}) == 1
  assert np.isnan(lib.score('deep_sea_stochastic', {'deep_sea_stochastic/0': begun}))


def test_memory_umbrella_and_discounting_by_hand():
  # 2 (1 - p) < 0.75 from p > 0.625; each length has a last episode of its own.
  logs = {
    'memory_len/0': constant_log([10_000], total_perfect=0.63),
    'memory_len/1': constant_log([10, 200], total_perfect=0.9),
    'memory_len/2': constant_log([10_000], total_perfect=0.625),
  }
  assert lib.score('memory_len', logs) == pytest.approx(2 / 3)
  logs = {f'umbrella_length/{i}': constant_log([10**i], total_regret=x) for i, x in enumerate([0.5, 0.49, 0.1, 1.0])}
  assert lib.score('umbrella_length', logs) == 0.5
  assert lib.score('discounting_chain', {'discounting_chain/0': constant_log([7], total_return=1.06)}) == pytest.approx(
    0.6
  )
  assert lib.score('discounting_chain', {'discounting_chain/0': constant_log([7], total_return=0.9)}) == 0


def test_mnist_by_hand():
  # Regret 0.9 of 1.8 an episode in all; the last thousand episodes have 0.4 each, which is a return of 0.6.
  log = {'episode': [8000, 9000, 10_000], 'total_regret': [8200, 8600, 9000]}
  assert lib.score('mnist', {'mnist/0': log}) == pytest.approx(0.5 * (0.5 + 0.8))
  # Before the last tenth there is no accuracy, and bsuite has no score.
  half = {'episode': [8000, 9000], 'total_regret': [8200, 8600]}
  assert np.isnan(lib.score('mnist', {'mnist/0': half}))
  assert lib.score('mnist', {'mnist/0': log, 'mnist/1': half}) == pytest.approx(0.5 * (0.5 + 0.8))
  assert np.isnan(lib.score('mnist_noise', {'mnist_noise/0': log, 'mnist_noise/4': half}))


@pytest.mark.parametrize('experiment', ['mnist', 'mnist_noise', 'mnist_scale'])
def test_there_is_no_score_where_bsuite_has_none(experiment, oracle):
  logs = random_logs(experiment, 0, 0.3)
  logs = {i: {name: x[log['episode'] <= 60] for name, x in log.items()} for i, log in logs.items()}
  assert np.isnan(lib.score(experiment, logs))
  assert np.isnan(oracle(experiment, logs))


@pytest.mark.parametrize(
  ('experiment', 'logs', 'message'),
  [
    ('cacth', {}, r"^'cacth': no such experiment; did you mean catch"),
    ('zzz', {}, r"^'zzz': no such experiment; there are bandit, .*, umbrella_length$"),
    ('catch', {}, '^catch: no logs$'),
    ('catch', {'catch_noise/0': constant_log([1], total_regret=0)}, '^catch: no logs$'),
    ('catch', {'catch/3': constant_log([1])}, '^catch/3: the log has no column total_regret$'),
    ('catch', {'catch/3': {'total_regret': [1.0]}}, '^catch/3: the log has no column episode$'),
    ('cartpole', {'cartpole/0': constant_log([1], raw_return=0)}, '^cartpole/0: the log has no column best_episode$'),
    ('catch', {'catch/3': constant_log([], total_regret=0)}, '^catch/3: the log has no episodes$'),
    ('catch', {'catch/3': constant_log([20_000], total_regret=0)}, '^catch/3: the log has no episodes$'),
  ],
)
def test_bad_logs_are_refused(experiment, logs, message):
  with pytest.raises(ValueError, match=message):
    lib.score(experiment, logs)


@pytest.mark.parametrize('experiment', bsuite.experiments())
def test_every_column_is_missed(experiment):
  log = random_log(np.random.default_rng(0), f'{experiment}/0')
  for name in ('episode', *totals_of(experiment)):
    rest = {column: x for column, x in log.items() if column != name}
    with pytest.raises(ValueError, match=f'^{experiment}/0: the log has no column {name}$'):
      lib.scores({f'{experiment}/0': rest})


def test_scores_without_known_logs_are_refused():
  with pytest.raises(ValueError, match=r'^logs: none$'):
    lib.scores({})
  with pytest.raises(ValueError, match=r'^catch/20: no such bsuite id$'):
    lib.scores(random_logs('catch', 0) | {'catch/20': constant_log([1], total_regret=0)})


def write_log(folder, bsuite_id, log):
  """Writes a log with bsuite's logger."""
  logger = csv_logging.Logger(bsuite_id, str(folder), overwrite=True)
  logger._data = [dict(zip(log, row, strict=True)) for row in list(zip(*log.values(), strict=True))[:-1]]
  logger.write({name: x[-1] for name, x in log.items()})


def test_read_logs_reads_what_bsuites_logger_writes(tmp_path):
  logs = random_logs('cartpole_noise', 0, 0.3) | random_logs('umbrella_length', 1, 0.2, partial=200)
  for bsuite_id in reversed(logs):
    write_log(tmp_path, bsuite_id, logs[bsuite_id])
  (tmp_path / 'scores.csv').write_text('agent,score\na,1\n')
  read = lib.read_logs(tmp_path)
  assert list(read) == list(logs) and lib.read_logs(str(tmp_path)).keys() == read.keys()
  for bsuite_id, log in logs.items():
    assert list(read[bsuite_id]) == list(log)
    for name in log:
      np.testing.assert_allclose(read[bsuite_id][name], log[name], rtol=1e-12)
  frame, _ = csv_load.load_bsuite(str(tmp_path))
  theirs = summary_analysis.bsuite_score(frame).set_index('bsuite_env')['score']
  assert {name: x.score for name, x in lib.scores(read).items()} == pytest.approx(theirs.to_dict())


def test_read_logs_leaves_out_what_is_not_whole(tmp_path):
  (tmp_path / 'bsuite_id_-_catch-0.csv').write_text('episode,total_regret\n1,2.0\n2,4.0\n3,6')
  (tmp_path / 'bsuite_id_-_catch-1.csv').write_text('episode,total_regret\n1,2')
  (tmp_path / 'bsuite_id_-_catch-2.csv').write_text('')
  (tmp_path / 'bsuite_id_-_catch-3.csv').write_text('episode,tot')
  (tmp_path / 'bsuite_id_-_catch-4.csv.tmp').write_text('x')
  read = lib.read_logs(tmp_path)
  assert list(read) == ['catch/0']
  np.testing.assert_array_equal(read['catch/0']['total_regret'], [2, 4])


@pytest.mark.parametrize(
  'text', ['episode,a\n1\n', 'episode,a\n1,x\n', 'episode,a\n1,\n', 'episode,a\n1,2\n3\n', '\x80']
)
def test_read_logs_refuses_other_files(tmp_path, text):
  path = tmp_path / 'bsuite_id_-_catch-0.csv'
  path.write_bytes(text.encode('latin1'))
  with pytest.raises(ValueError, match=r'bsuite_id_-_catch-0.csv: not a log of bsuite: must be a header and rows'):
    lib.read_logs(tmp_path)


def test_a_log_without_episodes_is_refused(tmp_path):
  path = tmp_path / 'bsuite_id_-_catch-0.csv'
  path.write_text('total_regret\n1\n')
  with pytest.raises(ValueError, match=r'bsuite_id_-_catch-0.csv: not a log of bsuite: it has no column episode'):
    lib.read_log(path)


@pytest.mark.parametrize('name', ['catch-20', 'cacth-0', 'catch'])
def test_read_logs_refuses_unknown_ids(tmp_path, name):
  with (tmp_path / f'bsuite_id_-_{name}.csv').open('w', newline='') as file:
    csv.writer(file).writerows([['episode', 'total_regret'], [1, 1.0]])
  with pytest.raises(ValueError, match=rf'bsuite_id_-_{name}.csv: {name.replace("-", "/")} is no bsuite id$'):
    lib.read_logs(tmp_path)


def test_read_logs_needs_a_folder(tmp_path):
  assert lib.read_logs(tmp_path) == {}
  with pytest.raises(FileNotFoundError):
    lib.read_logs(tmp_path / 'none')
