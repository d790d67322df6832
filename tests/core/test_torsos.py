"""Torsos for screens: the ways to compute their convolutions against one another and against plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.networks import LinearHypermodel, MLPTorso, frame_layout, make_network, make_torso
from hyperagent_jax.torsos import (
  DATA_EFFICIENT,
  NATURE,
  ConvLayer,
  ScreenTorso,
  convolve,
  convolve_by_products,
  nested_windows,
)

TORSOS = {'nature': NATURE, 'data_efficient': DATA_EFFICIENT}


def screens(num_frames, height, width=None, seed=0):
  return np.random.RandomState(seed).randint(0, 256, (num_frames, height, width or height)).astype(np.uint8)


@functools.cache
def weights_of(layers, num_frames, size, hidden_sizes=(7,)):
  """Initial weights with biases moved from zero, so that they are tested too."""
  torso = ScreenTorso(layers, hidden_sizes, method='convolutions')
  params = jax.jit(torso.init)(jax.random.key(0), jnp.zeros((num_frames, size, size), jnp.uint8))['params']
  move = lambda path, x: x + 0.05 * np.cos(np.arange(x.shape[-1], dtype=np.float32)) if 'bias' in path[-1].key else x
  return jax.tree_util.tree_map_with_path(move, params)


def apply(torso):
  return jax.jit(lambda params, observation: torso.apply({'params': params}, observation))


def gradients(torso):
  """Of a sum in which every feature has another weight."""

  def total(params, observation):
    features = torso.apply({'params': params}, observation)
    return jnp.sum(features * jnp.cos(jnp.arange(features.shape[0], dtype=jnp.float32)))

  return jax.jit(jax.value_and_grad(total))


def numpy_convolution(x, kernel, stride):
  """[H, W, C], [k, k, C, O], pixel by pixel."""
  size, num_out = kernel.shape[0], kernel.shape[3]
  rows, columns = ((n - size) // stride + 1 for n in x.shape[:2])
  out = np.zeros((rows, columns, num_out))
  for p in range(rows):
    for q in range(columns):
      for i in range(size):
        for j in range(size):
          out[p, q] += x[p * stride + i, q * stride + j] @ kernel[i, j]
  return out


def numpy_features(params, observation, layers, divisor=255.0, normalize=False):
  x = np.moveaxis(observation.astype(np.float64) / divisor, 0, -1)
  for i, layer in enumerate(layers):
    kernel, bias = np.asarray(params[f'kernel_{i}'], np.float64), np.asarray(params[f'bias_{i}'], np.float64)
    x = np.maximum(numpy_convolution(x, kernel, layer.stride) + bias, 0)
  x = x.ravel()
  if normalize:
    x = (x - x.min()) / (x.max() - x.min())
  for k in sorted(k for k in params if k.startswith('Dense')):
    x = np.maximum(x @ np.asarray(params[k]['kernel'], np.float64) + np.asarray(params[k]['bias'], np.float64), 0)
  return x


# ------------------------------------------------------------------------------------------ the ways to one convolution


def test_a_convolution_by_hand():
  x = jnp.asarray([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [[7.0], [8.0], [9.0]]])
  kernel = jnp.asarray([[1.0, 10.0], [100.0, 1000.0]])[:, :, None, None]
  # The window of rows 0-1 and columns 0-1: 1 + 10 * 2 + 100 * 4 + 1000 * 5; no kernel is flipped.
  expected = [[[5421.0], [6532.0]], [[8754.0], [9865.0]]]
  np.testing.assert_allclose(convolve(x, kernel, 1), expected)
  np.testing.assert_allclose(convolve_by_products(x, kernel, 1), expected)


@pytest.mark.parametrize('size, stride', [(8, 4), (4, 2), (3, 1), (5, 5), (2, 1), (6, 2)])
@pytest.mark.parametrize('height, width', [(17, 17), (20, 11)])
def test_products_equal_loops_over_pixels(size, stride, height, width):
  rng = np.random.RandomState(size)
  x, kernel = rng.randn(height, width, 3).astype(np.float32), rng.randn(size, size, 3, 2).astype(np.float32)
  expected = numpy_convolution(x, kernel, stride)
  np.testing.assert_allclose(convolve_by_products(x, kernel, stride), expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(convolve(x, kernel, stride), expected, rtol=1e-4, atol=1e-4)


def test_nested_windows_hold_each_pixel_where_its_layers_look_for_it():
  layers = (ConvLayer(1, 2, 2), ConvLayer(1, 3, 3))
  frames = np.arange(2 * 13 * 20, dtype=np.int32).reshape(2, 13, 20)  # 2 x 3 windows of 6 x 6; the rest is cut off
  x = np.asarray(nested_windows(jnp.asarray(frames), layers)).reshape(2, 3, 3, 3, 2, 2, 2)
  for row, column, i, j, frame, k, m in np.ndindex(x.shape):
    assert x[row, column, i, j, frame, k, m] == frames[frame, 6 * row + 2 * i + k, 6 * column + 2 * j + m]


@pytest.mark.parametrize('torso', TORSOS)
@pytest.mark.parametrize('num_frames, size', [(4, 84), (4, 47), (3, 91), (1, 100)])
def test_products_and_convolutions_give_the_same_values_and_gradients(torso, num_frames, size):
  layers = TORSOS[torso]
  params, observation = weights_of(layers, num_frames, size), screens(num_frames, size)
  (value, grads), (other, other_grads) = (
    gradients(ScreenTorso(layers, (7,), method=method))(params, observation) for method in ('products', 'convolutions')
  )
  assert value != 0
  np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-6)
  assert set(grads) == {f'{k}_{i}' for k in ('kernel', 'bias') for i in range(len(layers))} | {'Dense_0'}
  for k, x in jax.tree_util.tree_leaves_with_path(grads):
    y = functools.reduce(lambda tree, part: tree[part.key], k, other_grads)
    assert np.any(y != 0), k
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5 * np.abs(y).max(), err_msg=str(k))


@pytest.mark.parametrize('torso, num_frames, size', [('nature', 2, 37), ('data_efficient', 2, 51)])
def test_features_equal_plain_loops(torso, num_frames, size):
  layers = TORSOS[torso]
  params, observation = weights_of(layers, num_frames, size), screens(num_frames, size)
  expected = numpy_features(params, observation, layers)
  assert np.sum(expected > 0) >= 2
  for method in ('products', 'convolutions', 'auto'):
    features = apply(ScreenTorso(layers, (7,), method=method))(params, observation)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [50, 84])
def test_frames_cut_into_windows_beforehand_give_the_same_features(size):
  params, observation = weights_of(DATA_EFFICIENT, 3, size), screens(3, size)
  layout = frame_layout(HyperAgentConfig(torso='data_efficient', prior_storage='replay', frame_layout='windows'))
  cut = np.stack([layout.encode(frame) for frame in observation], axis=layout.stack_axis)
  assert cut.dtype == np.uint8 and cut.shape == (25 * (size // 25) ** 2, 3, 5, 5)
  for method in ('products', 'auto'):
    torso = ScreenTorso(DATA_EFFICIENT, (7,), method=method)
    expected = apply(ScreenTorso(DATA_EFFICIENT, (7,), method='convolutions'))(params, observation)
    np.testing.assert_allclose(apply(torso)(params, cut), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('layers, num_flat', [(NATURE, 7 * 7 * 64), (DATA_EFFICIENT, 3 * 3 * 64)])
def test_shapes_at_84_pixels(layers, num_flat):
  params = jax.eval_shape(ScreenTorso(layers, (11, 5)).init, jax.random.key(0), jnp.zeros((4, 84, 84), jnp.uint8))
  shapes = jax.tree.map(lambda x: x.shape, params['params'])
  expected, num_in = {}, 4
  for i, layer in enumerate(layers):
    expected[f'kernel_{i}'] = (layer.size, layer.size, num_in, layer.features)
    expected[f'bias_{i}'] = (layer.features,)
    num_in = layer.features
  expected['Dense_0'] = {'kernel': (num_flat, 11), 'bias': (11,)}
  expected['Dense_1'] = {'kernel': (11, 5), 'bias': (5,)}
  assert shapes == expected


@pytest.mark.parametrize('torso', TORSOS)
def test_auto_is_no_convolution_on_a_cpu_and_that_is_seen(torso):
  layers = TORSOS[torso]
  params = weights_of(layers, 4, 47)
  observations = jnp.zeros((3, 4, 47, 47), jnp.uint8)

  def program(method):
    one = ScreenTorso(layers, (7,), method=method)
    total = lambda params, o: jnp.sum(jax.vmap(lambda x: one.apply({'params': params}, x))(o))
    return jax.jit(jax.grad(total)).lower(params, observations)

  for method, expected in (('auto', False), ('products', False), ('convolutions', True)):
    lowered = program(method)
    assert ('stablehlo.convolution' in lowered.as_text()) == expected
    assert (' convolution(' in lowered.compile().as_text()) == expected


@pytest.mark.parametrize('torso', TORSOS)
@pytest.mark.parametrize('platform, expected', [('cpu', False), ('cuda', False), ('tpu', True)])
def test_auto_is_products_where_these_were_measured_to_be_faster(torso, platform, expected):
  params, one = weights_of(TORSOS[torso], 4, 47), ScreenTorso(TORSOS[torso], (7,))
  apply = jax.jit(lambda params, x: one.apply({'params': params}, x))
  lowered = apply.trace(params, jnp.zeros((4, 47, 47), jnp.uint8)).lower(lowering_platforms=(platform,))
  assert ('stablehlo.convolution' in lowered.as_text()) == expected


# ------------------------------------------------------------------------------------------ pixels, scaling and formats


def test_normalised_features_by_hand():
  # One layer of windows of one pixel, weight 1: the features are the pixels.
  layers = (ConvLayer(1, 1, 1),)
  torso = ScreenTorso(layers, (4,), pixel_divisor=1.0, normalize_features=True)
  pixels = np.array([[[10, 20], [30, 60]]], np.uint8)
  params = {
    'kernel_0': jnp.ones((1, 1, 1, 1)),
    'bias_0': jnp.zeros((1,)),
    'Dense_0': {'kernel': jnp.eye(4), 'bias': jnp.zeros((4,))},
  }
  np.testing.assert_allclose(apply(torso)(params, pixels), [0, 0.2, 0.4, 1], atol=1e-6)
  plain = ScreenTorso(layers, (4,), pixel_divisor=1.0)
  np.testing.assert_allclose(apply(plain)(params, pixels), [10, 20, 30, 60])
  for constant in (0, 30):  # nothing to scale
    np.testing.assert_array_equal(apply(torso)(params, np.full((1, 2, 2), constant, np.uint8)), 0.0)
  _, grads = gradients(torso)(params, np.zeros((1, 2, 2), np.uint8))
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(grads))


@pytest.mark.parametrize('torso', TORSOS)
def test_normalisation_is_of_each_example_over_all_its_convolutional_features(torso):
  layers = TORSOS[torso]
  params, observations = weights_of(layers, 2, 51), [screens(2, 51, seed=i) // (1 + 9 * i) for i in range(2)]
  features = jax.jit(
    jax.vmap(lambda o: ScreenTorso(layers, (7,), normalize_features=True).apply({'params': params}, o))
  )(np.stack(observations))
  for x, observation in zip(features, observations, strict=True):
    expected = numpy_features(params, observation, layers, normalize=True)
    assert np.any(expected > 0)
    np.testing.assert_allclose(x, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('method', ['products', 'convolutions'])
def test_pixels_are_divided(method):
  params, observation = weights_of(DATA_EFFICIENT, 2, 51), screens(2, 51)
  scaled = apply(ScreenTorso(DATA_EFFICIENT, (7,), pixel_divisor=1.0, method=method))
  for divisor in (255.0, 16.0):
    features = apply(ScreenTorso(DATA_EFFICIENT, (7,), pixel_divisor=divisor, method=method))(params, observation)
    np.testing.assert_allclose(features, scaled(params, observation / np.float32(divisor)), rtol=1e-4, atol=1e-5)
  assert not np.allclose(features, scaled(params, observation), rtol=0.1)


@pytest.mark.parametrize('torso', TORSOS)
@pytest.mark.parametrize('method', ['products', 'convolutions'])
def test_bfloat16_is_close_to_float32_and_parameters_stay_float32(torso, method):
  layers = TORSOS[torso]
  params, observation = weights_of(layers, 4, 51), screens(4, 51)
  exact, rounded = (ScreenTorso(layers, (7,), dtype=dtype, method=method) for dtype in ('float32', 'bfloat16'))
  initial = jax.eval_shape(rounded.init, jax.random.key(0), observation)
  assert {x.dtype for x in jax.tree.leaves(initial)} == {jnp.dtype('float32')}
  (value, grads), (other, other_grads) = (gradients(t)(params, observation) for t in (exact, rounded))
  features, other_features = apply(exact)(params, observation), apply(rounded)(params, observation)
  assert other_features.dtype == jnp.float32 and {x.dtype for x in jax.tree.leaves(other_grads)} == {features.dtype}
  np.testing.assert_allclose(other_features, features, rtol=2e-2, atol=2e-2 * np.max(features))
  assert np.any(features != other_features)
  np.testing.assert_allclose(other, value, rtol=2e-2, atol=2e-2 * np.max(features))
  for x, y in zip(jax.tree.leaves(other_grads), jax.tree.leaves(grads), strict=True):
    assert np.linalg.norm(x - y) < 0.3 * np.linalg.norm(y)  # rounding switches a few features on or off


# ------------------------------------------------------------------------------------------------------ initialisation


@pytest.mark.parametrize('torso', TORSOS)
def test_kernels_are_glorot_normal_over_their_receptive_fields_with_zero_biases(torso):
  layers = TORSOS[torso]
  params = jax.jit(ScreenTorso(layers, (64,)).init)(jax.random.key(1), jnp.zeros((4, 84, 84), jnp.uint8))['params']
  num_in = 4
  for i, layer in enumerate(layers):
    kernel = np.asarray(params[f'kernel_{i}'])
    variance = 2 / (layer.size**2 * (num_in + layer.features))
    np.testing.assert_allclose(kernel.var(), variance, rtol=6 * (2 / kernel.size) ** 0.5)
    assert np.abs(kernel).max() > 3 * variance**0.5  # not truncated
    np.testing.assert_array_equal(params[f'bias_{i}'], 0)
    num_in = layer.features
  kernel = np.asarray(params['Dense_0']['kernel'])
  np.testing.assert_allclose(kernel.var(), 2 / sum(kernel.shape), rtol=0.05)
  np.testing.assert_array_equal(params['Dense_0']['bias'], 0)


@pytest.mark.parametrize('is_prior', [False, True])
def test_bias_of_the_head_is_drawn_as_configured(is_prior):
  num_features, num_actions = 100, 18

  def head(bias_init):
    module = LinearHypermodel(MLPTorso((num_features,)), num_actions, 4, 0.1, is_prior, bias_init)
    return np.asarray(jax.jit(module.init)(jax.random.key(0), jnp.zeros((3,)))['params']['head'])

  glorot, sphere = head('glorot'), head('sphere')
  assert glorot.shape == sphere.shape == (num_features, num_actions, 5)
  b = glorot[..., 0]
  np.testing.assert_allclose(b.var(), 2 / (num_features + num_actions), rtol=6 * (2 / b.size) ** 0.5)
  assert np.abs(b).max() > 2.7 * b.std()  # a normal, not truncated
  # Every action and every feature has its own.
  np.testing.assert_allclose(b.var(axis=0), b.var(), rtol=0.6)
  assert np.unique(b).size == b.size
  np.testing.assert_allclose(np.linalg.norm(sphere[..., 0]), 0.1, rtol=1e-5)
  np.testing.assert_array_equal(glorot[..., 1:], sphere[..., 1:])  # A is drawn alike


# -------------------------------------------------------------------------------------------------- from configurations


def test_a_torso_is_made_as_configured():
  config = HyperAgentConfig(
    torso='nature',
    prior_storage='replay',
    hidden_sizes=(9,),
    pixel_divisor=3.0,
    normalize_features=True,
    convolution_method='products',
    compute_dtype='bfloat16',
  )
  assert make_torso(config) == ScreenTorso(NATURE, (9,), 3.0, True, 'products', 'bfloat16')
  small = HyperAgentConfig(torso='data_efficient', prior_storage='replay', hidden_sizes=(9, 8))
  assert make_torso(small) == ScreenTorso(DATA_EFFICIENT, (9, 8), 255.0, False, 'auto', 'float32')


def test_prior_and_trained_part_see_the_screen():
  config = HyperAgentConfig(torso='data_efficient', prior_storage='replay', hidden_sizes=(16,), bias_init='glorot')
  network = make_network(config, 6)
  params, prior = jax.jit(network.init)(jax.random.key(0), screens(4, 51))
  values = jax.jit(jax.vmap(lambda o: network.prior_q(prior, o)))(np.stack([screens(4, 51, seed=i) for i in range(3)]))
  assert values.mean.shape == (3, 6) and values.factor.shape == (3, 6, 4)
  assert np.unique(np.asarray(values.mean)[:, 0]).size == 3
  trained = jax.jit(lambda o: network.hyper_q(params, o, jax.tree.map(jnp.zeros_like, network.prior_q(prior, o))))
  assert not np.allclose(trained(screens(4, 51)).mean, trained(screens(4, 51, seed=1)).mean)


def test_gradient_of_a_gradient_goes_through_every_way():
  """As the gradient penalty needs it."""
  params, observation = weights_of(DATA_EFFICIENT, 2, 51), screens(2, 51)

  def penalty(method):
    torso = ScreenTorso(DATA_EFFICIENT, (7,), normalize_features=True, method=method)
    value = lambda params: jnp.sum(torso.apply({'params': params}, observation))
    norm = lambda params: sum(jnp.sum(x * x) for x in jax.tree.leaves(jax.grad(value)(params)))
    return jax.jit(jax.value_and_grad(norm))(params)

  expected, expected_grads = penalty('convolutions')
  for method in ('products', 'auto'):
    value, grads = penalty(method)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
      np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-3 * np.abs(y).max())
