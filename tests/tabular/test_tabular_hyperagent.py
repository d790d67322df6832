"""Tabular HyperAgent against closed forms: Eq. 5, Eq. 6-7, its law, and how uncertainty spreads."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hyperagent_jax.distributions import PERTURBATIONS, REFERENCES, make_perturbation
from hyperagent_jax.tabular import MDP, Episode, Problem, TabularAgent, make_hyperagent, make_rlsvi, play
from hyperagent_jax.tabular.hyperagent import Parameters, State, backup, backward_values, fixed_point, table_6, visits
from hyperagent_jax.tabular.laws import make_laws
from hyperagent_jax.tabular.sampling import Counts
from hyperagent_jax.tabular.spreading import chain_counts, iterate_values, sample_factor, value_spread

KEY = jax.random.key(0)
HORIZON, STATES, ACTIONS, BETA = 4, 3, 2, 3.0
PARAMETERS = Parameters(0.7, BETA, 1.5)


def problem(horizon=HORIZON, states=STATES, actions=ACTIONS):
  return Problem(states, actions, horizon, 30, BETA)


def any_mdp(horizon=HORIZON, states=STATES, actions=ACTIONS):
  rng = np.random.RandomState(0)
  transitions = rng.dirichlet(np.ones(states), (horizon, states, actions))
  dtype = jnp.result_type(float)
  return MDP(*(jnp.asarray(x, dtype) for x in (transitions, rng.rand(horizon, states, actions), np.eye(states)[0])))


def any_data():
  """Rewards, counts and a bonus, in float64 where that is on."""
  rng = np.random.RandomState(1)
  counts = rng.poisson(2.0, (HORIZON, STATES, ACTIONS, STATES))
  bonus = rng.randn(HORIZON, STATES, ACTIONS)
  return (jnp.asarray(x, jnp.result_type(float)) for x in (any_mdp().rewards, counts, bonus))


class Run(NamedTuple):
  """A run seen from outside: what was visited, and the factor before and after each visit."""

  noise: np.ndarray  # [K, H, M] recovered from the factor
  states: State  # [K, ...] after each episode
  first: State
  where: tuple[np.ndarray, ...]  # stages, states and actions, each [K, H]


def recorded(agent, mdp, num_episodes, parameters=PARAMETERS):
  observe = lambda state, episode: (state, episode)
  _, (states, episodes) = jax.jit(lambda key: play(agent, mdp, num_episodes, key, observe))(KEY)
  first = jax.jit(agent.init)(jax.random.split(KEY)[0], mdp.rewards)
  factor = np.concatenate([first.factor[None], states.factor])
  n = np.concatenate([np.zeros_like(states.counts[:1]), states.counts]).sum(-1)
  where = np.broadcast_arrays(np.arange(mdp.rewards.shape[0])[None], episodes.states[:, :-1], episodes.actions)
  episode = np.arange(num_episodes)[:, None]
  old, new, weight = factor[episode, *where], factor[episode + 1, *where], n[episode, *where][..., None] + BETA
  return Run(((weight + 1) * new - weight * old) / parameters.sigma, states, first, tuple(where))


# Eq. 5.


def test_incremental_factor_is_the_batch_one_over_adaptive_data():
  num_episodes, index_dim = 40, 5
  with jax.enable_x64(True):
    run = recorded(make_hyperagent(problem(), index_dim, PARAMETERS), any_mdp(), num_episodes)
    # z as drawn: episode k's update has the last of three keys.
    key_play = jax.random.split(KEY)[1]
    keys = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(key_play, k), 3)[2])(jnp.arange(num_episodes))
    noise = np.asarray(jax.vmap(lambda key: make_perturbation('sphere', index_dim).sample(key, HORIZON))(keys))
  np.testing.assert_allclose(run.noise, noise, atol=1e-9)
  total = np.zeros((HORIZON, STATES, ACTIONS, index_dim))
  np.add.at(total, run.where, noise)
  n = np.asarray(run.states.counts[-1]).sum(-1)[..., None]
  assert n.sum() == num_episodes * HORIZON and run.states.factor.dtype == np.float64
  batch = (BETA * np.asarray(run.first.factor) + PARAMETERS.sigma * total) / (n + BETA)
  np.testing.assert_allclose(run.states.factor[-1], batch, atol=1e-6)


def test_factor_starts_at_the_priors_length_exactly_and_fades_without_perturbations():
  run = recorded(make_hyperagent(problem(), 4, PARAMETERS, perturbed=False), any_mdp(), 20)
  start = np.asarray(run.first.factor)
  np.testing.assert_allclose((start**2).sum(-1), PARAMETERS.sigma**2 / BETA, rtol=1e-5)
  assert len(np.unique(start[..., 0])) == start[..., 0].size  # each its own direction
  n = np.asarray(run.states.counts[-1]).sum(-1)[..., None]
  np.testing.assert_allclose(run.states.factor[-1], BETA * start / (n + BETA), rtol=1e-4)


@pytest.mark.parametrize('horizon', [3, 4, 9])  # below, equal to and above the block
def test_orthogonal_perturbations_are_dealt_row_by_row_across_episodes(horizon):
  index_dim, num_episodes = 4, 8
  mdp = any_mdp(horizon)
  agent = make_hyperagent(problem(horizon), index_dim, PARAMETERS, perturbation='orthogonal')
  random = TabularAgent(agent.init, lambda state, key: jnp.full(mdp.rewards.shape, 0.5), agent.update)
  run = recorded(random, mdp, num_episodes)
  np.testing.assert_array_equal(run.states.num_steps, horizon * np.arange(1, num_episodes + 1))
  rows = run.noise.reshape(-1, index_dim)
  blocks = rows[: len(rows) // index_dim * index_dim].reshape(-1, index_dim, index_dim)
  for block in blocks:
    np.testing.assert_allclose(block @ block.T, np.eye(index_dim), atol=1e-4)
  assert all(np.abs(one - two).max() > 0.1 for one, two in itertools.pairwise(blocks))


def first_noise(**settings):
  """z [1000, H, 8] of as many first episodes."""
  agent = make_hyperagent(problem(2), 8, PARAMETERS, num_nonzero=2, **settings)
  state = agent.init(KEY, any_mdp(2).rewards)
  episode = Episode(jnp.array([0, 1, 1]), jnp.array([0, 1]))
  after = jax.jit(jax.vmap(agent.update, in_axes=(None, None, 0)))(state, episode, jax.random.split(KEY, 1000))
  old, new = (np.asarray(x.factor)[..., [0, 1], [0, 1], [0, 1], :] for x in (state, after))
  return ((1 + BETA) * new - BETA * old) / PARAMETERS.sigma


@pytest.mark.parametrize('name', PERTURBATIONS)
def test_every_perturbation_has_length_1_in_the_mean(name):
  noise = first_noise(perturbation=name)
  squared = (noise**2).sum(-1)
  np.testing.assert_allclose(squared.mean(), 1, atol=5 * 0.5 / 2000**0.5 if name == 'gaussian' else 1e-3)
  np.testing.assert_allclose(noise.mean((0, 1)), 0, atol=5 * (1 / 8 / 2000) ** 0.5)


def test_perturbations_of_ensembles_have_unit_variance():
  noise = first_noise(reference='one_hot', perturbation='gaussian', independent=False)
  np.testing.assert_allclose((noise**2).mean(), 1, atol=5 * (2 / 16_000) ** 0.5)


# Eq. 6-7.


def test_backup_by_hand():
  counts = jnp.array([[[3.0, 1.0], [0.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]])
  rewards = jnp.array([[0.5, 0.1], [0.2, 0.3]])
  q = backup(rewards, counts, jnp.array([2.0, 1.0]), Parameters(1.0, 2.0, 4.0), jnp.full((2, 2), 0.1), 0.5)
  # [2 * 4 + 4 * 0.5 + 0.5 (3 * 2 + 1)] / 6, the prior, [8 + 2 * 0.2 + 0.5 * 2] / 4, [8 + 0.3 + 0.5 * 2] / 3
  np.testing.assert_allclose(q, [[13.5 / 6 + 0.1, 4.1], [9.4 / 4 + 0.1, 9.3 / 3 + 0.1]], rtol=1e-6)


def test_values_are_what_h_applications_of_f_to_the_flat_mdp_give():
  with jax.enable_x64(True):
    rewards, counts, bonus = any_data()
    values = backward_values(rewards, counts, PARAMETERS, bonus)
    # State h S + s is s at stage h; nothing is worth anything after the last stage.
    size = (HORIZON + 1) * STATES
    flat = np.zeros((HORIZON * STATES, ACTIONS, size))
    for h in range(HORIZON):
      flat[h * STATES : (h + 1) * STATES, :, (h + 1) * STATES : (h + 2) * STATES] = counts[h]
    reshaped = (rewards.reshape(-1, ACTIONS), jnp.asarray(flat), bonus.reshape(-1, ACTIONS))
    apply = jax.jit(lambda v: backup(reshaped[0], reshaped[1], v, PARAMETERS, reshaped[2]))
    v, errors = jnp.full(size, PARAMETERS.prior_mean).at[-STATES:].set(0), []
    for _ in range(HORIZON):
      q = apply(v)
      v = v.at[:-STATES].set(q.max(-1))
      errors.append(np.abs(q.reshape(values.shape) - values).max((1, 2)))
    assert np.max(errors[-1]) < 1e-12 < errors[-2][0]
    assert all(errors[i][-1 - i] < 1e-12 for i in range(HORIZON))  # one more stage is final with each
    one_by_one = iterate_values(rewards, counts, PARAMETERS, bonus)
    np.testing.assert_allclose(one_by_one[-1], values.max(-1), atol=1e-12)
    np.testing.assert_allclose(one_by_one[0], PARAMETERS.prior_mean)


def test_discounted_iteration_converges_to_the_fixed_point_at_the_lemmas_rate():
  with jax.enable_x64(True):
    rewards, counts, bonus = (x[0] for x in any_data())
    solve = jax.jit(fixed_point, static_argnums=(2, 5))
    f = lambda q: backup(rewards, counts, q.max(-1), PARAMETERS, bonus, 0.95)
    q = solve(rewards, counts, PARAMETERS, bonus, 0.95, 600)
    np.testing.assert_allclose(f(q), q, atol=1e-12)
    n = visits(counts)
    modulus = 0.95 * float((n / (n + BETA)).max())
    first = np.abs(q - PARAMETERS.prior_mean).max()
    for i in (1, 10):
      error = np.abs(solve(rewards, counts, PARAMETERS, bonus, 0.95, i) - q).max()
      assert 0 < error <= modulus**i * first


# The law of what is sampled.


def test_a_large_index_samples_what_rlsvi_samples():
  index_dim, num_samples = 512, 4000
  rewards, counts, _ = any_data()
  n = visits(counts)
  factor = jax.jit(sample_factor, static_argnums=2)(KEY, n, index_dim, PARAMETERS)
  np.testing.assert_allclose((factor**2).sum(-1), PARAMETERS.sigma**2 / (n + BETA), rtol=0.2)
  # Through the agents: how often each action is chosen.
  ours, theirs = make_hyperagent(problem(), index_dim, PARAMETERS), make_rlsvi(problem(), PARAMETERS)
  keys = jax.random.split(KEY, num_samples // 10)
  state = State(rewards, counts, factor, None, jnp.int32(0))
  chosen = jax.jit(jax.vmap(ours.policy, in_axes=(None, 0)))(state, keys).mean(0)
  expected = jax.jit(jax.vmap(theirs.policy, in_axes=(None, 0)))(Counts(rewards, counts), keys).mean(0)
  np.testing.assert_allclose(chosen, expected, atol=5 * (0.5 / len(keys)) ** 0.5)
  # And the moments of the values.
  xi = jax.random.normal(KEY, (num_samples, HORIZON, STATES, index_dim))
  hyper = jnp.einsum('khsm,hsam->khsa', xi, factor)
  exact = PARAMETERS.sigma * jax.lax.rsqrt(n + BETA)[None] * jax.random.normal(KEY, hyper.shape)
  values = jax.jit(jax.vmap(lambda bonus: backward_values(rewards, counts, PARAMETERS, bonus)))
  q, q_exact = values(hyper), values(exact)
  np.testing.assert_allclose(
    q.mean(0), q_exact.mean(0), atol=6 * float(q_exact.std(0).max()) * (2 / num_samples) ** 0.5
  )
  np.testing.assert_allclose(q.var(0), q_exact.var(0), rtol=0.25)


def risky_share(num_indices):
  """How often one state's action 1 of unknown value is preferred to action 0, which is worth 1/2 for sure."""
  rewards = jnp.array([[[0.5, 0.0]]])
  chosen = Parameters(1.0, 4.0, 0.0)  # the unknown value is N(0, 1/4)
  agent = make_hyperagent(problem(1, 1, 2)._replace(beta=4.0), 16, chosen, num_indices=num_indices)
  state = agent.init(KEY, rewards)
  known = state._replace(counts=state.counts.at[0, 0, 0].set(1e8), factor=state.factor.at[0, 0, 0].set(0))
  policies = jax.jit(jax.vmap(agent.policy, in_axes=(None, 0)))(known, jax.random.split(KEY, 4000))
  return float(policies[:, 0, 0, 1].mean())


def test_optimistic_indices_take_the_best_of_several_samples():
  for num_indices in (1, 6):
    law = 1 - stats.norm.cdf(1) ** num_indices
    assert abs(risky_share(num_indices) - law) < 5 * (law * (1 - law) / 4000) ** 0.5


@pytest.mark.parametrize('name', REFERENCES)
def test_every_reference_has_unit_variance_and_an_index_of_its_own_for_each_state(name):
  dim, number = 4, 3
  index = jax.jit(jax.vmap(lambda key: make_laws(name, 'sphere', dim, 2).draw_xi(key, number, 2)))
  drawn = np.asarray(index(jax.random.split(KEY, 20_000)))  # [20000, states, K, M]
  second = 1 / dim if name == 'one_hot' else 1.0
  np.testing.assert_allclose(np.square(drawn).mean((0, 1, 2)), second, atol=0.03)
  # Of different states neither a product's mean nor its square's shows that one knows of the other.
  product = np.sum(drawn[:, 0] * drawn[:, 1], axis=-1)
  mean = 1 / dim if name == 'one_hot' else 0.0
  np.testing.assert_allclose(product.mean(0), mean, atol=0.06)
  np.testing.assert_allclose(np.square(product).mean(0), mean if mean else dim, rtol=0.06)


def test_defaults_are_table_6():
  assert table_6(problem())[:3] == pytest.approx((6**0.5 * HORIZON, BETA, HORIZON))
  assert table_6(problem(), 3.0, 0.5)[:3] == pytest.approx((0.5 * 3**0.5 * HORIZON, BETA, HORIZON))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'index_dim': 0}, 'index_dim=0'),
    ({'num_nonzero': 9}, 'num_nonzero=9'),
    ({'num_indices': 0}, 'num_indices=0'),
    ({'reference': 'cauchy'}, "'cauchy'.*must be one of"),
    ({'perturbation': 'one_hot'}, "'one_hot'.*must be one of"),
  ],
)
def test_errors(settings, message):
  with pytest.raises(ValueError, match=message):
    make_hyperagent(problem(), **{'index_dim': 4, **settings})


# Example D.7.


def test_uncertainty_reaches_one_state_and_one_stage_more_with_each_iteration():
  counts, parameters = chain_counts(200), Parameters(1.0, BETA, 0.0)
  assert counts.shape == (6, 4, 2, 4) and counts[0, 3, 1].tolist() == [0, 0, 0, 1] and counts.sum() == 6 * 1401
  factor = jax.jit(sample_factor, static_argnums=2)(KEY, visits(counts), 16, parameters)
  spread = jax.jit(value_spread, static_argnums=(2, 4, 5, 6))
  large = 0.15**2  # known values spread by at most 0.1, and one tried once by about 0.3
  distance = np.arange(3, -1, -1)[None]  # moves from a state to the lowest one
  for given, independent in ((factor, True), (factor, False), (None, True)):
    variance = np.asarray(spread(KEY, counts, parameters, given, 300, independent, True))
    for iteration in range(7):
      reached = (distance < iteration) & (distance <= 5 - np.arange(6)[:, None])
      np.testing.assert_array_equal(variance[iteration] > large, reached)
  local = np.asarray(spread(KEY, counts, parameters, factor, 300, True, False))
  np.testing.assert_array_equal(local[-1] > large, (distance == 0) & np.ones((6, 1), bool))


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_rewards_decide_the_number_format(dtype):
  with jax.enable_x64(True):
    rewards = jnp.zeros(problem().shape, dtype)
    agent = make_hyperagent(problem(), 4, perturbation='orthogonal')
    state = agent.init(KEY, rewards)
    assert agent.policy(state, KEY).dtype == dtype
    episode = Episode(jnp.zeros(HORIZON + 1, jnp.int32), jnp.zeros(HORIZON, jnp.int32))
    assert jax.tree.map(lambda x: x.dtype, agent.update(state, episode, KEY)) == jax.tree.map(lambda x: x.dtype, state)
