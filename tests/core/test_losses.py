"""Losses against numbers worked out by hand, NumPy, rlax, and each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from hyperagent_jax import losses
from hyperagent_jax.distributions import make_reference
from hyperagent_jax.types import HyperQ

# With action 1: mean 2, factor (2, 0); less 0.5 z it is (1.7, -0.4); the error of the mean is -1.
Q = HyperQ(mean=jnp.array([1.0, 2.0]), factor=jnp.array([[0.5, -1.0], [2.0, 0.0]]))
NOISE = jnp.array([0.6, 0.8])
ACTION, TARGET, SIGMA = 1, 3.0, 0.5


def test_perturbation_is_subtracted_from_the_factor_of_the_action_taken():
  mean, factor = losses.perturbed(Q, ACTION, NOISE, SIGMA)
  np.testing.assert_allclose(mean, 2.0)
  np.testing.assert_allclose(factor, [1.7, -0.4], rtol=1e-6)
  mean, factor = losses.perturbed(Q, 0, None, SIGMA)
  np.testing.assert_allclose(mean, 1.0)
  np.testing.assert_allclose(factor, [0.5, -1.0])


@pytest.mark.parametrize(
  'noise, sigma, second_moment, index_mean, expected',
  [
    (None, 0.0, 0.5, 0.0, 1.0 + 0.5 * 4.0),
    (None, 0.5, 1.0, 0.0, 1.0 + 1.0 * 4.0),  # no noise, no perturbation
    (NOISE, 0.0, 1.0, 0.0, 1.0 + 1.0 * 4.0),
    (NOISE, SIGMA, 0.5, 0.0, 1.0 + 0.5 * 3.05),  # 1.7^2 + 0.4^2 = 3.05
    (NOISE, SIGMA, 0.5, 0.5, 1.0 + 0.5 * 3.05 + 2 * -1.0 * 0.5 * 1.3),  # one-hot of M = 2
  ],
)
def test_exact_loss_by_hand(noise, sigma, second_moment, index_mean, expected):
  loss = losses.exact_td_loss(Q, ACTION, TARGET, second_moment, index_mean, noise, sigma)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_sampled_loss_by_hand():
  # Errors: -1 + 1.7 and -1 - 0.4 for the two basis vectors.
  loss = losses.sampled_td_loss(Q, ACTION, jnp.array([3.0, 3.0]), jnp.eye(2), NOISE, SIGMA)
  np.testing.assert_allclose(loss, (0.7**2 + 1.4**2) / 2, rtol=1e-6)
  # A target of its own for each index: 2 + 1.7 - 1 and 2 - 0.4 - 5.
  loss = losses.sampled_td_loss(Q, ACTION, jnp.array([1.0, 5.0]), jnp.eye(2), NOISE, SIGMA)
  np.testing.assert_allclose(loss, (2.7**2 + 3.4**2) / 2, rtol=1e-6)


def test_perturbation_adds_sigma_xi_z_to_the_target():
  # (Q(s, a, xi) - (y0 + sigma <xi, z>))^2, computed straight from Eq. 2.
  rng = np.random.RandomState(0)
  index = rng.randn(7, 2).astype(np.float32)
  q = np.asarray(Q.mean)[ACTION] + index @ np.asarray(Q.factor)[ACTION]
  y = TARGET + SIGMA * index @ np.asarray(NOISE)
  loss = losses.sampled_td_loss(Q, ACTION, jnp.full(7, TARGET), jnp.asarray(index), NOISE, SIGMA)
  np.testing.assert_allclose(loss, np.mean((q - y) ** 2), rtol=1e-5)


def all_indices(name, dim):
  eye = np.eye(dim)
  return {
    'one_hot': eye,
    'coordinate': np.concatenate([eye, -eye]) * dim**0.5,
    'cube': np.array(list(itertools.product([-1.0, 1.0], repeat=dim))),
  }[name].astype(np.float32)


@pytest.mark.parametrize('name', ['one_hot', 'coordinate', 'cube'])
@pytest.mark.parametrize('sigma', [0.0, 0.7])
def test_exact_loss_and_gradient_equal_the_sampled_ones_over_all_indices(name, sigma):
  rng = np.random.RandomState(1)
  q = HyperQ(jnp.asarray(rng.randn(3), jnp.float32), jnp.asarray(rng.randn(3, 4), jnp.float32))
  noise = jnp.asarray(rng.randn(4), jnp.float32)
  reference, index = make_reference(name, 4), jnp.asarray(all_indices(name, 4))
  target = jnp.float32(0.3)

  def exact(q):
    return losses.exact_td_loss(q, 2, target, reference.second_moment, reference.mean, noise, sigma)

  def sampled(q):
    return losses.sampled_td_loss(q, 2, jnp.full(len(index), target), index, noise, sigma)

  (exact_loss, exact_grad), (sampled_loss, sampled_grad) = jax.value_and_grad(exact)(q), jax.value_and_grad(sampled)(q)
  np.testing.assert_allclose(exact_loss, sampled_loss, rtol=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), exact_grad, sampled_grad)
  assert np.all(exact_grad.factor[:2] == 0) and np.all(exact_grad.factor[2] != 0)


@pytest.mark.parametrize(
  'name, unit_variance',
  [('sphere', False), ('sphere', True), ('gaussian', False), ('sparse', False), ('orthogonal', False)],
)
def test_exact_loss_is_the_limit_of_the_sampled_one(name, unit_variance):
  reference = make_reference(name, 2, num_nonzero=1, unit_variance=unit_variance)
  index = reference.sample(jax.random.key(0), 40_000)
  sampled = losses.sampled_td_loss(Q, ACTION, jnp.full(40_000, TARGET), index, NOISE, SIGMA)
  exact = losses.exact_td_loss(Q, ACTION, TARGET, reference.second_moment, reference.mean, NOISE, SIGMA)
  np.testing.assert_allclose(sampled, exact, rtol=0.03)


# -------------------------------------------------------------------------------------------------------------- target


def test_target_of_one_index_is_double_q_learning():
  rng = np.random.RandomState(2)
  for _ in range(5):
    r_t, discount_t = rng.randn(), rng.rand()
    q_value, q_selector, q_tm1 = (jnp.asarray(rng.randn(4), jnp.float32) for _ in range(3))
    target = losses.bootstrap_target(r_t, discount_t, q_value[None], q_selector[None])
    td = rlax.double_q_learning(q_tm1, jnp.int32(1), r_t, discount_t, q_value, q_selector)
    np.testing.assert_allclose(target - q_tm1[1], td, rtol=1e-5)
    loss = losses.sampled_td_loss(HyperQ(q_tm1, jnp.zeros((4, 1))), 1, target[None], jnp.ones((1, 1)))
    np.testing.assert_allclose(loss, td**2, rtol=1e-5)


def test_optimistic_target_by_hand():
  selector = jnp.array([[1.0, 0.0, 5.0], [2.0, 9.0, 4.0]])  # maxima 2, 9, 5: action 1
  value = jnp.array([[10.0, 3.0, 30.0], [11.0, -4.0, 31.0]])  # of action 1: 3
  np.testing.assert_allclose(losses.bootstrap_target(0.5, 0.9, value, selector), 0.5 + 0.9 * 3.0, rtol=1e-6)
  # Medians: 1.5, 4.5, 4.5 -> the first of the two; of action 1 the value's median is -0.5.
  np.testing.assert_allclose(losses.bootstrap_target(0.5, 0.9, value, selector, 0.5), 0.5 + 0.9 * -0.5, rtol=1e-6)


@pytest.mark.parametrize('quantile', [0.25, 0.8, 1.0])
def test_optimism_is_numpys_quantile_over_indices(quantile):
  rng = np.random.RandomState(3)
  q, selector = rng.randn(20, 5).astype(np.float32), rng.randn(20, 5).astype(np.float32)
  np.testing.assert_allclose(losses.optimistic(jnp.asarray(q), quantile), np.quantile(q, quantile, axis=0), rtol=1e-5)
  a = np.quantile(selector, quantile, axis=0).argmax()
  expected = -1.0 + 0.5 * np.quantile(q[:, a], quantile)
  target = losses.bootstrap_target(-1.0, 0.5, jnp.asarray(q), jnp.asarray(selector), quantile)
  np.testing.assert_allclose(target, expected, rtol=1e-5)


def test_one_index_is_its_own_optimum_at_any_quantile():
  q = jnp.array([[1.0, 4.0, 2.0]])
  np.testing.assert_array_equal(losses.optimistic(q, 0.8), q[0])


def test_target_passes_no_gradient_to_anything():
  q, selector = jnp.array([[1.0, 2.0]]), jnp.array([[2.0, 1.0]])
  grads = jax.grad(losses.bootstrap_target, argnums=(0, 1, 2, 3))(0.5, 0.9, q, selector)
  jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0.0), grads)


def test_discount_zero_leaves_the_return_only():
  np.testing.assert_allclose(losses.bootstrap_target(0.25, 0.0, jnp.full((2, 3), 7.0), jnp.ones((2, 3))), 0.25)
