"""The host driver and the adapters: the same computation as the fused runner, on bsuite's own environment."""

import itertools

import dm_env
import jax
import numpy as np
import pytest
from bsuite.environments.deep_sea import DeepSea

import hyperagent_jax as ha
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.interaction import seed_key

SIZE = 6


def make(**changes):
  config = ha.presets.deep_sea(SIZE)
  config = config.__class__(**{**config.__dict__, 'min_replay': 16, 'batch_size': 8, 'hidden_sizes': (8, 8), **changes})
  agent = ha.make_hyperagent(ha.make_network(config, 2), ha.make_optimizer(config), config)
  replay = ha.make_replay(400, 1, config.n_step, config.discount)
  return config, agent, replay


def test_host_and_fused_drivers_give_the_same_parameters():
  config, agent, replay = make(sigma=0.1, n_step=2, update_indices='3')
  host = ha.HostAgent(agent, replay, 2, config, seed=3)
  environment = ha.IntegerObservations(DeepSea(SIZE, mapping_seed=3))
  num_steps = 150
  for _ in itertools.islice(ha.run_loop(host, environment), num_steps + 1):
    pass

  runner = ha.make_runner(agent, ha.make_deep_sea(SIZE), replay, config)
  params = jax.tree.map(lambda x: x[None], deep_sea.make_params(SIZE, 3))
  state = runner.init([3], params)
  prefill = ha.steps_for(config.min_replay, SIZE)
  state = runner.run(runner.prefill(state, prefill), num_steps - prefill)

  fused = ha.select_seed(state, 0)
  assert int(fused.learner.num_updates) == int(host.learner.num_updates) == num_steps - prefill
  assert host.num_interactions == int(fused.statistics.num_interactions)
  for a, b in zip(jax.tree.leaves(host.learner.params), jax.tree.leaves(fused.learner.params), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(host.step(environment.reset()) in (0, 1), True)


def test_jax_environment_equals_bsuite_through_dm_env():
  ours = ha.JaxEnvironment(ha.make_deep_sea(SIZE), deep_sea.make_params(SIZE, 42), seed_key(0, 'threefry2x32'))
  theirs = ha.IntegerObservations(DeepSea(SIZE, mapping_seed=42))
  rng = np.random.default_rng(0)
  for step in range(4 * SIZE):
    action = int(rng.integers(2))
    a, b = (ours.step(action), theirs.step(action)) if step else (ours.reset(), theirs.reset())
    assert a.step_type == b.step_type
    assert a.observation == b.observation
    assert a.discount == b.discount
    assert (a.reward is None and b.reward is None) or a.reward == pytest.approx(b.reward)
  assert ours.observation_spec().num_values == theirs.observation_spec().num_values == SIZE**2 + 1
  assert ours.action_spec().num_values == 2


def test_first_step_of_a_jax_environment_resets_and_bad_actions_are_named():
  environment = ha.JaxEnvironment(ha.make_deep_sea(SIZE), deep_sea.make_params(SIZE, 0), seed_key(0, 'threefry2x32'))
  assert environment.step(0).first()
  with pytest.raises(ValueError, match=r'action=2: must be in \[0, 2\)'):
    environment.step(2)


class Truncating(dm_env.Environment):
  """Three steps of reward 1 with array observations, then truncation."""

  def __init__(self):
    self._t = 0

  def reset(self):
    self._t = 0
    return dm_env.restart(self._observe())

  def step(self, action):
    self._t += 1
    if self._t == 4:
      return self.reset()
    if self._t == 3:
      return dm_env.truncation(1.0, self._observe(), discount=1.0)
    return dm_env.transition(1.0, self._observe())

  def _observe(self):
    return np.full((2,), self._t, np.float32)

  def observation_spec(self):
    return dm_env.specs.Array((2,), np.float32)

  def action_spec(self):
    return dm_env.specs.DiscreteArray(2)


@pytest.mark.slow
def test_host_bootstraps_from_truncated_episodes_of_any_dm_env():
  config = ha.presets.vector_observations()
  config = config.__class__(**{**config.__dict__, 'min_replay': 8, 'batch_size': 16, 'hidden_sizes': (8,)})
  agent = ha.make_hyperagent(ha.make_network(config, 2), ha.make_optimizer(config), config)
  replay = ha.make_replay(100, 1, 1, config.discount)
  host = ha.HostAgent(agent, replay, 2, config, seed=0)
  for _ in itertools.islice(ha.run_loop(host, Truncating()), 40):
    pass
  batch = replay.sample(host._carry.replay, np.arange(29, dtype=np.uint32))
  # The step into the truncated state keeps its discount, and no transition crosses into the next episode.
  assert set(np.asarray(batch.discount_t)) == {np.float32(0.99)}
  assert np.all(np.asarray(batch.o_t)[:, 0] == np.asarray(batch.o_tm1)[:, 0] + 1)
  assert np.isfinite(float(host.losses.loss))


def test_host_refuses_several_environments():
  config, agent, replay = make(num_envs=2)
  with pytest.raises(ValueError, match='num_envs=2'):
    ha.HostAgent(agent, replay, 2, config, seed=0)
