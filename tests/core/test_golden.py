"""One update against numbers of the published PyTorch code, embedded in `golden_data.py`.

The nine cells that occur are coded as integers for the deep_sea torso; some are unreachable in DeepSea, so that cells
are renamed to reachable ones and the columns of the first layer's weight go with them. For the mlp torso they are
one-hot vectors and nothing is renamed.
"""

import dataclasses
import functools

import golden_data as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax.agent import UpdateDraws, make_hyperagent, make_optimizer
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.networks import deep_sea_observations, make_network
from hyperagent_jax.types import Extras, Transition

BASE = HyperAgentConfig(
  grid_size=4,
  hidden_sizes=(8, 8),
  index_dim=3,
  prior_scale=10.0,
  update_indices='6',
  sigma=0.1,
  adam_eps=1.5e-4,
  max_grad_norm=10.0,
  learning_rate=1e-3,
)
CELLS = np.unique(np.concatenate([golden.OBSERVATION, golden.NEXT_OBSERVATION]))
VARIANTS = {
  'rows_table': dataclasses.replace(BASE, torso='deep_sea', prior_storage='table'),
  'rows_replay': dataclasses.replace(BASE, torso='deep_sea', prior_storage='replay'),
  'one_hot_vector': dataclasses.replace(BASE, torso='mlp', prior_storage='replay'),
}


def convert_head(weights):
  """Feature-major rows [8 * 2, M] and [8 * 2] -> [H, A, 1 + M]."""
  b, a = weights['head_b'].reshape(8, 2, 1), weights['head_a'].reshape(8, 2, 3)
  return np.concatenate([b, a], axis=-1)


def convert(weights, config):
  """Torch layout -> this library's parameters."""
  second = {'kernel': weights['w1'].T, 'bias': weights['b1']}
  if config.torso == 'mlp':
    torso = {'Dense_0': {'kernel': weights['w0'].T, 'bias': weights['b0']}, 'Dense_1': second}
  else:
    rows = np.zeros((10, 8), np.float32)
    rows[: len(CELLS)] = weights['w0'].T[CELLS]
    torso = {'rows': rows, 'bias': weights['b0'], 'Dense_0': second}
  return jax.tree.map(jnp.asarray, {'torso': torso, 'head': convert_head(weights)})


def convert_observation(cells, config):
  if config.torso == 'mlp':
    return jnp.eye(16)[cells].reshape(-1, 4, 4)
  # The k-th cell that occurs becomes the k-th reachable one.
  return jnp.asarray(deep_sea_observations(4)[np.searchsorted(CELLS, cells)])


@functools.cache
def golden_update(variant):
  """Runs the update; returns everything that the golden numbers speak of."""
  config = VARIANTS[variant]
  network = make_network(config, 2)
  agent = make_hyperagent(network, make_optimizer(config), config)
  o_tm1 = convert_observation(golden.OBSERVATION, config)
  o_t = convert_observation(golden.NEXT_OBSERVATION, config)
  learner = agent.init(jax.random.key(0), o_tm1[0])
  prior_weights = convert(golden.PRIOR, config)
  params, target_params = convert(golden.ONLINE, config), convert(golden.TARGET, config)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, learner.params)
  if config.prior_storage == 'table':
    # The table is what a network without one caches for every observation.
    plain = make_network(VARIANTS['rows_replay'], 2)
    q = jax.vmap(plain.prior_q, in_axes=(None, 0))(prior_weights, jnp.asarray(deep_sea_observations(4)))
    prior = jnp.concatenate([q.mean[..., None], q.factor], axis=-1)
    assert prior.shape == learner.prior_params.shape
  else:
    prior = prior_weights
    assert jax.tree.map(jnp.shape, prior) == jax.tree.map(jnp.shape, learner.prior_params)
  # num_updates = 1 keeps the target network, which differs from the online one.
  learner = learner._replace(
    params=params, prior_params=prior, target_params=target_params, num_updates=jnp.ones((), jnp.int32)
  )
  batch = Transition(
    o_tm1=o_tm1,
    a_tm1=jnp.asarray(golden.ACTION),
    r_t=jnp.asarray(golden.REWARD),
    discount_t=jnp.asarray(golden.DISCOUNT),
    o_t=o_t,
    extras_tm1=Extras(noise=jnp.asarray(golden.NOISE)),
    extras_t=Extras(noise=jnp.asarray(golden.NOISE)[::-1]),
  )
  draws = UpdateDraws(xi=jnp.asarray(golden.INDEX), index_t=jnp.asarray(golden.TARGET_INDEX)[:, None, :])
  q = jax.vmap(network.q, in_axes=(None, None, 0, None, 0))(params, prior, o_tm1, None, draws.xi)
  target_q = jax.vmap(network.q, in_axes=(None, None, 0, None, 0))(target_params, prior, o_t, None, draws.index_t)
  online_q = jax.vmap(network.q, in_axes=(None, None, 0, None, 0))(params, prior, o_t, None, draws.index_t)
  new, metrics = jax.jit(agent.update)(learner, batch, draws)
  return config, q, target_q[:, 0], online_q[:, 0], learner, new, metrics


@pytest.mark.parametrize('variant', VARIANTS)
def test_q_values_of_all_indices_and_actions_equal_the_golden_ones(variant):
  q = golden_update(variant)[1]
  np.testing.assert_allclose(q, golden.Q, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize('variant', VARIANTS)
def test_target_equals_the_golden_one(variant):
  _, _, target_q, online_q, *_ = golden_update(variant)
  chosen = np.take_along_axis(np.asarray(target_q), np.argmax(online_q, axis=1)[:, None], axis=1)[:, 0]
  np.testing.assert_allclose(chosen, golden.TARGET_Q, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize('variant', VARIANTS)
def test_loss_and_gradient_norm_equal_the_golden_ones(variant):
  metrics = golden_update(variant)[-1]
  np.testing.assert_allclose(metrics['loss'], golden.LOSS, rtol=2e-6)
  np.testing.assert_allclose(metrics['grad_norm'], golden.GRAD_NORM, rtol=2e-6)


@pytest.mark.parametrize('variant', VARIANTS)
def test_updated_weights_equal_the_golden_ones(variant):
  config, *_, learner, new, _ = golden_update(variant)
  expected = convert(golden.UPDATED, config)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6, atol=2e-7), new.params, expected)
  moved = sum(float(jnp.sum(x != y)) for x, y in zip(*map(jax.tree.leaves, (learner.params, new.params)), strict=True))
  assert moved > 100
  jax.tree.map(np.testing.assert_array_equal, new.prior_params, learner.prior_params)
  jax.tree.map(np.testing.assert_array_equal, new.target_params, learner.target_params)


@pytest.mark.parametrize('variant', VARIANTS)
def test_first_moment_of_adam_is_a_tenth_of_the_golden_gradient(variant):
  config, *_, new, _ = golden_update(variant)
  flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(convert(golden.CLIPPED_GRAD, config))])
  np.testing.assert_allclose(new.opt_state.mu[0], 0.1 * flat, rtol=2e-5, atol=1e-7)
