"""Counters near the end of an int32, seeds near the end of a key: right, or refused, and never something else."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperagent_jax as ha
from hyperagent_jax.baselines import ddqn
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.interaction import MAX_COUNT, seed_key
from hyperagent_jax.replay import count_rows, make_replay
from hyperagent_jax.types import FIRST, LAST, MID, Environment, TimeStep

SIZE = 5
CONFIG = dataclasses.replace(
  ha.presets.deep_sea(SIZE), hidden_sizes=(4,), batch_size=4, min_replay=16, replay_capacity=60
)
NEAR_THE_END = 2**31 - 40


def make_runner(config=CONFIG):
  agent, replay = ha.make(config, 2), ha.make_replay_for(config)
  return ha.make_runner(agent, ha.make_deep_sea(SIZE), replay, config, num_eval_episodes=2, devices=jax.devices()[:1])


def env_params(num_seeds=1):
  return jax.tree.map(lambda *x: jnp.stack(x), *[deep_sea.make_params(SIZE, i) for i in range(num_seeds)])


# --------------------------------------------------------------------------------------------------------------- replay


@functools.cache
def compiled(num_kept, num_envs, n):
  replay = make_replay(num_kept * num_envs, num_envs, n, 0.9)
  return replay, jax.jit(replay.add), jax.jit(replay.sample)


def fill(num_kept, num_envs, n, num_rows, counters_from=None):
  """Replay after so many rows; counters as a version that let them grow would have had them after half of these."""
  replay, add, sample = compiled(num_kept, num_envs, n)
  rng, state = np.random.default_rng(0), None
  for t in range(num_rows):
    if state is not None and counters_from is not None and t == num_rows // 2:
      size = int(state.num_pushed - state.num_dropped)
      # Whole rounds of each ring, so that places are the same.
      rows = counters_from - counters_from % num_kept
      places = counters_from - counters_from % (num_kept * num_envs)
      dropped = places + int(state.num_dropped) % (num_kept * num_envs)
      state = state._replace(
        num_added=jnp.int32(rows + int(state.num_added) % num_kept),
        num_dropped=jnp.int32(dropped),
        num_pushed=jnp.int32(dropped + size),
      )
    kinds = [LAST if (t + e) % 5 == 4 else FIRST if (t + e) % 5 == 0 or t == 0 else MID for e in range(num_envs)]
    step = TimeStep(
      jnp.asarray(kinds), jnp.asarray(rng.normal(size=num_envs)), jnp.ones(num_envs), jnp.arange(num_envs) + 100.0 * t
    )
    action = jnp.zeros(num_envs, jnp.int32)
    state = replay.init(step, action, ()) if state is None else state
    state = add(state, step, action, ())
  bits = jnp.arange(num_kept * num_envs, dtype=jnp.uint32)
  return state, jax.device_get(sample(state, bits))


@pytest.mark.parametrize('n', [1, 3])
@pytest.mark.parametrize('num_envs', [1, 4])
def test_replay_whose_counters_were_about_to_overflow_draws_what_any_other_draws(num_envs, n):
  """A checkpoint of version 0.1 may hold such counters."""
  state, expected = fill(11, num_envs, n, 120)
  old, found = fill(11, num_envs, n, 120, counters_from=2**31 - 20 * num_envs)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(old.rows), jax.device_get(state.rows))


def test_counters_of_replay_never_grow_past_twice_their_rings():
  num_kept, num_envs = 7, 3
  for num_rows in (6, 7, 8, 14, 15, 100):
    state, _ = fill(num_kept, num_envs, 1, num_rows)
    num_added, pushed, dropped = (int(x) for x in (state.num_added, state.num_pushed, state.num_dropped))
    assert num_added % num_kept == num_rows % num_kept
    assert num_added == num_rows if num_rows < 2 * num_kept else num_kept <= num_added < 2 * num_kept
    assert 0 <= dropped < num_kept * num_envs and 0 <= pushed - dropped <= num_kept * num_envs


@pytest.mark.parametrize('more', [0, 1, 6, 13, 14, 2**31 - 1])
def test_rows_of_a_seed_that_rests_are_counted_modulo_the_ring(more):
  state, _ = fill(7, 1, 1, 9)
  counted = count_rows(state, more)
  assert int(counted.num_added) % 7 == (9 + more) % 7 and 7 <= int(counted.num_added) < 14


def test_a_capacity_whose_places_are_no_int32_is_refused():
  with pytest.raises(ValueError, match=rf'capacity={2**29}: must be below {2**29}'):
    make_replay(2**29, 1, 1, 0.9)


# --------------------------------------------------------------------------------------------------------------- runner


@pytest.mark.parametrize('num_envs', [1, 4])
def test_a_run_goes_up_to_the_last_count_and_is_refused_before_it_would_pass_it(num_envs):
  config = dataclasses.replace(CONFIG, num_envs=num_envs)
  runner, last = make_runner(config), MAX_COUNT // num_envs
  state = runner.prefill(runner.init([0], env_params()), 30)
  statistics = state.statistics._replace(
    num_interactions=state.statistics.num_interactions * 0 + num_envs * (last - 40)
  )
  state = state._replace(step=jnp.int32(last - 10), statistics=statistics)
  for call in (runner.run, runner.prefill):
    with pytest.raises(ValueError, match=rf'num_steps=11: must be in \[0, 10\] at time step {last - 10}'):
      call(state, 11)
  done = runner.run(state, 10)
  assert int(done.step) == last and int(done.statistics.num_updates[0]) == 10 * num_envs
  assert num_envs * (last - 40) < int(done.statistics.num_interactions[0]) <= MAX_COUNT
  with pytest.raises(ValueError, match=r'num_steps=1: must be in \[0, 0\]'):
    runner.run(done, 1)


@pytest.mark.parametrize('num_steps', [-1, 2**31, 10**12])
def test_numbers_of_steps_that_no_counter_holds_are_refused(num_steps):
  runner = make_runner()
  state = runner.prefill(runner.init([0], env_params()), 30)
  with pytest.raises(ValueError, match=f'num_steps={num_steps}: must be in'):
    runner.run(state, num_steps)


def test_training_without_a_whole_transition_in_replay_is_refused():
  runner = make_runner()
  for steps in (0, 1):
    state = runner.prefill(runner.init([0], env_params()), steps)
    if steps == 0:
      with pytest.raises(ValueError, match='replay holds no whole transition to learn from: prefill first'):
        runner.run(state, 5)
  assert int(runner.run(state, 5).step) == 6


def test_epsilon_stays_at_its_end_when_the_count_of_acts_overflows():
  config = ddqn.deep_sea(SIZE)
  for count in (10**9, 2**31 - 1, -(2**31), -5):
    assert float(ddqn.epsilon_greedy(config, jnp.int32(count), False)) == pytest.approx(config.epsilon_final)
  assert float(ddqn.epsilon_greedy(config, jnp.int32(0), False)) == 1.0


# ---------------------------------------------------------------------------------------------------------------- seeds


def test_every_seed_that_a_key_can_hold_has_a_key_of_its_own_and_others_are_refused():
  seeds = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
  keys = {tuple(np.asarray(jax.random.key_data(seed_key(seed, 'threefry2x32')))) for seed in seeds}
  assert len(keys) == len(seeds)
  for seed in (-1, 2**32, 2**32 + 1, 2**64):
    with pytest.raises(ValueError, match=rf'seed={seed}: must be in \[0, {2**32 - 1}\]'):
      seed_key(seed, 'threefry2x32')


@pytest.mark.parametrize('impl', ['threefry2x32', 'rbg', 'unsafe_rbg'])
def test_the_key_of_a_seed_is_the_one_that_jax_makes_of_it(impl):
  for seed in (0, 3, 2**31 - 1):
    ours, theirs = (jax.random.key_data(key) for key in (seed_key(seed, impl), jax.random.key(seed, impl=impl)))
    np.testing.assert_array_equal(ours, theirs)


# ----------------------------------------------------------------------------------------------------------- evaluation


def endless(length):
  """Episodes of so many steps, or without an end; every step is worth 1."""

  def reset(params, key):
    del params, key
    return jnp.int32(0), TimeStep(jnp.int32(FIRST), jnp.float32(0), jnp.float32(1), jnp.int32(0))

  def step(params, state, action, key):
    del params, action, key
    over = jnp.asarray(False) if length is None else state + 1 >= length
    return state + 1, TimeStep(jnp.where(over, LAST, MID), jnp.float32(1), jnp.float32(1), jnp.int32(0))

  return Environment('endless', reset, step, 2, None, None)


@pytest.mark.parametrize(
  ('length', 'expected', 'cut'), [(None, 50, True), (50, 50, False), (51, 50, True), (7, 7, False)]
)
def test_an_episode_without_an_end_is_cut_in_evaluation_and_counted(length, expected, cut):
  agent = ha.make(CONFIG, 2)
  learner = agent.init(jax.random.key(0), jnp.int32(0))
  evaluate = jax.jit(ha.make_evaluator(agent, endless(length), 3, max_steps=50))
  episodes = jax.device_get(evaluate(learner, (), jax.random.key(1)))
  np.testing.assert_array_equal(episodes.lengths, expected)
  np.testing.assert_array_equal(episodes.returns, expected)
  np.testing.assert_array_equal(episodes.cut, cut)
