"""What is made from a configuration alone, and what its pure functions refuse when they are traced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperagent_jax as ha
from hyperagent_jax import losses, types
from hyperagent_jax.interaction import UpdateSchedule, update_schedule
from hyperagent_jax.types import HyperQ, Transition

SIZE = 4
CONFIG = dataclasses.replace(ha.presets.deep_sea(SIZE), hidden_sizes=(5,), batch_size=4, min_replay=6)
BATCH = Transition(
  o_tm1=jnp.array([0, 4, 5]),
  a_tm1=jnp.array([0, 1, 1]),
  r_t=jnp.array([0.0, 0.5, 1.0]),
  discount_t=jnp.array([0.9, 0.9, 0.0]),
  o_t=jnp.array([4, 9, 16]),
)


def assert_same(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_make_is_network_optimizer_and_agent_in_one():
  agent = ha.make(CONFIG, num_actions=2)
  by_hand = ha.make_hyperagent(ha.make_network(CONFIG, 2), ha.make_optimizer(CONFIG), CONFIG)
  key, observation = jax.random.key(0), jnp.int32(0)
  learner = agent.init(key, observation)
  assert_same(learner, by_hand.init(key, observation))
  assert_same(agent.update(learner, BATCH, key), by_hand.update(learner, BATCH, key))


def test_make_refuses_bad_settings_before_anything_else():
  with pytest.raises(ha.ConfigError, match='--index_dim=0: must be at least 1'):
    ha.make(dataclasses.replace(CONFIG, index_dim=0), num_actions=2)


@pytest.mark.parametrize('changes', [{}, {'num_envs': 2, 'n_step': 3}, {'frame_stack': 2}])
def test_make_replay_for_reads_the_configuration(changes):
  config = dataclasses.replace(CONFIG, replay_capacity=24, **changes)
  mine = ha.make_replay_for(config)
  by_hand = ha.make_replay(24, config.num_envs, config.n_step, config.discount, config.frame_stack)
  shape = (config.num_envs, config.frame_stack) if config.frame_stack > 1 else (config.num_envs,)
  states = [replay.init(time_step(shape, 0), jnp.zeros(config.num_envs, jnp.int32), ()) for replay in (mine, by_hand)]
  for t in range(30):
    action = jnp.full(config.num_envs, t % 2, jnp.int32)
    states = [r.add(s, time_step(shape, t), action, ()) for r, s in zip((mine, by_hand), states, strict=True)]
  assert_same(*states)
  bits = jnp.arange(5, dtype=jnp.uint32)
  assert_same(mine.sample(states[0], bits), by_hand.sample(states[1], bits))
  assert ha.make_replay_for(config, capacity=40).init(time_step(shape, 0), action, ()).starts.shape == (40,)


def time_step(shape, t):
  """Episodes of five steps; observations count."""
  each = lambda x, dtype: jnp.full(shape[:1], x, dtype)
  kind = {0: types.FIRST, 4: types.LAST}.get(t % 5, types.MID)
  return types.TimeStep(each(kind, jnp.int32), each(t, jnp.float32), each(1.0, jnp.float32), jnp.full(shape, t))


@pytest.mark.parametrize('num_steps', [3, 8, 9, 21])
def test_stored_rows_are_those_held_and_in_order(num_steps):
  replay = ha.make_replay(capacity=16, num_envs=2, n_step=1, discount=0.9)
  action = jnp.zeros(2, jnp.int32)
  state = replay.init(time_step((2,), 0), action, ())
  for t in range(num_steps):
    state = replay.add(state, time_step((2,), t), action + t % 3, ())
  rows = ha.stored_rows(state)
  held = np.arange(max(0, num_steps - 8), num_steps)
  np.testing.assert_array_equal(rows.observation, np.stack([held, held], axis=1))
  np.testing.assert_array_equal(rows.action, np.stack([held, held], axis=1) % 3)


@pytest.mark.parametrize('update_ratio, num_envs', [(1.0, 1), (4.0, 1), (0.25, 1), (0.25, 2), (0.5, 4)])
def test_the_schedule_counts_the_updates_that_it_makes_due(update_ratio, num_envs):
  schedule = update_schedule(dataclasses.replace(CONFIG, update_ratio=update_ratio, num_envs=num_envs))
  done = 0
  for step in range(20):
    assert schedule.num_updates_before(step) == done
    done += schedule.num_updates * bool(schedule.is_due(step))
  per_step = update_ratio * num_envs
  assert done == (20 * per_step if per_step >= 1 else np.ceil(20 * per_step))


def test_a_schedule_starts_with_the_first_step():
  assert UpdateSchedule(4, 2).is_due(0) and UpdateSchedule(4, 2).num_updates_before(1) == 2


def test_rewards_that_are_whole_numbers_are_learnt_from():
  environment = ha.make_deep_sea(SIZE)

  def step(*args):
    state, timestep = environment.step(*args)
    return state, timestep._replace(reward=jnp.round(timestep.reward).astype(jnp.int32))

  def reset(*args):
    state, timestep = environment.reset(*args)
    return state, timestep._replace(reward=timestep.reward.astype(jnp.int32))

  whole = environment._replace(reset=reset, step=step)
  runner = ha.make_runner(ha.make(CONFIG, 2), whole, ha.make_replay_for(CONFIG, 100), CONFIG)
  params = jax.tree.map(lambda x: x[None], ha.envs.deep_sea.make_params(SIZE, mapping_seed=0))
  state = runner.run(runner.prefill(runner.init([0], params), 10), 5)
  assert int(state.learner.num_updates) == 5
  assert state.carry.replay.rows.reward.dtype == jnp.float32


# ------------------------------------------------------------------------------------------------------------- refusals


def refused(text, f, *args):
  """Tracing fails, in any program, with an error that says what is wrong."""
  with pytest.raises(AssertionError, match=text):
    jax.eval_shape(f, *args)


def test_update_refuses_what_is_no_mini_batch():
  agent = ha.make(CONFIG, num_actions=2)
  key = jax.random.key(0)
  learner = agent.init(key, jnp.int32(0))
  update = lambda batch: agent.update(learner, batch, key)
  assert jax.eval_shape(update, BATCH)
  refused(r'a_tm1, r_t and discount_t of shape \[B\]', update, jax.tree.map(lambda x: x[0], BATCH))
  refused('shapes', update, BATCH._replace(r_t=jnp.zeros(2)))
  refused('a_tm1 must be whole numbers', update, BATCH._replace(a_tm1=BATCH.a_tm1.astype(jnp.float32)))
  refused('r_t and discount_t must be floats', update, BATCH._replace(r_t=jnp.zeros(3, jnp.int32)))
  refused(r'observations must have the leading axis \[B\]', update, BATCH._replace(o_t=jnp.zeros(2, jnp.int32)))


def test_act_refuses_several_time_steps():
  agent = ha.make(CONFIG, num_actions=2)
  key = jax.random.key(0)
  learner, actor = agent.init(key, jnp.int32(0)), agent.init_actor(key)
  several = types.TimeStep(jnp.zeros(3, jnp.int32), jnp.zeros(3), jnp.ones(3), jnp.zeros(3, jnp.int32))
  refused(r'act takes one time step.*vmap it', lambda: agent.act(learner, actor, several, key))


def test_losses_refuse_wrong_ranks():
  q, scalar = HyperQ(jnp.zeros(3), jnp.zeros((3, 2))), jnp.float32(0)
  values = jnp.zeros((4, 3))
  refused('has rank', losses.bootstrap_target, jnp.zeros(2), scalar, values, values)
  refused('has rank', losses.bootstrap_target, scalar, scalar, values[0], values)
  refused('has rank', lambda: losses.exact_td_loss(q, jnp.int32(0), jnp.zeros(2), 1.0))
  refused('has rank', lambda: losses.exact_td_loss(q, jnp.zeros(2, jnp.int32), scalar, 1.0))
  refused('type', lambda: losses.exact_td_loss(q, jnp.float32(0), scalar, 1.0))
  refused('has rank', lambda: losses.sampled_td_loss(q, jnp.int32(0), scalar, jnp.zeros((4, 2))))
  refused('prefix', lambda: losses.sampled_td_loss(q, jnp.int32(0), jnp.zeros(5), jnp.zeros((4, 2))))


def test_replay_refuses_a_step_without_the_axis_of_environments():
  replay = ha.make_replay(capacity=16, num_envs=2, n_step=1, discount=0.9)
  action = jnp.zeros(2, jnp.int32)
  state = replay.init(time_step((2,), 0), action, ())
  one = jax.tree.map(lambda x: x[0], time_step((2,), 0))
  refused(r'all environments, \[E\] each', lambda: replay.add(state, one, action[0], ()))
  refused('has rank', lambda: replay.sample(state, jnp.uint32(3)))
  refused('type', lambda: replay.sample(state, jnp.zeros(3)))
