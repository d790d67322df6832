"""The distributions of index, perturbation and prior factor, scaled as the theory needs them."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from hyperagent_jax.distributions import make_perturbation, make_reference
from hyperagent_jax.types import Array, PRNGKey


class Laws(NamedTuple):
  """What a factor is made of and read with."""

  draw_xi: Callable[[PRNGKey, int, int], Array]  # key, number, K -> [number, K, M], independent along the first axis
  draw_noise: Callable[[PRNGKey, int], Array]  # key, number -> [number, M] perturbations z
  draw_prior: Callable[[PRNGKey, int], Array]  # key, number -> [number, M] z0


def make_laws(reference: str, perturbation: str, index_dim: int, num_nonzero: int = 1) -> Laws:
  """Index of unit variance, perturbations with E|z|^2 = 1, prior factors of unit length.

  With one_hot, an ensemble's choice of a member, a member reads one component of each: the index is not scaled, and
  components of z and z0 have unit variance.

  Args:
    reference: one of `distributions.REFERENCES`.
    perturbation: one of `distributions.PERTURBATIONS`.
    index_dim: M.
    num_nonzero: of the sparse distributions.

  Raises:
    ValueError: on a distribution that does not exist, or a number out of its range.
  """
  if index_dim < 1 or not 1 <= num_nonzero <= index_dim:
    raise ValueError(f'index_dim={index_dim}, num_nonzero={num_nonzero}: must be at least 1, and from 1 to index_dim')
  index_of = make_reference(reference, index_dim, num_nonzero, unit_variance=True)
  noise_of = make_perturbation(perturbation, index_dim, num_nonzero)
  of_ensemble = reference == 'one_hot'
  length = (1.0 if of_ensemble else index_dim**-0.5) * noise_of.second_moment**-0.5  # E|z|^2 = M v
  prior_of = make_reference('gaussian' if of_ensemble else 'sphere', index_dim)

  def draw_xi(key: PRNGKey, number: int, num_indices: int) -> Array:
    if reference == 'orthogonal':  # deals rows of one matrix, which must not be shared by states
      return jax.vmap(index_of.sample, in_axes=(0, None))(jax.random.split(key, number), num_indices)
    return index_of.sample(key, number * num_indices).reshape(number, num_indices, index_dim)

  return Laws(draw_xi, lambda key, number: length * noise_of.sample(key, number), prior_of.sample)
