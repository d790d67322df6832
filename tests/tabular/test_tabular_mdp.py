"""Small MDPs: their samples, their laws, planning against brute force, and how agents play them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bsuite.environments import deep_sea as bsuite_deep_sea
from scipy import stats

from hyperagent_jax.tabular import (
  MDP,
  DiscountedMDP,
  Problem,
  backward_induction,
  deep_sea,
  greedy,
  make_known,
  make_rlsvi,
  occupancy,
  play,
  policy_value,
  random_discounted_mdp,
  random_mdp,
  regret,
  river_swim,
  value_iteration,
)
from hyperagent_jax.tabular.gamma import dirichlet, standard_gamma
from hyperagent_jax.tabular.planning import discounted_policy_value
from hyperagent_jax.tabular.play import draw, simulate

KEY = jax.random.key(0)
GAMMA_SHAPES = (0.05, 0.3, 1.0, 2.5, 40.0)


def any_mdp(horizon, num_states, num_actions, dtype=np.float32):
  """An MDP that costs no compiling."""
  rng = np.random.RandomState(0)
  transitions = rng.dirichlet(np.full(num_states, 0.5), (horizon, num_states, num_actions))
  rewards, initial = rng.rand(horizon, num_states, num_actions), rng.dirichlet(np.ones(num_states))
  return MDP(*(jnp.asarray(x, dtype) for x in (transitions, rewards, initial)))


def any_discounted_mdp(discount, dtype):
  mdp = any_mdp(1, 3, 2, dtype)
  return DiscountedMDP(mdp.transitions[0], mdp.rewards[0], jnp.asarray(discount, dtype))


def random_policies(key, number, horizon, num_states, num_actions):
  """Probabilities [number, H, S, A], from nearly uniform to nearly deterministic."""
  sharpness = 10.0 ** jnp.linspace(-1, 2, number)[:, None, None, None]
  return jax.nn.softmax(sharpness * jax.random.normal(key, (number, horizon, num_states, num_actions)))


# Gamma and Dirichlet.


def test_gamma_samples_follow_the_law_vmapped_or_alone():
  keys, shapes = jax.random.split(KEY, 50), jnp.broadcast_to(jnp.asarray(GAMMA_SHAPES)[:, None], (5, 60))
  samples = np.asarray(jax.jit(jax.vmap(standard_gamma, in_axes=(0, None)))(keys, shapes))
  assert samples.shape == (50, 5, 60) and np.isfinite(samples).all() and (samples >= 0).all()
  for i, a in enumerate(GAMMA_SHAPES):
    assert stats.kstest(samples[:, i].ravel(), stats.gamma(a).cdf).pvalue > 1e-3
  single = jax.jit(standard_gamma)
  np.testing.assert_allclose(samples[:8], [single(key, shapes) for key in keys[:8]], rtol=1e-5)


def test_dirichlet():
  alpha, number = np.array([0.3, 1.0, 4.0]), 20_000
  tiny = jnp.full((2_000, 3), 1e-3)  # whose gamma samples are all below the smallest number in many a row
  samples = np.asarray(jax.jit(dirichlet)(KEY, jnp.concatenate([jnp.broadcast_to(alpha, (number, 3)), tiny])))
  np.testing.assert_allclose(samples.sum(-1), 1, rtol=1e-6)
  squares = np.sum(np.square(samples[number:]), axis=-1)
  assert np.mean(squares) == pytest.approx(1.001 / 1.003, abs=0.006)  # (a + 1) / (3 a + 1): nearly always a vertex
  law, samples = stats.dirichlet(alpha), samples[:number]
  np.testing.assert_allclose(samples.mean(0), law.mean(), atol=6 * (law.var().max() / number) ** 0.5)
  np.testing.assert_allclose(np.cov(samples.T), law.cov(), atol=0.002)


# MDPs.


def test_random_mdps_are_dirichlet_with_total_beta():
  num_states, beta = 6, 3.0
  mdp = random_mdp(KEY, num_states, 3, 100, beta)
  assert mdp.transitions.shape == (100, 6, 3, 6) and mdp.rewards.shape == (100, 6, 3)
  rows = np.asarray(mdp.transitions).reshape(-1, num_states)
  np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
  assert rows.min() >= 0 and rows.max() <= 1
  mean = 1 / num_states
  variance = mean * (1 - mean) / (beta + 1)
  np.testing.assert_allclose(rows.mean(0), mean, atol=6 * (variance / len(rows)) ** 0.5)
  np.testing.assert_allclose(rows.var(), variance, rtol=0.08)
  rewards = np.asarray(mdp.rewards)
  assert rewards.min() >= 0 and rewards.max() < 1 and abs(rewards.mean() - 0.5) < 0.05
  np.testing.assert_array_equal(mdp.initial, [1, 0, 0, 0, 0, 0])


def test_a_random_discounted_mdp_is_a_stage_of_a_random_one():
  both = jax.jit(lambda key: (random_mdp(key, 3, 2, 1), random_discounted_mdp(key, 3, 2, 0.9)))
  mdp, discounted = both(KEY)
  np.testing.assert_array_equal(discounted.transitions, mdp.transitions[0])
  np.testing.assert_array_equal(discounted.rewards, mdp.rewards[0])
  assert float(discounted.discount) == np.float32(0.9)


@pytest.mark.parametrize('mapping_seed', [7, 42])
def test_deep_sea_is_bsuites(mapping_seed):
  size = 5
  mdp, theirs = deep_sea(size, mapping_seed), bsuite_deep_sea.DeepSea(size, mapping_seed=mapping_seed)
  transitions, rewards = np.asarray(mdp.transitions), np.asarray(mdp.rewards)
  rng, best = np.random.RandomState(0), 0.0
  for episode in range(40):
    theirs.reset()
    column, total = int(np.argmax(mdp.initial)), 0.0
    for row in range(size):
      assert theirs._column == column
      right = theirs._action_mapping[row, column]
      action = right if episode % 2 or rng.rand() < 0.6 else 1 - right
      step = theirs.step(int(action))
      assert rewards[row, column, action] == pytest.approx(step.reward, abs=1e-6)
      assert transitions[row, column, action].max() == 1
      column, total = int(transitions[row, column, action].argmax()), total + step.reward
    assert step.last() and theirs._column == column
    best = max(best, total)
  assert best == pytest.approx(float(backward_induction(mdp.transitions, mdp.rewards).v[0, 0])) == pytest.approx(0.99)


def test_deep_sea_without_a_mapping_goes_right_by_action_1():
  plan = greedy(backward_induction(*deep_sea(4)[:2]).q)
  np.testing.assert_array_equal([plan[i, i, 1] for i in range(4)], 1)


def test_river_swim_by_hand():
  mdp = river_swim(4, 3)
  left = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
  right = [[0.4, 0.6, 0, 0], [0.05, 0.6, 0.35, 0], [0, 0.05, 0.6, 0.35], [0, 0, 0.4, 0.6]]
  for stage in range(3):
    np.testing.assert_allclose(mdp.transitions[stage], np.stack([left, right], 1), atol=1e-7)
    np.testing.assert_allclose(mdp.rewards[stage], [[0.005, 0], [0, 0], [0, 0], [0, 1]], atol=1e-7)
  np.testing.assert_array_equal(mdp.initial, [1, 0, 0, 0])


# Planning.


def hand_worked():
  transitions = [[[[1, 0], [0.5, 0.5]], [[0, 1], [0.25, 0.75]]], [[[1, 0], [0, 1]], [[0, 1], [1, 0]]]]
  rewards = [[[0, 0.3], [0.1, 0]], [[1, 0], [0.5, 0.2]]]
  return MDP(*(jnp.asarray(x, jnp.float32) for x in (transitions, rewards, [0.5, 0.5])))


def test_planning_by_hand():
  mdp = hand_worked()
  plan = backward_induction(mdp.transitions, mdp.rewards)
  np.testing.assert_allclose(plan.q, [[[1, 1.05], [0.6, 0.625]], [[1, 0], [0.5, 0.2]]], rtol=1e-6)
  np.testing.assert_allclose(plan.v, [[1.05, 0.625], [1, 0.5]], rtol=1e-6)
  always_0 = jnp.zeros((2, 2, 2)).at[..., 0].set(1)
  np.testing.assert_allclose(policy_value(mdp, always_0), [[1, 0.6], [1, 0.5]], rtol=1e-6)
  assert float(regret(mdp, plan, always_0)) == pytest.approx(0.0375, rel=1e-5)
  np.testing.assert_allclose(occupancy(mdp, always_0), [[0.5, 0.5], [0.5, 0.5]])


def test_the_first_of_equally_good_actions_is_taken():
  np.testing.assert_array_equal(greedy(jnp.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]])), [[1, 0, 0], [0, 1, 0]])


def test_backward_induction_against_every_deterministic_policy():
  mdp = any_mdp(3, 2, 2)
  every = jnp.asarray(list(itertools.product(range(2), repeat=6))).reshape(-1, 3, 2)
  values = jax.jit(jax.vmap(policy_value, in_axes=(None, 0)))(mdp, jax.nn.one_hot(every, 2))
  np.testing.assert_allclose(backward_induction(mdp.transitions, mdp.rewards).v, values.max(0), rtol=1e-6)


def test_value_iteration_against_every_policy_by_linear_solve():
  with jax.enable_x64(True):
    mdp = any_discounted_mdp(0.9, jnp.float64)
    q = value_iteration(mdp, tolerance=1e-9)
    every = jax.nn.one_hot(jnp.asarray(list(itertools.product(range(2), repeat=3))), 2, dtype=q.dtype)
    values = jax.vmap(discounted_policy_value, in_axes=(None, 0))(mdp, every)
    np.testing.assert_allclose(q.max(-1), values.max(0), atol=1e-9)
    np.testing.assert_allclose(discounted_policy_value(mdp, greedy(q)), q.max(-1), atol=1e-9)


def test_value_iteration_stops():
  mdp = any_discounted_mdp(0.99, jnp.float32)
  np.testing.assert_array_equal(value_iteration(mdp, max_iterations=1), mdp.rewards)


def losses(mdp, policies):
  """Regret of each policy, and the difference of values that it is."""
  plan = backward_induction(mdp.transitions, mdp.rewards)
  value = jax.vmap(lambda policy: policy_value(mdp, policy)[0])(policies)
  return jax.vmap(regret, in_axes=(None, None, 0))(mdp, plan, policies), jnp.sum(
    mdp.initial[None] * (plan.v[:1] - value), 1
  )


def test_regret_is_the_difference_of_values():
  with jax.enable_x64(True):
    mdp = any_mdp(4, 5, 3, jnp.float64)
    policies = random_policies(jax.random.key(1), 200, 4, 5, 3)
    exact, difference = jax.jit(losses)(mdp, policies)
    assert exact.dtype == jnp.float64 and float(exact.max()) > 0.1
    np.testing.assert_allclose(exact, difference, atol=1e-10)


def test_regret_is_never_negative_and_that_of_the_optimal_policy_0():
  mdp = any_mdp(4, 5, 3)
  best = greedy(backward_induction(mdp.transitions, mdp.rewards).q)
  policies = random_policies(jax.random.key(1), 4000, 4, 5, 3)
  changed = jnp.where(jax.random.uniform(KEY, (4000, 4, 5, 1)) < 0.1, policies, best[None])  # mostly optimal ones
  exact, _ = jax.jit(losses)(mdp, jnp.concatenate([best[None], policies, changed]))
  assert exact[0] == 0 and float(exact.min()) >= 0 and float(exact.max()) <= 4


# Play.


def test_draw_never_gives_what_has_probability_0():
  rng = np.random.RandomState(0)
  p = rng.gamma(0.3, size=(2000, 7)).astype(np.float32) * (rng.rand(2000, 7) < 0.5)
  p = p[p.sum(-1) > 0]
  p /= p.sum(-1, keepdims=True)
  uniforms = np.concatenate([[0.0, 1 - 2.0**-24, 1 - 2.0**-23, 2.0**-23], rng.rand(20)]).astype(np.float32)
  outcome = jax.jit(jax.vmap(jax.vmap(draw, in_axes=(None, 0)), in_axes=(0, None)))(p, uniforms)
  assert np.take_along_axis(p, np.asarray(outcome), 1).min() > 0
  np.testing.assert_array_equal(outcome[:, 0], (p > 0).argmax(1))  # the lower end is the first possible outcome


def test_draw_frequencies():
  p, uniforms = jnp.array([0.0, 0.2, 0.0, 0.5, 0.3, 0.0]), (jnp.arange(1000) + 0.5) / 1000
  outcome = np.asarray(jax.vmap(draw, in_axes=(None, 0))(p, uniforms))
  np.testing.assert_array_equal(np.bincount(outcome, minlength=6), [0, 200, 0, 500, 300, 0])


def test_occupancy_and_simulated_transitions_agree():
  number, horizon, num_states = 4000, 3, 3
  mdp = any_mdp(horizon, num_states, 2)._replace(initial=jnp.array([0.5, 0.0, 0.5]))
  policy = random_policies(KEY, 1, horizon, num_states, 2)[0]
  visited = np.asarray(occupancy(mdp, policy))
  np.testing.assert_allclose(visited.sum(-1), 1, rtol=1e-5)
  run = jax.jit(jax.vmap(simulate, in_axes=(None, None, 0)))
  states, actions = map(np.asarray, run(mdp, policy, jax.random.split(KEY, number)))
  seen = np.zeros((horizon, num_states, 2, num_states))
  np.add.at(seen, (np.arange(horizon), states[:, :-1], actions, states[:, 1:]), 1 / number)
  law = visited[..., None, None] * np.asarray(policy)[..., None] * np.asarray(mdp.transitions)
  np.testing.assert_array_less(np.abs(seen - law), 1e-9 + 5 * np.sqrt(law / number) + 1 / number * (law > 0))


def test_who_knows_the_mdp_has_no_regret():
  mdp = any_mdp(3, 4, 3)
  losses, _ = jax.jit(lambda key: play(make_known(mdp), mdp, 50, key))(KEY)
  np.testing.assert_array_equal(losses, np.zeros(50))


def test_plays_regrets_are_those_of_its_policies():
  mdp, agent, num_episodes = any_mdp(3, 3, 2), make_rlsvi(Problem(3, 2, 3, 30)), 30
  losses, states = jax.jit(lambda key: play(agent, mdp, num_episodes, key, lambda state, _: state))(KEY)
  assert states.counts.shape == (num_episodes, 3, 3, 2, 3) and losses.max() > 0
  np.testing.assert_allclose(states.counts.sum((2, 3, 4)), np.arange(1, 31)[:, None] + np.zeros((1, 3)))
  # The policy of episode k follows from the state after episode k - 1 and the episode's key.
  key_init, key_play = jax.random.split(KEY)
  first = jax.tree.map(lambda x: x[None], agent.init(key_init, mdp.rewards))
  before = jax.tree.map(lambda one, rest: jnp.concatenate([one, rest[:-1]]), first, states)
  keys = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(key_play, k), 3)[0])(jnp.arange(num_episodes))
  policies = jax.jit(jax.vmap(agent.policy))(before, keys)
  values = jax.vmap(policy_value, in_axes=(None, 0))(mdp, policies)[:, 0]  # [K, S]
  best = backward_induction(mdp.transitions, mdp.rewards).v[0]
  np.testing.assert_allclose(losses, (np.asarray(best) - np.asarray(values)) @ np.asarray(mdp.initial), atol=1e-6)


def test_a_vmapped_run_is_the_run_alone():
  mdp, agent = any_mdp(3, 3, 2), make_rlsvi(Problem(3, 2, 3, 20))

  def run(key):  # each in an MDP of its own
    rewards = jax.random.uniform(key, mdp.rewards.shape)
    return play(agent, mdp._replace(rewards=rewards), 20, key)[0]

  keys = jax.random.split(KEY, 4)
  together, alone = jax.jit(jax.vmap(run))(keys), jax.jit(run)
  for i in (0, 3):
    np.testing.assert_allclose(together[i], alone(keys[i]), atol=1e-6)
  assert np.unique(np.asarray(together).sum(1)).size == 4
