"""Gamma and Dirichlet samples, many at once.

jax.random.gamma draws one sample after the other on a CPU; an episode of posterior sampling needs tens of thousands.
"""

import jax
import jax.numpy as jnp

from hyperagent_jax.types import Array, PRNGKey


def _candidates(key: PRNGKey, d: Array) -> tuple[Array, Array]:
  """Samples proposed for Gamma(d + 1/3, 1), and whether they are accepted (Marsaglia and Tsang 2000)."""
  key_normal, key_uniform = jax.random.split(key)
  x = jax.random.normal(key_normal, d.shape, d.dtype)
  v = (1.0 + x * jax.lax.rsqrt(9.0 * d)) ** 3
  positive = v > 0.0
  log_v = jnp.log(jnp.where(positive, v, 1.0))
  # 1 - u is in (0, 1], so that its logarithm is finite.
  log_u = jnp.log1p(-jax.random.uniform(key_uniform, d.shape, d.dtype))
  return d * v, positive & (log_u < 0.5 * x * x + d - d * v + d * log_v)


def log_gamma(key: PRNGKey, shape: Array) -> Array:
  """Logarithms of samples of Gamma(shape, 1), one for each entry of `shape`, which are all above 0.

  Marsaglia and Tsang (2000): with d = a - 1/3 and x normal, d (1 + x / sqrt(9 d))^3 is accepted 95 times in 100 or
  more. Rejected entries are drawn again, a sixteenth of all at a time, until none is left. For a below 1 a sample of
  a + 1 times U^(1/a) is one of a, which can be far below the smallest number but not its logarithm.
  """
  key_boost, key_first, key_loop = jax.random.split(key, 3)
  a = shape.reshape(-1)
  d = jnp.where(a < 1.0, a + 1.0, a) - 1.0 / 3.0
  room = max(a.size // 16, 1)

  def redraw(carry: tuple[PRNGKey, Array, Array]) -> tuple[PRNGKey, Array, Array]:
    key, sample, accepted = carry
    key, key_draw = jax.random.split(key)
    rejected = jnp.nonzero(~accepted, size=room, fill_value=a.size)[0]
    proposed, fits = _candidates(key_draw, d.at[rejected].get(mode='fill', fill_value=1.0))
    # Entries that do not fit are written too, and stay rejected.
    return key, sample.at[rejected].set(proposed, mode='drop'), accepted.at[rejected].set(fits, mode='drop')

  _, sample, _ = jax.lax.while_loop(lambda carry: ~jnp.all(carry[2]), redraw, (key_loop, *_candidates(key_first, d)))
  # 1 - u is in (0, 1], so that its logarithm is finite.
  boost = jnp.log1p(-jax.random.uniform(key_boost, a.shape, d.dtype)) / a
  return (jnp.log(sample) + jnp.where(a < 1.0, boost, 0.0)).reshape(shape.shape)


def standard_gamma(key: PRNGKey, shape: Array) -> Array:
  """Samples of Gamma(shape, 1), one for each entry of `shape`, which are all above 0."""
  return jnp.exp(log_gamma(key, shape))


def dirichlet(key: PRNGKey, alpha: Array) -> Array:  # [..., D] -> [..., D]
  """A sample of the Dirichlet distribution with parameters alpha > 0 along the last axis."""
  return jax.nn.softmax(log_gamma(key, alpha), axis=-1)
