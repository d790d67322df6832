"""Observations that are trees, the checks of specs, and Gymnasium environments behind dm_env's interface."""

import collections
import dataclasses
import itertools

import dm_env
import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bsuite.environments.catch import Catch
from dm_env import specs
from gymnasium import spaces

import hyperagent_jax as ha
from hyperagent_jax.envs.adapters import GymnasiumEnvironment
from hyperagent_jax.host import check_specs
from hyperagent_jax.interaction import seed_key
from hyperagent_jax.networks import join_with_prior
from hyperagent_jax.types import FIRST, LAST, MID, time_step

CONFIG = dataclasses.replace(
  ha.presets.vector_observations(), hidden_sizes=(8,), batch_size=8, min_replay=8, replay_capacity=60, n_step=2
)
LENGTH = 5


# ---------------------------------------------------------------------------------------------- a tree environment


def observe(position, num_steps):
  """A dict with an image, a number and, in a tuple, a flag."""
  image = (jnp.arange(LENGTH) == position).astype(jnp.uint8)[:, None] * jnp.ones((1, 2), jnp.uint8)
  return {'image': image, 'rest': (jnp.int32(num_steps), jnp.float32(position) / LENGTH)}


def make_walk():
  """A walk to the right end, where 1 is earned; after six steps it is truncated."""

  def reset(params, key):
    del params, key
    zero = jnp.int32(0)
    return (zero, zero, jnp.array(False)), time_step(FIRST, 0.0, 1.0, observe(zero, zero))

  def step(params, state, action, key):
    position, num_steps, ended = state
    first_state, first = reset(params, key)
    position, num_steps = jnp.clip(position + 2 * action - 1, 0, LENGTH - 1), num_steps + 1
    arrived, late = position == LENGTH - 1, num_steps == 6
    kind = jnp.where(arrived | late, LAST, MID)
    going = time_step(kind, arrived, jnp.where(arrived, 0.0, 1.0), observe(position, num_steps))
    choose = lambda a, b: jax.tree.map(lambda x, y: jnp.where(ended, x, y), a, b)
    return choose(first_state, (position, num_steps, arrived | late)), choose(first, going)

  spec = {
    'image': specs.Array((LENGTH, 2), np.uint8),
    'rest': (specs.DiscreteArray(7, np.int32), specs.Array((), np.float32)),
  }
  return ha.Environment('walk', reset, step, num_actions=2, observation_spec=spec, episode_length=None)


class WalkTorso(nn.Module):
  @nn.compact
  def __call__(self, observation):
    num_steps, where = observation['rest']
    time = nn.Embed(7, 4)(num_steps)
    x = jnp.concatenate([observation['image'].astype(jnp.float32).ravel(), time, where[None]])
    return nn.relu(nn.Dense(8)(x))


def make_agent(config=CONFIG):
  return ha.make_hyperagent(join_with_prior(WalkTorso, config, 2), ha.make_optimizer(config), config)


def make_replay(**changes):
  return ha.make_replay(**{**dict(capacity=60, num_envs=1, n_step=2, discount=0.99), **changes})


def test_host_and_fused_drivers_agree_on_observations_that_are_trees():
  num_steps, agent, replay = 90, make_agent(), make_replay()
  host = ha.HostAgent(agent, replay, 2, CONFIG, seed=3)
  environment = ha.JaxEnvironment(make_walk(), None, seed_key(0, 'threefry2x32'))
  seen = list(itertools.islice(ha.run_loop(host, environment), num_steps + 1))
  assert {'image', 'rest'} == set(seen[0][0].observation)

  runner = ha.make_runner(agent, make_walk(), replay, CONFIG, num_eval_episodes=3)
  state = runner.init([3], jnp.zeros((1,)))
  prefill = num_steps - int(host.learner.num_updates)
  state = runner.run(runner.prefill(state, prefill), num_steps - prefill)
  fused = ha.select_seed(state, 0)
  assert int(fused.statistics.num_interactions) == host.num_interactions
  for a, b in zip(jax.tree.leaves(host.learner.params), jax.tree.leaves(fused.learner.params), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  for a, b in zip(jax.tree.leaves(host._carry.replay), jax.tree.leaves(fused.carry.replay), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  lengths = np.asarray(runner.evaluate(state).lengths)
  assert lengths.shape == (1, 3) and np.all((lengths >= 4) & (lengths <= 6))


def test_replay_gives_trees_back_as_they_came():
  replay = make_replay(capacity=20, n_step=1)
  action, state = jnp.zeros((1,), jnp.int32), None
  for t in range(30):
    observation = {'a': np.full((1, 3), t, np.float32), 'b': (np.int32([2 * t]), np.array([[t % 2 == 0]]))}
    row = ha.TimeStep(np.int32([MID if t else FIRST]), np.float32([t]), np.float32([1]), observation)
    state = replay.init(row, action, None) if state is None else state
    state = replay.add(state, row, action, None)
  batch = replay.sample(state, np.arange(int(replay.size(state)), dtype=np.uint32))
  t = np.asarray(batch.r_t).astype(int)  # the reward tells the later step
  np.testing.assert_array_equal(t, np.arange(11, 30))
  for when, found in ((t - 1, batch.o_tm1), (t, batch.o_t)):
    np.testing.assert_array_equal(found['a'], np.repeat(when[:, None], 3, axis=1))
    np.testing.assert_array_equal(found['b'][0], 2 * when)
    np.testing.assert_array_equal(found['b'][1][:, 0], when % 2 == 0)
    assert [x.dtype for x in jax.tree.leaves(found)] == [np.float32, np.int32, bool]


def test_stacks_of_trees_are_refused():
  host = ha.HostAgent(make_agent(), make_replay(frame_stack=2), 2, CONFIG, seed=0)
  with pytest.raises(ValueError, match=r'frame_stack=2: only arrays .* but an observation is a dict; must be 1'):
    host.step(dm_env.restart(jax.device_get(observe(0, 0))))


def test_a_torso_that_takes_batches_and_a_table_of_other_states_are_refused():
  batched = type('Batched', (nn.Module,), {'__call__': lambda self, o: o['image'].astype(jnp.float32)})
  init = lambda torso, config: join_with_prior(torso, config, 2).init(jax.random.key(0), observe(0, 0))
  with pytest.raises(ValueError, match=r'Batched gave features of shape \(5, 2\): must be \[H\]'):
    init(batched, CONFIG)
  with pytest.raises(ValueError, match=r"prior_storage='table': .* must be 'replay'"):
    init(WalkTorso, ha.presets.deep_sea())


def test_a_list_is_read_as_an_array_and_other_containers_are_kept():
  found = ha.from_dm_env(dm_env.restart([[1, 2], [3, 4]])).observation
  np.testing.assert_array_equal(found, [[1, 2], [3, 4]])
  found = ha.from_dm_env(dm_env.restart({'x': (1, [2.0, 3.0])})).observation
  assert found['x'][0].shape == () and found['x'][1].shape == (2,)


# ------------------------------------------------------------------------------------------------------------- specs


class Specs(dm_env.Environment):
  """An environment of which only the specs exist."""

  def __init__(self, observation=None, action=None):
    self._observation = specs.Array((2,), np.float32) if observation is None else observation
    self._action = specs.DiscreteArray(3) if action is None else action

  def observation_spec(self):
    return self._observation

  def action_spec(self):
    return self._action

  def reset(self):
    raise AssertionError('stepped before its specs were checked')

  step = reset


@pytest.mark.parametrize(
  'action, message',
  [
    (
      specs.BoundedArray((6,), np.float32, -1, 1),
      r'actions are BoundedArray of shape \(6,\) and dtype float32: continuous actions are not supported; '
      r'they must be discrete \(dm_env.specs.DiscreteArray\)',
    ),
    (
      specs.BoundedArray((2,), np.int32, 0, 4),
      r'actions are BoundedArray of shape \(2,\) and dtype int32: they must be discrete',
    ),
    ({'left': specs.DiscreteArray(2)}, 'actions are dict: they must be discrete'),
  ],
)
def test_actions_that_are_not_discrete_are_named_before_the_first_step(action, message):
  host = ha.HostAgent(make_agent(), make_replay(), 2, CONFIG, seed=0)
  with pytest.raises(ValueError, match=message):
    ha.run_loop(host, Specs(action=action))


@pytest.mark.parametrize(
  'observation, message',
  [
    (specs.StringArray(()), 'observation is StringArray of dtype object: must be'),
    ({'a': (specs.Array((), np.int8), specs.Array((), object))}, r"observation\['a'\]\[1\] is Array of dtype object"),
    ({'when': specs.Array((), 'datetime64[s]')}, r"observation\['when'\] is Array of dtype datetime64"),
    ({'a': None}, r"observation\['a'\] is NoneType"),
    ([specs.Array((), np.float32)], 'observation is list: must be .* dicts and tuples'),
  ],
)
def test_observations_that_are_not_numbers_are_named(observation, message):
  with pytest.raises(ValueError, match=message):
    check_specs(Specs(observation))


def test_numbers_of_every_kind_pass_and_another_number_of_actions_does_not():
  kinds = [np.uint8, np.int32, np.float32, np.float64, bool]
  check_specs(Specs(tuple(specs.Array((1,), kind) for kind in kinds)))
  check_specs(Specs(specs.DiscreteArray(4)))
  check_specs(Specs(collections.OrderedDict(x=specs.Array((), np.int64))))
  check_specs(Catch())
  with pytest.raises(ValueError, match='the environment has 3 actions, but the agent was made for 2'):
    ha.run_loop(ha.HostAgent(make_agent(), make_replay(), 2, CONFIG, seed=0), Catch())


# --------------------------------------------------------------------------------------------------------- gymnasium


@pytest.mark.parametrize('max_episode_steps', [500, 12])
def test_cartpole_is_the_same_step_by_step(max_episode_steps):
  theirs = gymnasium.make('CartPole-v1', max_episode_steps=max_episode_steps)
  ours = GymnasiumEnvironment(gymnasium.make('CartPole-v1', max_episode_steps=max_episode_steps), seed=7)
  rng, seed, ends = np.random.default_rng(0), 7, []
  for _ in range(6):
    timestep, expected = ours.step(0), theirs.reset(seed=seed)[0]  # steps that start an episode ignore the action
    seed = None
    assert timestep.first() and timestep.reward is None and timestep.discount is None
    np.testing.assert_array_equal(timestep.observation, expected)
    ended = False
    while not ended:
      action = int(rng.integers(2))
      timestep, (expected, reward, terminated, truncated, _) = ours.step(action), theirs.step(action)
      np.testing.assert_array_equal(timestep.observation, expected)
      ours.observation_spec().validate(timestep.observation)
      assert timestep.reward == reward
      ended = terminated or truncated
      assert timestep.last() == ended
      assert timestep.discount == (0.0 if terminated else 1.0)
      ends += [(terminated, truncated)] * ended
  assert (True, False) in ends or max_episode_steps == 12
  assert (False, True) in ends or max_episode_steps == 500
  assert ours.action_spec().num_values == 2
  ours.close()


def test_seeds_are_given_once():
  a, b = (GymnasiumEnvironment(gymnasium.make('CartPole-v1'), seed=5) for _ in range(2))
  first = a.reset().observation
  np.testing.assert_array_equal(first, b.reset().observation)
  assert not np.array_equal(first, a.reset().observation)


@pytest.mark.parametrize('padding_type, padding', [('reset', 'first'), ('zero', 'blank')])
def test_gymnasiums_stacks_are_rebuilt_by_replay_as_they_were_shown(padding_type, padding):
  environment = GymnasiumEnvironment(
    gymnasium.wrappers.FrameStackObservation(
      gymnasium.make('CartPole-v1', max_episode_steps=7), 3, padding_type=padding_type
    ),
    seed=3,
  )
  assert environment.frame_padding == padding
  settings = {'torso': 'mlp', 'prior_storage': 'replay', 'hidden_sizes': (4,), 'min_replay': 8, 'replay_capacity': 100}
  config = dataclasses.replace(ha.HyperAgentConfig(), frame_stack=3, frame_padding=padding, batch_size=2, **settings)
  replay = ha.make_replay_for(config)
  host = ha.HostAgent(ha.make(config, 2), replay, 2, config, seed=0)
  seen = [timestep.observation for timestep, _ in itertools.islice(ha.run_loop(host, environment), 30)]
  state = host._carry.replay
  batch = jax.device_get(replay.sample(state, jnp.arange(int(replay.size(state)), dtype=jnp.uint32)))
  assert len(batch.o_tm1) > 20
  for stack in (*batch.o_tm1, *batch.o_t):
    assert any(np.array_equal(stack, shown) for shown in seen)
  other = dataclasses.replace(config, frame_padding={'first': 'blank', 'blank': 'first'}[padding])
  host = ha.HostAgent(ha.make(other, 2), ha.make_replay_for(other), 2, other, seed=0)
  with pytest.raises(ValueError, match=f"frame_padding must be '{padding}'"):
    host.step(environment.reset())


class Half(gymnasium.Env):
  """Whose observations are not of its space's dtype."""

  observation_space = spaces.Dict({'a': spaces.Box(0, 255, (2,), np.uint8), 'b': spaces.Box(0, 1, (1,), np.float32)})
  action_space = spaces.Discrete(2)
  value = np.array([3.0, 4.0])

  def reset(self, *, seed=None, options=None):
    return {'a': self.value, 'b': np.array([0.1])}, {}


def test_observations_that_their_spaces_dtype_does_not_hold_are_refused_and_others_are_taken():
  environment = GymnasiumEnvironment(Half())
  observation = environment.reset().observation
  assert observation['a'].dtype == np.uint8 and observation['a'].tolist() == [3, 4]
  assert observation['b'].dtype == np.float32  # rounded, as float64 always is
  assert environment.frame_padding is None
  for value in (0.5, 256.0, -1.0, float('nan')):
    Half.value = np.array([0.0, value])
    with pytest.raises(ValueError, match=rf"observation\['a'\] is of dtype float64 and holds {value}, which its space"):
      environment.reset()


class Spaces(gymnasium.Env):
  """Samples of a space; actions start from -1; the third step is both terminated and truncated."""

  def __init__(self, observation_space, action_space=None):
    self.observation_space = observation_space
    self.action_space = spaces.Discrete(3, start=-1) if action_space is None else action_space
    self.actions = []

  def reset(self, seed=None, options=None):
    self.observation_space.seed(0)
    self.actions = []
    return self.observation_space.sample(), {}

  def step(self, action):
    assert self.action_space.contains(action)
    self.actions.append(action)
    ended = len(self.actions) == 3
    return self.observation_space.sample(), np.float64(action), ended, ended, {}


def test_every_space_of_numbers_has_a_spec_that_its_observations_fit():
  space = spaces.Dict(
    box=spaces.Box(-1, 1, (2, 3), np.float64),
    pair=spaces.Tuple((spaces.Discrete(4, start=10), spaces.MultiDiscrete([3, 5], start=[1, 2]))),
    bits=spaces.MultiBinary(4),
  )
  env = Spaces(space)
  environment = GymnasiumEnvironment(env)
  check_specs(environment)
  spec = environment.observation_spec()
  assert spec['pair'][0].num_values == 4
  steps = [environment.reset(), *(environment.step(a) for a in (0, 1, 2))]
  for timestep in steps:
    assert jax.tree.structure(timestep.observation) == jax.tree.structure(spec)
    jax.tree.map(lambda s, x: s.validate(x), spec, timestep.observation)
  assert env.actions == [-1, 0, 1] and [t.reward for t in steps] == [None, -1.0, 0.0, 1.0]
  assert steps[-1].last() and steps[-1].discount == 0.0  # terminated counts, where it is truncated as well
  space.seed(0)
  raw = space.sample()
  assert steps[0].observation['pair'][0] == raw['pair'][0] - 10
  np.testing.assert_array_equal(steps[0].observation['pair'][1], raw['pair'][1] - [1, 2])
  np.testing.assert_array_equal(steps[0].observation['box'], raw['box'])
  assert environment.step(9).first()
  with pytest.raises(ValueError, match=r'action=3: must be in \[0, 3\)'):
    environment.step(3)


def test_spaces_that_do_not_fit_are_named():
  box = spaces.Box(-2, 2, (1,), np.float32)
  with pytest.raises(ValueError, match=r'actions are Box\(-2.0, 2.0, \(1,\), float32\): continuous actions are not'):
    GymnasiumEnvironment(Spaces(box, box))
  with pytest.raises(ValueError, match=r'actions are MultiDiscrete\(\[2 2\]\): they must be discrete \(gymnasium'):
    GymnasiumEnvironment(Spaces(box, spaces.MultiDiscrete([2, 2])))
  with pytest.raises(ValueError, match=r"observation\['says'\]\[0\] is Text.*: must be Box, Discrete"):
    GymnasiumEnvironment(Spaces(spaces.Dict(says=spaces.Tuple([spaces.Text(5)]))))
