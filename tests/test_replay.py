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
from hyperagent_jax.replay import make_replay
from hyperagent_jax.types import FIRST, LAST, MID, Extras, TimeStep

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


def oracle(rows, num_kept, n):
  """All n-step transitions that may be drawn, oldest first, straight from the formulas of section 3."""
  transitions = []
  for t in range(max(0, len(rows) - num_kept), len(rows) - n):
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
def compiled(capacity, num_envs, n):
  replay = make_replay(capacity, num_envs, n, GAMMA)
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
