"""Reference and perturbation distributions against their declared moments and supports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax import distributions
from hyperagent_jax.distributions import make_perturbation, make_reference

DIM = 3
NUM = 60_000

REFERENCE_CASES = [(name, unit) for name in distributions.REFERENCES for unit in (False, True)]


def draw(distribution, num=NUM, seed=0):
  return np.asarray(distribution.sample(jax.random.key(seed), num), np.float64)


def check_moments(distribution, x):
  assert x.shape == (NUM, DIM)
  # Six standard errors; the fourth moment of every distribution here is at most 3 v^2 M.
  tolerance = 6 * (3 * DIM) ** 0.5 / NUM**0.5
  v = distribution.second_moment
  np.testing.assert_allclose(x.mean(0), np.full(DIM, distribution.mean), atol=tolerance * v**0.5)
  np.testing.assert_allclose(x.T @ x / NUM, v * np.eye(DIM), atol=tolerance * v)


@pytest.mark.parametrize('name, unit_variance', REFERENCE_CASES)
def test_reference_has_its_declared_mean_and_second_moment(name, unit_variance):
  reference = make_reference(name, DIM, num_nonzero=2, unit_variance=unit_variance)
  check_moments(reference, draw(reference))


@pytest.mark.parametrize('name', distributions.PERTURBATIONS)
def test_perturbation_has_its_declared_mean_and_second_moment(name):
  perturbation = make_perturbation(name, DIM, num_nonzero=2)
  check_moments(perturbation, draw(perturbation))


@pytest.mark.parametrize(
  'name, unit_variance, mean, second_moment',
  [
    ('gaussian', False, 0.0, 1.0),
    ('sphere', False, 0.0, 1 / 3),
    ('sphere', True, 0.0, 1.0),
    ('cube', False, 0.0, 1.0),
    ('coordinate', False, 0.0, 1.0),
    ('sparse', False, 0.0, 1.0),
    ('orthogonal', False, 0.0, 1 / 3),
    ('orthogonal', True, 0.0, 1.0),
    ('one_hot', False, 1 / 3, 1 / 3),
  ],
)
def test_declared_moments_of_references_are_the_papers(name, unit_variance, mean, second_moment):
  reference = make_reference(name, DIM, num_nonzero=2, unit_variance=unit_variance)
  assert reference.mean == pytest.approx(mean, abs=1e-12)
  assert reference.second_moment == pytest.approx(second_moment, rel=1e-12)


@pytest.mark.parametrize('name', distributions.PERTURBATIONS)
def test_declared_moments_of_perturbations_are_the_papers(name):
  perturbation = make_perturbation(name, DIM, num_nonzero=2)
  assert perturbation.mean == 0.0
  assert perturbation.second_moment == pytest.approx(1.0 if name == 'gaussian' else 1 / 3, rel=1e-12)


@pytest.mark.parametrize('dim', [1, 5])
@pytest.mark.parametrize(
  'make, name, squared_norm',
  [
    (make_reference, 'sphere', lambda m: 1),
    (make_reference, 'orthogonal', lambda m: 1),
    (make_reference, 'one_hot', lambda m: 1),
    (make_reference, 'cube', lambda m: m),
    (make_reference, 'coordinate', lambda m: m),
    (make_reference, 'sparse', lambda m: m),
    (make_perturbation, 'sphere', lambda m: 1),
    (make_perturbation, 'orthogonal', lambda m: 1),
    (make_perturbation, 'cube', lambda m: 1),
    (make_perturbation, 'coordinate', lambda m: 1),
    (make_perturbation, 'sparse', lambda m: 1),
  ],
)
def test_bounded_distributions_have_one_length(make, name, squared_norm, dim):
  x = draw(make(name, dim), 11)
  assert x.shape == (11, dim)
  np.testing.assert_allclose((x * x).sum(1), squared_norm(dim), rtol=1e-5)


@pytest.mark.parametrize('name', ['sphere', 'orthogonal'])
def test_unit_variance_scales_unit_vectors_by_root_m_and_nothing_else(name):
  short, long = make_reference(name, 4), make_reference(name, 4, unit_variance=True)
  np.testing.assert_allclose(draw(long, 10), 2.0 * draw(short, 10), rtol=1e-6)


@pytest.mark.parametrize('name', ['gaussian', 'cube', 'coordinate', 'sparse', 'one_hot'])
def test_unit_variance_leaves_other_references_alone(name):
  np.testing.assert_array_equal(
    draw(make_reference(name, 4, unit_variance=True), 10), draw(make_reference(name, 4), 10)
  )


@pytest.mark.parametrize('num', [3, 12])
def test_orthogonal_reference_draws_orthonormal_blocks_of_m_rows(num):
  x = draw(make_reference('orthogonal', 4), num)
  assert x.shape == (num, 4)
  for start in range(0, num, 4):
    block = x[start : start + 4]
    np.testing.assert_allclose(block @ block.T, np.eye(len(block)), atol=1e-5)
  if num == 12:  # different blocks
    assert not np.allclose(x[:4], x[4:8])


def test_haar_matrix_is_orthogonal_and_each_entry_is_symmetric_about_zero():
  q = np.asarray(
    jax.vmap(distributions.haar_orthogonal, in_axes=(0, None))(jax.random.split(jax.random.key(3), 5000), 3)
  )
  np.testing.assert_allclose(np.einsum('nij,nkj->nik', q, q), np.broadcast_to(np.eye(3), q.shape), atol=1e-5)
  # QR without the sign correction has diagonal entries of one sign.
  np.testing.assert_allclose(q.mean(0), 0.0, atol=6 * (1 / 3 / 5000) ** 0.5)
  np.testing.assert_allclose((np.linalg.det(q) > 0).mean(), 0.5, atol=6 * 0.5 / 5000**0.5)


@pytest.mark.parametrize(
  'make, name, value',
  [
    (make_reference, 'cube', 1.0),
    (make_perturbation, 'cube', 4**-0.5),
    (make_reference, 'coordinate', 4**0.5),
    (make_perturbation, 'coordinate', 1.0),
    (make_reference, 'sparse', (4 / 3) ** 0.5),
    (make_perturbation, 'sparse', 3**-0.5),
    (make_reference, 'one_hot', 1.0),
  ],
)
def test_support_of_discrete_distributions(make, name, value):
  x = draw(make(name, 4, num_nonzero=3) if name == 'sparse' else make(name, 4), 4000)
  num_nonzero = {'cube': 4, 'sparse': 3}.get(name, 1)
  nonzero = x != 0
  assert set(nonzero.sum(1)) == {num_nonzero}
  np.testing.assert_allclose(np.abs(x[nonzero]), value, rtol=1e-6)
  # Every support and, but for one_hot, both signs on every axis occur equally often.
  np.testing.assert_allclose(nonzero.mean(0), num_nonzero / 4, atol=0.05)
  np.testing.assert_allclose((x > 0).sum(0) / nonzero.sum(0), 1.0 if name == 'one_hot' else 0.5, atol=0.06)


@pytest.mark.parametrize('name', distributions.REFERENCES)
def test_samples_are_functions_of_the_key_and_keys_differ(name):
  reference = make_reference(name, 4, num_nonzero=2)
  np.testing.assert_array_equal(draw(reference, 40, seed=1), draw(reference, 40, seed=1))
  assert not np.array_equal(draw(reference, 40, seed=1), draw(reference, 40, seed=2))
  assert reference.sample(jax.random.key(0), 2).dtype == jnp.float32


@pytest.mark.parametrize('make, name', [(make_reference, 'spher'), (make_perturbation, 'one_hot')])
def test_unknown_name_is_an_error_that_names_it_and_the_choices(make, name):
  with pytest.raises(ValueError, match=f'{name}.*sphere, gaussian'):
    make(name, 4)
