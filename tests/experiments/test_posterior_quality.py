"""How good the posterior is: Q* against hand-worked numbers and play, counts, fits, gradients, and the files."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from PIL import Image

from experiments.common.tables import read_table
from experiments.deep_sea.studies import posterior_laws as laws
from experiments.deep_sea.studies import posterior_quality as quality
from hyperagent_jax import presets
from hyperagent_jax.agent import make_hyperagent, make_optimizer
from hyperagent_jax.config import ConfigError
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.networks import make_network
from hyperagent_jax.replay import ReplayState, Row
from hyperagent_jax.types import Extras, Transition


def test_optimal_q_by_hand_2x2():
  # Action 1 moves right but in the lower right corner. Moving right costs 0.01 / 2 = 0.005.
  q = quality.optimal_q(np.array([[1, 1], [1, 0]]), 0.9)
  np.testing.assert_allclose(q[1], [[0, -0.005], [0.995, 0]], atol=1e-12)
  np.testing.assert_allclose(q[0, 0], [0, -0.005 + 0.9 * 0.995], atol=1e-12)


def test_optimal_q_by_hand_3x3():
  cost = 0.01 / 3
  q = quality.optimal_q(np.ones((3, 3), int), 0.5)
  treasure = 1 - cost
  np.testing.assert_allclose(q[2, :, 1], [-cost, -cost, treasure], atol=1e-12)
  np.testing.assert_allclose(q[1, :2, 1], [-cost, -cost + treasure / 2], atol=1e-12)
  np.testing.assert_allclose(q[0, 0], [0, -cost + (-cost + treasure / 2) / 2], atol=1e-12)  # left: no way back
  np.testing.assert_allclose(q[2, :, 0], 0, atol=1e-12)


def test_optimal_q_is_what_greedy_play_in_the_environment_returns():
  size, discount = 5, 0.99
  params = deep_sea.make_params(size, 3)
  q = quality.optimal_q(np.asarray(params.right_action), discount)
  greedy, environment = jnp.asarray(q.argmax(-1)), deep_sea.make_deep_sea(size)
  step = jax.jit(functools.partial(environment.step, params))
  key = jax.random.key(0)
  for row, column, first in ((r, c, a) for r, c in np.stack(np.tril_indices(size), 1) for a in range(2)):
    state, action = deep_sea.DeepSeaState(jnp.int32(row), jnp.int32(column)), jnp.int32(first)
    total, weight = 0.0, 1.0
    for _ in range(row, size):
      state, timestep = step(state, action, key)
      total, weight = total + weight * float(timestep.reward), weight * discount
      action = greedy[state.row % size, state.column]
    assert timestep.last() and total == pytest.approx(q[row, column, first], abs=1e-6)


def test_count_visits_leaves_out_the_end_of_episodes_and_the_step_under_way():
  # An episode of 2 x 2: cells 0 and 3, the end, then cell 0 again, whose action has not been taken yet.
  column = lambda *values: np.array(values)[:, None]
  nothing = np.zeros((5, 1))
  rows = Row(nothing, nothing, nothing, column(0, 3, 4, 0, 0), column(1, 0, 1, 1, 0), ())
  visits = quality.count_visits(ReplayState(rows, np.zeros(5), 4, 0, 0), 2)
  np.testing.assert_array_equal(visits, [[[0, 1], [0, 0]], [[0, 0], [1, 0]]])


def test_compare_puts_everything_beside_its_state_and_action():
  right = np.array([[1, 1], [0, 1]])
  visits = np.array([[[2, 0], [0, 0]], [[3, 4], [0, 5]]])
  table = quality.compare(np.arange(6.0).reshape(3, 2), np.ones((3, 2)), visits, right, 0.99)
  np.testing.assert_array_equal(table['visits'], [2, 0, 3, 4, 0, 5])
  np.testing.assert_array_equal(table['right'], [0, 1, 1, 0, 0, 1])
  assert list(table['kind']) == ['path', 'never', 'near', 'near', 'never', 'path']
  np.testing.assert_allclose(table['q_star'][[1, 5]], [-0.005 + 0.99 * 0.995, 0.995])
  assert list(laws.where(table, kind='near', right=1)['mean']) == [2]


def test_kinds_by_distance_from_the_diagonal():
  kinds = quality.kinds_of(np.array([5, 5, 5, 5, 5]), np.array([5, 4, 3, 2, 5]), np.array([1, 1, 1, 1, 0]))
  assert list(kinds) == ['path', 'near', 'near', 'far', 'never']


def test_fit_law_recovers_the_law_and_says_where_it_does_not_hold():
  n = np.array([0, 1, 2, 4, 8, 16, 64, 256])
  law = laws.fit_law(n, 0.5 / np.sqrt(n + 3.0))
  assert law.c == pytest.approx(0.5, rel=0.01) and law.beta == pytest.approx(3, rel=0.01)
  assert law.r_squared > 0.9999 and -0.5 < law.slope < -0.3
  constant = np.array([0.5, *np.full(7, 0.01)])
  assert laws.fit_law(n, constant).r_squared < 0.7 and abs(laws.fit_law(n, constant).slope) < 1e-6
  assert np.isnan(laws.fit_law(np.array([0, 1]), np.array([1.0, 0.5])).c)


def test_binned_takes_medians_and_leaves_small_bins_out():
  visits = np.array([0] * 5 + [1] * 5 + [100] * 4)
  x, y = laws.binned(visits, np.arange(14.0))
  assert list(x) == [0, 1] and list(y) == [2, 7]


@pytest.mark.long
def test_sampled_gradients_approach_the_exact_one():
  config = dataclasses.replace(presets.deep_sea(3), hidden_sizes=(8,), sigma=1.0)
  agent = make_hyperagent(make_network(config, 2), make_optimizer(config), config)
  extras = Extras(noise=jax.random.normal(jax.random.key(5), (4, config.index_dim)))
  batch = Transition(
    jnp.array([0, 3, 4, 0]),
    jnp.array([0, 1, 1, 1]),
    jnp.array([0.0, 0.1, 0.2, 0.3]),
    jnp.full(4, 0.99),
    jnp.array([3, 6, 8, 4]),
    extras,
    extras,
  )
  learner = agent.init(jax.random.key(0), jnp.int32(0))
  table = quality.compare_gradients(config, learner, batch, num_indices=(1, 100), num_draws=30)
  assert -0.6 < laws.gradient_slope(table) < -0.4
  assert laws.where(table, num_indices=100)['cosine'].min() > 0.9
  # Without bias: the mean of many draws is nearer still.
  keys = jax.random.split(jax.random.key(1), 30)
  exact, sampled = (quality.gradient_program(config, n)(learner, batch, keys) for n in (0, 100))
  error = np.linalg.norm(sampled.mean(0) - exact[0]) / np.linalg.norm(exact[0])
  assert error < 0.5 * laws.where(table, num_indices=100)['relative_error'].mean()


def test_write_sample_keeps_it_small(tmp_path, monkeypatch):
  monkeypatch.setattr(quality, 'MAX_ROWS', 3)
  quality.write_sample(tmp_path / 't.csv', {'a': np.arange(9), 'b': np.full(9, 1 / 3), 'c': np.zeros(9)}, ('a', 'b'))
  rows = read_table(str(tmp_path / 't.csv'), ('a', 'b'))
  assert len(rows) == 3 and rows[0]['b'] == '0.3333' and 'c' not in rows[0]
  assert [int(row['a']) for row in rows] == sorted(int(row['a']) for row in rows)


@pytest.mark.slow
def test_a_small_run(tmp_path):
  settings = {'moments': (0, 50, 51), 'sigmas': (1.0,), 'num_indices': (1, 4), 'num_draws': 2}
  text = quality.run(tmp_path, 3, 2, **settings)
  assert 'sigma 1: gradient error' in text
  rows = read_table(str(tmp_path / 'posterior_quality.csv'), quality.COLUMNS)
  assert len(rows) == 2 * 12 * 3  # seeds, states and actions, moments
  for episodes in (0, 50, 51):  # every step is counted
    assert sum(int(row['visits']) for row in rows if row['episodes'] == str(episodes)) == 2 * 3 * episodes
  rows = read_table(str(tmp_path / 'posterior_gradients.csv'), quality.GRADIENT_COLUMNS)
  assert len(rows) == 2 * 2 * 2 and {row['episodes'] for row in rows} == {'51'}
  with Image.open(tmp_path / 'posterior_quality.png') as picture:
    assert picture.width == 1800


@pytest.mark.parametrize('flag', ['size=2', 'num_seeds=0'])
def test_bad_flags_are_one_line(flag, monkeypatch):
  values = flags.FlagValues()
  quality.define_flags(values)
  values(['posterior_quality', f'--{flag}'])
  monkeypatch.setattr(quality.flags, 'FLAGS', values)
  with pytest.raises(ConfigError, match=f'--{flag}: must be'):
    quality.main()
