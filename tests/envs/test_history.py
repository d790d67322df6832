"""Histories of observations: those of XLA, of dm_env and of replay are one and the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax import types as types_lib
from hyperagent_jax.envs import bsuite as envs
from hyperagent_jax.envs import history
from hyperagent_jax.replay import make_replay


def test_replay_puts_histories_together_as_the_agent_saw_them():
  task, length, n_step = envs.make_bsuite('memory_len/2'), 4, 2
  environment = types_lib.batched(history.with_history(task.environment, length), 1)
  replay = make_replay(capacity=41, num_envs=1, n_step=n_step, discount=0.9, frame_stack=length)
  step = jax.jit(environment.step)
  add = jax.jit(replay.add)
  state, timestep = environment.reset(task.params, jax.random.split(jax.random.key(0), 1))
  seen, kept = [], replay.init(timestep, jnp.zeros(1, jnp.int32), ())
  for i in range(90):  # the ring goes round twice
    seen.append(jax.tree.map(lambda x: np.asarray(x)[0], timestep))
    kept = add(kept, timestep, jnp.zeros(1, jnp.int32), ())
    state, timestep = step(task.params, state, jnp.zeros(1, jnp.int32), jax.random.split(jax.random.key(i), 1))
  starts = [t for t in range(90 - n_step) if seen[t].step_type != types_lib.LAST]
  num = int(replay.size(kept))
  assert 20 < num < len(starts)
  batch = replay.sample(kept, jnp.arange(num, dtype=jnp.uint32))
  for i, t in enumerate(starts[-num:]):
    np.testing.assert_array_equal(batch.o_tm1[i], seen[t].observation)
    end = next(u for u in (t + 1, t + 2) if seen[u].step_type == types_lib.LAST or u == t + n_step)
    np.testing.assert_array_equal(batch.o_t[i], seen[end].observation)


def test_a_history_is_of_one_array_and_not_empty():
  environment = envs.make_bsuite('memory_len/1').environment
  with pytest.raises(ValueError, match='a history of 0 observations: must be at least 1'):
    history.with_history(environment, 0)
  with pytest.raises(ValueError, match='one array each; these are dicts'):
    history.with_history(environment._replace(observation_spec={'a': environment.observation_spec}), 2)
  with pytest.raises(ValueError, match='these are one of a number of states'):
    history.with_history(envs.make_bsuite('deep_sea/0').environment, 2)


def test_a_history_in_xla_is_the_one_behind_dm_env():
  from bsuite.environments.memory_chain import MemoryChain

  task = envs.make_bsuite('memory_len/2')
  environment = history.with_history(task.environment, 3)
  theirs = history.HistoryEnvironment(MemoryChain(3), 3)
  assert environment.observation_spec.shape == theirs.observation_spec().shape == (3, 1, 3)
  state, ours = environment.reset(task.params, jax.random.key(0))
  expected = theirs.reset()
  for step in range(12):
    known = np.asarray(ours.observation)[..., 0]  # the time, which nothing random changes
    np.testing.assert_allclose(known, expected.observation[..., 0], atol=1e-6)
    assert ours.step_type == expected.step_type
    np.testing.assert_array_equal(np.asarray(history.without_history(state).over), expected.last())
    state, ours = environment.step(task.params, state, 0, jax.random.key(step))
    expected = theirs.step(0)
  first = types_lib.from_dm_env(theirs.reset())
  assert (first.observation[:2] == 0).all() and (first.observation[2] != 0).any()
