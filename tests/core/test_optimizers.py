"""The packed optimizer against the optax chain that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hyperagent_jax.agent import make_optimizer
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.optimizers import clipped_adam

SHAPES = {
  'small': {'a': (3, 5), 'b': {'c': (7,), 'd': ()}},
  'large': {'a': (300, 300), 'b': (2**16,)},
  'mixed': {'a': (300, 300), 'b': {'c': (7,), 'd': (1, 2, 3)}, 'e': (2**16 - 1,), 'f': (2**16,)},
}


def make_tree(shapes, key, scale=1.0):
  leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda x: isinstance(x, tuple))
  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(tree, [scale * jax.random.normal(k, s) for k, s in zip(keys, leaves, strict=True)])


def trajectory(optimizer, params, shapes, scales):
  state, step = optimizer.init(params), jax.jit(optimizer.update)
  for i, scale in enumerate(scales):
    updates, state = step(make_tree(shapes, jax.random.key(100 + i), scale), state, params)
    params = optax.apply_updates(params, updates)
    yield params


@pytest.mark.parametrize('shapes', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('clipping', ['never', 'always', 'sometimes'])
def test_twenty_updates_equal_optax_clipping_then_adam(shapes, clipping):
  params = make_tree(shapes, jax.random.key(0))
  norm = float(optax.tree.norm(make_tree(shapes, jax.random.key(100))))
  max_norm = {'never': 1e3 * norm, 'always': 0.01 * norm, 'sometimes': norm}[clipping]
  scales = np.tile([1.0, 0.3, 3.0, 1e-3], 5) if clipping == 'sometimes' else np.ones(20)
  expected = optax.chain(optax.clip_by_global_norm(max_norm), optax.adam(3e-3, eps=1.5e-4))
  ours = trajectory(clipped_adam(3e-3, 1.5e-4, max_norm), params, shapes, scales)
  theirs = trajectory(expected, params, shapes, scales)
  for x, y in zip(ours, theirs, strict=True):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), x, y)
  moved = optax.tree.norm(jax.tree.map(jnp.subtract, x, params)) / optax.tree.norm(params)
  assert moved > 1e-3


def test_first_update_by_hand():
  # Norm 5 is clipped to 1: gradients 0.6 and 0.8; the first bias-corrected step is lr g / (|g| + eps).
  optimizer = clipped_adam(0.1, 0.2, 1.0)
  params = {'x': jnp.array([1.0, 1.0])}
  updates, state = optimizer.update({'x': jnp.array([3.0, -4.0])}, optimizer.init(params), params)
  np.testing.assert_allclose(updates['x'], [-0.1 * 0.6 / 0.8, 0.1 * 0.8 / 1.0], rtol=1e-5)
  assert int(state.count) == 1


def test_zero_gradient_does_nothing_and_is_finite():
  optimizer = clipped_adam(0.1, 1e-8, 1.0)
  params = {'x': jnp.ones((3,))}
  updates, _ = optimizer.update({'x': jnp.zeros((3,))}, optimizer.init(params), params)
  np.testing.assert_array_equal(updates['x'], 0.0)


def test_state_does_not_alias():
  state = clipped_adam(0.1, 1e-8, 1.0).init({'x': jnp.ones((3,)), 'y': jnp.ones((2**16,))})
  pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
  assert len(pointers) == 5 and len(set(pointers)) == 5


def test_make_optimizer_reads_learning_rate_eps_and_norm():
  config = HyperAgentConfig(learning_rate=0.1, adam_eps=0.2, max_grad_norm=1.0)
  optimizer = make_optimizer(config)
  updates, _ = optimizer.update({'x': jnp.array([3.0, -4.0])}, optimizer.init({'x': jnp.zeros(2)}))
  np.testing.assert_allclose(updates['x'], [-0.1 * 0.6 / 0.8, 0.1 * 0.8 / 1.0], rtol=1e-5)
