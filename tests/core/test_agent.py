"""Acting, targets, losses and updates of the agent, against plain NumPy and by their effects."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax import types
from hyperagent_jax.agent import ActDraws, make_hyperagent, make_optimizer
from hyperagent_jax.config import ConfigError, HyperAgentConfig
from hyperagent_jax.distributions import make_reference
from hyperagent_jax.networks import make_network
from hyperagent_jax.types import ActorState, Extras, HyperQ, Transition

SIZE, DIM, ACTIONS, BATCH = 4, 3, 3, 6
BASE = HyperAgentConfig(grid_size=SIZE, hidden_sizes=(5,), index_dim=DIM, discount=0.9, target_period=3)


def with_(**changes):
  return dataclasses.replace(BASE, **changes)


@functools.cache
def initial_learner(prior_scale, prior_storage):
  config = with_(prior_scale=prior_scale, prior_storage=prior_storage)
  agent = make_hyperagent(make_network(config, ACTIONS), make_optimizer(config), config)
  learner = jax.jit(agent.init)(jax.random.key(0), jnp.int32(0))
  # A target network that differs from the online one, and is not about to be replaced.
  target = jax.tree.map(lambda x: -0.5 * x + 0.2, learner.params)
  return learner._replace(target_params=target, num_updates=jnp.ones((), jnp.int32))


@functools.cache
def make(config):
  """An agent, a learner that does not depend on its settings, and its compiled update."""
  agent = make_hyperagent(make_network(config, ACTIONS), make_optimizer(config), config)
  return agent, initial_learner(config.prior_scale, config.prior_storage), jax.jit(agent.update)


def make_batch(seed=0):
  rng = np.random.RandomState(seed)
  return Transition(
    o_tm1=jnp.array([0, 4, 5, 8, 9, 10], jnp.int32),
    a_tm1=jnp.array([0, 1, 2, 0, 1, 2], jnp.int32),
    r_t=jnp.asarray(rng.randn(BATCH), jnp.float32),
    discount_t=jnp.array([0.9, 0.9, 0.0, 0.9, 0.81, 0.9], jnp.float32),
    o_t=jnp.array([4, 8, 16, 12, 14, 16], jnp.int32),
    extras_tm1=Extras(noise=jnp.asarray(rng.randn(BATCH, DIM), jnp.float32)),
    extras_t=Extras(noise=jnp.asarray(100 * rng.randn(BATCH, DIM), jnp.float32)),
  )


def step(step_type, discount=1.0, observation=5):
  return types.time_step(step_type, 0.0, discount, jnp.int32(observation))


def draws_of(index, redraw=0.999, noise=None):
  return ActDraws(jnp.asarray(index, jnp.float32), jnp.float32(redraw), noise)


# ------------------------------------------------------------------------------------------------------------------ act


def test_supremum_is_what_optimism_over_ever_more_indices_tends_to_for_acting_too():
  config = with_(optimism='supremum')
  agent, learner, _ = make(config)
  q = hyper_q_of(config)(learner, jnp.int32(5))
  many = np.asarray(q.at(make_reference('sphere', DIM).sample(jax.random.key(0), 20_000)))
  assert (many <= np.asarray(q.supremum(1.0)) + 1e-5).all()
  np.testing.assert_allclose(many.max(axis=0), q.supremum(1.0), atol=1e-2)
  actor = agent.init_actor(jax.random.key(1))
  for evaluation in (False, True):
    output = agent.act(learner, actor, step(types.MID), jax.random.key(2), evaluation)[1]
    assert int(output.action) == int(many.max(axis=0).argmax())


@pytest.mark.parametrize('reference', ['sphere', 'gaussian', 'one_hot'])
def test_posterior_has_the_moments_of_sampled_values(reference):
  config = with_(reference_distribution=reference)
  agent, learner, _ = make(config)
  told = jax.jit(agent.posterior)(learner, jnp.int32(5))
  indices = make_reference(reference, DIM).sample(jax.random.key(1), 20_000)
  q = np.asarray(jax.vmap(hyper_q_of(config)(learner, jnp.int32(5)).at)(indices))
  np.testing.assert_allclose(told.mean, q.mean(axis=0), atol=5 * q.std() / 20_000**0.5)
  np.testing.assert_allclose(told.std, q.std(axis=0), rtol=0.03)


@pytest.mark.parametrize('num_indices, quantile', [(1, 1.0), (4, 1.0), (4, 0.6)])
def test_act_maximises_the_optimistic_value_under_the_index_that_it_follows(num_indices, quantile):
  config = with_(act_num_indices=num_indices, optimism_quantile=quantile)
  agent, learner, _ = make(config)
  act = jax.jit(agent.act)
  q5 = jax.tree.map(np.asarray, hyper_q_of(config)(learner, jnp.int32(5)))
  rng = np.random.RandomState(0)
  actions = []
  for _ in range(20):
    index = rng.randn(num_indices, DIM).astype(np.float32)
    actor = ActorState(jnp.asarray(index), jnp.zeros((0, DIM)), jnp.zeros((), jnp.int32))
    new, output = act(learner, actor, step(types.MID), draws_of(rng.randn(num_indices, DIM)))
    q = q5.mean + np.einsum('km,am->ka', index, q5.factor)
    assert int(output.action) == np.quantile(q, quantile, axis=0).argmax()
    np.testing.assert_array_equal(new.xi, index)
    actions.append(int(output.action))
  assert len(set(actions)) > 1


REDRAW = dict(redraw=0.05)  # below 1 - gamma = 0.1
KEEP = dict(redraw=0.15)


@pytest.mark.parametrize(
  'changes, step_type, discount, evaluation, draw, redrawn',
  [
    ({}, types.FIRST, 1.0, False, KEEP, True),
    ({}, types.MID, 1.0, False, KEEP, False),
    ({}, types.MID, 1.0, False, REDRAW, True),
    ({}, types.MID, 0.0, False, KEEP, True),  # a life was lost
    ({'geometric_resampling': False}, types.MID, 1.0, False, REDRAW, False),
    ({'geometric_resampling': False}, types.MID, 0.0, False, KEEP, True),
    ({'geometric_resampling': False}, types.FIRST, 1.0, False, KEEP, True),
    ({'discount': 0.8}, types.MID, 1.0, False, KEEP, True),
    ({'act_resampling': 'state_dependent', 'geometric_resampling': False}, types.MID, 1.0, False, KEEP, True),
    ({}, types.FIRST, 1.0, True, KEEP, True),
    ({}, types.MID, 1.0, True, REDRAW, False),
    ({}, types.MID, 0.0, True, REDRAW, False),
    ({'act_resampling': 'state_dependent'}, types.MID, 1.0, True, REDRAW, False),
    ({'act_resampling': 'state_dependent'}, types.FIRST, 1.0, True, KEEP, True),
  ],
)
def test_index_is_redrawn_when_the_rules_say_so(changes, step_type, discount, evaluation, draw, redrawn):
  agent, learner, _ = make(with_(**changes))
  actor = ActorState(jnp.ones((1, DIM)), jnp.zeros((0, DIM)), jnp.zeros((), jnp.int32))
  draws = draws_of(-jnp.ones((1, DIM)), **draw)
  new, _ = agent.act(learner, actor, step(step_type, discount), draws, evaluation=evaluation)
  np.testing.assert_array_equal(new.xi, -1.0 if redrawn else 1.0)
  assert int(new.num_acts) == 1


def test_act_with_a_key_is_act_with_the_draws_of_that_key():
  agent, learner, _ = make(with_(sigma=0.5, act_num_indices=2))
  actor = agent.init_actor(jax.random.key(1))
  key = jax.random.key(7)
  with_key = agent.act(learner, actor, step(types.FIRST), key)
  with_draws = agent.act(learner, actor, step(types.FIRST), agent.draw_act(key))
  jax.tree.map(np.testing.assert_array_equal, with_key, with_draws)
  assert not np.array_equal(with_key[0].xi, agent.act(learner, actor, step(types.FIRST), jax.random.key(8))[0].xi)


def test_random_numbers_of_an_act_are_of_the_declared_kind_and_independent():
  agent, _, _ = make(with_(sigma=0.5))
  draws = jax.vmap(agent.draw_act)(jax.random.split(jax.random.key(0), 4000))
  np.testing.assert_allclose(np.linalg.norm(draws.xi[:, 0], axis=-1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(draws.noise, axis=-1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(np.mean(draws.redraw), 0.5, atol=6 * 12**-0.5 / 4000**0.5)
  columns = np.concatenate([draws.xi[:, 0], draws.noise, np.asarray(draws.redraw)[:, None]], axis=1)
  np.testing.assert_allclose(np.corrcoef(columns.T), np.eye(2 * DIM + 1), atol=0.1)


@pytest.mark.parametrize('name', ['sphere', 'gaussian', 'cube', 'coordinate', 'sparse', 'orthogonal'])
def test_noise_of_each_perturbation_is_remembered_only_where_sigma_is_positive(name):
  config = with_(perturbation_distribution=name, num_nonzero=2)
  for sigma in (0.0, 0.1):
    agent, learner, _ = make(dataclasses.replace(config, sigma=sigma))
    actor = agent.init_actor(jax.random.key(0))
    _, output = jax.jit(agent.act)(learner, actor, step(types.FIRST), jax.random.key(1))
    if sigma == 0:
      assert output.extras.noise is None
    else:
      assert output.extras.noise.shape == (DIM,)
      if name != 'gaussian':
        np.testing.assert_allclose(np.linalg.norm(output.extras.noise), 1.0, rtol=1e-5)


def test_orthogonal_perturbation_deals_the_rows_of_one_block_then_of_the_next():
  agent, learner, _ = make(with_(sigma=0.1, perturbation_distribution='orthogonal'))
  actor = agent.init_actor(jax.random.key(0))
  blocks = [agent.draw_act(jax.random.key(i)) for i in range(2 * DIM)]
  dealt = []
  for draws in blocks:
    actor, output = agent.act(learner, actor, step(types.MID), draws)
    dealt.append(np.asarray(output.extras.noise))
  np.testing.assert_array_equal(dealt[:DIM], blocks[0].noise)
  np.testing.assert_array_equal(dealt[DIM:], blocks[DIM].noise)
  np.testing.assert_allclose(np.asarray(dealt[:DIM]) @ np.asarray(dealt[:DIM]).T, np.eye(DIM), atol=1e-5)


@pytest.mark.parametrize('storage', ['table', 'replay'])
def test_prior_value_is_remembered_only_where_there_is_no_table(storage):
  config = with_(prior_storage=storage)
  agent, learner, _ = make(config)
  _, output = agent.act(learner, agent.init_actor(jax.random.key(0)), step(types.LAST), jax.random.key(1))
  if storage == 'table':
    assert output.extras.prior_q is None
  else:
    expected = make_network(config, ACTIONS).prior_q(learner.prior_params, jnp.int32(5))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), output.extras.prior_q, expected)


# ----------------------------------------------------------------------------------------------------------- the update


@functools.cache
def compile_posterior(prior_scale):
  network = make_network(with_(prior_scale=prior_scale), ACTIONS)
  return jax.jit(lambda params, prior, o: network.hyper_q(params, o, network.prior_q(prior, o)))


def numpy_loss(config, learner, batch, draws, replay_size=1):
  """Eq. 2-4, 8-9 by loops over transitions, indices and actions; the exact loss by its formula."""

  compiled_posterior = compile_posterior(config.prior_scale)

  def posterior(params, observation):
    q = compiled_posterior(params, learner.prior_params, observation)
    return np.asarray(q.mean, np.float64), np.asarray(q.factor, np.float64)

  def values(params, observation, indices):  # [K, M] -> [K, A]
    mean, factor = posterior(params, observation)
    return np.array([[mean[a] + factor[a] @ xi for a in range(ACTIONS)] for xi in np.asarray(indices, np.float64)])

  def upper_bounds(params, observation):  # [A]
    mean, factor = posterior(params, observation)
    radius = DIM**0.5 if config.unit_variance_index else 1.0
    return [mean[a] + radius * np.sqrt((factor[a] ** 2).sum()) for a in range(ACTIONS)]

  selector_params = learner.params if config.double_q else learner.target_params

  def y0(i, indices):
    value = values(learner.target_params, batch.o_t[i], indices)
    selector = values(learner.params, batch.o_t[i], indices) if config.double_q else value
    if config.optimism == 'supremum':
      value, selector = (np.array([upper_bounds(p, batch.o_t[i])]) for p in (learner.target_params, selector_params))
    a = np.quantile(selector, config.optimism_quantile, axis=0).argmax()
    return float(batch.r_t[i]) + float(batch.discount_t[i]) * np.quantile(value[:, a], config.optimism_quantile)

  v = make_reference(config.reference_distribution, DIM, config.num_nonzero, config.unit_variance_index).second_moment
  one_hot = config.reference_distribution == 'one_hot'
  total = []
  for i in range(BATCH):
    mean, factor = posterior(learner.params, batch.o_tm1[i])
    a = int(batch.a_tm1[i])
    z = np.asarray(batch.extras_tm1.noise[i], np.float64)
    if draws.xi is None:
      error, f = mean[a] - y0(i, draws.index_t[i]), factor[a] - config.sigma * z
      total.append(error**2 + v * f @ f + (2 * error * f.mean() if one_hot else 0.0))
      continue
    for n in range(draws.xi.shape[1]):
      xi = np.asarray(draws.xi[i, n], np.float64)
      y = y0(i, [xi] if config.target_index == 'dependent' else draws.index_t[i]) + config.sigma * xi @ z
      total.append((mean[a] + factor[a] @ xi - y) ** 2)
  head = np.asarray(learner.params['head'], np.float64)  # [H, A, 1 + M]
  b, a = head[..., 0], head[..., 1:]
  r = (b * b).sum() + v * (a * a).sum() + (2 / DIM * (b * a.sum(-1)).sum() if one_hot else 0.0)
  return np.mean(total) + config.beta / replay_size * r


LOSS_CASES = {
  'exact': {},
  'exact_perturbed': {'sigma': 0.5},
  'exact_unit_variance': {'sigma': 0.5, 'unit_variance_index': True},
  'exact_gaussian': {'sigma': 0.5, 'reference_distribution': 'gaussian'},
  'exact_one_hot': {'sigma': 0.5, 'reference_distribution': 'one_hot', 'beta': 0.3},
  'exact_regularized': {'beta': 0.3},
  'single_q': {'double_q': False},
  'state_independent': {'target_resampling': 'state_independent'},
  'optimistic': {'target_num_indices': 4},
  'optimistic_quantile': {'target_num_indices': 4, 'optimism_quantile': 0.6},
  'optimistic_single_q': {'target_num_indices': 4, 'double_q': False, 'optimism_quantile': 0.8},
  'supremum': {'optimism': 'supremum'},
  'supremum_unit_variance': {'optimism': 'supremum', 'unit_variance_index': True, 'double_q': False},
  'sampled': {'update_indices': '5', 'sigma': 0.5, 'beta': 0.3},
  'sampled_optimistic': {'update_indices': '5', 'sigma': 0.5, 'target_num_indices': 4},
  'dependent': {'update_indices': '5', 'target_index': 'dependent', 'sigma': 0.5},
  'dependent_single_q': {'update_indices': '1', 'target_index': 'dependent', 'double_q': False},
}


@pytest.mark.parametrize('changes', LOSS_CASES.values(), ids=LOSS_CASES)
def test_loss_of_a_batch_equals_numpys(changes):
  config = with_(prior_scale=2.0, **changes)
  agent, learner, _ = make(config)
  batch = make_batch()
  draws = agent.draw_update(jax.random.key(3), BATCH)
  # The loss alone compiles faster than the whole update.
  loss = jax.jit(lambda *args: agent.update(*args, replay_size=jnp.int32(7))[1]['loss'])(learner, batch, draws)
  np.testing.assert_allclose(loss, numpy_loss(config, learner, batch, draws, replay_size=7), rtol=2e-5)


def test_update_with_a_key_is_update_with_the_draws_of_that_key():
  agent, learner, update = make(with_(update_indices='5', sigma=0.5))
  key = jax.random.key(9)
  with_key = update(learner, make_batch(), key)
  with_draws = update(learner, make_batch(), agent.draw_update(key, BATCH))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), with_key, with_draws)
  other = update(learner, make_batch(), jax.random.key(10))
  assert float(with_key[1]['loss']) != float(other[1]['loss'])


def test_draws_of_an_update_follow_the_configured_resampling():
  def draw(**changes):
    return make(with_(**changes))[0].draw_update(jax.random.key(0), 8)

  exact = draw()
  assert exact.xi is None and exact.index_t.shape == (8, 1, DIM)
  assert np.unique(np.asarray(exact.index_t)[:, 0, 0]).size == 8
  independent = draw(update_indices='5', target_num_indices=2)
  assert independent.xi.shape == (8, 5, DIM) and independent.index_t.shape == (8, 2, DIM)
  both = np.concatenate([np.ravel(independent.xi[..., 0]), np.ravel(independent.index_t[..., 0])])
  assert np.unique(both).size == both.size  # the target's index is no update index
  once = draw(target_resampling='state_independent', target_num_indices=2)
  np.testing.assert_array_equal(once.index_t, np.broadcast_to(once.index_t[:1], (8, 2, DIM)))
  assert not np.array_equal(once.index_t[0, 0], once.index_t[0, 1])
  dependent = draw(update_indices='5', target_index='dependent')
  assert dependent.index_t is None and dependent.xi.shape == (8, 5, DIM)


def test_target_network_is_copied_before_updates_0_p_2p():
  _, learner, update = make(BASE)
  learner = learner._replace(num_updates=jnp.zeros((), jnp.int32))
  for i in range(7):
    before = learner
    learner, _ = update(learner, make_batch(i), jax.random.key(i))
    expected = before.params if i % 3 == 0 else before.target_params
    jax.tree.map(np.testing.assert_array_equal, learner.target_params, expected)
    assert np.any(learner.params['head'] != before.params['head'])
    assert int(learner.num_updates) == i + 1


def test_update_that_copies_the_target_uses_the_copy():
  agent, learner, update = make(BASE)
  draws = agent.draw_update(jax.random.key(0), BATCH)
  due = learner._replace(num_updates=jnp.int32(3))
  copied = learner._replace(target_params=learner.params)
  np.testing.assert_allclose(
    update(due, make_batch(), draws)[1]['loss'], update(copied, make_batch(), draws)[1]['loss']
  )
  assert update(learner, make_batch(), draws)[1]['loss'] != update(copied, make_batch(), draws)[1]['loss']


def test_initial_state_does_not_alias_so_that_it_can_be_donated():
  agent, _, _ = make(BASE)
  learner = agent.init(jax.random.key(0), jnp.int32(0))
  pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(learner)]
  assert len(set(pointers)) == len(pointers)
  jax.tree.map(np.testing.assert_array_equal, learner.params, learner.target_params)


def test_gradient_is_that_of_the_loss_with_the_target_held_fixed():
  """Central differences in some weights, with y0 computed once."""
  config = with_(sigma=0.5, learning_rate=1.0, adam_eps=1e6, max_grad_norm=1e6, beta=0.1)
  agent, learner, update = make(config)
  batch, draws = make_batch(), agent.draw_update(jax.random.key(3), BATCH)
  new, metrics = update(learner, batch, draws, replay_size=jnp.int32(7))
  # Adam's first step with a huge eps is a gradient step of length 1e-6.
  step_taken = jax.tree.map(lambda x: np.asarray(x, np.float64) * 10, new.opt_state.mu)[0]
  norm = np.sqrt((step_taken**2).sum())
  np.testing.assert_allclose(norm, metrics['grad_norm'], rtol=1e-5)
  flat, unflatten = jax.flatten_util.ravel_pytree(learner.params)

  @jax.jit
  def loss(flat):
    # The loss of parameters `flat` towards the targets of the learner's own parameters: with discount 0 and the
    # targets as rewards, the target network and the selection drop out.
    fixed = learner._replace(params=unflatten(flat))
    return agent.update(fixed, batch._replace(r_t=targets, discount_t=jnp.zeros(BATCH)), draws, jnp.int32(7))[1]['loss']

  hyper_q = hyper_q_of(config)

  def target(i):
    q_value = hyper_q(learner._replace(params=learner.target_params), batch.o_t[i]).at(draws.index_t[i, 0])
    q_selector = hyper_q(learner, batch.o_t[i]).at(draws.index_t[i, 0])
    return batch.r_t[i] + batch.discount_t[i] * q_value[jnp.argmax(q_selector)]

  targets = jnp.stack([target(i) for i in range(BATCH)])
  np.testing.assert_allclose(loss(flat), metrics['loss'], rtol=1e-5)
  rng = np.random.RandomState(0)
  for _ in range(5):
    direction = rng.randn(flat.size).astype(np.float32)
    direction /= np.linalg.norm(direction)
    h = 1e-2
    slope = (float(loss(flat + h * direction)) - float(loss(flat - h * direction))) / (2 * h)
    np.testing.assert_allclose(step_taken @ direction, slope, rtol=0.03, atol=0.02 * norm / flat.size**0.5)


PENALTY_CASES = {
  'exact': (0.01, {}),
  'exact_one_hot': (0.5, {'reference_distribution': 'one_hot'}),
  'sampled': (0.01, {'update_indices': '5'}),
}
# Indices over which the average is that over the reference distribution, for a function affine in the index.
EQUIVALENT = {'sphere': np.concatenate([np.eye(DIM), -np.eye(DIM)]), 'one_hot': np.eye(DIM)}


def hyper_q_of(config):
  compiled = compile_posterior(config.prior_scale)
  return lambda learner, observation: compiled(learner.params, learner.prior_params, observation)


def norm_of_mean_value_gradient(config, learner, batch, draws):
  """|d/d(params) of (1/B) sum_b E_xi Q(s_b, a_b, xi)| as a function of flat parameters, index by index."""
  _, unflatten = jax.flatten_util.ravel_pytree(learner.params)
  hyper_q = hyper_q_of(config)

  def mean_value(flat):
    now = learner._replace(params=unflatten(flat))
    total = 0.0
    for i in range(BATCH):
      q = hyper_q(now, batch.o_tm1[i])
      indices = EQUIVALENT[config.reference_distribution] if draws.xi is None else draws.xi[i]
      for index in indices:
        total += q.at(jnp.asarray(index))[batch.a_tm1[i]] / len(indices)
    return total / BATCH

  return jax.jit(lambda flat: jnp.sqrt(jnp.sum(jnp.square(jax.grad(mean_value)(flat)))))


@pytest.mark.parametrize('weight, changes', PENALTY_CASES.values(), ids=PENALTY_CASES)
def test_gradient_penalty_is_the_squared_norm_of_the_gradient_of_the_mean_taken_value(weight, changes):
  # Adam's first moment is then a tenth of the gradient.
  plain = with_(prior_scale=2.0, max_grad_norm=1e6, **changes)
  penalised = dataclasses.replace(plain, gradient_penalty=weight)
  agent, learner, update = make(plain)
  batch, draws = make_batch(), agent.draw_update(jax.random.key(3), BATCH)
  norm = norm_of_mean_value_gradient(plain, learner, batch, draws)
  flat, _ = jax.flatten_util.ravel_pytree(learner.params)
  (old, old_metrics), (new, new_metrics) = update(learner, batch, draws), make(penalised)[2](learner, batch, draws)
  expected = weight * float(norm(flat)) ** 2
  rounding = 1e-6 * float(old_metrics['loss'])
  assert expected > 100 * rounding
  np.testing.assert_allclose(new_metrics['loss'] - old_metrics['loss'], expected, rtol=1e-3, atol=rounding)
  # Its own gradient, by central differences in the direction of that gradient and in a random one.
  gradient = 10 * (np.asarray(new.opt_state.mu[0], np.float64) - np.asarray(old.opt_state.mu[0], np.float64))
  length = np.linalg.norm(gradient)
  assert length > 0
  random = np.random.RandomState(0).randn(flat.size)
  for direction in (gradient / length, random / np.linalg.norm(random)):
    h = 1e-2
    up, down = (float(norm(flat + s * h * direction.astype(np.float32))) ** 2 for s in (1, -1))
    np.testing.assert_allclose(gradient @ direction, weight * (up - down) / (2 * h), rtol=0.02, atol=0.01 * length)


def test_mean_regularizer_divides_by_actions_times_features():
  plain = make(BASE)
  draws = plain[0].draw_update(jax.random.key(0), BATCH)
  loss = lambda config: float(make(config)[2](plain[1], make_batch(), draws, replay_size=jnp.int32(2))[1]['loss'])
  without, whole = loss(with_()), loss(with_(beta=50.0))
  mean = loss(with_(beta=50.0 * ACTIONS * 5, mean_regularizer=True))
  assert whole > 1.1 * without
  np.testing.assert_allclose(mean - without, whole - without, rtol=1e-4)


def test_beta_needs_the_size_of_replay_and_divides_by_it():
  agent, learner, update = make(with_(beta=0.5))
  draws = agent.draw_update(jax.random.key(0), BATCH)
  with pytest.raises(ValueError, match='replay_size'):
    jax.eval_shape(agent.update, learner, make_batch(), draws)
  plain = make(BASE)[2](learner, make_batch(), draws)[1]['loss']
  extra = [update(learner, make_batch(), draws, replay_size=jnp.int32(n))[1]['loss'] - plain for n in (1, 2, 10)]
  np.testing.assert_allclose(extra, extra[0] / np.array([1, 2, 10]), rtol=1e-4)
  assert extra[0] > 0


def test_remembered_and_recomputed_priors_give_the_same_update():
  config = with_(prior_storage='replay', sigma=0.2)
  agent, learner, update = make(config)
  batch, draws = make_batch(), agent.draw_update(jax.random.key(0), BATCH)
  assert batch.extras_t.prior_q is None
  cache = jax.vmap(make_network(config, ACTIONS).prior_q, in_axes=(None, 0))
  remembered = batch._replace(
    extras_tm1=batch.extras_tm1._replace(prior_q=cache(learner.prior_params, batch.o_tm1)),
    extras_t=batch.extras_t._replace(prior_q=cache(learner.prior_params, batch.o_t)),
  )
  (new, metrics), (new_r, metrics_r) = update(learner, batch, draws), update(learner, remembered, draws)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), new.params, new_r.params)
  np.testing.assert_allclose(metrics['loss'], metrics_r['loss'], rtol=1e-5)
  # What is remembered is used.
  wrong = remembered._replace(
    extras_t=batch.extras_t._replace(
      prior_q=HyperQ(*jax.tree.map(jnp.ones_like, cache(learner.prior_params, batch.o_t)))
    )
  )
  assert float(update(learner, wrong, draws)[1]['loss']) != pytest.approx(float(metrics['loss']), rel=1e-3)


def test_a_batch_may_come_without_any_extras():
  agent, learner, update = make(BASE)
  draws = agent.draw_update(jax.random.key(0), BATCH)
  batch = make_batch()
  for extras in (None, Extras()):
    _, metrics = update(learner, batch._replace(extras_tm1=extras, extras_t=extras), draws)
    np.testing.assert_allclose(metrics['loss'], update(learner, batch, draws)[1]['loss'])


def test_positive_sigma_without_noise_is_refused():
  agent, learner, _ = make(with_(sigma=0.5))
  batch = make_batch()._replace(extras_tm1=Extras(), extras_t=Extras())
  with pytest.raises(ValueError, match='noise'):
    jax.eval_shape(agent.update, learner, batch, jax.random.key(0))


def test_an_agent_is_not_made_of_an_invalid_configuration():
  network = make_network(BASE, ACTIONS)
  with pytest.raises(ConfigError, match='index_dim'):
    make_hyperagent(network, make_optimizer(BASE), with_(index_dim=0))


# ------------------------------------------------------------------------------------------ every setting has an effect

# Base settings under which each change below must show.
BUSY = dict(
  hidden_sizes=(6,),
  update_indices='4',
  target_num_indices=3,
  optimism_quantile=0.8,
  act_num_indices=3,
  sigma=0.3,
  beta=0.2,
  max_grad_norm=0.5,
  num_nonzero=1,
)


@functools.cache
def program(config):
  """The text of the program that initialises, acts and updates: every setting must show in it."""
  agent = make_hyperagent(make_network(config, ACTIONS), make_optimizer(config), config)

  def play(key, timestep, batch):
    learner, actor = agent.init(key, jnp.int32(0)), agent.init_actor(key)
    actor, output = agent.act(learner, actor, timestep, key)
    return agent.update(learner, batch, key, replay_size=jnp.int32(9)), actor, output

  noise = jnp.ones((BATCH, config.index_dim))
  batch = make_batch()._replace(extras_tm1=Extras(noise), extras_t=Extras(noise))
  text = str(jax.make_jaxpr(play)(jax.random.key(0), step(types.MID), batch))
  return re.sub('0x[0-9a-f]+', '', text)  # addresses of functions


def test_the_text_of_a_program_depends_on_the_configuration_alone():
  busy = with_(**BUSY)
  assert program(busy) == program.__wrapped__(busy)


def test_the_torso_is_the_one_that_is_set():
  program(with_(**{**BUSY, 'prior_storage': 'replay'}))  # one integer is what DeepSea's takes
  with pytest.raises(ValueError, match='observation is one integer: an MLP'):
    program(with_(**{**BUSY, 'prior_storage': 'replay', 'torso': 'mlp'}))


@pytest.mark.parametrize(
  'base, change',
  [
    ({}, {'grid_size': 5}),
    ({}, {'hidden_sizes': (6, 6)}),
    ({}, {'index_dim': 4}),
    ({}, {'posterior_scale': 0.5}),
    ({}, {'prior_scale': 5.0}),
    ({}, {'prior_std': 0.5}),
    ({}, {'prior_row_length': 0.5}),
    ({}, {'prior_storage': 'replay'}),
    ({}, {'reference_distribution': 'cube'}),
    ({}, {'perturbation_distribution': 'cube'}),
    ({'reference_distribution': 'sparse'}, {'num_nonzero': 2}),
    ({'perturbation_distribution': 'sparse'}, {'num_nonzero': 2}),
    ({}, {'unit_variance_index': True}),
    ({}, {'update_indices': '5'}),
    ({}, {'update_indices': 'exact'}),
    ({'target_num_indices': 1}, {'target_index': 'dependent'}),
    ({}, {'target_resampling': 'state_independent'}),
    ({}, {'target_num_indices': 2}),
    ({}, {'double_q': False}),
    ({}, {'sigma': 0.2}),
    ({}, {'beta': 0.1}),
    ({}, {'bias_init': 'glorot'}),
    ({}, {'mean_regularizer': True}),
    ({}, {'gradient_penalty': 0.1}),
    ({'gradient_penalty': 0.1}, {'gradient_penalty': 0.2}),
    ({}, {'act_resampling': 'state_dependent'}),
    ({}, {'geometric_resampling': False}),
    ({}, {'discount': 0.97}),  # by the probability of redrawing
    ({}, {'act_num_indices': 1}),
    ({}, {'optimism_quantile': 1.0}),
    (
      {'act_num_indices': 1, 'target_num_indices': 1, 'optimism_quantile': 1.0, 'reference_distribution': 'sphere'},
      {'optimism': 'supremum'},
    ),
    ({}, {'learning_rate': 1e-2}),
    ({}, {'adam_eps': 1e-8}),
    ({}, {'max_grad_norm': 0.25}),
    ({}, {'target_period': 1}),
  ],
  ids=lambda x: '-'.join(f'{k}={v}' for k, v in x.items()) or 'busy',
)
def test_every_setting_of_the_algorithm_changes_the_program(base, change):
  busy = with_(**{**BUSY, **base})
  assert program(busy) != program(dataclasses.replace(busy, **change))
