"""DeepSea in JAX against bsuite's, step for step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bsuite.environments import deep_sea as bsuite_deep_sea

from hyperagent_jax import types
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.envs.deep_sea import DeepSeaState


def code(observation):
  """bsuite's grid as this library's integer."""
  flat = np.ravel(observation)
  assert flat.sum() in (0, 1)
  return int(flat.argmax()) if flat.any() else flat.size


class Recorder:
  """A random state that remembers what it gave."""

  def __init__(self, seed):
    self._rng = np.random.RandomState(seed)
    self.slip = self.noise = None

  def clear(self):
    self.slip = self.noise = None

  def rand(self):
    self.slip = self._rng.rand()
    return self.slip

  def randn(self):
    self.noise = self._rng.randn()
    return self.noise


@functools.cache
def rollout(size, deterministic=True, reward_noise=True):
  """A compiled function (params, actions, key) -> time steps, the first included."""
  environment = deep_sea.make_deep_sea(size, deterministic, reward_noise)

  def run(params, actions, key):
    state, first = environment.reset(params, key)
    body = lambda s, x: environment.step(params, s, *x)
    _, steps = jax.lax.scan(body, state, (actions, jax.random.split(key, actions.shape[0])))
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, steps)

  return jax.jit(run)


@pytest.mark.parametrize('size', [2, 5, 20])
@pytest.mark.parametrize('mapping_seed', [0, 7, 42])
def test_trajectories_equal_bsuites_over_several_episodes(size, mapping_seed):
  theirs = bsuite_deep_sea.DeepSea(size, mapping_seed=mapping_seed)
  params = deep_sea.make_params(size, mapping_seed)
  np.testing.assert_array_equal(params.right_action, theirs._action_mapping)
  rng = np.random.RandomState(1)
  # Random actions seldom leave the left side: of four episodes every other one keeps right until a late mistake.
  expected, actions = [theirs.reset()], []
  for t in range(4 * (size + 1)):
    episode, row = divmod(t, size + 1)
    keeps_right = episode % 2 and row < size and (episode == 1 or row < size - 1)
    action = int(theirs._action_mapping[row, row]) if keeps_right else rng.randint(2)
    actions.append(action)
    expected.append(theirs.step(action))
  ours = jax.tree.map(np.asarray, rollout(size)(params, jnp.asarray(actions), jax.random.key(0)))
  np.testing.assert_array_equal(ours.step_type, [t.step_type for t in expected])
  np.testing.assert_array_equal(ours.observation, [code(t.observation) for t in expected])
  np.testing.assert_allclose(ours.reward, [t.reward or 0.0 for t in expected], rtol=1e-6)
  np.testing.assert_array_equal(ours.discount, [1.0 if t.discount is None else t.discount for t in expected])
  assert ours.reward.max() > 0.9  # the corner was reached
  assert list(ours.step_type).count(types.FIRST) == 4 + 1
  converted = [types.from_dm_env(t) for t in expected]
  np.testing.assert_array_equal(ours.discount, [t.discount for t in converted])
  np.testing.assert_allclose(ours.reward, [t.reward for t in converted], rtol=1e-6)


@pytest.mark.parametrize('size', [2, 5])
def test_stochastic_moves_equal_bsuites_given_the_same_random_numbers(size):
  theirs = bsuite_deep_sea.DeepSea(size, deterministic=False, mapping_seed=3)
  recorder = theirs._rng = Recorder(0)
  params = deep_sea.make_params(size, 3)
  transition = jax.jit(deep_sea.transition)
  rng = np.random.RandomState(2)
  num_slips = num_noise = 0
  for _ in range(60):
    theirs.reset()
    state = DeepSeaState(jnp.int32(0), jnp.int32(0))
    for _ in range(size):
      recorder.clear()
      row, column = theirs._row, theirs._column
      right = rng.rand() < 0.8
      action = int(theirs._action_mapping[row, column] if right else 1 - theirs._action_mapping[row, column])
      expected = theirs.step(action)
      # What bsuite does not draw must not matter: a slip on the way left, noise outside the lower corners.
      slip = 0.0 if recorder.slip is None else recorder.slip
      noise = 1e3 if recorder.noise is None else recorder.noise
      state, reward = transition(params, state, action, slip, noise)
      assert (int(state.row), int(state.column)) == (theirs._row, theirs._column)
      np.testing.assert_allclose(reward, expected.reward, rtol=1e-5, atol=1e-6)
      num_slips += right and recorder.slip <= 1 / size
      num_noise += recorder.noise is not None
  assert num_slips > 10 and num_noise > 10


def right_actions(size):
  return jnp.asarray([[1] * size + [0]] * 400, jnp.int32).ravel()


def test_stochastic_environment_slips_once_in_n_moves_and_has_standard_normal_noise_in_the_corners():
  size = 4
  params = deep_sea.DeepSeaParams(jnp.ones((size, size), jnp.int32))
  steps = jax.tree.map(np.asarray, rollout(size, False)(params, right_actions(size), jax.random.key(0)))
  columns = steps.observation[1:].reshape(400, size + 1)[:, : size - 1] % size  # after moves 1, 2, 3
  moved = np.diff(np.concatenate([np.zeros((400, 1), int), columns], axis=1), axis=1)
  assert set(np.unique(moved)) == {0, 1}
  np.testing.assert_allclose(moved.mean(), 1 - 1 / size, atol=6 * 0.43 / 1200**0.5)
  last_reward = steps.reward[1:].reshape(400, size + 1)[:, size - 1]
  in_corner = columns[:, -1] == size - 1
  noise = last_reward[in_corner] - 1.0 + 0.01 / size
  assert in_corner.sum() > 100
  np.testing.assert_allclose(noise.mean(), 0, atol=6 / in_corner.sum() ** 0.5)
  np.testing.assert_allclose(noise.std(), 1, atol=6 * (0.5 / in_corner.sum()) ** 0.5)
  correlation = np.corrcoef(noise[:-1], noise[1:])[0, 1]
  assert abs(correlation) < 0.35
  between = last_reward[~in_corner & (columns[:, -1] > 0)]
  np.testing.assert_allclose(between, -0.01 / size, rtol=1e-5)


def test_leaving_reward_noise_out_changes_rewards_only():
  size = 4
  params = deep_sea.DeepSeaParams(jnp.ones((size, size), jnp.int32))
  noisy = rollout(size, False)(params, right_actions(size), jax.random.key(0))
  quiet = rollout(size, False, False)(params, right_actions(size), jax.random.key(0))
  np.testing.assert_array_equal(noisy.observation, quiet.observation)
  assert set(np.round(np.asarray(quiet.reward), 4)) == {0.0, np.float32(-0.0025), np.float32(0.9975)}
  assert np.asarray(noisy.reward).max() > 1.5


def test_solved_return():
  assert deep_sea.solved_return(10) == pytest.approx(0.9899)
  assert deep_sea.solved_return(100) == pytest.approx(0.9899)
  # 0.9 ((9/10)^9 - 0.01)
  assert deep_sea.solved_return(10, deterministic=False) == pytest.approx(0.9 * (0.387420489 - 0.01))


@pytest.mark.parametrize('size', [2, 20, 100])
def test_only_the_best_policy_reaches_the_solved_return_in_float32(size):
  params = deep_sea.DeepSeaParams(jnp.ones((size, size), jnp.int32))
  best = np.float32(0)
  for reward in np.asarray(rollout(size)(params, jnp.ones(size, jnp.int32), jax.random.key(0)).reward):
    best = np.float32(best + reward)
  assert best >= deep_sea.solved_return(size)
  # One failed episode of a hundred is noticed.
  assert (99 * best + 0) / 100 < deep_sea.solved_return(size)


def test_environment_declares_what_it_returns():
  environment = deep_sea.make_deep_sea(5)
  assert environment.num_actions == 2 and environment.episode_length == 5
  spec = environment.observation_spec
  steps = rollout(5)(deep_sea.make_params(5, 0), jnp.zeros(12, jnp.int32), jax.random.key(0))
  for observation in np.asarray(steps.observation):
    spec.validate(observation)
  assert int(np.max(steps.observation)) == 25 == spec.maximum
  assert steps.step_type.dtype == jnp.int32 and steps.reward.dtype == steps.discount.dtype == jnp.float32
  names = {deep_sea.make_deep_sea(5).name, deep_sea.make_deep_sea(6).name, deep_sea.make_deep_sea(5, False).name}
  assert len(names) == 3


def test_size_below_two_is_refused():
  with pytest.raises(ValueError, match=r'size=1.*at least 2'):
    deep_sea.make_deep_sea(1)
