"""What makes each rival what it is: its indices, its loss, its way of acting, its optimizer and its settings."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax import agent as hyperagent
from hyperagent_jax import build, presets, types
from hyperagent_jax.baselines import SYSTEMS, ddqn, enn_dqn, ensemble, hyperdqn, hypermodel, langevin, noisy
from hyperagent_jax.baselines.config import COMMON, RivalConfig, refuse_unread, validate_rival
from hyperagent_jax.baselines.indexed_agent import (
  ActDraws,
  IndexedExtras,
  UpdateDraws,
  make_indexed_agent,
  optax_step,
  sampled_indices,
)
from hyperagent_jax.baselines.modules import plain_network, with_index
from hyperagent_jax.config import ConfigError
from hyperagent_jax.networks import join_with_prior, make_network, make_torso
from hyperagent_jax.types import ActorState, Extras, Transition

SIZE, ACTIONS, BATCH = 4, 3, 5
SMALL = {'hidden_sizes': (5,), 'discount': 0.9, 'batch_size': BATCH, 'ensemble_size': 3, 'prior_scale': 0.5}
SMALL |= {'epinet_hidden_sizes': (4,), 'prior_hidden_sizes': (3,), 'index_dim': 2}


def normal(seed, *shape):
  return jnp.asarray(np.random.RandomState(seed).randn(*shape), jnp.float32)


def random_learner(agent):
  """A learner of NumPy's weights, with a target network of others that is not about to be replaced."""
  shape = jax.eval_shape(agent.init, jax.random.key(0), jnp.int32(0))
  rng = np.random.RandomState(0)
  draw = lambda tree: jax.tree.map(lambda x: jnp.asarray(0.5 * rng.randn(*x.shape), jnp.float32), tree)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape.opt_state)
  return types.LearnerState(
    draw(shape.params), draw(shape.prior_params), draw(shape.target_params), zeros, jnp.int32(1)
  )


def make_batch(extras=None):
  return Transition(
    o_tm1=jnp.array([0, 4, 5, 8, 9], jnp.int32),
    a_tm1=jnp.array([0, 1, 2, 0, 1], jnp.int32),
    r_t=normal(5, BATCH),
    discount_t=jnp.array([0.9, 0.9, 0.0, 0.9, 0.81], jnp.float32),
    o_t=jnp.array([4, 8, 16, 12, 14], jnp.int32),
    extras_tm1=extras,
    extras_t=extras,
  )


def step(step_type=types.MID, observation=5):
  return types.time_step(step_type, 0.0, 1.0, jnp.int32(observation))


def settings(name, **changes):
  """A system's preset for DeepSea with small networks."""
  config = SYSTEMS[name].deep_sea(SIZE)
  small = {k: v for k, v in SMALL.items() if k in {f.name for f in dataclasses.fields(config)}}
  return dataclasses.replace(config, **{**small, **changes})


NETWORKS = {
  'ddqn': plain_network,
  'langevin_dqn': plain_network,
  'adam_lmcdqn': plain_network,
  'ensemble_plus': ensemble.ensemble_network,
  'ensemble_plus_os': ensemble.ensemble_network,
  'bayes_ucbdqn': ensemble.ensemble_network,
  'hyperdqn': lambda c, n: with_index(join_with_prior(lambda: hyperdqn.WithOne(make_torso(c)), c, n)),
  'enn_dqn': enn_dqn.make_epinet,
  'hypermodel': hypermodel.make_network,
  'noisynet': lambda c, n: noisy.noisy_network(c, n, by_state=False),
  'sane': lambda c, n: noisy.noisy_network(c, n, by_state=True),
}
RIVALS = tuple(NETWORKS)


@functools.cache
def make(name, **changes):
  """A system's settings, agent and random learner."""
  config = settings(name, **changes)
  agent = SYSTEMS[name].make(config, ACTIONS)
  return config, agent, random_learner(agent)


@functools.cache
def value_of(name, **changes):
  """Q [A] of parameters, a prior, an observation and an index; `test_baseline_networks.py` tests the networks."""
  network = NETWORKS[name](settings(name, **changes), ACTIONS)
  q = jax.jit(lambda params, prior, o, index: network.q(params, prior, o, network.prior_q(prior, o), index))
  return lambda params, prior, o, index: np.asarray(q(params, prior, jnp.int32(o), index), np.float64)


# ------------------------------------------------------------------------------------ the generic agent is HyperAgent's

EQUIVALENCE = {
  'independent': {},
  'optimistic': {'target_num_indices': 3, 'double_q': False},
  'optimistic_quantile': {'target_num_indices': 3, 'optimism_quantile': 0.6, 'sigma': 0.5},
  'dependent': {'target_index': 'dependent', 'sigma': 0.5},
  'dependent_single_q': {'target_index': 'dependent', 'double_q': False},
}
HYPERAGENTS = RivalConfig(
  **{k: v for k, v in SMALL.items() if k != 'index_dim'},
  grid_size=SIZE,
  index_dim=3,
  update_indices='4',
  posterior_scale=0.7,
  max_grad_norm=0.1,
  adam_eps=1e-2,
  learning_rate=0.1,
)


def both_agents(config):
  """HyperAgent, and the generic agent made of HyperAgent's network, indices and optimizer."""
  network, optimizer = make_network(config, ACTIONS), hyperagent.make_optimizer(config)
  generic = make_indexed_agent(with_index(network), sampled_indices(config), optax_step(optimizer), config)
  return hyperagent.make_hyperagent(network, optimizer, config), generic


@pytest.mark.parametrize('changes', EQUIVALENCE.values(), ids=EQUIVALENCE)
def test_generic_agent_with_hyperagents_network_and_draws_makes_hyperagents_update(changes):
  config = dataclasses.replace(HYPERAGENTS, **changes)
  agent, generic = both_agents(config)
  learner = random_learner(agent)
  noise, index = normal(1, BATCH, 3), normal(2, BATCH, 4, 3)
  index_t = None if config.target_index == 'dependent' else normal(3, BATCH, config.target_num_indices, 3)
  keys = jax.random.split(jax.random.key(0), 1)

  @jax.jit
  def updates(learner):
    one = agent.update(learner, make_batch(Extras(noise)), hyperagent.UpdateDraws(index, index_t))
    return one, generic.update(learner, make_batch(IndexedExtras(noise)), UpdateDraws(index, index_t, keys))

  one, other = updates(learner)
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), one, other)
  assert np.abs(one[0].params['head'] - learner.params['head']).max() > 1e-2


@pytest.mark.parametrize('num, quantile', [(1, 1.0), (4, 1.0), (4, 0.6)])
def test_generic_agent_acts_as_hyperagent_under_the_same_indices(num, quantile):
  agent, generic = both_agents(
    dataclasses.replace(HYPERAGENTS, act_num_indices=num, optimism_quantile=quantile, prior_storage='replay')
  )
  learner, indices = random_learner(agent), normal(4, 30, num, 3)

  @jax.jit
  @jax.vmap
  def actions(index):
    actor = ActorState(index, None, jnp.int32(0))
    _, one = agent.act(learner, actor, step(), hyperagent.ActDraws(index + 1, jnp.float32(1.0), None))
    _, other = generic.act(learner, actor, step(), ActDraws(index + 1, jnp.float32(1.0), None, None, None))
    return one.action, other.action, one.extras.prior_q, other.extras.prior_q

  one, other, prior, other_prior = actions(indices)
  np.testing.assert_array_equal(one, other)
  assert np.unique(one).size > 1
  jax.tree.map(np.testing.assert_array_equal, prior, other_prior)


# ----------------------------------------------------------------------------------------------- the loss of each rival


def numpy_loss(value, learner, batch, index, index_t, weights, double_q, optimism=np.max):
  """mean_b mean_n w_bn (Q(s, a, xi_bn) - y0_bn)^2, loop by loop; the sum over n is N times that.

  Args:
    value: Q [A] of parameters, a prior, an observation and an index.
    index: [B][N] update indices.
    index_t: [B][K] target indices, or None for the update index itself.
    weights: [B, N].
    double_q: whether the online network chooses the target's action.
    optimism: of K values.
  """
  losses = []
  for b in range(BATCH):
    under = lambda params, indices, o=batch.o_t[b]: np.stack(
      [value(params, learner.prior_params, o, xi) for xi in indices]
    )
    for n, xi in enumerate(index[b]):
      group = [xi] if index_t is None else index_t[b]
      target = under(learner.target_params, group)  # [K, A]
      selector = under(learner.params, group) if double_q else target
      a = np.argmax([optimism(selector[:, a]) for a in range(ACTIONS)])
      y0 = float(batch.r_t[b]) + float(batch.discount_t[b]) * optimism(target[:, a])
      q = value(learner.params, learner.prior_params, batch.o_tm1[b], xi)[int(batch.a_tm1[b])]
      losses.append(weights[b, n] * (q - y0) ** 2)
  return np.mean(losses)


MEMBERS = np.eye(3, dtype=np.float32)
# name: what is changed, indices and target indices as a mini-batch should draw them, whether members are weighed
LOSSES = {
  'ddqn': ({}, (1, 0), None, False),
  'adam_lmcdqn': ({'double_q': True, 'num_inner_steps': 1}, (1, 0), None, False),
  'ensemble_plus': ({'mask_probability': 0.5}, MEMBERS, None, True),
  'ensemble_plus_os': ({'mask_probability': 0.5}, MEMBERS, MEMBERS, True),
  'bayes_ucbdqn': ({}, MEMBERS, None, True),
  'hyperdqn': ({'update_indices': '4'}, (4, 2), None, False),
  'enn_dqn': ({'update_indices': '4'}, (BATCH, 4, 2), None, False),
  'hypermodel': ({'update_indices': '4'}, (4, 2), (1, 2), False),
  'noisynet': ({}, (1, 2), (1, 2), False),
}


@pytest.mark.parametrize('name', LOSSES)
def test_loss_of_each_rival_equals_numpys(name):
  changes, index, index_t, weighed = LOSSES[name]
  config, agent, learner = make(name, **changes)
  draws = agent.draw_update(jax.random.key(3), BATCH)
  for drawn, expected in ((draws.xi, index), (draws.index_t, index_t)):
    if isinstance(expected, np.ndarray):
      np.testing.assert_array_equal(drawn, expected)
    else:
      assert (drawn is None) if expected is None else drawn.shape == expected
  per_transition = lambda x: None if x is None else (x if x.ndim == 3 else np.broadcast_to(x, (BATCH, *x.shape)))
  index, index_t = per_transition(draws.xi), per_transition(draws.index_t)
  weights = np.random.RandomState(0).exponential(size=(BATCH, 3)) if weighed else np.ones((BATCH, index.shape[1]))
  extras = IndexedExtras(weights=jnp.asarray(weights, jnp.float32)) if weighed else IndexedExtras()
  batch = make_batch(extras)
  loss = jax.jit(lambda *args: agent.update(*args)[1]['loss'])(learner, batch, draws)
  expected = numpy_loss(value_of(name, **changes), learner, batch, index, index_t, weights, config.double_q)
  # Members add up, so that each learns as it would alone.
  np.testing.assert_allclose(loss, 3 * expected if weighed else expected, rtol=1e-4)


def test_presets_that_choose_the_target_action_with_the_online_network():
  with_double_q = {name for name, system in SYSTEMS.items() if system.deep_sea(SIZE).double_q}
  assert with_double_q == {'hyperagent', 'ddqn', 'hypermodel', 'noisynet', 'sane'}


# ------------------------------------------------------------------------------------------------------------ ensembles


def test_member_that_is_masked_in_all_transitions_learns_nothing():
  _, agent, learner = make('ensemble_plus', mask_probability=0.5)
  weights = jnp.zeros((BATCH, 3)).at[:, 1].set(1.0)
  new, _ = jax.jit(agent.update)(learner, make_batch(IndexedExtras(weights=weights)), jax.random.key(0))
  for old, x in zip(jax.tree.leaves(learner.params), jax.tree.leaves(new.params), strict=True):
    np.testing.assert_array_equal(x[0], old[0])
    np.testing.assert_array_equal(x[2], old[2])
    assert np.any(x[1] != old[1])


def remembered_weights(name, num, **changes):
  """[num, M] weights that as many acts attach to their steps."""
  _, agent, learner = make(name, **changes)
  actor = jax.eval_shape(agent.init_actor, jax.random.key(0))
  actor = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), actor)
  act = lambda key: agent.act(learner, actor, step(), key)[1].extras.weights
  keys = jax.random.split(jax.random.key(0), num)
  weights = np.asarray(jax.jit(jax.vmap(act))(keys))
  np.testing.assert_array_equal(weights[0], agent.draw_act(keys[0]).weights)
  return weights


@pytest.mark.parametrize('name', ['ensemble_plus', 'ensemble_plus_os'])
def test_mask_lets_each_member_learn_with_its_probability_independently_of_others(name):
  weights = remembered_weights(name, 4000, mask_probability=0.3)
  assert set(np.unique(weights)) == {0.0, 1.0}
  np.testing.assert_allclose(weights.mean(0), 0.3, atol=5 * (0.21 / 4000) ** 0.5)
  np.testing.assert_allclose(np.corrcoef(weights.T), np.eye(3), atol=0.08)


def test_bootstrap_weights_of_bayes_ucbdqn_are_exponential_and_independent():
  weights = remembered_weights('bayes_ucbdqn', 6000)
  assert weights.min() >= 0
  np.testing.assert_allclose(weights.mean(0), 1.0, atol=5 / 6000**0.5)
  np.testing.assert_allclose(weights.var(0), 1.0, atol=5 * (8 / 6000) ** 0.5)
  np.testing.assert_allclose((weights > 1.0).mean(), np.exp(-1), atol=0.03)
  np.testing.assert_allclose(np.corrcoef(weights.T), np.eye(3), atol=0.08)


@pytest.mark.parametrize('name', ['ensemble_plus', 'ensemble_plus_os', 'ddqn', 'hyperdqn', 'noisynet'])
def test_nothing_is_weighed_where_all_members_learn(name):
  config, agent, _ = make(name)
  assert config.mask_probability == 1.0
  assert jax.eval_shape(agent.draw_act, jax.random.key(0)).weights is None


def member_values(name, learner, observation):
  value = value_of(name)
  return np.stack([value(learner.params, learner.prior_params, observation, xi) for xi in MEMBERS])  # [M, A]


def test_ensemble_plus_follows_one_member_for_an_episode_and_any_member_in_the_next():
  _, agent, learner = make('ensemble_plus')
  act = jax.jit(agent.act)
  greedy = {o: member_values('ensemble_plus', learner, o).argmax(axis=1) for o in (0, 4, 9)}
  actor, followed = agent.init_actor(jax.random.key(0)), []
  for episode in range(20):
    members = set()
    for i, o in enumerate((0, 4, 9)):
      key = jax.random.fold_in(jax.random.key(episode), i)
      actor, output = act(learner, actor, step(types.MID if i else types.FIRST, o), key)
      assert actor.xi.shape == (1, 3) and sorted(np.asarray(actor.xi)[0]) == [0, 0, 1]
      members.add(int(np.argmax(actor.xi)))
      assert int(output.action) == greedy[o][np.argmax(actor.xi)]
    assert len(members) == 1
    followed.append(members.pop())
  assert set(followed) == {0, 1, 2}


def test_ensemble_plus_draws_its_member_uniformly():
  _, agent, _ = make('ensemble_plus')
  index = jax.jit(jax.vmap(agent.draw_act))(jax.random.split(jax.random.key(0), 3000)).xi
  np.testing.assert_allclose(np.mean(index, axis=(0, 1)), 1 / 3, atol=5 * (2 / 9 / 3000) ** 0.5)


@pytest.mark.parametrize('name, quantile', [('ensemble_plus_os', 1.0), ('bayes_ucbdqn', 0.85)])
def test_optimistic_ensembles_act_greedily_for_the_optimum_over_all_members(name, quantile):
  config, agent, learner = make(name)
  assert config.optimism_quantile == quantile
  act, actor = jax.jit(agent.act), agent.init_actor(jax.random.key(0))
  np.testing.assert_array_equal(actor.xi, MEMBERS)
  actions = []
  for o in (0, 4, 5, 8, 9, 10, 12, 13):
    actor, output = act(learner, actor, step(types.MID, o), jax.random.key(o))
    np.testing.assert_array_equal(actor.xi, MEMBERS)
    q = member_values(name, learner, o)
    expected = [sorted(q[:, a])[-1] if quantile == 1.0 else np.quantile(q[:, a], quantile) for a in range(ACTIONS)]
    assert int(output.action) == int(np.argmax(expected))
    actions.append(int(output.action))
  assert len(set(actions)) > 1


# --------------------------------------------------------------------------------------------------- indices of a batch


def test_hyperdqn_on_deep_sea_has_the_published_numbers():
  c = SYSTEMS['hyperdqn'].deep_sea(20)
  assert (c.index_dim, c.batch_size, c.adam_eps, c.update_indices, c.sigma) == (2, 2560, 1e-8, '20', 0.0)
  assert c.shared_indices and c.target_index == 'dependent'
  agent = SYSTEMS['hyperdqn'].make(dataclasses.replace(c, hidden_sizes=(4,), grid_size=SIZE), ACTIONS)
  draws = jax.eval_shape(lambda key: agent.draw_update(key, 2560), jax.random.key(0))
  assert draws.xi.shape == (20, 2) and draws.index_t is None


def test_hyperdqn_on_deep_sea_does_not_clip_gradients():
  _, agent, learner = make('hyperdqn')
  batch = make_batch(IndexedExtras())._replace(r_t=jnp.full((BATCH,), 1e5))
  new, metrics = jax.jit(agent.update)(learner, batch, jax.random.key(0))
  assert metrics['grad_norm'] > 1e4
  mu = np.concatenate([np.ravel(x) for x in jax.tree.leaves(new.opt_state.mu)]).astype(np.float64)
  np.testing.assert_allclose(np.linalg.norm(mu), 0.1 * metrics['grad_norm'], rtol=1e-4)


def test_update_with_shared_indices_is_that_with_the_same_indices_for_every_transition():
  agents = [make('hypermodel', update_indices='2', shared_indices=shared)[1] for shared in (True, False)]
  learner, keys = make('hypermodel')[2], jax.random.split(jax.random.key(0), 1)
  index, index_t = normal(0, 2, 2), normal(1, 1, 2)
  repeat = lambda x: jnp.broadcast_to(x, (BATCH, *x.shape))
  batch = make_batch(IndexedExtras())
  one = jax.jit(agents[0].update)(learner, batch, UpdateDraws(index, index_t, keys))[1]
  other = jax.jit(agents[1].update)(learner, batch, UpdateDraws(repeat(index), repeat(index_t), keys))[1]
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), one, other)


@pytest.mark.parametrize('name', ['noisynet', 'sane'])
def test_noisy_networks_draw_noise_anew_for_every_step_and_apart_for_both_networks_of_an_update(name):
  _, agent, learner = make(name)
  draws = [agent.draw_update(jax.random.key(i), BATCH) for i in range(3)]
  assert draws[0].xi.dtype == jnp.uint32
  act = jax.jit(agent.act)
  seeds = {tuple(np.asarray(x).ravel().tolist()) for d in draws for x in (d.xi, d.index_t)}
  assert len(seeds) == 6
  actor = agent.init_actor(jax.random.key(0))
  followed = [np.asarray(actor.xi)]
  for i in range(3):
    key = jax.random.key(i)
    actor, _ = act(learner, actor, step(types.MID), key)
    followed.append(np.asarray(actor.xi))
    np.testing.assert_array_equal(actor.xi, agent.draw_act(key).xi)
  assert np.unique(np.concatenate(followed), axis=0).shape == (4, 2)


# --------------------------------------------------------------------------------------------------- noise in the steps

STEPS = {'langevin_dqn': langevin.langevin_step, 'adam_lmcdqn': langevin.adam_lmc_step}


@pytest.mark.parametrize('name', STEPS)
def test_langevin_step_without_gradient_is_gaussian_of_the_documented_width(name):
  config = RivalConfig(learning_rate=0.02, noise_scale=0.3)
  params = {'a': jnp.ones((100, 100)), 'b': jnp.ones((100, 100))}
  stepper = STEPS[name](config)
  zeros = jax.tree.map(jnp.zeros_like, params)
  change, _ = stepper.update(zeros, stepper.init(params), params, jax.random.key(0))
  x = np.stack([np.ravel(change['a']), np.ravel(change['b'])]).astype(np.float64) / (0.3 * np.sqrt(2 * 0.02))
  np.testing.assert_allclose(x.mean(), 0.0, atol=0.04)
  np.testing.assert_allclose(x.std(), 1.0, rtol=0.03)
  np.testing.assert_allclose((x**4).mean(), 3.0, rtol=0.1)
  assert abs(np.corrcoef(x)[0, 1]) < 0.05  # arrays of the same shape have noise of their own


def test_langevin_step_without_noise_is_plain_gradient_descent():
  stepper = langevin.langevin_step(RivalConfig(learning_rate=0.25, noise_scale=0.0))
  params, grads = {'w': jnp.ones(3)}, {'w': jnp.array([1.0, -2.0, 300.0])}
  change, _ = stepper.update(grads, stepper.init(params), params, jax.random.key(0))
  np.testing.assert_array_equal(change['w'], [-0.25, 0.5, -75.0])


def test_adam_lmc_steps_by_hand_are_without_bias_correction():
  stepper = langevin.adam_lmc_step(RivalConfig(learning_rate=0.5, noise_scale=0.0, bias_factor=3.0, adam_eps=0.01))
  params = {'w': jnp.ones(1)}
  change, state = stepper.update({'w': jnp.array([2.0])}, stepper.init(params), params, jax.random.key(0))
  # m = 0.1 * 2, v = 0.001 * 4
  np.testing.assert_allclose(change['w'], -0.5 * (2.0 + 3.0 * 0.2 / (0.004**0.5 + 0.01)), rtol=1e-5)
  change, _ = stepper.update({'w': jnp.array([-1.0])}, state, params, jax.random.key(0))
  # m = 0.9 * 0.2 - 0.1, v = 0.999 * 0.004 + 0.001
  np.testing.assert_allclose(change['w'], -0.5 * (-1.0 + 3.0 * 0.08 / (0.004996**0.5 + 0.01)), rtol=1e-5)


def test_noise_differs_between_inner_steps_and_between_updates():
  # A learning rate so small that noise is all there is.
  _, agent, learner = make('langevin_dqn', num_inner_steps=2, learning_rate=1e-8, noise_scale=1e3)
  draws = [agent.draw_update(jax.random.key(i), BATCH).step_key for i in range(2)]
  assert draws[0].shape == (2,)
  data = np.concatenate([jax.random.key_data(d) for d in draws])
  assert np.unique(data, axis=0).shape == (4, 2)
  update, nothing = jax.jit(agent.update), jnp.zeros((1, 0))

  def change(*keys):
    new, _ = update(learner, make_batch(IndexedExtras()), UpdateDraws(nothing, None, jnp.stack(keys)))
    return np.asarray(new.params['torso']['rows'] - learner.params['torso']['rows'])

  x, y = draws[0]
  of_x, of_y = change(x, x) / 2, change(y, y) / 2
  np.testing.assert_allclose(of_x.std(), 1e3 * (2e-8) ** 0.5, rtol=0.3)
  assert abs(np.corrcoef(of_x.ravel(), of_y.ravel())[0, 1]) < 0.5
  np.testing.assert_allclose(change(x, y), of_x + of_y, atol=1e-4)


def rank(observation):
  row, column = divmod(int(observation), SIZE)
  return row * (row + 1) // 2 + column


def hand_values(params, observation):
  """The Q-network of one hidden layer on a reachable cell or, last, on the all-zero observation."""
  torso, head = params['torso'], params['Dense_0']
  first = torso['rows'][rank(observation)] if observation < SIZE * SIZE else 0.0
  return jnp.maximum(first + torso['bias'], 0.0) @ head['kernel'] + head['bias']


@pytest.mark.parametrize('name', STEPS)
def test_inner_steps_without_noise_are_as_many_steps_towards_the_same_targets(name):
  lr, a, eps, num = 0.05, 0.5, 0.1, 3
  changes = {'bias_factor': a, 'adam_eps': eps} if name == 'adam_lmcdqn' else {}
  _, agent, learner = make(name, num_inner_steps=num, noise_scale=0.0, learning_rate=lr, **changes)
  batch = make_batch(IndexedExtras())
  new, metrics = jax.jit(agent.update)(learner, batch, jax.random.key(0))
  y0 = [
    batch.r_t[b] + batch.discount_t[b] * jnp.max(hand_values(learner.target_params, batch.o_t[b])) for b in range(BATCH)
  ]
  taken = list(zip(np.asarray(batch.o_tm1).tolist(), np.asarray(batch.a_tm1).tolist(), y0, strict=True))

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    errors = [hand_values(params, o)[a_tm1] - y for o, a_tm1, y in taken]
    return sum(e**2 for e in errors) / BATCH

  params, tree = jax.tree.flatten(learner.params)
  params = [np.asarray(x, np.float64) for x in params]
  m, v, losses = [0.0] * len(params), [0.0] * len(params), []
  for _ in range(num):
    value, grads = loss(jax.tree.unflatten(tree, [jnp.asarray(x, jnp.float32) for x in params]))
    losses.append(float(value))
    for i, g in enumerate(np.asarray(g, np.float64) for g in jax.tree.leaves(grads)):
      m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
      drift = g + a * m[i] / (np.sqrt(v[i]) + eps) if name == 'adam_lmcdqn' else g
      params[i] = params[i] - lr * drift
  for x, y in zip(jax.tree.leaves(new.params), params, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(metrics['loss'], np.mean(losses), rtol=1e-4)
  assert int(new.num_updates) == 2
  jax.tree.map(np.testing.assert_array_equal, new.target_params, learner.target_params)


# ------------------------------------------------------------------------------------------------------- epsilon-greedy

DECAY = {'epsilon_final': 0.2, 'epsilon_steps': 50, 'epsilon_evaluation': 0.1}


@pytest.mark.parametrize('num_acts, epsilon', [(0, 1.0), (10, 0.84), (25, 0.6), (50, 0.2), (51, 0.2), (10**6, 0.2)])
def test_epsilon_falls_linearly_from_one_and_then_stays(num_acts, epsilon):
  config = RivalConfig(**DECAY)
  np.testing.assert_allclose(ddqn.epsilon_greedy(config, jnp.int32(num_acts), False), epsilon, rtol=1e-5)
  np.testing.assert_allclose(ddqn.epsilon_greedy(config, jnp.int32(num_acts), True), 0.1, rtol=1e-6)


@functools.cache
def ddqn_actions(evaluation):
  """Frequencies of actions in one state after so many acts, and the greedy action."""
  _, agent, learner = make('ddqn', **DECAY)
  keys = jax.random.split(jax.random.key(1), 6000)

  def act(num_acts, key):
    actor = ActorState(jnp.zeros((1, 0)), None, num_acts)
    new, output = agent.act(learner, actor, step(types.MID, 9), key, evaluation)
    return output.action, new.num_acts

  run = jax.jit(jax.vmap(act, in_axes=(None, 0)))

  def frequencies(num_acts):
    actions, after = run(jnp.int32(num_acts), keys)
    np.testing.assert_array_equal(after, num_acts + 1)
    return np.bincount(actions, minlength=ACTIONS) / len(keys)

  return frequencies, int(np.argmax(hand_values(learner.params, 9)))


@pytest.mark.parametrize(
  'num_acts, evaluation, epsilon', [(0, False, 1.0), (25, False, 0.6), (99, False, 0.2), (0, True, 0.1)]
)
def test_ddqn_acts_at_random_as_often_as_epsilon_says_and_greedily_otherwise(num_acts, evaluation, epsilon):
  frequencies, greedy = ddqn_actions(evaluation)
  expected = np.full(ACTIONS, epsilon / ACTIONS)
  expected[greedy] += 1 - epsilon
  np.testing.assert_allclose(frequencies(num_acts), expected, atol=5 * (0.25 / 6000) ** 0.5)


def test_presets_of_ddqn_explore_as_documented():
  c = SYSTEMS['ddqn'].deep_sea(20)
  assert (c.epsilon_final, c.epsilon_steps, c.epsilon_evaluation) == (0.1, 20_000, 0.0)
  c = SYSTEMS['ddqn'].atari(presets.fast_cpu())
  assert (c.epsilon_final, c.epsilon_steps, c.epsilon_evaluation) == (0.1, 40_000, 0.05)


# --------------------------------------------------------------------------------------------- the systems and settings

ON_SCREENS = tuple(name for name, system in SYSTEMS.items() if system.atari)
# What the drivers read.
LOOP = {'num_envs', 'batch_size', 'update_ratio', 'min_replay', 'replay_capacity', 'frame_stack', 'prng_impl'}
LOOP |= {'n_step', 'discount', 'max_abs_reward', 'frame_layout', 'frame_padding'}
# Read by what all rivals share: a rival that does not declare them must have them so that they do nothing.
NEUTRAL = {
  'sigma': 0.0,
  'num_inner_steps': 1,
  'act_num_indices': 1,
  'target_num_indices': 1,
  'optimism_quantile': 1.0,
  'target_index': 'independent',
  'target_resampling': 'state_dependent',
}
WITHOUT_SIGMA = {'perturbation_distribution', 'index_dim', 'num_nonzero'}  # nothing is perturbed
WITHOUT_CHOICE = {'act_resampling', 'geometric_resampling'}  # of an acting index: it is always the same
# Under these, whatever is read under conditions is read.
BUSY = {'sigma': 0.1, 'beta': 0.1, 'gradient_penalty': 0.1, 'mask_probability': 0.5, 'prior_storage': 'replay'}
BUSY |= {'target_index': 'independent', 'shared_indices': False}
BUSY |= {'act_resampling': 'state_independent', 'geometric_resampling': True}


class Recorder:
  """Settings that remember which of them were asked for."""

  def __init__(self, config):
    self.config, self.read = config, set()

  def __getattr__(self, name):
    attribute = inspect.getattr_static(type(self.config), name, None)
    if isinstance(attribute, property):
      return attribute.fget(self)
    self.read.add(name)
    return getattr(self.config, name)


def trace(agent, observation):
  """Everything that a driver calls, traced."""
  key = jax.random.key(0)
  timestep = types.time_step(types.MID, 0.0, 1.0, observation)

  def play(key):
    learner, actor = agent.init(key, observation), agent.init_actor(key)
    agent.act(learner, actor, timestep, key, evaluation=True)
    _, output = agent.act(learner, actor, timestep, key)
    many = lambda x: jnp.broadcast_to(x, (2, *jnp.shape(x)))
    extras = jax.tree.map(many, output.extras)
    o, zeros = many(observation), jnp.zeros(2)
    batch = Transition(o, zeros.astype(jnp.int32), zeros, zeros, o, extras, extras)
    agent.posterior(learner, observation)
    return agent.update(learner, batch, key, replay_size=jnp.int32(3))[1]

  return jax.eval_shape(play, key)


def fields_read(name, config, observation):
  recorder = Recorder(config)
  trace(SYSTEMS[name].make(recorder, ACTIONS), observation)
  return recorder.read


@pytest.mark.parametrize('name', SYSTEMS)
def test_a_system_declares_the_settings_that_it_reads_and_no_others(name, monkeypatch):
  for module in (ddqn, enn_dqn, ensemble, hyperdqn, hypermodel, langevin, noisy):
    monkeypatch.setattr(module, 'validate_rival', lambda config, fields: None)
  for module in (hyperagent, build):
    monkeypatch.setattr(module, 'validate', lambda config: None)
  system, declared = SYSTEMS[name], SYSTEMS[name].fields
  config = settings(name)
  busy = dataclasses.replace(config, **{k: v for k, v in BUSY.items() if k in declared})
  configs = [(config, jnp.int32(5)), (busy, jnp.int32(5))]
  if system.atari:
    screens = system.atari(presets.fast_cpu())
    configs.append((dataclasses.replace(screens, hidden_sizes=(4,)), jnp.zeros((4, 25, 25), jnp.uint8)))
  read = set().union(*(fields_read(name, c, o) for c, o in configs))
  assert declared - COMMON - read == set()
  if system.atari:
    assert COMMON - LOOP - read == set()
  undeclared = read - declared
  assert undeclared <= {*NEUTRAL, *WITHOUT_SIGMA, *WITHOUT_CHOICE}
  assert not undeclared & WITHOUT_SIGMA or 'sigma' in undeclared  # which is 0 then
  if undeclared & WITHOUT_CHOICE:
    agent = system.make(config, ACTIONS)
    np.testing.assert_array_equal(agent.init_actor(jax.random.key(0)).xi, agent.init_actor(jax.random.key(1)).xi)
  atari_presets = (presets.atari(), presets.atari_published_code(), presets.fast_cpu()) if system.atari else ()
  for c in (system.deep_sea(20), *map(system.atari, atari_presets)):
    for field in undeclared & NEUTRAL.keys():
      assert getattr(c, field) == NEUTRAL[field], field


@pytest.mark.parametrize('name', SYSTEMS)
def test_presets_of_every_system_are_valid(name):
  system = SYSTEMS[name]
  system.make(system.deep_sea(5), 2)
  if system.atari:
    for preset in (presets.atari(), presets.atari_published_code(), presets.fast_cpu()):
      system.make(system.atari(preset), 18)
  assert COMMON <= system.fields
  assert system.fields <= {f.name for f in dataclasses.fields(system.deep_sea(5))}


POINT_ESTIMATES = {'ddqn', 'langevin_dqn', 'adam_lmcdqn'}


def run_once(name, config, observations, num_actions):
  """One act and one update from the beginning, and what came of them."""
  agent = SYSTEMS[name].make(config, num_actions)
  batch_size = len(observations)

  @jax.jit
  def play(key):
    learner, actor = agent.init(key, observations[0]), agent.init_actor(key)
    act = lambda o, k: agent.act(learner, actor, types.time_step(types.FIRST, 0.0, 1.0, o), k)[1]
    output = jax.vmap(act)(observations, jax.random.split(key, batch_size))
    reward, discount = jnp.arange(batch_size) / batch_size, jnp.full((batch_size,), 0.99)
    extras_t = jax.tree.map(lambda x: x[::-1], output.extras)
    batch = Transition(observations, output.action, reward, discount, observations[::-1], output.extras, extras_t)
    new, metrics = agent.update(learner, batch, key, replay_size=jnp.int32(batch_size))
    return learner, new, metrics, output.action, agent.posterior(new, observations[0])

  learner, new, metrics, action, posterior = play(jax.random.key(0))
  assert np.isfinite(metrics['loss']) and np.isfinite(metrics['grad_norm']) and metrics['grad_norm'] > 0
  assert action.dtype == jnp.int32 and np.all((0 <= action) & (action < num_actions))
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(new.params))
  assert any(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (learner.params, new.params)), strict=True))
  jax.tree.map(np.testing.assert_array_equal, learner.prior_params, new.prior_params)
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  if new.opt_state:  # the optimizer knows nothing of the prior
    assert count(new.opt_state.mu) == count(new.params)
  assert int(new.num_updates) == 1
  return posterior


@pytest.mark.parametrize('name', SYSTEMS)
def test_every_system_acts_and_learns_on_deep_sea(name):
  config = dataclasses.replace(SYSTEMS[name].deep_sea(5), hidden_sizes=(8,), batch_size=16)
  observations = jnp.array([0, 5, 6, 10, 11, 12, 15, 16, 17, 18, 20, 21, 22, 23, 24, 25], jnp.int32)
  posterior = run_once(name, config, observations, 2)
  assert posterior.mean.shape == posterior.std.shape == (2,)
  if name in POINT_ESTIMATES:
    np.testing.assert_array_equal(posterior.std, 0.0)
  else:
    assert np.all(posterior.std > 0)


@pytest.mark.parametrize('name', ['hyperdqn', 'noisynet'])
def test_systems_act_and_learn_on_screens(name):
  config = SYSTEMS[name].atari(presets.fast_cpu())
  config = dataclasses.replace(config, hidden_sizes=(8,), batch_size=4)
  observations = jnp.asarray(np.random.RandomState(0).randint(0, 256, (4, 4, 25, 25)), jnp.uint8)
  posterior = run_once(name, config, observations, ACTIONS)
  assert posterior.mean.shape == (ACTIONS,) and np.all(posterior.std > 0)


def test_only_hypermodel_cannot_play_screens():
  assert set(SYSTEMS) - set(ON_SCREENS) == {'hypermodel'}


@pytest.mark.parametrize(
  'name, given, flag',
  [
    ('ddqn', {'learning_rate', 'index_dim'}, 'index_dim'),
    ('langevin_dqn', {'max_grad_norm'}, 'max_grad_norm'),
    ('noisynet', {'prior_scale', 'sigma'}, 'prior_scale'),
    ('hyperagent', {'ensemble_size'}, 'ensemble_size'),
  ],
)
def test_setting_that_an_agent_ignores_is_refused_by_name(name, given, flag):
  with pytest.raises(ConfigError, match=f'^--{flag}: {name} has no such setting$'):
    refuse_unread(given, SYSTEMS[name].fields, name)
  refuse_unread(set(SYSTEMS[name].fields), SYSTEMS[name].fields, name)


@pytest.mark.parametrize(
  'name, changes, message',
  [
    ('hyperdqn', {'update_indices': 'exact'}, '--update_indices=exact: must be a whole number of at least 1'),
    ('noisynet', {'update_indices': '0'}, '--update_indices=0: must be a whole number'),
    ('enn_dqn', {'update_indices': 'two'}, '--update_indices=two: must be a whole number'),
    ('hyperdqn', {'sigma': 0.1, 'perturbation_distribution': 'orthogonal'}, '--perturbation_distribution=orthogonal: '),
    ('ddqn', {'sigma': 0.1}, '--sigma=0.1: must be 0 for this agent'),
    ('ensemble_plus', {'sigma': 0.1}, '--sigma=0.1: must be 0 for this agent'),
    ('ensemble_plus', {'ensemble_size': 0}, '--ensemble_size=0: must be at least 1'),
    ('ensemble_plus_os', {'mask_probability': 1.5}, '--mask_probability=1.5: must be at most 1'),
    ('langevin_dqn', {'noise_scale': -1.0}, '--noise_scale=-1.0: must be at least 0'),
    ('adam_lmcdqn', {'num_inner_steps': 0}, '--num_inner_steps=0: must be at least 1'),
    ('ddqn', {'batch_size': 0}, '--batch_size=0: must be at least 1'),
    ('enn_dqn', {'reference_distribution': 'sparse', 'num_nonzero': 9}, '--num_nonzero=9: must be at most index_dim'),
    ('hyperdqn', {'target_num_indices': 3}, '--target_num_indices=3 --target_index=dependent'),
  ],
)
def test_invalid_settings_of_a_rival_are_refused_in_one_line(name, changes, message):
  config = dataclasses.replace(SYSTEMS[name].deep_sea(5), **changes)
  with pytest.raises(ConfigError) as error:
    validate_rival(config, SYSTEMS[name].fields)
  assert str(error.value).startswith(message) and '\n' not in str(error.value)


def test_settings_that_only_others_read_are_not_checked():
  config = dataclasses.replace(SYSTEMS['ddqn'].deep_sea(5), update_indices='exact')
  validate_rival(config, SYSTEMS['ddqn'].fields)
