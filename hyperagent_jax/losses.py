"""Temporal-difference losses of one transition (Eq. 2-4, 8-9); callers vmap them over a mini-batch.

The names are rlax's. Values come as a `HyperQ`, so an index costs A M multiplications and the expectation over
indices is a closed form. `discount_t` already holds gamma: for an n-step transition it is the product of gamma and
the environment's discounts over the n steps.
"""

import chex
import jax
import jax.numpy as jnp

from hyperagent_jax.types import Array, HyperQ


def optimistic(q: Array, quantile: float) -> Array:  # [K, ...] -> [...]
  """Optimism over sampled indices (Eq. 8-9): the maximum over K, or a quantile of it; one index is itself."""
  if q.shape[0] == 1:
    return q[0]
  if quantile == 1.0:
    return jnp.max(q, axis=0)
  return jnp.quantile(q, quantile, axis=0)


def bootstrap_target(
  r_t: Array, discount_t: Array, q_t_value: Array, q_t_selector: Array, quantile: float = 1.0
) -> Array:
  """The target without perturbation, y0 = r + gamma_t Q_target(s', a*, xi_t) (section 3).

  a* = argmax_a max_k Q_selector(s', a, xi_t,k), valued at max_k Q_value(s', a*, xi_t,k). With the online network as
  selector this is double Q-learning, with the target network plain Q-learning; K = 1 is the ordinary target.

  Args:
    r_t: [] return over the n steps.
    discount_t: [] discount of the bootstrap, 0 after a termination.
    q_t_value: [K, A] the target network's values of s' under the target indices.
    q_t_selector: [K, A] the values that choose a*.
    quantile: in (0, 1]; 1 is the maximum over K.

  Returns:
    [] the target, with no gradient.
  """
  chex.assert_rank([r_t, discount_t, q_t_value, q_t_selector], [0, 0, 2, 2])
  chex.assert_equal_shape_suffix([q_t_value, q_t_selector], 1)
  a_t = jnp.argmax(optimistic(q_t_selector, quantile))
  value = optimistic(q_t_value[:, a_t], quantile)
  return jax.lax.stop_gradient(r_t + discount_t * value)


def perturbed(q_tm1: HyperQ, a_tm1: Array, noise_tm1: Array | None, sigma: float) -> tuple[Array, Array]:
  """Mean [] and factor [M] of Q(s, a, xi) - sigma <xi, z>, the part of the error that depends on the index."""
  chex.assert_rank([q_tm1.mean, q_tm1.factor, a_tm1], [1, 2, 0])
  chex.assert_type(a_tm1, int)
  # A sum over a one-hot, not an index: the gradient of indexing is a scatter, which is slow on every platform.
  taken = jax.nn.one_hot(a_tm1, q_tm1.mean.shape[0])  # [A]
  mean = jnp.sum(q_tm1.mean * taken)
  factor = jnp.sum(q_tm1.factor * taken[:, None], axis=0)  # [M]
  if noise_tm1 is not None:
    factor = factor - sigma * noise_tm1
  return mean, factor


def sampled_td_loss(
  q_tm1: HyperQ, a_tm1: Array, target: Array, xi: Array, noise_tm1: Array | None = None, sigma: float = 0.0
) -> Array:
  """Mean over N sampled indices of (Q(s, a, xi) - sigma <xi, z> - y0)^2 (Eq. 2-3).

  Args:
    q_tm1: values of s.
    a_tm1: [] the action taken.
    target: [N] y0 for each index; the same N times where the target index is independent.
    xi: [N, M] update indices.
    noise_tm1: [M] the transition's perturbation z, or None for none.
    sigma: scale of the perturbation.

  Returns:
    [] the loss.
  """
  chex.assert_rank([target, xi], [1, 2])
  chex.assert_equal_shape_prefix([target, xi], 1)
  mean, factor = perturbed(q_tm1, a_tm1, noise_tm1, sigma)
  return jnp.mean(jnp.square(mean + xi @ factor - target))


def exact_td_loss(
  q_tm1: HyperQ,
  a_tm1: Array,
  target: Array,
  second_moment: float,
  index_mean: float = 0.0,
  noise_tm1: Array | None = None,
  sigma: float = 0.0,
) -> Array:
  """Expectation over the index of (Q(s, a, xi) - sigma <xi, z> - y0)^2, in closed form.

  With f = factor(s, a) - sigma z and a target y0 that does not depend on xi,
  E[(mean + <f, xi> - y0)^2] = (mean - y0)^2 + 2 (mean - y0) <f, E xi> + v |f|^2. It is what Eq. 3 estimates with N
  samples, without their variance.

  Args:
    q_tm1: values of s.
    a_tm1: [] the action taken.
    target: [] y0, independent of the index.
    second_moment: v of E[xi xi^T] = v I.
    index_mean: mean of each component of xi (0 but for one-hot indices).
    noise_tm1: [M] the transition's perturbation z, or None for none.
    sigma: scale of the perturbation.

  Returns:
    [] the loss.
  """
  chex.assert_rank(target, 0)
  mean, factor = perturbed(q_tm1, a_tm1, noise_tm1, sigma)
  error = mean - target
  loss = jnp.square(error) + second_moment * jnp.sum(jnp.square(factor))
  if index_mean:
    loss = loss + 2.0 * index_mean * error * jnp.sum(factor)
  return loss
