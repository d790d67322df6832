"""What an environment must not give: each is one line that names it, and the agent is as it was before."""

import dataclasses
import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

import hyperagent_jax as ha
from hyperagent_jax.checks import StepChecks, check_specs, check_stack
from hyperagent_jax.types import FIRST, LAST, MID, TimeStep

CONFIG = dataclasses.replace(
  ha.HyperAgentConfig(),
  torso='mlp',
  prior_storage='replay',
  hidden_sizes=(4,),
  batch_size=2,
  min_replay=4,
  replay_capacity=60,
)


@functools.cache
def agent_and_replay(**changes):
  config = dataclasses.replace(CONFIG, **changes)
  return ha.make(config, 2), ha.make_replay_for(config), config


def make_host(**changes):
  agent, replay, config = agent_and_replay(**changes)
  return ha.HostAgent(agent, replay, 2, config, seed=0)


def step(kind, observation, reward=0.5, discount=1.0):
  if kind == FIRST:
    return dm_env.restart(observation)
  return dm_env.TimeStep(dm_env.StepType(kind), reward, discount, observation)


FIRST_OBSERVATION = {'position': np.zeros(2, np.float32), 'count': np.zeros((), np.int64)}


def changed(**parts):
  return step(MID, {**FIRST_OBSERVATION, **parts})


BAD = {
  'nan_reward': (step(MID, FIRST_OBSERVATION, reward=float('nan')), 'reward=nan: must be finite'),
  'infinite_reward': (step(MID, FIRST_OBSERVATION, reward=float('inf')), 'reward=inf: must be finite'),
  'huge_reward': (step(MID, FIRST_OBSERVATION, reward=1e300), 'reward=inf: must be finite'),
  'discount_of_five': (step(MID, FIRST_OBSERVATION, discount=5.0), r'discount=5.0: must be in \[0, 1\]'),
  'negative_discount': (step(LAST, FIRST_OBSERVATION, discount=-1.0), r'discount=-1.0: must be in \[0, 1\]'),
  'nan_discount': (step(MID, FIRST_OBSERVATION, discount=float('nan')), r'discount=nan: must be in \[0, 1\]'),
  'nan': (changed(position=np.array([0, np.nan], np.float32)), r"observation\['position'\] holds nan: must be finite"),
  'infinite': (changed(position=np.array([-np.inf, 0], np.float32)), r"observation\['position'\] holds -inf"),
  'too_large': (changed(count=np.int64(2**40)), rf"observation\['count'\] holds {2**40}: must be within"),
  'another_dtype': (
    changed(position=np.zeros(2)),
    r"observation\['position'\] is of dtype float64 and shape \(2,\): must be as at first, .* float32",
  ),
  'another_shape': (
    changed(position=np.zeros(3, np.float32)),
    r"observation\['position'\] .* shape \(3,\): must be as",
  ),
  'another_part': (step(MID, {**FIRST_OBSERVATION, 'speed': np.zeros(1)}), 'observation has 3 parts: must have 2'),
  'no_number': (changed(position=np.array(['a', 'b'])), r"observation\['position'\]"),
}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_time_step_is_named_in_one_line_and_leaves_the_agent_as_it_was(name):
  timestep, text = BAD[name]
  check = StepChecks()
  for kind in (FIRST, MID):
    check(ha.from_dm_env(step(kind, FIRST_OBSERVATION)))
  with pytest.raises(ValueError, match=text) as e:
    check(ha.from_dm_env(timestep))
  assert '\n' not in str(e.value)
  check(ha.from_dm_env(step(MID, FIRST_OBSERVATION)))


def test_a_host_agent_goes_on_after_a_bad_time_step_and_no_parameter_is_touched():
  host, expected = make_host(), make_host()
  rng = np.random.default_rng(0)
  observations = rng.normal(size=(20, 3)).astype(np.float32)
  for t, observation in enumerate(observations):
    timestep = step(FIRST if t == 0 else MID, observation)
    if t in (7, 12):
      with pytest.raises(ValueError, match='must be finite'):
        host.step(step(MID, observation, reward=float('inf')))
    assert host.step(timestep) == expected.step(timestep)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(host.learner), jax.device_get(expected.learner))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(host.learner.params)))


@pytest.mark.parametrize(
  ('dtype', 'value', 'fits'),
  [
    (np.int64, 2**31 - 1, True),
    (np.int64, 2**31, False),
    (np.int64, -(2**31), True),
    (np.int64, -(2**31) - 1, False),
    (np.uint64, 2**32 - 1, True),
    (np.uint64, 2**32, False),
    (np.uint32, 2**32 - 1, True),
    (np.float64, 1e38, True),
    (np.float64, 1e39, False),
  ],
)
def test_numbers_of_64_bits_are_taken_as_far_as_32_hold_them(dtype, value, fits):
  timestep = TimeStep(np.int32(FIRST), np.float32(0), np.float32(1), np.array([value, 0], dtype))
  if fits:
    StepChecks()(timestep)
    return
  with pytest.raises(ValueError, match='observation holds'):
    StepChecks()(timestep)


@pytest.mark.parametrize(
  ('spec', 'text'),
  [
    (specs.Array((0, 3), np.float32, 'x'), r'observation is of shape \(0, 3\): there is nothing in it'),
    ({'a': specs.Array((), object)}, r"observation\['a'\] is Array of dtype object"),
  ],
)
def test_an_empty_or_unfit_spec_names_the_observation(spec, text):
  class Environment:
    def observation_spec(self):
      return spec

    def action_spec(self):
      return specs.DiscreteArray(2)

  with pytest.raises(ValueError, match=text):
    check_specs(Environment())


@pytest.mark.parametrize(
  ('torso', 'shape'), [('nature', (4, 35, 84)), ('nature', (84, 84, 4)), ('data_efficient', (210, 160, 3))]
)
def test_screens_that_are_too_small_or_have_their_channels_last_name_their_shape(torso, shape):
  config = dataclasses.replace(CONFIG, torso=torso)
  with pytest.raises(ValueError, match=r'observation is of shape .*: must be \[frames, height, width\]') as e:
    jax.eval_shape(ha.make(config, 2).init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.uint8))
  assert str(shape) in str(e.value)


def test_an_empty_observation_names_its_shape():
  with pytest.raises(ValueError, match=r'observation is of shape \(0,\): there is nothing in it'):
    ha.make(CONFIG, 2).init(jax.random.key(0), jnp.zeros((0,)))


# --------------------------------------------------------------------------------------------------------------- stacks


def stack(*values):
  return np.array([[v, v + 100 if v else 0] for v in values], np.float32)


@pytest.mark.parametrize(
  ('padding', 'first', 'advice'),
  [
    ('blank', stack(0, 0, 5), None),
    ('first', stack(5, 5, 5), None),
    ('blank', stack(5, 5, 5), "frame_padding must be 'first'"),
    ('first', stack(0, 0, 5), "frame_padding must be 'blank'"),
    ('blank', stack(3, 4, 5), 'frame_stack must be 1'),
  ],
)
def test_an_episodes_first_stack_must_be_what_replay_will_make_of_it(padding, first, advice):
  if advice is None:
    check_stack(first, 3, padding, None)
    return
  with pytest.raises(ValueError, match=advice) as e:
    check_stack(first, 3, padding, None)
  assert '\n' not in str(e.value) and f'frame_padding={padding!r}' in str(e.value)


@pytest.mark.parametrize('observation', [np.zeros(4, np.float32), np.zeros((2, 4), np.float32), np.float32(1)])
def test_what_is_no_stack_is_named_by_its_shape(observation):
  with pytest.raises(ValueError, match='must be a stack of 3 frames'):
    check_stack(np.asarray(observation), 3, 'blank', None)


def test_a_stack_must_go_on_where_the_one_before_ended():
  check_stack(stack(2, 3, 4), 3, 'blank', stack(1, 2, 3))
  with pytest.raises(ValueError, match='are not the last 2 of the step before'):
    check_stack(stack(9, 3, 4), 3, 'blank', stack(1, 2, 3))


def test_a_vector_that_is_no_stack_is_refused_by_the_host_driver_at_its_first_step():
  host = make_host(frame_stack=4)
  with pytest.raises(ValueError, match=r'observation is of shape \(4,\): must be a stack of 4 frames'):
    host.step(dm_env.restart(np.array([0, 0, 0, 1], np.float32)))


@pytest.mark.parametrize('padding', ['blank', 'first'])
def test_every_transition_from_replay_is_of_the_states_that_were_acted_in(padding):
  """Both ends of all that is drawn are among the stacks that the agent saw, in the order in which it saw them."""
  host = make_host(frame_stack=3, frame_padding=padding, n_step=2)
  seen, t = {}, 0
  for length in (1, 2, 4, 7):
    frames = []
    for i in range(length + 1):
      t += 1
      frames.append(np.array([t, -t], np.float32))
      before = [frames[0] if padding == 'first' else np.zeros(2, np.float32)] * 3
      kind = FIRST if i == 0 else LAST if i == length else MID
      observation = np.stack([*before, *frames][-3:])
      seen[t] = observation
      host.step(step(kind, observation))
  replay, state = agent_and_replay(frame_stack=3, frame_padding=padding, n_step=2)[1], host._carry.replay
  batch = jax.device_get(replay.sample(state, jnp.arange(int(replay.size(state)), dtype=jnp.uint32)))
  assert len(batch.o_tm1) >= 10
  for o_tm1, o_t in zip(batch.o_tm1, batch.o_t, strict=True):
    np.testing.assert_array_equal(o_tm1, seen[int(o_tm1[-1, 0])])
    np.testing.assert_array_equal(o_t, seen[int(o_t[-1, 0])])


def test_a_runner_whose_environment_shows_no_stacks_is_refused_at_its_first_step():
  config = dataclasses.replace(CONFIG, frame_stack=2)
  observation = jnp.ones((2, 3))

  def reset(params, key):
    del params, key
    return (), TimeStep(jnp.int32(FIRST), jnp.float32(0), jnp.float32(1), observation)

  def advance(params, state, action, key):
    del params, action, key
    return state, TimeStep(jnp.int32(MID), jnp.float32(0), jnp.float32(1), observation)

  environment = ha.Environment('walk', reset, advance, 2, specs.Array((2, 3), np.float32), None)
  runner = ha.make_runner(
    ha.make(config, 2), environment, ha.make_replay_for(config), config, devices=jax.devices()[:1]
  )
  with pytest.raises(ValueError, match="frame_padding must be 'first'"):
    runner.init([0], jnp.zeros((1,)))
  show_tree = lambda params, key: ((), reset(params, key)[1]._replace(observation={'a': observation}))
  trees = environment._replace(reset=show_tree)
  runner = ha.make_runner(ha.make(config, 2), trees, ha.make_replay_for(config), config, devices=jax.devices()[:1])
  with pytest.raises(ValueError, match='only arrays can be stacks of frames, but an observation is a dict'):
    runner.init([0], jnp.zeros((1,)))


# -------------------------------------------------------------------------------------------------- episodes abandoned


class Walk(dm_env.Environment):
  """Episodes without an end, which show how many steps have been taken in all."""

  def __init__(self, fails_at=()):
    self.t, self._fails_at = 0, fails_at

  def _observation(self):
    self.t += 1
    return np.array([self.t, 1.0], np.float32)

  def reset(self):
    return dm_env.restart(self._observation())

  def step(self, action):
    del action
    if self.t + 1 in self._fails_at:
      self._fails_at = ()
      raise RuntimeError('the simulator has crashed')
    return dm_env.transition(1.0, self._observation())

  def observation_spec(self):
    return specs.Array((2,), np.float32)

  def action_spec(self):
    return specs.DiscreteArray(2)


def drawn(host, n):
  """(first, last, length) of every transition in replay, by the numbers of their states."""
  replay, state = agent_and_replay(n_step=n)[1], host._carry.replay
  batch = jax.device_get(replay.sample(state, jnp.arange(int(replay.size(state)), dtype=jnp.uint32)))
  lengths = np.round(np.log(batch.discount_t) / np.log(CONFIG.discount)).astype(int)
  return [(int(a[0]), int(b[0]), int(m)) for a, b, m in zip(batch.o_tm1, batch.o_t, lengths, strict=True)]


@pytest.mark.parametrize('n', [1, 3])
@pytest.mark.parametrize('how', ['run_loop again', 'a crash', 'a limit of steps'])
def test_an_episode_that_is_abandoned_ends_as_truncated_and_joins_no_other(how, n):
  host, environment = make_host(n_step=n), Walk(fails_at=(11, 21) if how == 'a crash' else ())
  episodes = []  # numbers of the states of each
  for _ in range(3):
    start = environment.t + 1
    if how == 'a limit of steps':
      timestep = environment.reset()
      for _ in range(10):
        timestep = environment.step(host.step(timestep))
      environment.t -= 1  # the last one was not shown
    else:
      loop = ha.run_loop(host, environment)
      try:
        for _ in range(10):
          next(loop)
      except RuntimeError:
        assert how == 'a crash'
    episodes.append(range(start, environment.t + 1))
  within = {t: e for e in episodes for t in e}
  found = drawn(host, n)
  assert len(found) > 15
  for first, last, length in found:
    assert within[first] is within[last] and last - first == length == min(n, within[first][-1] - first)
  # All of each episode but its last state, of the newest one only what is n steps old.
  assert [a for a, *_ in found] == [t for e in episodes[:2] for t in e[:-1]] + list(episodes[2][:-n])


def test_an_agent_whose_episodes_are_all_cut_before_a_transition_is_whole_does_not_learn_from_nothing():
  host, environment = make_host(), Walk()
  for _ in range(30):
    host.step(environment.reset())
    assert host.losses is None or int(host.losses.num_updates) == 0
  for _ in range(6):
    host.step(environment.step(0))
  assert int(host.losses.num_updates) == 1 and np.isfinite(host.losses.loss)


def test_a_replay_that_resets_have_emptied_is_not_learnt_from():
  """Every row of the ring is the end of an episode then."""
  host, environment = make_host(replay_capacity=8), Walk()
  timestep = environment.reset()
  for _ in range(12):
    timestep = environment.step(host.step(timestep))
  assert int(host.losses.num_updates) == 1
  for i in range(20):
    host.step(environment.reset())
    assert i < 9 or int(host.losses.num_updates) == 0
  for _ in range(4):
    host.step(environment.step(0))
  assert int(host.losses.num_updates) == 1 and np.isfinite(host.losses.loss)


def test_a_first_step_that_is_refused_does_not_say_what_others_must_be():
  host = make_host()
  with pytest.raises(ValueError, match='holds nan'):
    host.step(dm_env.restart(np.array([np.nan, 0.0])))
  host.step(dm_env.restart(np.zeros(2, np.float32)))
  for reward in (np.zeros(1), np.zeros(2)):
    with pytest.raises(ValueError, match=r'reward is of shape .*: must be one number'):
      host.step(step(MID, np.zeros(2, np.float32), reward=reward))


def test_actions_that_change_between_episodes_are_refused_at_the_next_one():
  class Growing(Walk):
    num_values = 2

    def action_spec(self):
      return specs.DiscreteArray(self.num_values)

    def step(self, action):
      if self.t == 4:
        return dm_env.termination(1.0, self._observation())
      return super().step(action) if self.t < 4 else self.reset()

  environment = Growing()
  loop = ha.run_loop(make_host(), environment)
  for _ in range(3):
    next(loop)
  environment.num_values = 3
  next(loop), next(loop)
  with pytest.raises(ValueError, match='the environment has 3 actions, but the agent was made for 2'):
    next(loop)


# -------------------------------------------------------------------------------------------------------------- 64 bits


def test_drivers_and_replay_refuse_64_bits_in_one_line_at_once_and_the_agent_alone_works():
  agent, replay, config = agent_and_replay()
  with jax.enable_x64(True):
    for make in (
      lambda: ha.HostAgent(agent, replay, 2, config, seed=0),
      lambda: ha.make_runner(agent, ha.make_deep_sea(5), replay, config),
      lambda: replay.init(TimeStep(*(jnp.zeros(1),) * 4), jnp.zeros(1, jnp.int32), ()),
    ):
      with pytest.raises(ValueError, match='JAX_ENABLE_X64 is on: replay and the drivers are of 32 bits') as e:
        make()
      assert '\n' not in str(e.value)
    learner = agent.init(jax.random.key(0), jnp.zeros(3))
    agent.act(
      learner, agent.init_actor(jax.random.key(1)), ha.from_dm_env(dm_env.restart(np.zeros(3))), jax.random.key(2)
    )
