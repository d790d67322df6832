"""Reference distributions of the index xi and perturbation distributions of the noise z (section 2, appendix).

Each distribution states its mean and second moment, E[xi] = mean 1 and E[xi xi^T] = v I, which is all that the exact
loss needs. Indices leave here normalised, once; nothing downstream scales them again.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperagent_jax.types import Array, PRNGKey

REFERENCES = ('sphere', 'gaussian', 'cube', 'coordinate', 'sparse', 'orthogonal', 'one_hot')
PERTURBATIONS = ('sphere', 'gaussian', 'cube', 'coordinate', 'sparse', 'orthogonal')


class Distribution(NamedTuple):
  """A distribution over R^M."""

  sample: Callable[[PRNGKey, int], Array]  # key, number of samples -> [num, M]
  mean: float  # every component's mean
  second_moment: float  # v of E[xi xi^T] = v I (for one_hot: the diagonal; off it the moment is 0 as well)
  radius: float | None = None  # of the sphere that is its support, if it is one


def _sphere(key: PRNGKey, num: int, dim: int) -> Array:
  x = jax.random.normal(key, (num, dim))
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True))


def _signs(key: PRNGKey, shape: tuple[int, ...]) -> Array:
  return jax.random.rademacher(key, shape, jnp.float32)


def _coordinate(key: PRNGKey, num: int, dim: int) -> Array:
  key_axis, key_sign = jax.random.split(key)
  axis = jax.random.randint(key_axis, (num,), 0, dim)
  return jax.nn.one_hot(axis, dim) * _signs(key_sign, (num, 1))


def _one_hot(key: PRNGKey, num: int, dim: int) -> Array:
  return jax.nn.one_hot(jax.random.randint(key, (num,), 0, dim), dim)


def _sparse(key: PRNGKey, num: int, dim: int, num_nonzero: int) -> Array:
  key_support, key_sign = jax.random.split(key)
  ranks = jnp.argsort(jax.random.uniform(key_support, (num, dim)), axis=-1)
  rank_of_axis = jnp.argsort(ranks, axis=-1)
  return jnp.where(rank_of_axis < num_nonzero, _signs(key_sign, (num, dim)), 0.0)


def haar_orthogonal(key: PRNGKey, dim: int) -> Array:
  """A matrix [M, M] uniform over the orthogonal group: a Gaussian one, its rows made orthonormal one after the other.

  Gram and Schmidt's way, each row twice, which leaves nothing but rounding. Not LAPACK's QR: on CPU, batches of it that
  run on several devices at once can wait for each other for ever (jaxlib 0.10.2).
  """
  rows = jax.random.normal(key, (dim, dim))

  def add(basis: Array, given: tuple[Array, Array]) -> tuple[Array, None]:
    number, row = given
    for _ in range(2):
      row = row - (basis @ row) @ basis  # rows to come are still 0
    return basis.at[number].set(row * jax.lax.rsqrt(jnp.sum(row * row))), None

  return jax.lax.scan(add, jnp.zeros_like(rows), (jnp.arange(dim), rows))[0]


def _orthogonal(key: PRNGKey, num: int, dim: int) -> Array:
  """Rows of Haar matrices drawn in blocks of M; the first row of a block is uniform on the unit sphere."""
  num_blocks = -(-num // dim)
  blocks = jax.vmap(haar_orthogonal, in_axes=(0, None))(jax.random.split(key, num_blocks), dim)  # [num_blocks, M, M]
  return blocks.reshape(num_blocks * dim, dim)[:num]


def make_reference(name: str, dim: int, num_nonzero: int = 1, unit_variance: bool = False) -> Distribution:
  """The reference distribution P_xi of the index.

  Args:
    name: one of `REFERENCES`. sphere and orthogonal have unit length (v = 1/M), one_hot is the ensemble's choice of
      a member (mean 1/M, v = 1/M), all others have v = 1.
    dim: index dimension M, at least 1.
    num_nonzero: non-zero entries of `sparse`, in [1, M].
    unit_variance: scale sphere and orthogonal by sqrt(M), so that v = 1 whatever M is.

  Raises:
    ValueError: on another name.
  """
  root = float(dim) ** 0.5
  long = root if unit_variance else 1.0
  unit_v = long**2 / dim
  match name:
    case 'gaussian':
      return Distribution(lambda key, num: jax.random.normal(key, (num, dim)), 0.0, 1.0)
    case 'sphere':
      return Distribution(lambda key, num: long * _sphere(key, num, dim), 0.0, unit_v, long)
    case 'cube':
      return Distribution(lambda key, num: _signs(key, (num, dim)), 0.0, 1.0)
    case 'coordinate':
      return Distribution(lambda key, num: root * _coordinate(key, num, dim), 0.0, 1.0)
    case 'sparse':
      scale = (dim / num_nonzero) ** 0.5
      return Distribution(lambda key, num: scale * _sparse(key, num, dim, num_nonzero), 0.0, 1.0)
    case 'orthogonal':
      return Distribution(lambda key, num: long * _orthogonal(key, num, dim), 0.0, unit_v, long)
    case 'one_hot':
      return Distribution(lambda key, num: _one_hot(key, num, dim), 1.0 / dim, 1.0 / dim)
  raise ValueError(f'reference distribution {name!r}: must be one of {", ".join(REFERENCES)}')


def make_perturbation(name: str, dim: int, num_nonzero: int = 1) -> Distribution:
  """The perturbation distribution P_z of the noise that a transition carries.

  All but gaussian, which is N(0, I), are vectors of unit length (v = 1/M): cube and sparse are divided by the square
  root of their number of non-zero entries, coordinate is a signed basis vector. `orthogonal` draws single vectors
  here; consecutive steps share a Haar matrix, whose rows the actor hands out (see `agent.py`).

  Raises:
    ValueError: on a name outside `PERTURBATIONS`.
  """
  unit_v = 1.0 / dim
  match name:
    case 'gaussian':
      return Distribution(lambda key, num: jax.random.normal(key, (num, dim)), 0.0, 1.0)
    case 'sphere' | 'orthogonal':
      return Distribution(lambda key, num: _sphere(key, num, dim), 0.0, unit_v)
    case 'cube':
      return Distribution(lambda key, num: _signs(key, (num, dim)) * dim**-0.5, 0.0, unit_v)
    case 'coordinate':
      return Distribution(lambda key, num: _coordinate(key, num, dim), 0.0, unit_v)
    case 'sparse':
      return Distribution(lambda key, num: _sparse(key, num, dim, num_nonzero) * num_nonzero**-0.5, 0.0, unit_v)
  raise ValueError(f'perturbation distribution {name!r}: must be one of {", ".join(PERTURBATIONS)}')
