"""Replay against an oracle that keeps every row in a Python list."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperagent_jax import types
from hyperagent_jax.agent import make_hyperagent, make_optimizer
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.networks import make_network
from hyperagent_jax.replay import PIXELS, FrameLayout, make_replay
from hyperagent_jax.types import FIRST, LAST, MID, Extras, HyperQ, TimeStep

GAMMA = 0.9


def make_stream(num_envs, num_rows, seed):
  """Rows of E environments with terminations, truncations and life losses; observations name row and environment."""
  rng = np.random.RandomState(seed)
  previous = np.full(num_envs, LAST)
  rows = []
  for t in range(num_rows):
    kind = rng.choice(['mid', 'life', 'terminated', 'truncated'], size=num_envs, p=[0.6, 0.1, 0.15, 0.15])
    step_type = np.where(previous == LAST, FIRST, np.where(np.isin(kind, ['terminated', 'truncated']), LAST, MID))
    first = step_type == FIRST
    discount = np.where(
      np.isin(kind, ['life', 'terminated']) & ~first, 0.0, np.where(rng.rand(num_envs) < 0.5, 1.0, 0.5)
    )
    discount = np.where(first, 1.0, discount).astype(np.float32)
    # A reward that is there on FIRST steps too shows up if replay looks across the end of an episode.
    reward = rng.randn(num_envs).astype(np.float32)
    name = np.float32(100 * t + np.arange(num_envs))
    rows.append(
      dict(
        step_type=step_type,
        reward=reward,
        discount=discount,
        observation=np.stack([name, -name], axis=1),
        action=rng.randint(0, 4, size=num_envs).astype(np.int32),
        noise=rng.randn(num_envs, 2).astype(np.float32),
      )
    )
    previous = step_type
  return rows


def oracle(rows, num_kept, n, frame_stack=1):
  """All n-step transitions that may be drawn, oldest first, straight from the formulas of section 3.

  Of the rows that are kept, the oldest have lost frames of their stacks and may not be drawn.
  """
  transitions = []
  for t in range(max(0, len(rows) - num_kept + frame_stack - 1), len(rows) - n):
    for e in range(len(rows[0]['reward'])):
      if rows[t]['step_type'][e] == LAST:
        continue
      m = 1
      while m < n and rows[t + m]['step_type'][e] != LAST:
        m += 1
      d = [rows[t + j + 1]['discount'][e] for j in range(m)]
      r = sum(np.prod([GAMMA * x for x in d[:i]]) * rows[t + i + 1]['reward'][e] for i in range(m))
      start, end = rows[t], rows[t + m]
      transitions.append(
        dict(
          o_tm1=start['observation'][e],
          a_tm1=start['action'][e],
          r_t=r,
          discount_t=np.prod([GAMMA * x for x in d]),
          o_t=end['observation'][e],
          noise_tm1=start['noise'][e],
          noise_t=end['noise'][e],
        )
      )
  return transitions


def add_row(replay, state, row):
  timestep = TimeStep(jnp.asarray(row['step_type'], jnp.int32), row['reward'], row['discount'], row['observation'])
  return replay.add(state, timestep, row['action'], Extras(noise=row['noise']))


def empty(replay, row):
  timestep = TimeStep(jnp.asarray(row['step_type'], jnp.int32), row['reward'], row['discount'], row['observation'])
  return replay.init(timestep, row['action'], Extras(noise=row['noise']))


@functools.cache
def compiled(capacity, num_envs, n, frame_stack=1):
  replay = make_replay(capacity, num_envs, n, GAMMA, frame_stack)
  return replay, jax.jit(functools.partial(add_row, replay)), jax.jit(replay.sample)


def as_dicts(batch, num):
  fields = dict(
    o_tm1=batch.o_tm1,
    a_tm1=batch.a_tm1,
    r_t=batch.r_t,
    discount_t=batch.discount_t,
    o_t=batch.o_t,
    noise_tm1=batch.extras_tm1.noise,
    noise_t=batch.extras_t.noise,
  )
  fields = {k: np.asarray(v) for k, v in fields.items()}
  return [{k: v[i] for k, v in fields.items()} for i in range(num)]


def by_start(transitions):
  result = {float(t['o_tm1'][0]): t for t in transitions}
  assert len(result) == len(transitions)
  return result


@pytest.mark.parametrize('n', [1, 3])
@pytest.mark.parametrize('num_envs, capacity', [(1, 7), (3, 23), (1, 5), (3, 15)])
def test_what_can_be_drawn_equals_the_oracle_at_every_row_over_several_wraps(num_envs, capacity, n):
  num_kept = capacity // num_envs
  rows = make_stream(num_envs, 6 * num_kept + 3, seed=10 * num_envs + n)
  replay, add, sample = compiled(capacity, num_envs, n)
  state = empty(replay, rows[0])
  assert int(replay.size(state)) == 0 and not bool(replay.can_sample(state))
  bits = jnp.arange(capacity, dtype=jnp.uint32)
  starts_seen = set()
  for t, row in enumerate(rows):
    state = add(state, row)
    expected = oracle(rows[: t + 1], num_kept, n)
    size = int(replay.size(state))
    assert size == len(expected)
    assert bool(replay.can_sample(state)) == (size > 0)
    if size == 0:
      continue
    drawn, expected = by_start(as_dicts(sample(state, bits), size)), by_start(expected)
    assert set(drawn) == set(expected)
    starts_seen |= set(drawn)
    for name, transition in expected.items():
      for k, v in transition.items():
        np.testing.assert_allclose(drawn[name][k], v, rtol=1e-5, atol=1e-6, err_msg=f'{k} of {name} after row {t}')
  # Every entry that is not LAST gets its turn, but for the newest.
  valid = {100 * t + e for t in range(len(rows) - n) for e in range(num_envs) if rows[t]['step_type'][e] != LAST}
  assert starts_seen == valid


def test_a_three_step_return_by_hand():
  replay, add, sample = compiled(10, 1, 3)
  rows = []
  for t, (step_type, discount) in enumerate(
    [(FIRST, 1), (MID, 1), (MID, 0.5), (MID, 1), (LAST, 1), (FIRST, 1), (MID, 1)]
  ):
    rows.append(
      dict(
        step_type=np.array([step_type]),
        reward=np.array([10.0**t], np.float32),
        discount=np.array([discount], np.float32),
        observation=np.array([[t, -t]], np.float32),
        action=np.array([t], np.int32),
        noise=np.zeros((1, 2), np.float32),
      )
    )
  state = empty(replay, rows[0])
  for row in rows:
    state = add(state, row)
  drawn = by_start(as_dicts(sample(state, jnp.arange(10, dtype=jnp.uint32)), int(replay.size(state))))
  assert set(drawn) == {0, 1, 2, 3}
  np.testing.assert_allclose(drawn[0]['r_t'], 10 + 0.9 * 100 + 0.9 * 0.45 * 1000, rtol=1e-6)
  np.testing.assert_allclose(drawn[0]['discount_t'], 0.9 * 0.45 * 0.9, rtol=1e-6)
  # Two steps from a truncation: the return stops there and bootstraps from the last state.
  np.testing.assert_allclose(drawn[2]['r_t'], 1000 + 0.9 * 10_000, rtol=1e-6)
  np.testing.assert_allclose(drawn[2]['discount_t'], 0.81, rtol=1e-6)
  assert drawn[2]['o_t'][0] == 4
  np.testing.assert_allclose(drawn[3]['r_t'], 10_000)
  np.testing.assert_allclose(drawn[3]['discount_t'], 0.9, rtol=1e-6)


def full_replay(num_envs=3, capacity=33, n=2):
  rows = make_stream(num_envs, 3 * capacity, seed=0)
  replay, add, sample = compiled(capacity, num_envs, n)
  state = empty(replay, rows[0])
  for row in rows:
    state = add(state, row)
  return replay, state, sample


def test_sampling_is_uniform_over_valid_transitions():
  replay, state, sample = full_replay()
  size = int(replay.size(state))
  batch = sample(state, jax.random.bits(jax.random.key(0), (20_000,), jnp.uint32))
  _, counts = np.unique(np.asarray(batch.o_tm1)[:, 0], return_counts=True)
  assert counts.size == size
  chi_square = np.sum((counts - 20_000 / size) ** 2 / (20_000 / size))
  assert abs(chi_square - (size - 1)) < 5 * (2 * (size - 1)) ** 0.5


def test_bits_of_any_size_draw_the_remainder():
  replay, state, sample = full_replay()
  size = int(replay.size(state))
  bits = np.array([3, size + 3, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
  small = (bits.astype(np.uint64) % size).astype(np.uint32)
  jax.tree.map(np.testing.assert_array_equal, sample(state, jnp.asarray(bits)), sample(state, jnp.asarray(small)))


def test_the_order_dependence_of_add_changes_nothing_stored():
  replay, add, _ = compiled(7, 1, 1)
  rows = make_stream(1, 10, seed=4)
  plain, ordered = empty(replay, rows[0]), empty(replay, rows[0])
  for row in rows:
    plain = add(plain, row)
    timestep = TimeStep(jnp.asarray(row['step_type'], jnp.int32), row['reward'], row['discount'], row['observation'])
    # Not even a loss that is not finite may disturb replay.
    ordered = replay.add(ordered, timestep, row['action'], Extras(noise=row['noise']), jnp.float32(np.nan))
  jax.tree.map(np.testing.assert_array_equal, plain, ordered)


def test_empty_replay_does_not_alias_so_that_it_can_be_donated():
  rows = make_stream(2, 1, seed=0)
  state = empty(make_replay(10, 2, 1, GAMMA), rows[0])
  pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
  assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize('num_envs, n, frame_stack', [(1, 1, 1), (3, 5, 1), (1, 5, 4), (2, 3, 4)])
def test_replay_without_room_for_a_transition_and_its_stacks_is_refused(num_envs, n, frame_stack):
  least = num_envs * (n + frame_stack + 1)
  make_replay(least, num_envs, n, GAMMA, frame_stack)
  with pytest.raises(ValueError, match=f'capacity={least - 1}: must be at least {least}'):
    make_replay(least - 1, num_envs, n, GAMMA, frame_stack)


# --------------------------------------------------------------------------------------------------------- frame stacks


def name_frame(t, env):
  """A frame [2, 3] that names its row and environment, and is nowhere blank."""
  return np.array([[t % 250 + 1, env + 1, t // 250 + 1], [255 - t % 250, 7, 9]], np.uint8)


def stacked(rows, frame_stack, first_row=0):
  """The rows with an environment's own stacks, blank before the start of an episode, as observations."""
  num_envs = len(rows[0]['reward'])
  blank = np.zeros((2, 3), np.uint8)
  frames = [[] for _ in range(num_envs)]
  result = []
  for t, row in enumerate(rows, start=first_row):
    observation = []
    for e in range(num_envs):
      frames[e] = [blank] * frame_stack if row['step_type'][e] == FIRST else frames[e]
      frames[e] = [*frames[e][1:], name_frame(t, e)]
      observation.append(np.stack(frames[e]))
    result.append({**row, 'observation': np.stack(observation)})
  return result


def drawn_in_order(replay, sample, state, num_bits):
  size = int(replay.size(state))
  batch = as_dicts(sample(state, jnp.arange(num_bits, dtype=jnp.uint32)), size) if size else []
  return batch, size


def assert_same_in_order(drawn, expected, when):
  """All fields of all transitions; observations to the bit."""
  assert len(drawn) == len(expected), when
  if not expected:
    return
  for k in expected[0]:
    x, y = np.stack([d[k] for d in drawn]), np.stack([e[k] for e in expected])
    if k in ('o_tm1', 'o_t'):
      assert x.dtype == np.uint8
      np.testing.assert_array_equal(x, y, err_msg=f'{k} {when}')
    else:
      np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=f'{k} {when}')


@pytest.mark.parametrize(
  'num_envs, num_kept, n, frame_stack',
  [(1, 11, 1, 4), (2, 9, 1, 3), (1, 8, 3, 4), (2, 13, 3, 4), (1, 10, 5, 4), (2, 11, 5, 3), (2, 10, 5, 4)],
)
def test_stacks_and_all_else_equal_the_oracle_at_every_row_over_several_wraps(num_envs, num_kept, n, frame_stack):
  capacity = num_envs * num_kept + num_envs - 1  # what is left over makes no row
  rows = stacked(make_stream(num_envs, 6 * num_kept + 3, seed=10 * num_envs + n), frame_stack)
  replay, add, sample = compiled(capacity, num_envs, n, frame_stack)
  state = empty(replay, rows[0])
  starts_seen = set()
  for t, row in enumerate(rows):
    # Whatever else a stack holds, only its newest frame is looked at.
    newest_only = row['observation'].copy()
    newest_only[:, :-1] = 200
    state = add(state, {**row, 'observation': newest_only})
    expected = oracle(rows[: t + 1], num_kept, n, frame_stack)
    drawn, size = drawn_in_order(replay, sample, state, capacity)
    assert bool(replay.can_sample(state)) == (size > 0)
    assert_same_in_order(drawn, expected, f'after row {t}')
    starts_seen |= {tuple(d['o_tm1'][-1].ravel()) for d in drawn}
  # Every entry that is not LAST gets its turn, but for the newest.
  valid = {(t, e) for t in range(len(rows) - n) for e in range(num_envs) if rows[t]['step_type'][e] != LAST}
  assert starts_seen == {tuple(name_frame(*x).ravel()) for x in valid}
  assert state.rows.observation.shape == (num_kept + 1, num_envs, 2, 3)  # each frame once, and the blank one


@pytest.mark.parametrize('stack_axis', [0, 1, 2])
def test_frames_kept_in_another_layout_are_stacked_in_it(stack_axis):
  """Encoded once, when they are stored; the rest is as with frames as they are."""
  num_kept, n, encode = 11, 3, lambda frame: frame.T[:, :1] + 2
  rows = stacked(make_stream(2, 40, seed=1), 4)
  states, samples = [], []
  for layout in (PIXELS, FrameLayout(encode, stack_axis)):
    replay = make_replay(2 * num_kept, 2, n, GAMMA, 4, layout)
    state, add = empty(replay, rows[0]), jax.jit(functools.partial(add_row, replay))
    for row in rows:
      state = add(state, row)
    states.append(state)
    samples.append(replay.sample(state, jnp.arange(replay.size(state), dtype=jnp.uint32)))
  plain, other = samples
  for field in ('o_tm1', 'o_t'):
    frames = np.asarray(getattr(plain, field))
    is_frame = frames.any(axis=(2, 3))[:, :, None, None]  # blank ones are 0 in every layout
    expected = np.where(is_frame, frames.swapaxes(2, 3)[..., :1] + 2, 0)
    np.testing.assert_array_equal(getattr(other, field), np.moveaxis(expected, 1, 1 + stack_axis))
  same = lambda batch: batch._replace(o_tm1=None, o_t=None)
  jax.tree.map(np.testing.assert_array_equal, same(plain), same(other))
  assert states[1].rows.observation.shape == (num_kept + 1, 2, 3, 1)


def stack_of(*numbers):
  """The stack of one environment's frames with these row numbers; None is blank."""
  return np.stack([np.zeros((2, 3), np.uint8) if t is None else name_frame(t, 0) for t in numbers])


def test_stacks_by_hand_over_the_end_of_a_game_and_a_lost_life():
  kinds = [(FIRST, 1), (MID, 1), (LAST, 0), (FIRST, 1), (MID, 1), (MID, 0), (MID, 1), (MID, 1), (LAST, 1), (FIRST, 1)]
  rows = [
    dict(
      step_type=np.array([step_type]),
      reward=np.array([10.0**t], np.float32),
      discount=np.array([discount], np.float32),
      action=np.array([t], np.int32),
      noise=np.zeros((1, 2), np.float32),
    )
    for t, (step_type, discount) in enumerate(kinds)
  ]
  rows = stacked(rows, 4)
  replay, add, sample = compiled(20, 1, 1, 4)
  state = empty(replay, rows[0])
  for row in rows:
    state = add(state, row)
  drawn, size = drawn_in_order(replay, sample, state, 20)
  assert size == 7 and [int(d['a_tm1']) for d in drawn] == [0, 1, 3, 4, 5, 6, 7]  # no LAST row
  by_row = {int(d['a_tm1']): d for d in drawn}
  same = np.testing.assert_array_equal
  same(by_row[0]['o_tm1'], stack_of(None, None, None, 0))
  same(by_row[1]['o_t'], stack_of(None, 0, 1, 2))
  # The next game begins with blank frames, not with those of the last one.
  same(by_row[3]['o_tm1'], stack_of(None, None, None, 3))
  same(by_row[3]['o_t'], stack_of(None, None, 3, 4))
  # A life lost ends the future's worth and nothing else: the state after it has its whole stack.
  assert by_row[4]['discount_t'] == 0
  same(by_row[5]['o_tm1'], stack_of(None, 3, 4, 5))
  same(by_row[6]['o_tm1'], stack_of(3, 4, 5, 6))
  same(by_row[7]['o_t'], stack_of(5, 6, 7, 8))
  np.testing.assert_allclose(by_row[7]['discount_t'], 0.9)


def end_of_part(rows):
  """The rows as they should look once the episodes under way are abandoned."""
  return [*rows[:-1], {**rows[-1], 'step_type': np.full_like(rows[-1]['step_type'], LAST)}]


@pytest.mark.parametrize('num_envs, n, frame_stack', [(2, 1, 1), (1, 3, 4), (2, 3, 3)])
def test_a_first_step_ends_the_episode_under_way_as_the_oracle_says(num_envs, n, frame_stack):
  num_kept = 12
  replay, add, sample = compiled(num_envs * num_kept, num_envs, n, frame_stack)
  rows, state, newest_kinds = [], None, set()
  for part in range(12):  # at any moment of the episodes, every environment then starts anew
    length = 1 + (5 * part) % 9
    new = make_stream(num_envs, length, seed=part)
    if frame_stack > 1:
      new = stacked(new, frame_stack, first_row=len(rows))
    for row in new:
      state = add(empty(replay, row) if state is None else state, row)
      rows = [*rows, row]
    newest_kinds |= set(rows[-1]['step_type'].tolist())
    rows = end_of_part(rows)
    expected = oracle(rows, num_kept, n, frame_stack)
    drawn, size = drawn_in_order(replay, sample, state, num_envs * num_kept)
    assert size == len(expected)
    for d, e in zip(drawn, expected, strict=True):
      jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), d, e)
  assert newest_kinds == {FIRST, MID, LAST}


def test_transitions_of_an_abandoned_episode_bootstrap_from_its_newest_row_and_none_crosses_it():
  replay, add, sample = compiled(20, 1, 3, 4)
  kinds = [FIRST, MID, MID, MID, FIRST, MID, MID, MID]
  rows = [
    dict(
      step_type=np.array([k]),
      reward=np.array([10.0**t], np.float32),
      discount=np.array([0.5 if t == 3 else 1.0], np.float32),
      action=np.array([t], np.int32),
      noise=np.zeros((1, 2), np.float32),
    )
    for t, k in enumerate(kinds)
  ]
  rows = stacked(rows, 4)
  state = empty(replay, rows[0])
  for row in rows:
    state = add(state, row)
  drawn, _ = drawn_in_order(replay, sample, state, 20)
  by_row = {int(d['a_tm1']): d for d in drawn}
  assert list(by_row) == [0, 1, 2, 4]  # row 3 became LAST
  for t, length in ((0, 3), (1, 2), (2, 1)):
    np.testing.assert_array_equal(by_row[t]['o_t'], stack_of(0, 1, 2, 3))
    np.testing.assert_allclose(by_row[t]['discount_t'], 0.5 * 0.9**length, rtol=1e-6)
    np.testing.assert_allclose(by_row[t]['r_t'], sum(0.9**i * 10.0 ** (t + 1 + i) for i in range(length)), rtol=1e-6)
  np.testing.assert_array_equal(by_row[4]['o_tm1'], stack_of(None, None, None, 4))


def test_half_a_million_steps_of_atari_take_at_most_3_8_gigabytes():
  timestep = TimeStep(jnp.zeros((1,), jnp.int32), jnp.zeros((1,)), jnp.ones((1,)), jnp.zeros((1, 4, 84, 84), jnp.uint8))
  extras = Extras(noise=jnp.zeros((1, 4)), prior_q=HyperQ(jnp.zeros((1, 18)), jnp.zeros((1, 18, 4))))
  replay = make_replay(500_000, 1, 5, 0.99, frame_stack=4)
  state = jax.eval_shape(replay.init, timestep, jnp.zeros((1,), jnp.int32), extras)
  num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  assert 500_000 * 84 * 84 < num_bytes <= 3.8e9


# -------------------------------------------------------------------------------------------------------- what it takes


@pytest.mark.parametrize(
  'changes',
  [{}, {'sigma': 0.1}, {'sigma': 0.1, 'prior_storage': 'replay', 'n_step': 5}, {'num_envs': 8}],
  ids=['default', 'perturbed', 'prior_in_replay', 'eight_environments'],
)
def test_a_million_steps_of_deep_sea_take_at_most_128_megabytes(changes):
  config = HyperAgentConfig(grid_size=100, **changes)
  agent = make_hyperagent(make_network(config, 2), make_optimizer(config), config)
  replay = make_replay(1_000_000, config.num_envs, config.n_step, config.discount)

  def init(key):
    timestep = types.time_step(FIRST, 0.0, 1.0, jnp.int32(0))
    learner, actor = agent.init(key, timestep.observation), agent.init_actor(key)
    _, output = agent.act(learner, actor, timestep, key)
    return replay.init(
      *jax.tree.map(lambda x: jnp.stack([x] * config.num_envs), (timestep, output.action, output.extras))
    )

  state = jax.eval_shape(init, jax.random.key(0))
  num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  assert 10e6 < num_bytes <= 128e6
