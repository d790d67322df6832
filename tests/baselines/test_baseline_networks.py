"""The rivals' networks, against plain NumPy on one-hot inputs from their own weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax.baselines import enn_dqn, ensemble, hyperdqn, hypermodel, noisy
from hyperagent_jax.baselines.config import RivalConfig
from hyperagent_jax.baselines.modules import ObservationProduct, plain_network, with_index
from hyperagent_jax.config import ConfigError
from hyperagent_jax.networks import join_with_prior, make_torso

SIZE, DIM, MEMBERS, ACTIONS = 4, 3, 4, 3
BASE = RivalConfig(
  grid_size=SIZE,
  hidden_sizes=(6, 5),
  index_dim=DIM,
  ensemble_size=MEMBERS,
  prior_scale=2.0,
  posterior_scale=0.7,
  prior_storage='replay',
  epinet_hidden_sizes=(7, 4),
  prior_hidden_sizes=(4,),
)
CELLS = (0, 4, 5, 9, 15)  # reachable: column <= row
NOTHING = SIZE * SIZE  # stands for the all-zero observation
OBSERVATIONS = (*CELLS, NOTHING)


def with_(**changes):
  return dataclasses.replace(BASE, **changes)


def make_hyperdqn(config):
  return with_index(join_with_prior(lambda: hyperdqn.WithOne(make_torso(config)), config, ACTIONS))


NETWORKS = {
  'plain': lambda c: plain_network(c, ACTIONS),
  'ensemble': lambda c: ensemble.ensemble_network(c, ACTIONS),
  'hyperdqn': make_hyperdqn,
  'epinet': lambda c: enn_dqn.make_epinet(c, ACTIONS),
  'hypermodel': lambda c: hypermodel.make_network(c, ACTIONS),
  'noisynet': lambda c: noisy.noisy_network(c, ACTIONS, by_state=False),
  'sane': lambda c: noisy.noisy_network(c, ACTIONS, by_state=True),
}


@functools.cache
def build(name, config=BASE):
  """A network, NumPy's random weights for it and its prior, and Q of an observation and an index."""
  network = NETWORKS[name](config)
  example = jnp.int32(0) if config.torso == 'deep_sea' else jnp.zeros((SIZE, SIZE))
  rng = np.random.RandomState(0)
  shapes = jax.eval_shape(network.init, jax.random.key(0), example)
  params, prior = jax.tree.map(lambda x: jnp.asarray(0.5 * rng.randn(*x.shape), jnp.float32), shapes)
  q = jax.jit(lambda params, o, index: network.q(params, prior, o, network.prior_q(prior, o), index))
  return network, params, prior, q


def one_hot(observation):
  """[N^2] what an integer observation stands for."""
  return np.array([float(cell == observation) for cell in range(SIZE * SIZE)])


def full_kernel(rows, unreachable=1e3):
  """The [N^2, ...] first kernel of which only the rows of reachable cells are kept, in row-major order."""
  rows = np.asarray(rows, np.float64)
  kernel, i = np.full((SIZE * SIZE, *rows.shape[1:]), unreachable), 0
  for row in range(SIZE):
    for column in range(row + 1):
      kernel[row * SIZE + column] = rows[i]
      i += 1
  assert i == len(rows)
  return kernel


def relu(x):
  return np.maximum(x, 0.0)


def numpy_dense(layer, x):
  out = x @ np.asarray(layer['kernel'], np.float64)
  return out + np.asarray(layer['bias'], np.float64) if 'bias' in layer else out


def numpy_features(torso, x):
  """An MLP on a flat input [N^2]; the first layer may be kept as rows of reachable cells."""
  num_dense = sum(name.startswith('Dense') for name in torso)
  if 'rows' in torso:
    x = relu(x @ full_kernel(torso['rows']) + np.asarray(torso['bias'], np.float64))
  for i in range(num_dense):
    x = relu(numpy_dense(torso[f'Dense_{i}'], x))
  return x


def numpy_mlp(params, x):
  """A torso and a linear layer."""
  return numpy_dense(params['Dense_0'], numpy_features(params['torso'], x))


def member(tree, m):
  return jax.tree.map(lambda x: np.asarray(x)[m], tree)


def index_of(seed):
  return np.random.RandomState(seed).randn(DIM).astype(np.float32)


def test_plain_value_is_an_mlp_on_the_one_hot_grid():
  _, params, prior, q = build('plain')
  assert prior == ()
  for o in OBSERVATIONS:
    expected = numpy_mlp(params, one_hot(o))
    np.testing.assert_allclose(q(params, jnp.int32(o), jnp.zeros((0,))), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- ensemble


def test_value_of_a_member_is_its_own_network_plus_the_scale_times_its_own_prior():
  _, params, prior, q = build('ensemble')
  values = []
  for o in OBSERVATIONS:
    for m in range(MEMBERS):
      expected = numpy_mlp(member(params, m), one_hot(o)) + 2.0 * numpy_mlp(member(prior, m), one_hot(o))
      np.testing.assert_allclose(q(params, jnp.int32(o), jnp.eye(MEMBERS)[m]), expected, rtol=1e-4, atol=1e-5)
      values.append(expected[0])
  assert np.unique(np.round(values[:-MEMBERS], 6)).size == len(values) - MEMBERS  # no two members are alike


def test_members_and_priors_are_drawn_apart():
  params, prior = jax.jit(NETWORKS['ensemble'](BASE).init)(jax.random.key(0), jnp.int32(0))
  kernels = np.concatenate([params['Dense_0']['kernel'], prior['Dense_0']['kernel']]).reshape(2 * MEMBERS, -1)
  assert np.unique(kernels[:, 0]).size == 2 * MEMBERS
  assert np.abs(np.corrcoef(kernels) - np.eye(2 * MEMBERS)).max() < 0.9


@pytest.mark.parametrize('name, trailing', [('ensemble', (MEMBERS, ACTIONS)), ('epinet', (DIM, ACTIONS))])
def test_table_of_priors_holds_the_scaled_values_of_every_state(name, trailing):
  network = NETWORKS[name](with_(prior_storage='table'))

  @jax.jit
  def both(key):
    return NETWORKS[name](BASE).init(key, jnp.int32(0))[1], network.init(key, jnp.int32(0))[1]

  weights, table = both(jax.random.key(0))
  assert not network.remember_prior and NETWORKS[name](BASE).remember_prior
  assert table.shape == (SIZE * (SIZE + 1) // 2 + 1, *trailing)
  for o in OBSERVATIONS:
    expected = [2.0 * numpy_mlp(member(weights, m), one_hot(o)) for m in range(trailing[0])]
    np.testing.assert_allclose(network.prior_q(table, jnp.int32(o)), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- hyperdqn


def numpy_hyperdqn(part, x, index):
  """<A_a xi + b_a, features and 1>, the last generated weight being the bias."""
  features = np.append(numpy_features(part['torso']['torso'], x), 1.0)
  head = np.asarray(part['head'], np.float64)  # [H + 1, A, 1 + M]
  values = []
  for a in range(ACTIONS):
    weights = [head[h, a, 0] + sum(head[h, a, 1 + i] * index[i] for i in range(DIM)) for h in range(len(features))]
    values.append(np.dot(weights, features))
  return np.array(values)


def test_hyperdqn_value_has_a_generated_bias_in_both_its_parts():
  _, params, prior, q = build('hyperdqn')
  assert params['head'].shape == prior['head'].shape == (BASE.hidden_sizes[-1] + 1, ACTIONS, 1 + DIM)
  for i, o in enumerate(OBSERVATIONS):
    parts = [numpy_hyperdqn(part, one_hot(o), index_of(i)) for part in (params, prior)]
    expected = 0.7 * parts[0] + 2.0 * parts[1]
    np.testing.assert_allclose(q(params, jnp.int32(o), index_of(i)), expected, rtol=1e-4, atol=1e-5)


def test_hyperdqn_value_without_features_is_the_generated_bias():
  network, params, prior, _ = build('hyperdqn', with_(prior_scale=0.0))
  dead = {**params, 'torso': jax.tree.map(jnp.zeros_like, params['torso'])}
  head, index = np.asarray(params['head']), index_of(0)
  value = network.q(dead, prior, jnp.int32(5), None, index)
  np.testing.assert_allclose(value, 0.7 * (head[-1, :, 0] + head[-1, :, 1:] @ index), rtol=1e-5)
  assert np.all(np.abs(value - network.q(dead, prior, jnp.int32(5), None, -index)) > 1e-3)


# --------------------------------------------------------------------------------------------------------------- epinet


def numpy_epinet(params, prior, x, index):
  """Base, epinet of two hidden layers, priors: each with the whole of its input, one after another."""
  features = numpy_features(params['torso'], x)
  observed = params['ObservationProduct_0']
  first = full_kernel(observed['rows']) if 'rows' in observed else np.asarray(observed['Dense_0']['kernel'], np.float64)
  stacked = np.concatenate([first, params['Dense_1']['kernel'], params['Dense_2']['kernel']])
  hidden = relu(np.concatenate([x, features, index]) @ stacked)
  hidden = relu(numpy_dense(params['Dense_3'], hidden))
  out = numpy_dense(params['Dense_4'], hidden)  # [A M]
  values = numpy_dense(params['Dense_0'], features)
  for a in range(ACTIONS):
    for m in range(DIM):
      prior_value = numpy_mlp(member(prior, m), x)[a]
      values[a] += out[a * DIM + m] * index[m] + 2.0 * index[m] * prior_value
  return values


def test_epinet_value_on_deep_sea_is_the_sum_of_base_epinet_and_priors():
  _, params, prior, q = build('epinet')
  for i, o in enumerate(OBSERVATIONS):
    expected = numpy_epinet(params, prior, one_hot(o), index_of(i))
    np.testing.assert_allclose(q(params, jnp.int32(o), index_of(i)), expected, rtol=1e-4, atol=1e-4)


def test_epinet_value_on_arrays_is_the_sum_of_base_epinet_and_priors():
  _, params, prior, q = build('epinet', with_(torso='mlp'))
  observation = np.random.RandomState(1).randn(SIZE, SIZE).astype(np.float32)
  expected = numpy_epinet(params, prior, observation.ravel().astype(np.float64), index_of(0))
  np.testing.assert_allclose(q(params, observation, index_of(0)), expected, rtol=1e-4, atol=1e-4)


def test_epinet_and_hidden_layers_of_it_have_no_bias():
  _, params, _, _ = build('epinet')
  assert 'bias' in params['Dense_0']  # the base network's
  for i in range(1, 5):
    assert set(params[f'Dense_{i}']) == {'kernel'}


def test_epinet_sends_no_gradient_into_the_torso():
  _, params, _, q = build('epinet')
  of_epinet = lambda p: jnp.sum(q(p, jnp.int32(5), index_of(0)) - q(p, jnp.int32(5), np.zeros(DIM, np.float32)))
  grads = jax.grad(of_epinet)(params)
  for x in jax.tree.leaves((grads['torso'], grads['Dense_0'])):
    np.testing.assert_array_equal(x, 0.0)
  for name in ('Dense_1', 'Dense_2', 'Dense_3', 'Dense_4', 'ObservationProduct_0'):
    assert np.any(jax.tree.leaves(grads[name])[0] != 0.0)
  whole = jax.grad(lambda p: jnp.sum(q(p, jnp.int32(5), index_of(0))))(params)
  assert np.any(whole['torso']['rows'] != 0.0)  # the base network does


def bend(name, config=BASE):
  """How far Q is from being affine in the index."""
  _, params, _, q = build(name, config)
  value = lambda index: np.asarray(q(params, jnp.int32(5), jnp.asarray(index, jnp.float32)))
  return np.abs(value(index_of(0)) + value(-index_of(0)) - 2 * value(np.zeros(DIM))).max()


@pytest.mark.parametrize('name, affine', [('hyperdqn', True), ('epinet', False), ('hypermodel', False)])
def test_only_a_hypermodel_of_the_last_layer_is_affine_in_the_index(name, affine):
  assert bend(name) < 1e-4 if affine else bend(name) > 1e-2


def test_epinet_on_screens_reads_the_features_only():
  config = with_(torso='data_efficient', hidden_sizes=(5,))
  network = enn_dqn.make_epinet(config, ACTIONS)
  params, _ = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((4, 25, 25), jnp.uint8))
  assert set(params) == {'torso', *(f'Dense_{i}' for i in range(5))}
  assert params['Dense_1']['kernel'].shape == (5, 7)


def test_product_with_an_observation_has_glorots_variance():
  width = 400
  product = ObservationProduct(width, SIZE)
  rows = product.init(jax.random.key(0), jnp.int32(0))['params']['rows']
  assert rows.shape == (10, width)
  np.testing.assert_allclose(np.var(rows), 2 / (SIZE * SIZE + width), rtol=0.1)
  kernel = ObservationProduct(width, None).init(jax.random.key(0), jnp.zeros((SIZE, SIZE)))['params']['Dense_0']
  np.testing.assert_allclose(np.var(kernel['kernel']), 2 / (SIZE * SIZE + width), rtol=0.1)


# ----------------------------------------------------------------------------------------------------------- hypermodel


def numpy_hypermodel(params, x, index):
  """An ordinary MLP whose every weight is A xi + b."""
  generate = lambda both: np.asarray(both, np.float64) @ np.append(1.0, index)
  num_layers = len(params) // 2
  for i in range(num_layers):
    kernel = generate(params[f'kernel_{i}'])
    x = x @ (full_kernel(kernel) if len(kernel) != len(x) else kernel) + generate(params[f'bias_{i}'])
    x = relu(x) if i < num_layers - 1 else x
  return x


def test_hypermodel_value_on_deep_sea_is_an_mlp_of_generated_weights():
  _, params, prior, q = build('hypermodel')
  for i, o in enumerate(OBSERVATIONS):
    parts = [numpy_hypermodel(part, one_hot(o), index_of(i)) for part in (params, prior)]
    np.testing.assert_allclose(q(params, jnp.int32(o), index_of(i)), parts[0] + 2.0 * parts[1], rtol=1e-4, atol=1e-4)


def test_hypermodel_value_on_arrays_is_an_mlp_of_generated_weights():
  _, params, prior, q = build('hypermodel', with_(torso='mlp'))
  observation = np.random.RandomState(1).randn(SIZE, SIZE).astype(np.float32)
  x = observation.ravel().astype(np.float64)
  expected = numpy_hypermodel(params, x, index_of(0)) + 2.0 * numpy_hypermodel(prior, x, index_of(0))
  np.testing.assert_allclose(q(params, observation, index_of(0)), expected, rtol=1e-4, atol=1e-4)


def test_one_linear_layer_of_a_hypermodel_is_affine_in_the_index():
  module = hypermodel.HyperLayers((ACTIONS,), SIZE, is_prior=False)
  rng = np.random.RandomState(0)
  params = {'kernel_0': rng.randn(10, ACTIONS, 1 + DIM), 'bias_0': rng.randn(ACTIONS, 1 + DIM)}
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
  value = lambda index: np.asarray(module.apply({'params': params}, jnp.int32(5), jnp.asarray(index)))
  x, y = index_of(0), index_of(1)
  np.testing.assert_allclose(value(0.25 * x + 0.75 * y), 0.25 * value(x) + 0.75 * value(y), rtol=1e-4, atol=1e-6)
  assert np.abs(value(x) - value(y)).max() > 1e-2


@functools.cache
def many_hyper_layers(is_prior, index_variance=1.0):
  """Weights of 400 draws, [400, ..., 1 + M]."""
  module = hypermodel.HyperLayers((30, ACTIONS), SIZE, is_prior, index_variance)
  one = lambda key: module.init(key, jnp.int32(0), jnp.zeros(DIM))['params']
  return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 400)))


@pytest.mark.parametrize('name, fans', [('kernel_0', SIZE * SIZE + 30), ('kernel_1', 30 + ACTIONS)])
@pytest.mark.parametrize('on_sphere', [False, True])
def test_weights_of_a_hypermodels_prior_have_glorots_variance_half_of_it_from_the_index(name, fans, on_sphere):
  both = many_hyper_layers(True, 1 / DIM if on_sphere else 1.0)[name]
  indices = np.random.RandomState(0).randn(400, DIM)
  if on_sphere:
    indices /= np.linalg.norm(indices, axis=1, keepdims=True)
  from_index = np.einsum('k...m,km->k...', both[..., 1:], indices)
  np.testing.assert_allclose(np.var(both[..., 0]), 1 / fans, rtol=0.06)
  np.testing.assert_allclose(np.var(from_index), 1 / fans, rtol=0.15)
  np.testing.assert_allclose(np.var(both[..., 0] + from_index), 2 / fans, rtol=0.1)


@pytest.mark.parametrize(
  'name, b_variance, num_weights',
  [
    ('kernel_0', 2 / (SIZE * SIZE + 30), SIZE * SIZE * 30),
    ('bias_0', 0.0, 30),
    ('kernel_1', 2 / (30 + ACTIONS), 30 * ACTIONS),
    ('bias_1', 0.0, ACTIONS),
  ],
)
def test_trained_weights_of_a_hypermodel_start_as_documented(name, b_variance, num_weights):
  both = many_hyper_layers(False)[name]
  np.testing.assert_allclose(np.var(both[..., 0]), b_variance, rtol=0.06)
  np.testing.assert_allclose(np.var(both[..., 1:]), 2 / (num_weights + DIM), rtol=0.1)


def test_hypermodel_on_screens_is_refused_in_one_line():
  with pytest.raises(ConfigError, match=r'^--torso=nature: .*must be deep_sea or mlp$'):
    hypermodel.make(with_(torso='nature', update_indices='2'), ACTIONS)


# ------------------------------------------------------------------------------------------------- noise in the weights


def numpy_noisy(params, x, seed):
  """An MLP with weights mean + sigma f(e_in) f(e_out), one by one, e drawn at once for all layers."""
  key = jax.random.wrap_key_data(jnp.asarray(seed, jnp.uint32), impl='threefry2x32')
  get = lambda name: np.asarray(params[name], np.float64)
  whole = lambda kernel: full_kernel(kernel) if len(kernel) == 10 and len(x) == 16 else kernel
  num_layers = sum(name.startswith('mean_bias') for name in params)
  scale = None
  if 'scale_out' in params:
    scale = relu(x @ whole(get('scale_hidden'))) @ get('scale_out') + get('scale_bias')[0]
  total = sum(sum(whole(get(f'mean_{i}')).shape) for i in range(num_layers))
  rest = np.asarray(jax.random.normal(key, (total,)), np.float64)
  for i in range(num_layers):
    mean, mean_bias = whole(get(f'mean_{i}')), get(f'mean_bias_{i}')
    num_in, num_out = mean.shape
    e, rest = rest[: num_in + num_out], rest[num_in + num_out :]
    f = np.sign(e) * np.sqrt(np.abs(e))
    sigma = np.full(mean.shape, scale) if scale is not None else whole(get(f'sigma_{i}'))
    sigma_bias = np.full(num_out, scale) if scale is not None else get(f'sigma_bias_{i}')
    kernel = np.zeros(mean.shape)
    for j in range(num_in):
      for k in range(num_out):
        kernel[j, k] = mean[j, k] + sigma[j, k] * f[j] * f[num_in + k]
    x = x @ kernel + mean_bias + sigma_bias * f[num_in:]
    x = relu(x) if i < num_layers - 1 else x
  return x


def seed_of(i):
  return np.random.RandomState(i).randint(0, 2**32, 2, dtype=np.uint64).astype(np.uint32)


NOISY = pytest.mark.parametrize('name', ['noisynet', 'sane'])


@NOISY
def test_noisy_value_on_deep_sea_is_an_mlp_with_factorised_noise(name):
  _, params, prior, q = build(name)
  assert prior == ()
  for i, o in enumerate(OBSERVATIONS):
    expected = numpy_noisy(params, one_hot(o), seed_of(i))
    np.testing.assert_allclose(q(params, jnp.int32(o), seed_of(i)), expected, rtol=1e-4, atol=1e-4)


@NOISY
def test_noisy_value_on_arrays_is_an_mlp_with_factorised_noise(name):
  _, params, _, q = build(name, with_(torso='mlp'))
  observation = np.random.RandomState(1).randn(SIZE, SIZE).astype(np.float32)
  expected = numpy_noisy(params, observation.ravel().astype(np.float64), seed_of(0))
  np.testing.assert_allclose(q(params, observation, seed_of(0)), expected, rtol=1e-4, atol=1e-4)


@NOISY
def test_noisy_value_of_an_integer_is_that_of_its_one_hot_with_the_same_weights(name):
  _, params, _, q = build(name)
  _, _, _, q_of_array = build(name, with_(torso='mlp'))
  firsts = {'mean_0', 'sigma_0', 'scale_hidden'}
  whole = {k: jnp.asarray(full_kernel(v), jnp.float32) if k in firsts else v for k, v in params.items()}
  for o in OBSERVATIONS:
    grid = jnp.asarray(one_hot(o).reshape(SIZE, SIZE), jnp.float32)
    value, of_array = q(params, jnp.int32(o), seed_of(3)), q_of_array(whole, grid, seed_of(3))
    np.testing.assert_allclose(value, of_array, rtol=1e-4, atol=1e-4)


@NOISY
def test_noise_is_that_of_the_seed(name):
  _, params, _, q = build(name)
  values = [np.asarray(q(params, jnp.int32(5), seed_of(i))) for i in range(4)]
  assert np.unique(np.stack(values)[:, 0]).size == 4
  np.testing.assert_array_equal(values[0], q(params, jnp.int32(5), seed_of(0)))


@functools.cache
def initial_noisy(name):
  network = NETWORKS[name](with_(noise_init=0.5, hidden_sizes=(400, 5)))
  return jax.jit(network.init)(jax.random.key(0), jnp.int32(0))[0]


def test_sigma_of_noisynet_starts_at_its_constant_over_the_root_of_the_inputs():
  params = initial_noisy('noisynet')
  for i, num_in in enumerate((SIZE * SIZE, 400, 5)):
    np.testing.assert_allclose(params[f'sigma_{i}'], 0.5 / num_in**0.5, rtol=1e-6)
    np.testing.assert_allclose(params[f'sigma_bias_{i}'], 0.5 / num_in**0.5, rtol=1e-6)
    for name in (f'mean_{i}', f'mean_bias_{i}'):
      assert np.abs(params[name]).max() <= num_in**-0.5
  assert not any(name.startswith('scale') for name in params)


def test_means_of_noisynet_start_uniform_within_one_over_the_root_of_the_inputs():
  params = initial_noisy('noisynet')
  scaled = np.asarray(params['mean_0']).ravel() * SIZE  # inputs 16
  np.testing.assert_allclose(np.quantile(scaled, [0.05, 0.25, 0.5, 0.75, 0.95]), [-0.9, -0.5, 0, 0.5, 0.9], atol=0.06)


def test_one_scale_of_sane_starts_near_its_constant_in_every_state_and_depends_on_the_state():
  params = initial_noisy('sane')
  assert not any(name.startswith('sigma') for name in params)
  x = lambda o: relu(one_hot(o) @ full_kernel(params['scale_hidden']))
  scales = [float(x(o) @ np.asarray(params['scale_out'], np.float64)) + float(params['scale_bias'][0]) for o in CELLS]
  np.testing.assert_allclose(scales, 0.5, atol=0.05)
  assert np.unique(scales).size == len(CELLS)


@NOISY
def test_noise_off_leaves_the_mean_network(name):
  _, params, _, q = build(name)
  off = {k: jnp.zeros_like(v) if k.startswith(('sigma', 'scale')) else v for k, v in params.items()}
  for o in OBSERVATIONS:
    x = one_hot(o)
    for i in range(3):
      kernel = full_kernel(off['mean_0']) if i == 0 else np.asarray(off[f'mean_{i}'], np.float64)
      x = x @ kernel + np.asarray(off[f'mean_bias_{i}'], np.float64)
      x = relu(x) if i < 2 else x
    np.testing.assert_allclose(q(off, jnp.int32(o), seed_of(1)), x, rtol=1e-4, atol=1e-5)
