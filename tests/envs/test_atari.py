"""Atari games: what a step means, compiled and plain stepping of the same games, replay's stacks, and the runner."""

import dataclasses
import functools
import itertools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip('ale_py')

import hyperagent_jax as ha
from hyperagent_jax import presets
from hyperagent_jax.config import ConfigError
from hyperagent_jax.envs import atari
from hyperagent_jax.envs.atari import AtariConfig, AtariEnvironment, check_game, interpret, make_atari
from hyperagent_jax.networks import frame_layout
from hyperagent_jax.types import FIRST, LAST, MID, Extras, batched, tree_index

NUM_STEPS = 600  # in which a game of random play in breakout ends more than once
NUM_PARITY_STEPS = 700  # a game


def random_actions(num_steps, num_envs, num_actions, seed=0):
  return np.random.RandomState(seed).randint(0, num_actions, (num_steps, num_envs)).astype(np.int32)


# ------------------------------------------------------------------------------------------------------------ the names


@pytest.mark.parametrize(
  'name, advice',
  [
    ('Pong', 'did you mean pong?'),
    ('MsPacman', 'did you mean ms_pacman?'),
    ('ALE/MsPacman-v5', 'did you mean ms_pacman?'),
    ('MsPacmanNoFrameskip-v4', 'did you mean ms_pacman?'),
    ('Ms-Pacman', 'did you mean ms_pacman?'),
    ('breakuot', 'did you mean breakout'),
    ('qqzzxxyy', 'there are adventure, air_raid, alien'),
    ('', 'there are adventure, air_raid, alien'),
  ],
)
def test_a_game_that_does_not_exist_is_refused_in_one_line_with_the_right_spelling(name, advice):
  with pytest.raises(ConfigError) as error:
    check_game(name)
  text = str(error.value)
  assert text.startswith(f'--game={name}: ') and advice in text and '\n' not in text


def test_every_game_that_is_listed_is_a_game():
  games = atari.all_games()
  assert {'pong', 'ms_pacman', 'montezuma_revenge'} <= set(games) and len(games) > 100
  assert all(check_game(game) == game for game in games)


# ---------------------------------------------------------------------------------------------------- what a step means

# over, lives before and after, reward, terminated, truncated -> step type, reward, discount in training, in evaluation
STEPS = {
  'nothing_happens': (False, 3, 3, 2.0, False, False, MID, 2.0, 1.0, 1.0),
  'a_life_is_lost': (False, 3, 2, 2.0, False, False, MID, 2.0, 0.0, 1.0),
  'a_life_is_won': (False, 3, 4, 2.0, False, False, MID, 2.0, 1.0, 1.0),
  'the_last_life_is_lost': (False, 1, 0, -5.0, True, False, LAST, -5.0, 0.0, 0.0),
  'the_game_ends_without_lives': (False, 0, 0, 1.0, True, False, LAST, 1.0, 0.0, 0.0),
  'truncated': (False, 3, 3, 2.0, False, True, LAST, 2.0, 1.0, 1.0),
  'truncated_as_a_life_is_lost': (False, 3, 2, 2.0, False, True, LAST, 2.0, 0.0, 1.0),
  'terminated_and_truncated': (False, 1, 0, 2.0, True, True, LAST, 2.0, 0.0, 0.0),
  'the_next_game': (True, 0, 5, 7.0, False, False, FIRST, 0.0, 1.0, 1.0),
  'the_next_game_with_fewer_lives': (True, 5, 3, 7.0, False, False, FIRST, 0.0, 1.0, 1.0),
}


@pytest.mark.parametrize('xp', [np, jnp], ids=['numpy', 'jax'])
def test_step_type_reward_and_discount_of_every_kind_of_step(xp):
  columns = [xp.asarray(c) for c in zip(*STEPS.values(), strict=True)]
  over, lives_tm1, lives, reward, terminated, truncated, step_type, expected_reward, training, evaluation = columns
  for life_loss_discount, discount in ((0.0, training), (1.0, evaluation)):
    result = interpret(xp, over, lives_tm1, lives, reward, terminated, truncated, life_loss_discount)
    for x, y, dtype in zip(result, (step_type, expected_reward, discount), (np.int32, *[np.float32] * 2), strict=True):
      assert x.dtype == dtype
      np.testing.assert_array_equal(x, y, err_msg=str(list(STEPS)))


# ----------------------------------------------------------------------------------------- compiled and plain stepping


def rollout(environment, params, keys, actions):
  """A compiled run: every time step [1 + T, E] and the lives [T, E]."""

  def one(state, action):
    state, timestep = environment.step(params, state, action, keys)
    return state, (timestep, state.lives)

  state, first = environment.reset(params, keys)
  _, (timesteps, lives) = jax.lax.scan(one, state, actions)
  return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, timesteps), lives


@pytest.fixture(scope='module')
def breakout():
  """Two games with their plain counterparts, and the same games with the discounts of evaluation."""
  config = AtariConfig()
  games = make_atari('breakout', config, num_seeds=1, num_envs=2, num_eval_episodes=2, num_groups=1)
  keys = jax.random.split(jax.random.key(4), 2)
  actions = random_actions(NUM_STEPS, 2, games.environment.num_actions)
  params = tree_index(games.params, 0)
  run = lambda environment: jax.device_get(
    jax.jit(lambda p, k, a: rollout(batched(environment, 2), p, k, a))(params, keys, actions)
  )
  timesteps, lives = run(games.environment)
  return config, keys, actions, timesteps, lives, run(games.eval_environment)[0]


@pytest.mark.parametrize('env', [0, 1])
def test_compiled_games_are_those_of_plain_stepping_frame_by_frame(breakout, env):
  config, keys, actions, timesteps, _, _ = breakout
  plain = AtariEnvironment('breakout', config, seed=int(atari.game_seeds(keys)[env]))
  for t in range(NUM_STEPS + 1):
    expected = plain.step(int(actions[t - 1, env])) if t else plain.reset()
    step_type, reward, discount, screen = (x[t, env] for x in timesteps)
    assert step_type == expected.step_type, t
    np.testing.assert_array_equal(screen, expected.observation, err_msg=str(t))
    if step_type == FIRST:
      assert expected.reward is None and expected.discount is None and (reward, discount) == (0, 1)
    else:
      assert (reward, discount) == (expected.reward, expected.discount), t
  assert np.sum(timesteps.step_type[:, env] == LAST) >= 2 and np.sum(timesteps.reward[:, env]) > 0
  # Another seed is another game.
  assert not np.array_equal(timesteps.observation[:100, 0], timesteps.observation[:100, 1])


def test_a_lost_life_shows_in_the_discount_of_one_step_and_the_game_goes_on(breakout):
  _, _, _, timesteps, lives, evaluation = breakout
  lost = np.diff(lives, axis=0) == -1  # [T - 1, E]
  step_type, discount = timesteps.step_type[2:], timesteps.discount[2:]
  mid = lost & (step_type == MID)
  assert mid.sum() >= 8
  np.testing.assert_array_equal(discount[mid], 0)
  np.testing.assert_array_equal(step_type[1:][mid[:-1]], MID)  # the game goes on
  np.testing.assert_array_equal(discount[1:][mid[:-1]], 1)
  np.testing.assert_array_equal(discount[step_type == LAST], 0)  # and ends with the last life
  np.testing.assert_array_equal(discount[~lost], 1)
  # In evaluation nothing but the end of the game shows.
  jax.tree.map(np.testing.assert_array_equal, evaluation._replace(discount=None), timesteps._replace(discount=None))
  np.testing.assert_array_equal(evaluation.discount, np.where(timesteps.step_type == LAST, 0, 1))


def test_a_game_follows_the_last_step_of_another_and_starts_with_a_stack_of_its_own(breakout):
  _, _, _, timesteps, lives, _ = breakout
  last = timesteps.step_type[:-1] == LAST
  np.testing.assert_array_equal(timesteps.step_type[1:] == FIRST, last)
  first = timesteps.step_type == FIRST
  np.testing.assert_array_equal(timesteps.reward[first], 0)
  np.testing.assert_array_equal(timesteps.discount[first], 1)
  np.testing.assert_array_equal(lives[last], 5)
  assert timesteps.observation.shape == (NUM_STEPS + 1, 2, 4, 84, 84) and timesteps.observation.dtype == np.uint8
  np.testing.assert_array_equal(timesteps.observation[first][:, :3], 0)
  assert np.all(timesteps.observation[first][:, 3].any(axis=(1, 2)))


def test_games_of_all_seeds_in_one_vector_environment_are_those_of_one_for_each_seed():
  config, num_seeds, num_envs, num_steps = AtariConfig(), 3, 2, 40
  keys = jax.random.split(jax.random.key(1), (num_seeds, num_envs))
  actions = random_actions(num_steps, num_seeds * num_envs, 6).reshape(num_steps, num_seeds, num_envs).swapaxes(0, 1)
  results = []
  for num_groups in (1, num_seeds):
    games = make_atari('pong', config, num_seeds, num_envs, 1, num_groups)
    assert len(np.unique(games.params.training, axis=0)) == num_groups
    one_seed = functools.partial(rollout, games.environment)
    over = jax.vmap(one_seed) if num_groups == 1 else lambda *args, f=one_seed: jax.lax.map(lambda a: f(*a), args)
    results.append(jax.device_get(jax.jit(over)(games.params, keys, actions)))
  together, alone = results
  jax.tree.map(np.testing.assert_array_equal, together, alone)
  assert together[0].observation.shape == (num_seeds, num_steps + 1, num_envs, 4, 84, 84)
  screens = together[0].observation[:, -1].reshape(num_seeds * num_envs, -1)
  assert len(np.unique(screens, axis=0)) == num_seeds * num_envs


# ------------------------------------------------------------------------------------------------------ replay's stacks


@pytest.mark.parametrize('game', ['pong', 'breakout', 'freeway'])
def test_stacks_from_replay_are_the_environments_own(game):
  """Over ends of episodes, with a ring that has wrapped around."""
  num_envs, num_kept, n = 2, 300, 5
  config = AtariConfig(max_frames=400)
  games = make_atari(game, config, num_seeds=1, num_envs=num_envs, num_eval_episodes=1, num_groups=1)
  replay = ha.make_replay(num_envs * num_kept, num_envs, n, 0.99, frame_stack=4)
  keys, params = jax.random.split(jax.random.key(0), num_envs), tree_index(games.params, 0)
  actions = random_actions(NUM_PARITY_STEPS, num_envs, games.environment.num_actions)

  @jax.jit
  def run(params, keys, actions):
    remember = lambda state, t, timestep, action: replay.add(
      state, timestep, action, Extras(noise=jnp.full((num_envs, 1), t, jnp.float32))
    )

    def one(carry, inputs):
      env_state, state = carry
      t, action = inputs
      env_state, timestep = games.environment.step(params, env_state, action, keys)
      return (env_state, remember(state, t, timestep, action)), timestep

    env_state, first = games.environment.reset(params, keys)
    state = remember(replay.init(first, actions[0], Extras(noise=jnp.zeros((num_envs, 1)))), 0, first, actions[0])
    numbers = jnp.arange(1, NUM_PARITY_STEPS + 1)
    (_, state), rest = jax.lax.scan(one, (env_state, state), (numbers, actions))
    return state, jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, rest)

  state, timesteps = run(params, keys, actions)
  batch = jax.device_get(jax.jit(replay.sample)(state, jnp.arange(replay.size(state), dtype=jnp.uint32)))
  timesteps = jax.device_get(timesteps)
  last = timesteps.step_type == LAST
  # A start's row, and its environment by the order in which starts are listed.
  row, row_t = (x.noise[:, 0].astype(int) for x in (batch.extras_tm1, batch.extras_t))
  oldest = NUM_PARITY_STEPS + 1 - num_kept + 3
  starts = [(t, e) for t in range(oldest, NUM_PARITY_STEPS + 1 - n) for e in range(num_envs) if not last[t, e]]
  np.testing.assert_array_equal(row, [t for t, _ in starts])
  env = np.array([e for _, e in starts])
  np.testing.assert_array_equal(batch.o_tm1, timesteps.observation[row, env])
  np.testing.assert_array_equal(batch.o_t, timesteps.observation[row_t, env])
  # Games were cut after 100 steps, some of them with a whole transition on either side.
  assert np.sum(last[oldest:]) >= 4 and np.any(row_t - row < n)
  np.testing.assert_array_equal(np.diff(np.flatnonzero(last[:, 0])) <= 101, True)
  truncated = last & (timesteps.discount == 1)
  assert np.any(truncated)
  if game != 'breakout':  # where nothing else ends a game this short
    np.testing.assert_array_equal(truncated, last)


# ----------------------------------------------------------------------------------------------------------- the runner

RUNNER_CONFIG = dataclasses.replace(
  presets.fast_cpu(), replay_capacity=400, min_replay=50, batch_size=8, hidden_sizes=(16,)
)
SMALL = AtariConfig(max_frames=200, screen_size=51)
SEEDS = (0, 1)


def agent_and_replay(config, num_actions):
  agent = ha.make_hyperagent(ha.make_network(config, num_actions), ha.make_optimizer(config), config)
  replay = ha.make_replay(
    config.replay_capacity, config.num_envs, config.n_step, config.discount, config.frame_stack, frame_layout(config)
  )
  return agent, replay


@functools.cache
def run_of(seed_axis):
  """A run of both seeds: the replay after prefilling, the state after learning, an evaluation, and after a restart."""
  config = RUNNER_CONFIG
  num_groups = len(SEEDS) if seed_axis == 'map' else 1
  games = make_atari('asterix', SMALL, len(SEEDS), config.num_envs, 2, num_groups)
  agent, replay = agent_and_replay(config, games.environment.num_actions)
  runner = ha.make_runner(
    agent,
    games.environment,
    replay,
    config,
    eval_environment=games.eval_environment,
    num_eval_episodes=2,
    devices=jax.local_devices()[:1],
    seed_axis=seed_axis,
  )
  state = runner.prefill(runner.init(SEEDS, games.params), 102)
  filled, statistics = jax.device_get((state.carry.replay, state.statistics))
  state = runner.run(state, 30)
  learnt, episodes = jax.device_get((state._replace(key=None), runner.evaluate(state)))
  restarted = jax.device_get(runner.place(state, games.params)._replace(key=None)) if seed_axis == 'map' else None
  return filled, statistics, learnt, episodes, restarted


@pytest.mark.parametrize('seed_axis', ['map', pytest.param('vmap', marks=pytest.mark.long)])
@pytest.mark.slow
def test_the_runner_learns_from_games_and_evaluates(seed_axis):
  _, _, state, episodes, _ = run_of(seed_axis)
  statistics = state.statistics
  assert int(state.learner.num_updates) == 30
  np.testing.assert_array_equal(statistics.num_updates, 30)
  np.testing.assert_array_equal(statistics.nonfinite_step, -1)
  assert np.all(np.isfinite(statistics.loss_sum)) and np.all(statistics.loss_sum > 0)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state.learner.params))
  # 132 steps of games of 50 steps and a FIRST one: two ended.
  np.testing.assert_array_equal(statistics.num_episodes, 2)
  np.testing.assert_array_equal(statistics.num_interactions, 130)
  assert episodes.returns.shape == (2, 2) and np.all(np.isfinite(episodes.returns))
  np.testing.assert_array_equal(episodes.lengths, 50)


@pytest.mark.parametrize('seed_axis', ['map', 'vmap'])
def test_rewards_are_clipped_in_replay_but_not_in_the_statistics(seed_axis):
  filled, statistics, *_ = run_of(seed_axis)
  reward = filled.rows.reward[:, :103, 0]
  assert set(np.unique(reward)) == {0, 1}
  # Every reward in asterix is 50 in the beginning.
  ends = np.flatnonzero(filled.rows.step_type[0, :103, 0] == LAST)
  np.testing.assert_array_equal(ends, [50, 101])
  np.testing.assert_array_equal(statistics.return_sum, 50 * reward[:, :102].sum(axis=1))
  assert np.all(statistics.return_sum > 0)


def test_a_run_that_goes_on_elsewhere_truncates_the_games_under_way_and_starts_new_ones():
  _, _, before, _, after = run_of('map')
  old, new = before.carry.replay, after.carry.replay
  assert old.num_added == 133 and new.num_added == 134 and after.step == before.step + 1
  np.testing.assert_array_equal(old.rows.step_type[:, 132], MID)
  np.testing.assert_array_equal(new.rows.step_type[:, 132], LAST)
  np.testing.assert_array_equal(new.rows.step_type[:, 133], FIRST)
  np.testing.assert_array_equal(new.rows.reward[:, 133], 0)
  np.testing.assert_array_equal(new.rows.step_type[:, :132], old.rows.step_type[:, :132])
  others = [rows._replace(step_type=None) for rows in (new.rows, old.rows)]
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[:, :133], y[:, :133]), *others)
  np.testing.assert_array_equal(new.rows.observation[:, -1], 0)  # the blank frame
  assert np.all(new.rows.observation[:, 133].any(axis=(1, 2, 3)))
  np.testing.assert_array_equal(after.statistics.episode_return, 0)
  np.testing.assert_array_equal(after.statistics.num_interactions, before.statistics.num_interactions)
  # The update that belongs to the time step is done.
  assert int(after.learner.num_updates) == int(before.learner.num_updates) + 1
  jax.tree.map(np.testing.assert_array_equal, after.learner.prior_params, before.learner.prior_params)


def test_random_play_is_the_same_games_whether_seeds_are_mapped_or_vmapped():
  mapped, vmapped = run_of('map')[0], run_of('vmap')[0]
  exact = lambda rows: rows._replace(extras=None)
  jax.tree.map(np.testing.assert_array_equal, exact(mapped.rows), exact(vmapped.rows))
  jax.tree.map(np.testing.assert_array_equal, mapped._replace(rows=None), vmapped._replace(rows=None))
  assert not np.array_equal(mapped.rows.observation[0], mapped.rows.observation[1])


# ------------------------------------------------------------------------------------------------ interfaces and errors


def test_wrong_numbers_of_games_are_refused():
  with pytest.raises(ValueError, match='num_groups=2: must divide num_seeds=3'):
    make_atari('pong', SMALL, num_seeds=3, num_envs=1, num_eval_episodes=1, num_groups=2)
  games = make_atari('pong', SMALL, num_seeds=1, num_envs=2, num_eval_episodes=1, num_groups=1)
  with pytest.raises(ValueError, match='made for 2 instances, not 3'):
    batched(games.environment, 3)
  params = tree_index(games.params, 0)
  with pytest.raises(ValueError, match=r'3 games .* groups of 2'):
    games.environment.reset(params, jax.random.split(jax.random.key(0), 3))
  state, _ = jax.eval_shape(games.environment.reset, params, jax.random.split(jax.random.key(0), 2))
  with pytest.raises(ValueError, match=r'1 games .* groups of 2'):
    jax.eval_shape(games.environment.step, params, state, jnp.zeros((1,), jnp.int32), None)
  # Two seeds at once would be four games.
  with pytest.raises(ValueError, match=r'4 games .* groups of 2'):
    keys = jax.random.split(jax.random.key(0), (2, 2))
    jax.eval_shape(jax.vmap(games.environment.reset, in_axes=(None, 0)), params, keys)
  # One of two seeds that share their games cannot be stepped alone; not even zeros come back.
  shared = make_atari('pong', SMALL, num_seeds=2, num_envs=2, num_eval_episodes=1, num_groups=1)
  with pytest.raises(Exception, match='groups of 4'):
    keys = jax.random.split(jax.random.key(0), 2)
    jax.block_until_ready(jax.jit(shared.environment.reset)(tree_index(shared.params, 0), keys))
  with pytest.raises(ConfigError, match='did you mean pong'):
    make_atari('Pong', SMALL, 1, 1, 1, 1)
  agent, replay = agent_and_replay(RUNNER_CONFIG, 6)
  with pytest.raises(ValueError, match='made for 2 instances, not 1'):
    ha.make_runner(agent, games.environment, replay, RUNNER_CONFIG, games.eval_environment, num_eval_episodes=1)


def test_specs_of_both_interfaces():
  config = dataclasses.replace(SMALL, full_action_space=True)
  games = make_atari('pong', SMALL, 1, 2, 1, 1, frame_stack=3)
  environment = games.environment
  assert environment.name == 'atari/pong' and environment.num_envs == 2 and games.eval_environment.num_envs == 1
  assert environment.num_actions == atari.num_actions_of('pong', SMALL) == 6 and not environment.resumable
  assert atari.num_actions_of('pong', config) == 18 and environment.episode_length is None
  plain = AtariEnvironment('pong', config, seed=0, frame_stack=3)
  assert plain.action_spec().num_values == 18
  assert plain.observation_spec() == environment.observation_spec
  assert plain.observation_spec().shape == (3, 51, 51) and plain.observation_spec().dtype == np.uint8
  plain.observation_spec().validate(plain.reset().observation)


def test_first_step_of_a_plain_environment_starts_a_game_and_bad_actions_are_named():
  plain = AtariEnvironment('freeway', SMALL, seed=3)
  assert plain.step(99).first()
  with pytest.raises(ValueError, match=r'action=3: must be in \[0, 3\)'):
    plain.step(3)
  kinds = [plain.step(0).step_type for _ in range(52)]
  assert kinds == [*[dm_env.StepType.MID] * 49, dm_env.StepType.LAST, dm_env.StepType.FIRST, dm_env.StepType.MID]
  with pytest.raises(ConfigError, match='did you mean freeway'):
    AtariEnvironment('Freeway', SMALL, seed=0)


def test_a_plain_environment_truncates_with_discount_one_and_loses_lives_in_training_only():
  discounts = {}
  for training in (True, False):
    plain = AtariEnvironment('breakout', AtariConfig(max_frames=400), seed=0, training=training)
    plain.reset()
    steps = [plain.step(int(a)) for a in random_actions(100, 1, 4)[:, 0]]
    ends = [s for s in steps if s.last()]
    assert len(ends) == 1 and ends[0].discount == 1
    discounts[training] = [s.discount for s in steps if s.mid()]
  assert 0.0 in discounts[True] and set(discounts[False]) == {1.0}
  plain.observation_spec().validate(ends[0].observation)


def test_later_games_of_a_plain_environment_are_others_and_come_back_with_its_seed():
  def games(seed):
    plain = AtariEnvironment('pong', SMALL, seed)
    result = []
    for _ in range(4):
      plain.reset()
      result.append([plain.step(2).observation for _ in range(20)][-1])
    return np.stack(result)

  first = games(7)
  np.testing.assert_array_equal(first, games(7))
  assert len(np.unique(first.reshape(4, -1), axis=0)) >= 3
  assert not np.array_equal(first, games(8))


def test_screens_and_stacks_are_not_overwritten_by_later_steps():
  plain = AtariEnvironment('pong', SMALL, seed=0)
  first = plain.reset().observation
  before = first.copy()
  later = [plain.step(2).observation for _ in range(5)]
  np.testing.assert_array_equal(first, before)
  for x, y in itertools.pairwise(later):
    np.testing.assert_array_equal(x[1:], y[:-1])


def test_the_host_driver_plays_a_plain_environment():
  config = dataclasses.replace(RUNNER_CONFIG, min_replay=20)
  environment = AtariEnvironment('asterix', dataclasses.replace(SMALL, max_frames=80), seed=1)
  num_actions = environment.action_spec().num_values
  agent, replay = agent_and_replay(config, num_actions)
  host = ha.HostAgent(agent, replay, num_actions, config, seed=0)
  seen = list(itertools.islice(ha.run_loop(host, environment), 45))
  assert sum(timestep.last() for timestep, _ in seen) == 2 and all(0 <= a < num_actions for _, a in seen)
  assert int(host.learner.num_updates) > 15
  assert np.isfinite(float(host.losses.loss)) and bool(host.losses.finite)
