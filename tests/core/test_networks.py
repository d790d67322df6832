"""Torsos, the hypermodel head, the fixed prior and the regulariser against plain NumPy."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax.agent import make_hyperagent, make_optimizer
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.distributions import make_reference
from hyperagent_jax.networks import deep_sea_observations, deep_sea_row, make_network
from hyperagent_jax.types import HyperQ, Transition

SIZE, WIDTHS, DIM, ACTIONS = 4, (6, 5), 3, 2
DEEP_SEA = HyperAgentConfig(
  grid_size=SIZE,
  hidden_sizes=WIDTHS,
  index_dim=DIM,
  posterior_scale=0.7,
  prior_scale=3.0,
  prior_std=0.5,
  prior_storage='replay',
)
TABLE = dataclasses.replace(DEEP_SEA, prior_storage='table')
MLP = dataclasses.replace(DEEP_SEA, torso='mlp')
ALL_CELLS = np.arange(SIZE * SIZE + 1)
# Columns right of the diagonal are never reached.
REACHABLE = [row * SIZE + column for row in range(SIZE) for column in range(row + 1)]


@functools.cache
def init(config, seed=0, move_biases=True):
  """A network and its weights, initialised by one compiled call."""
  network = make_network(config, ACTIONS)
  observation = jnp.int32(0) if config.torso == 'deep_sea' else jnp.zeros((2, 3))
  weights = jax.jit(network.init)(jax.random.key(seed), observation)
  if move_biases:  # They start at zero; moved, they are tested too.
    weights = jax.tree_util.tree_map_with_path(
      lambda path, x: x + 0.1 * (1 + np.arange(x.shape[-1], dtype=np.float32)) if path[-1].key == 'bias' else x, weights
    )
  return network, *weights


def relu(x):
  return np.maximum(x, 0)


def numpy_features(torso, x, first=None):
  """A plain MLP on a vector; `first` is the first layer's (matrix, bias) where it is not a Dense layer."""
  dense = [torso[k] for k in sorted(torso) if k.startswith('Dense')]
  layers = ([first] if first else []) + [(np.asarray(d['kernel']), np.asarray(d['bias'])) for d in dense]
  for kernel, bias in layers:
    x = relu(x @ kernel + bias)
  return x


def full_matrix(torso):
  """The N^2 x H first layer that the look-up stands for; unreachable inputs are never 1, whatever their weights."""
  matrix = np.full((SIZE * SIZE, WIDTHS[0]), 1e3, np.float32)
  matrix[REACHABLE] = torso['rows']
  return matrix, np.asarray(torso['bias'])


def numpy_part(weights, features, index):
  """<A_a xi + b_a, phi> of every action, with the last layer's weights W(xi) materialised."""
  b, a = np.asarray(weights['head'])[..., 0], np.asarray(weights['head'])[..., 1:]  # [H, A], [H, A, M]
  w = a @ index + b  # [H, A]
  return features @ w


def one_hot_grid(observation):
  return np.eye(SIZE * SIZE + 1, dtype=np.float32)[observation, : SIZE * SIZE]


def test_deep_sea_value_is_an_mlp_on_the_one_hot_grid_with_materialised_last_layer():
  network, params, prior = init(DEEP_SEA)
  index = np.array([0.3, -1.2, 0.5], np.float32)
  observations = np.array([*REACHABLE, SIZE * SIZE])
  q = jax.jit(jax.vmap(network.q, in_axes=(None, None, 0, None, None)))(params, prior, observations, None, index)
  for i, observation in enumerate(observations):
    x = one_hot_grid(observation)
    assert x.sum() == (observation < SIZE * SIZE)
    expected = 0.0
    for c, weights in ((0.7, params), (3.0, prior)):
      phi = numpy_features(weights['torso'], x, full_matrix(weights['torso']))
      expected = expected + c * numpy_part(weights, phi, index)
    np.testing.assert_allclose(q[i], expected, rtol=2e-5, atol=2e-6)


def test_mlp_value_is_an_mlp_on_the_flattened_observation_with_materialised_last_layer():
  observation = np.random.RandomState(0).randn(2, 3).astype(np.float32)
  network, params, prior = init(MLP)
  hyper_q = jax.jit(lambda o: network.hyper_q(params, o, network.prior_q(prior, o)))(observation)
  assert hyper_q.mean.shape == (ACTIONS,) and hyper_q.factor.shape == (ACTIONS, DIM)
  for index in np.random.RandomState(1).randn(4, DIM).astype(np.float32):
    expected = 0.0
    for c, weights in ((0.7, params), (3.0, prior)):
      expected = expected + c * numpy_part(weights, numpy_features(weights['torso'], observation.ravel()), index)
    np.testing.assert_allclose(hyper_q.at(jnp.asarray(index)), expected, rtol=2e-5, atol=2e-6)


def test_hyper_q_at_by_hand_for_one_index_and_for_a_stack():
  q = HyperQ(mean=jnp.array([1.0, -2.0]), factor=jnp.array([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]))
  np.testing.assert_allclose(q.at(jnp.array([1.0, 0.0, -1.0])), [-1.0, -2.5])
  stack = q.at(jnp.array([[[0.0, 0.0, 0.0], [1.0, 0.0, -1.0]]]))
  np.testing.assert_allclose(stack, [[[1.0, -2.0], [-1.0, -2.5]]])


def test_hyper_q_at_many_indices_is_numpys():
  # jaxlib 0.10.2 gets a sum over a broadcast product of these sizes wrong on CPU.
  random = np.random.RandomState(2)
  mean, factor, index = (random.randn(*shape).astype(np.float32) for shape in ((10,), (10, 10), (8_000, 10)))
  best = jax.jit(lambda q, index: jnp.max(q.at(index), axis=-1))(HyperQ(mean, factor), index)
  np.testing.assert_allclose(best, np.max(mean + index @ factor.T, axis=-1), rtol=1e-4, atol=1e-4)


def test_reachable_cells_have_distinct_rows_in_order_and_all_others_the_row_past_the_end():
  rows = np.asarray(deep_sea_row(jnp.asarray(ALL_CELLS), SIZE))
  np.testing.assert_array_equal(rows[REACHABLE], np.arange(10))
  others = np.setdiff1d(ALL_CELLS, REACHABLE)
  np.testing.assert_array_equal(rows[others], 10)
  np.testing.assert_array_equal(deep_sea_row(jnp.array([-1, SIZE * SIZE + 3]), SIZE), 10)
  np.testing.assert_array_equal(deep_sea_observations(SIZE), [*REACHABLE, SIZE * SIZE])


def test_all_zero_observation_reads_no_row():
  network, params, prior = init(DEEP_SEA)
  index = jnp.ones((DIM,))

  def value(params):
    return jnp.sum(network.q(params, prior, jnp.int32(SIZE * SIZE), None, index))

  grads = jax.jit(jax.grad(value))(params)
  np.testing.assert_array_equal(grads['torso']['rows'], 0.0)
  assert np.any(grads['torso']['bias'] != 0)


def test_gradient_of_a_cell_reaches_its_own_row_only():
  network, params, prior = init(DEEP_SEA)
  value = lambda params: jnp.sum(network.q(params, prior, jnp.int32(2 * SIZE + 1), None, jnp.ones((DIM,))))
  grads = np.asarray(jax.jit(jax.grad(value))(params)['torso']['rows'])
  assert set(np.flatnonzero(np.any(grads != 0, axis=1))) == {4}  # cells before row 2, column 1: 1 + 2 + 1


def test_table_cache_equals_the_prior_network_of_the_same_key_for_every_state():
  observations = jnp.asarray(deep_sea_observations(SIZE))
  replay, params, prior = init(DEEP_SEA, move_biases=False)
  table, table_params, table_prior = init(TABLE, move_biases=False)
  assert not table.remember_prior and replay.remember_prior
  jax.tree.map(np.testing.assert_array_equal, params, table_params)
  expected = jax.jit(jax.vmap(replay.prior_q, in_axes=(None, 0)))(prior, observations)
  cached = jax.vmap(table.prior_q, in_axes=(None, 0))(table_prior, observations)
  assert cached.mean.shape == (11, ACTIONS) and cached.factor.shape == (11, ACTIONS, DIM)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), cached, expected)
  assert np.unique(np.asarray(cached.mean)[:, 0]).size >= 9  # a state may silence every feature


# ------------------------------------------------------------------------------------------------------ initialisation


@pytest.fixture(scope='module')
def large_init():
  config = HyperAgentConfig(grid_size=20, hidden_sizes=(64, 128), index_dim=4, prior_std=0.5, prior_storage='replay')
  return jax.jit(make_network(config, 2).init)(jax.random.key(5), jnp.int32(0))


@pytest.mark.parametrize('part', [0, 1], ids=['trained', 'prior'])
def test_torsos_are_glorot_normal_with_zero_biases(large_init, part):
  torso = large_init[part]['torso']
  assert torso['rows'].shape == (210, 64)
  # The variance of the whole N^2 x H matrix; 2 / (210 + 64) would be 30% wider.
  np.testing.assert_allclose(np.std(torso['rows']), (2 / (400 + 64)) ** 0.5, rtol=0.03)
  kernel = np.asarray(torso['Dense_0']['kernel'])
  std = (2 / (64 + 128)) ** 0.5
  np.testing.assert_allclose(np.std(kernel), std, rtol=0.04)
  np.testing.assert_allclose(np.mean(kernel), 0, atol=6 * std / kernel.size**0.5)
  # A normal truncated at two of its standard deviations ends at 2.3 of the result's.
  assert np.abs(kernel).max() > 3 * std
  np.testing.assert_array_equal(torso['bias'], 0)
  np.testing.assert_array_equal(torso['Dense_0']['bias'], 0)


def test_mlp_torso_is_glorot_normal_over_the_flattened_observation():
  config = HyperAgentConfig(torso='mlp', prior_storage='replay', hidden_sizes=(200,))
  params, prior = jax.jit(make_network(config, 2).init)(jax.random.key(0), jnp.zeros((10, 10)))
  for weights in (params, prior):
    np.testing.assert_allclose(np.std(weights['torso']['Dense_0']['kernel']), (2 / 300) ** 0.5, rtol=0.03)


def test_trained_and_prior_weights_are_separate_draws(large_init):
  params, prior = large_init
  for path in (('torso', 'rows'), ('torso', 'Dense_0', 'kernel'), ('head',)):
    x, y = params, prior
    for k in path:
      x, y = x[k], y[k]
    correlation = np.corrcoef(np.ravel(x), np.ravel(y))[0, 1]
    assert abs(correlation) < 0.15, path


def test_trained_head_has_the_papers_variance_and_length(large_init):
  head = np.asarray(large_init[0]['head'])  # [H, A, 1 + M]
  assert head.shape == (128, 2, 5)
  np.testing.assert_allclose(np.std(head[..., 1:]), (2 / (128 * 2 + 4)) ** 0.5, rtol=0.1)
  np.testing.assert_allclose(np.linalg.norm(head[..., 0]), 0.5, rtol=1e-5)


def test_prior_head_has_rows_and_offset_of_length_prior_std(large_init):
  head = np.asarray(large_init[1]['head'])
  np.testing.assert_allclose(np.linalg.norm(head[..., 1:], axis=-1), 0.5, rtol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(head[..., 0]), 0.5, rtol=1e-5)
  directions = head[..., 1:].reshape(-1, 4) / 0.5
  np.testing.assert_allclose(directions.mean(0), 0, atol=6 * (1 / 4 / 256) ** 0.5)
  assert np.linalg.matrix_rank(directions) == 4


def test_rows_of_a0_may_have_a_length_of_their_own():
  config = dataclasses.replace(DEEP_SEA, prior_row_length=2.0, prior_storage='replay')
  params, prior = make_network(config, ACTIONS).init(jax.random.key(0), jnp.int32(0))
  head = np.asarray(prior['head'])
  np.testing.assert_allclose(np.linalg.norm(head[..., 1:], axis=-1), 2.0, rtol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(head[..., 0]), config.prior_std, rtol=1e-5)
  default = make_network(dataclasses.replace(config, prior_row_length=0.0), ACTIONS).init(
    jax.random.key(0), jnp.int32(0)
  )
  np.testing.assert_array_equal(params['head'], default[0]['head'])  # the trained part is not scaled


# -------------------------------------------------------------------------------------------- the prior stays as it is


@pytest.mark.parametrize('storage', ['table', 'replay'])
def test_prior_is_neither_trained_nor_known_to_the_optimizer(storage):
  config = dataclasses.replace(DEEP_SEA, prior_storage=storage)
  agent = make_hyperagent(make_network(config, ACTIONS), make_optimizer(config), config)
  learner = jax.jit(agent.init)(jax.random.key(0), jnp.int32(0))
  batch = Transition(
    o_tm1=jnp.array([0, 4]), a_tm1=jnp.array([0, 1]), r_t=jnp.ones(2), discount_t=jnp.ones(2), o_t=jnp.array([5, 16])
  )
  update = jax.jit(agent.update)
  new = learner
  for i in range(3):
    new, _ = update(new, batch, jax.random.key(i))
  jax.tree.map(np.testing.assert_array_equal, new.prior_params, learner.prior_params)
  assert np.any(new.params['head'] != learner.params['head'])
  num_trained = sum(x.size for x in jax.tree.leaves(learner.params))
  assert sum(x.size for x in learner.opt_state.mu) == num_trained
  # rows, bias, second layer, head: nothing of the prior's.
  assert num_trained == 10 * 6 + 6 + 6 * 5 + 5 + 5 * ACTIONS * (1 + DIM)


# ---------------------------------------------------------------------------------------------------------- regulariser


def enumerate_index(name, dim):
  """All values of a discrete reference distribution, each equally likely."""
  eye = np.eye(dim)
  return {
    'one_hot': eye,
    'coordinate': np.concatenate([eye, -eye]) * dim**0.5,
    'cube': np.array(list(itertools.product([-1.0, 1.0], repeat=dim))),
  }[name]


def numpy_regularizer(head, indices):
  """Mean over indices of the squared length of A xi + b."""
  w = head[..., 1:] @ indices.T + head[..., :1]  # [H, A, num]
  return np.sum(w * w, axis=(0, 1)).mean()


@pytest.mark.parametrize('name', ['one_hot', 'coordinate', 'cube'])
def test_regularizer_is_the_mean_squared_length_over_all_indices(name):
  network, params, _ = init(DEEP_SEA)
  params = {'head': params['head'] + 0.3}  # so that the cross term of one_hot counts
  reference = make_reference(name, DIM)
  expected = numpy_regularizer(np.asarray(params['head'], np.float64), enumerate_index(name, DIM))
  value = network.regularizer(params, reference.mean, reference.second_moment)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize('name', ['sphere', 'gaussian', 'sparse', 'orthogonal'])
def test_regularizer_is_the_mean_squared_length_over_many_sampled_indices(name):
  network, params, _ = init(DEEP_SEA)
  reference = make_reference(name, DIM, num_nonzero=2)
  indices = np.asarray(reference.sample(jax.random.key(1), 20_000), np.float64)
  expected = numpy_regularizer(np.asarray(params['head'], np.float64), indices)
  np.testing.assert_allclose(network.regularizer(params, reference.mean, reference.second_moment), expected, rtol=0.03)
