"""The studies of the tabular theory: their binary, their tables and figures, and what the committed ones hold."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags

from experiments.tabular import binary as __main__
from experiments.tabular import bridge, posterior, regret, study
from experiments.tabular.registry import STUDIES
from experiments.tabular.study import TabularConfig, band, checkpoints, over_runs, read_rows, slope, write_rows
from hyperagent_jax import tabular
from hyperagent_jax.config import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / 'experiments' / 'results' / 'tabular'
TINY = TabularConfig(num_mdps=4, num_episodes=20, num_states=3, num_actions=2, horizon=2, index_dim=2)


def run(*arguments):
  words = [sys.executable, '-m', 'experiments.tabular', *arguments]
  return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_study_writes_its_table_and_figure_and_draws_them_again(tmp_path):
  sizes = ['--num_mdps=4', '--reduced', f'--output_dir={tmp_path}']
  done = run('--study=spreading', *sizes)
  assert done.returncode == 0, done.stderr
  table, figure = tmp_path / 'spreading.csv', tmp_path / 'spreading.png'
  assert read_rows(table, STUDIES['spreading'].columns)
  assert figure.read_bytes().startswith(b'\x89PNG')
  written = table.read_bytes()
  figure.unlink()
  again = run('--study=spreading', '--redraw', f'--output_dir={tmp_path}')
  assert again.returncode == 0, again.stderr
  assert figure.exists()
  assert table.read_bytes() == written


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--study=regrets', '--study=regrets: must be all, or of regret, tuning'),
    ('--num_mdps=1', '--num_mdps=1: must be at least 2'),
    ('--horizon=1', '--horizon=1: must be at least 2'),
    ('--beta=0', '--beta=0.0: must be at least 0.001'),
    ('--num_episodes=5', '--num_episodes=5: must be at least 20'),
  ],
)
def test_what_cannot_be_used_is_refused(argument, message, tmp_path):
  values = flags.FlagValues()
  __main__.define_flags(values)
  values(['tabular', argument, f'--output_dir={tmp_path}'])
  with pytest.raises(ConfigError, match=message.replace('.', r'\.')):
    __main__.studies_of(values.study)
    __main__.read_settings(values)


def test_nothing_to_draw_again_is_one_line(tmp_path):
  done = run('--study=regret', '--redraw', f'--output_dir={tmp_path}')
  assert done.returncode == 1
  assert done.stderr.count('\n') == 1
  assert 'regret.csv: No such file' in done.stderr


def test_reduced_settings_hold_where_no_flag_is_given():
  values = flags.FlagValues()
  __main__.define_flags(values)
  values(['tabular', '--reduced', '--num_mdps=7'])
  settings = __main__.read_settings(values)
  assert (settings.num_mdps, settings.num_episodes) == (7, study.REDUCED.num_episodes)


def test_a_table_comes_back_as_it_was_written(tmp_path):
  rows = [{'name': 'a, b', 'number': 3, 'value': 0.125}, {'name': 'c', 'number': 4, 'value': float('nan')}]
  write_rows(tmp_path / 'x.csv', ('name', 'number', 'value'), rows)
  back = read_rows(tmp_path / 'x.csv', ('name', 'number', 'value'))
  assert back[0] == rows[0]
  assert np.isnan(back[1]['value'])


def test_bands_and_slopes_by_hand():
  mean, low, high = band([[1.0], [3.0]])
  assert mean == [2.0]
  np.testing.assert_allclose([low[0], high[0]], [2 - 12.7062, 2 + 12.7062], rtol=1e-5)  # standard error 1, t of 1
  assert slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2.0)
  assert np.isnan(slope([1, 2], [0, 1]))
  assert checkpoints(100)[[0, -1]].tolist() == [1, 100]


def test_a_bootstrap_interval_holds_the_statistic_and_shrinks_with_runs():
  few, many = (np.random.RandomState(0).randn(n) for n in (20, 2_000))
  narrow, wide = (study.bootstrap(x, lambda x: np.quantile(x, 0.5, axis=1)) for x in (many, few))
  for of, x in ((narrow, many), (wide, few)):
    assert of.low <= of.mean == np.quantile(x, 0.5) <= of.high
  assert narrow.high - narrow.low < 0.3 * (wide.high - wide.low)


def test_runs_side_by_side_are_the_runs_alone_on_the_same_mdps():
  agent = tabular.make_psrl(TINY.problem)
  regrets = study.regrets_on_random_mdps(agent, TINY)
  mdps = study.random_mdps(TINY.problem._replace(num_episodes=0), 4, 0)
  key = jax.random.split(jax.random.key(1), 4)[2]
  alone = tabular.play(agent, jax.tree.map(lambda x: x[2], mdps), 20, key)[0]
  np.testing.assert_allclose(regrets[2], alone, atol=1e-5)
  assert len({float(r[0, 0, 0]) for r in mdps.rewards}) == 4  # four MDPs, not one


def test_cumulative_regret_is_the_sum_of_the_episodes():
  agent = tabular.make_rlsvi(TINY.problem)
  rows = regret.curve(agent, TINY)
  each = study.regrets_on_random_mdps(agent, TINY).cumsum(1).mean(0)
  np.testing.assert_allclose([row['mean'] for row in rows], each[np.array([r['episode'] for r in rows]) - 1], rtol=1e-5)


def test_the_smallest_dimension_is_read_off_between_measured_ones():
  rows = [{'index_dim': m, 'epsilon': 0.5, 'deviation': d} for m, d in ((4, 2.0), (16, 1.0), (64, 0.25))]
  assert posterior.smallest_dim(rows, 0.5) == pytest.approx(32.0)  # half-way in logarithms
  assert np.isnan(posterior.smallest_dim(rows[:2], 0.5))


def test_the_ratio_of_lemma_5_1_is_that_of_eq_5_visit_by_visit():
  largest, shares = posterior.deviations(TINY, 'sphere', 8)
  # The same by a loop over all visits of one run, from the agent's own states.
  parameters = posterior.informed(TINY.problem, **posterior.NEUTRAL)
  sigma = np.asarray(parameters.sigma.at[-1].set(1.0))
  agent = tabular.make_hyperagent(TINY.problem, 8, parameters._replace(sigma=sigma))
  mdps = study.random_mdps(TINY.problem._replace(num_episodes=0), 4, 0)
  key = jax.random.split(jax.random.key(1), 4)[0]
  keep = lambda state, episode: (state.factor, state.counts, episode)
  mdp = jax.tree.map(lambda x: x[0], mdps)
  _, (factors, counts, episodes) = jax.jit(lambda key: tabular.play(agent, mdp, 20, key, keep))(key)
  off = []
  for k in range(20):
    for h in range(2):
      cell = (k, h, int(episodes.states[k, h]), int(episodes.actions[k, h]))
      n = float(np.sum(counts[cell]))
      off.append(abs(float(np.sum(np.square(factors[cell]))) * (n + TINY.beta) / sigma[h] ** 2 - 1.0))
  assert largest[0] == pytest.approx(max(off), abs=1e-4)
  np.testing.assert_allclose(shares[0], [np.mean(np.array(off) <= e) for e in posterior.EPSILONS], atol=0.03)


def test_the_deep_agent_on_one_hot_features_is_the_tabular_one():
  settings = TabularConfig(num_mdps=2, index_dim=3)
  with jax.enable_x64(True):
    deep, closed, limit, factors = over_runs(lambda key: bridge.compare(key, settings, 4), 2, 0)
  np.testing.assert_allclose(deep, closed, atol=1e-6)
  assert np.all(factors < 1e-6)
  # It moves towards the fixed point, by at least the modulus of Lemma C.1 at each copy.
  away = np.abs(deep - limit[:, None]).max((2, 3))
  assert np.all(away[:, 1:] < bridge.DISCOUNT * away[:, :-1] + 1e-6)


@pytest.mark.parametrize('name', STUDIES)
def test_committed_tables_are_whole_and_can_be_told_and_drawn(name):
  rows = read_rows(RESULTS / f'{name}.csv', STUDIES[name].columns)
  assert STUDIES[name].tell(rows)
  figure = STUDIES[name].draw(rows)
  assert all(axis.has_data() for axis in figure.axes)
  assert (RESULTS / f'{name}.png').exists()


def test_committed_figures_are_of_enough_mdps():
  for name in ('regret', 'index_dim', 'posterior', 'perturbation', 'scaling'):
    rows = read_rows(RESULTS / f'{name}.csv', STUDIES[name].columns)
    assert min(row.get('num_mdps', row.get('num_runs')) for row in rows) >= 100
