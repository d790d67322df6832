"""The tabular rivals against closed forms and NumPy, and who explores better."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hyperagent_jax.tabular import (
  MDP,
  Episode,
  Problem,
  backward_induction,
  deep_sea,
  greedy,
  make_bayes_ucbvi,
  make_ensemble_sampling,
  make_epsilon_greedy,
  make_incre_bayes_ucbvi,
  make_lmc_lsvi,
  make_psrl,
  make_rlsvi,
  make_ucbvi,
  play,
  river_swim,
)
from hyperagent_jax.tabular.hyperagent import Parameters, backward_values, by_stage
from hyperagent_jax.tabular.optimism import upper
from hyperagent_jax.tabular.sampling import Counts, Langevin

KEY = jax.random.key(0)
HORIZON, STATES, ACTIONS = 3, 3, 2
PROBLEM = Problem(STATES, ACTIONS, HORIZON, 100)
BANDIT = Problem(1, 2, 1, 10)
PULL_0 = Episode(jnp.zeros(2, jnp.int32), jnp.zeros(1, jnp.int32))


def any_mdp():
  rng = np.random.RandomState(0)
  transitions = rng.dirichlet(np.ones(STATES), (HORIZON, STATES, ACTIONS))
  rewards = rng.rand(HORIZON, STATES, ACTIONS)
  return MDP(*(jnp.asarray(x, jnp.float32) for x in (transitions, rewards, np.eye(STATES)[0])))


def optimal(mdp):
  return greedy(backward_induction(mdp.transitions, mdp.rewards).q)


def some_counts():
  return jnp.asarray(np.random.RandomState(1).poisson(2.0, (*PROBLEM.shape, STATES)), jnp.float32)


def test_psrl_with_much_data_is_optimal_and_with_little_is_not_always():
  mdp, agent = any_mdp(), make_psrl(PROBLEM)
  policies = jax.jit(jax.vmap(agent.policy, in_axes=(None, 0)))
  keys = jax.random.split(KEY, 20)
  np.testing.assert_array_equal(
    policies(Counts(mdp.rewards, 1e7 * mdp.transitions), keys), jnp.stack([optimal(mdp)] * 20)
  )
  assert len(np.unique(np.asarray(policies(agent.init(KEY, mdp.rewards), keys)).reshape(20, -1), axis=0)) > 2


def test_rlsvi_without_noise_is_deterministic():
  mdp, counts, parameters = any_mdp(), some_counts(), Parameters(0.0, 3.0, 1.0)
  agent = make_rlsvi(PROBLEM, parameters)
  policies = jax.vmap(agent.policy, in_axes=(None, 0))(Counts(mdp.rewards, counts), jax.random.split(KEY, 5))
  expected = greedy(backward_values(mdp.rewards, counts, parameters, jnp.zeros(PROBLEM.shape)))
  np.testing.assert_array_equal(policies, jnp.stack([expected] * 5))


def test_an_ensemble_follows_one_of_its_members():
  mdp, parameters, num_members = any_mdp(), Parameters(2.0, 3.0, 1.0), 6
  agent = make_ensemble_sampling(PROBLEM, num_members, parameters)
  state = agent.init(KEY, mdp.rewards)._replace(counts=some_counts())
  values = lambda bonus: backward_values(state.rewards, state.counts, parameters, bonus)
  members = np.asarray(greedy(jax.vmap(values, in_axes=-1)(state.factor))).reshape(num_members, -1)
  policies = np.asarray(jax.jit(jax.vmap(agent.policy, in_axes=(None, 0)))(state, jax.random.split(KEY, 100)))
  followed = np.unique(policies.reshape(100, -1), axis=0)
  np.testing.assert_array_equal(followed, np.unique(members, axis=0))
  many = make_ensemble_sampling(PROBLEM, 1000, parameters).init(KEY, mdp.rewards).factor  # their priors
  np.testing.assert_allclose(many.var(), parameters.sigma**2 / 3, rtol=0.05)


def test_epsilon_greedy_probabilities():
  agent, rewards = make_epsilon_greedy(BANDIT), jnp.array([[[0.2, 0.7]]])
  state, update = agent.init(KEY, rewards), jax.jit(agent.update)
  np.testing.assert_allclose(agent.policy(state, KEY), [[[0.5, 0.5]]], rtol=1e-6)  # epsilon = 1
  for _ in range(7):
    state = update(state, PULL_0, KEY)
  np.testing.assert_allclose(agent.policy(state, KEY), [[[0.25, 0.75]]], rtol=1e-5)  # 8^(-1/3) = 1/2
  half = make_epsilon_greedy(BANDIT, 0.5).policy(state, KEY)
  np.testing.assert_allclose(half, [[[0.125, 0.875]]], rtol=1e-5)


def ucbvi_choice(agent, rewards, tries):
  """The first of two stages; nothing is to be earned at the last."""
  counts = jnp.stack([jnp.array(tries), jnp.ones(2)])[:, None, :, None]
  state = Counts(jnp.array([[rewards], [[0.0, 0.0]]]), counts)
  return int(np.argmax(agent.policy(state, KEY)[0]))


def test_ucbvi_by_hand():
  # The bonus is 7 * 2 log(5 * 1 * 2 * 10 * 2 / 0.05) / sqrt(N) = 116.1 / sqrt(N), with the next value at most 1.
  agent = make_ucbvi(Problem(1, 2, 2, 10))
  assert ucbvi_choice(agent, [0.5, 0.52], [1e6, 1e8]) == 0  # 0.6161 and 0.5316
  assert ucbvi_choice(agent, [0.5, 0.61], [1e6, 1e8]) == 1  # 0.6161 and 0.6216
  assert ucbvi_choice(agent, [0.5, 0.0], [100.0, 0.0]) == 0  # 1.5 and 1: rewards are known
  greedy_one = make_ucbvi(Problem(1, 2, 2, 10), scale=0.0)
  assert ucbvi_choice(greedy_one, [0.9, 0.0], [1.0, 0.0]) == 1  # 0.9, and what was never tried is worth 1 more
  assert ucbvi_choice(greedy_one, [0.9, 0.0], [1.0, 1.0]) == 0


def test_ucbvi_with_much_data_is_optimal():
  mdp = any_mdp()
  policy = make_ucbvi(PROBLEM, scale=1e-3).policy(Counts(mdp.rewards, 1e7 * mdp.transitions), KEY)
  np.testing.assert_array_equal(policy, optimal(mdp))


@pytest.mark.parametrize('quantile', [0.01, 0.5, 0.85, 1.0])
def test_upper_is_numpys_quantile(quantile):
  samples = np.random.RandomState(0).randn(5, 40).astype(np.float32)
  expected = np.quantile(samples, quantile, axis=-1, method='inverted_cdf')
  np.testing.assert_array_equal(upper(jnp.asarray(samples), quantile), expected)


def test_bayes_ucbvi_weighs_next_states_by_a_dirichlet_sample():
  problem = Problem(2, 2, 1, 10)
  agent, num_samples = make_bayes_ucbvi(problem, 4000, prior_visits=1.5), 4000
  state, update = agent.init(KEY, jnp.zeros(problem.shape)), jax.jit(agent.update)
  np.testing.assert_array_equal(state.weights, jnp.broadcast_to(jnp.array([0.0, 0, 1]), (1, 2, 2, num_samples, 3)))
  for i, new in enumerate((0, 1, 1)):
    state = update(state, Episode(jnp.array([0, new]), jnp.array([1])), jax.random.key(i))
  np.testing.assert_array_equal(state.counts[0, 0], [[0, 0], [1, 2]])
  weights = np.asarray(state.weights[0, 0, 1])
  law = stats.dirichlet([1, 2, 1.5])
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
  np.testing.assert_allclose(weights.mean(0), law.mean(), atol=6 * (law.var().max() / num_samples) ** 0.5)
  np.testing.assert_allclose(np.cov(weights.T), law.cov(), atol=0.004)
  for untouched in (state.weights[0, 0, 0], state.weights[0, 1, 0], state.weights[0, 1, 1]):
    np.testing.assert_array_equal(untouched[:, -1], 1)


def test_bayes_ucbvi_prefers_what_it_has_not_tried():
  agent, rewards = make_bayes_ucbvi(Problem(1, 2, 2, 10), 16), jnp.full((2, 1, 2), 0.5).at[1].set(0.1)
  twice = Episode(jnp.zeros(3, jnp.int32), jnp.zeros(2, jnp.int32))
  state = jax.jit(agent.update)(agent.init(KEY, rewards), twice, KEY)
  # Untried, action 1 of the first stage is worth 0.5 + 1, and action 0 at most that; the last stage is known.
  np.testing.assert_array_equal(agent.policy(state, KEY), [[[0, 1]], [[1, 0]]])


def test_incremental_bayes_ucbvi_against_numpy():
  num_samples, num_episodes, quantile = 8, 12, 0.85
  agent, rewards = make_incre_bayes_ucbvi(PROBLEM, num_samples, quantile, 2.0), any_mdp().rewards
  state, update = agent.init(KEY, rewards), jax.jit(agent.update)
  r, weight = np.asarray(rewards, np.float64), np.asarray(state.weight, np.float64)
  best = r + np.array([2.0, 1.0, 0.0])[:, None, None]  # the reward, and all that is left
  np.testing.assert_allclose(state.value, best, rtol=1e-6)
  total = weight * best[..., None]
  value, rng = best.copy(), np.random.RandomState(0)
  for k in range(num_episodes):
    states, actions, key = rng.randint(STATES, size=HORIZON + 1), rng.randint(ACTIONS, size=HORIZON), jax.random.key(k)
    state = update(state, Episode(jnp.asarray(states), jnp.asarray(actions)), key)
    drawn = np.asarray(jax.random.exponential(key, (HORIZON, num_samples)))
    old = value.copy()  # all targets are of the values before the episode
    for h, (s, a) in enumerate(zip(states[:-1], actions, strict=True)):
      v_next = old[h + 1, states[h + 1]].max() if h + 1 < HORIZON else 0.0
      total[h, s, a] += drawn[h] * (r[h, s, a] + v_next)
      weight[h, s, a] += drawn[h]
      value[h, s, a] = np.quantile(total[h, s, a] / weight[h, s, a], quantile, method='inverted_cdf')
  np.testing.assert_allclose(state.weight, weight, rtol=1e-5)
  np.testing.assert_allclose(state.q, total / weight, rtol=1e-4)
  np.testing.assert_allclose(state.value, value, rtol=1e-4)
  np.testing.assert_array_equal(agent.policy(state, KEY), greedy(jnp.asarray(value)))


def test_langevin_steps_settle_in_their_stationary_law():
  # Of weights W = N + beta, after many steps of eta = 1 / (4 max W), the variance is sigma^2 / W times
  # 1 / (1 - W / (4 max W)): the posterior's, but for what a finite step adds, 4/3 in the most visited cell.
  parameters = Parameters(0.3, 2.0, 1.0)
  agent = make_lmc_lsvi(BANDIT, parameters, num_inner_steps=150)
  rewards, counts = jnp.array([[[0.4, 0.8]]]), jnp.array([[[[17.0], [2.0]]]])
  start = Langevin(rewards, counts, jnp.ones(BANDIT.shape))
  many = jax.jit(jax.vmap(agent.update, in_axes=(None, None, 0)))(start, PULL_0, jax.random.split(KEY, 4000))
  weight, q = np.array([20.0, 4.0]), np.asarray(many.q[:, 0, 0])
  mean = (2.0 + (weight - 2.0) * [0.4, 0.8]) / weight
  variance = parameters.sigma**2 / weight / (1 - weight / 80)
  np.testing.assert_allclose(q.mean(0), mean, atol=5 * (variance.max() / 4000) ** 0.5)
  np.testing.assert_allclose(q.var(0), variance, rtol=5 * (2 / 4000) ** 0.5)


def test_langevin_policy_cuts_values_to_what_is_possible():
  agent = make_lmc_lsvi(BANDIT)
  state = agent.init(KEY, jnp.zeros(BANDIT.shape))
  np.testing.assert_array_equal(state.q, by_stage(1.0, 1)[:, None, None] + jnp.zeros(BANDIT.shape))
  np.testing.assert_array_equal(agent.policy(state._replace(q=jnp.array([[[2.0, 9.0]]])), KEY), [[[1, 0]]])


@pytest.mark.parametrize(('name', 'factor'), [('deep_sea', 2.0), ('river_swim', 1.5)])
def test_deep_exploration_has_clearly_less_regret_than_dithering(name, factor):
  mdp, num_episodes = deep_sea(5) if name == 'deep_sea' else river_swim(4, 10), 120
  horizon, num_states, num_actions = mdp.rewards.shape
  problem = Problem(num_states, num_actions, horizon, num_episodes, 1.0)
  keys = jax.random.split(KEY, 12)
  total = lambda agent: np.asarray(
    jax.jit(jax.vmap(lambda key: play(agent, mdp, num_episodes, key)[0].sum()))(keys)
  ).mean()
  dithering = total(make_epsilon_greedy(problem))
  for agent in (make_psrl(problem), make_rlsvi(problem, Parameters(0.3, 1.0, 1.0))):
    assert factor * total(agent) < dithering


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: make_bayes_ucbvi(BANDIT, quantile=0.0), 'quantile=0.0'),
    (lambda: make_incre_bayes_ucbvi(BANDIT, num_samples=0), 'num_samples=0'),
    (lambda: make_ucbvi(BANDIT, delta=1.0), 'delta=1.0'),
    (lambda: make_lmc_lsvi(BANDIT, num_inner_steps=0), 'num_inner_steps=0'),
    (lambda: make_ensemble_sampling(BANDIT, 0), 'index_dim=0'),
    (lambda: make_psrl(BANDIT).init(KEY, jnp.zeros((2, 1, 2))), r'must be \[H, S, A\] = \(1, 1, 2\)'),
    (lambda: make_incre_bayes_ucbvi(BANDIT).init(KEY, jnp.zeros((1, 1, 3))), r'must be \[H, S, A\]'),
    (lambda: make_rlsvi(BANDIT._replace(beta=0.0)).init(KEY, jnp.zeros((1, 1, 2))), 'beta=0.0'),
  ],
)
def test_errors(make, message):
  with pytest.raises(ValueError, match=message):
    make()
