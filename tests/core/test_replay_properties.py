"""Replay against the oracle of test_replay.py on any episodes: Hypothesis looks for some that tell them apart."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from test_replay import add_row, as_dicts, assert_same_in_order, empty, end_of_part, oracle, stacked

from hyperagent_jax.replay import make_replay
from hyperagent_jax.types import FIRST, LAST, MID

# Few shapes, so that few programs are compiled: num_envs, rows kept, n, frame_stack. The smallest rings that are
# allowed are among them, n + frame_stack + 1 rows.
SHAPES = ((1, 3, 1, 1), (3, 5, 3, 1), (2, 9, 2, 1), (1, 6, 1, 4), (2, 8, 3, 4), (1, 9, 5, 3))
MAX_ROWS = 24  # several times around every ring
GAMMA = 0.9
# Exact in float32, as are their sums: whatever is wrong is then more than rounding.
REWARDS = (-2.0, 0.0, 0.5, 1.0, 64.0)
DISCOUNTS = (0.0, 0.25, 0.5, 1.0)  # of steps within an episode; 0 is a life that is lost
ENDS = ('terminated', 'truncated')


@st.composite
def episodes(draw, num_rows):
  """The steps of one environment: episodes of any length from two rows on, the last of which may not end."""
  steps = []
  while len(steps) < num_rows:
    length = draw(st.integers(1, 9))  # transitions
    steps.append((FIRST, 1.0))
    steps += [(MID, draw(st.sampled_from(DISCOUNTS))) for _ in range(length - 1)]
    end = draw(st.sampled_from(ENDS))
    steps.append((LAST, 0.0 if end == 'terminated' else draw(st.sampled_from(DISCOUNTS[1:]))))
  return steps[:num_rows]


@st.composite
def streams(draw, num_envs):
  """Rows of all environments; observations and actions name row and environment."""
  num_rows = draw(st.integers(1, MAX_ROWS))
  steps = [draw(episodes(num_rows)) for _ in range(num_envs)]
  rewards = draw(st.lists(st.sampled_from(REWARDS), min_size=num_rows * num_envs, max_size=num_rows * num_envs))
  rewards = np.asarray(rewards, np.float32).reshape(num_rows, num_envs)
  rows = []
  for t in range(num_rows):
    name = np.float32(100 * t + np.arange(num_envs))
    rows.append(
      dict(
        step_type=np.array([steps[e][t][0] for e in range(num_envs)]),
        reward=rewards[t],  # on FIRST steps too, where it shows if replay looks across the end of an episode
        discount=np.array([steps[e][t][1] for e in range(num_envs)], np.float32),
        observation=np.stack([name, -name], axis=1),
        action=name.astype(np.int32),
        noise=np.stack([name + 0.25, -name], axis=1),
      )
    )
  return rows


@functools.cache
def compiled(num_envs, num_kept, n, frame_stack):
  """Replay and its functions, of which `sample` draws every rank."""
  capacity = num_envs * num_kept
  replay = make_replay(capacity, num_envs, n, GAMMA, frame_stack)
  every_rank = jnp.arange(capacity, dtype=jnp.uint32)
  sample = jax.jit(lambda state: replay.sample(state, every_rank))
  return replay, jax.jit(functools.partial(add_row, replay)), sample


def drawn_from(replay, sample, state):
  """All that can be drawn, oldest first. More bits than transitions draw nothing else."""
  size, capacity = int(replay.size(state)), state.starts.shape[0]
  assert bool(replay.can_sample(state)) == (size > 0)
  if not size:
    return []
  every = as_dicts(sample(state), capacity)
  for i in range(size, capacity):
    jax.tree.map(np.testing.assert_array_equal, every[i], every[i % size])
  return every[:size]


def check(shape, rows, abandoned_after=()):
  """Compares at every row; the episodes under way are abandoned after the rows named."""
  _, num_kept, n, frame_stack = shape
  replay, add, sample = compiled(*shape)
  state, seen = empty(replay, rows[0]), []
  for t, row in enumerate(rows):
    state, seen = add(state, row), [*seen, row]
    if t in abandoned_after:
      seen = end_of_part(seen)
    drawn, expected = drawn_from(replay, sample, state), oracle(seen, num_kept, n, frame_stack)
    # In order and of the same number: neither more nor fewer can be drawn, and none twice.
    if frame_stack > 1:
      assert_same_in_order(drawn, expected, f'after row {t}')
      continue
    assert [d['a_tm1'] for d in drawn] == [e['a_tm1'] for e in expected], f'after row {t}'
    for d, e in zip(drawn, expected, strict=True):
      jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), d, e)


def settings(max_examples):
  return hypothesis.settings(
    max_examples=max_examples,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@settings(max_examples=12)
@hypothesis.given(data=st.data())
def test_what_can_be_drawn_equals_the_oracle_at_every_row(shape, data):
  rows = data.draw(streams(shape[0]))
  check(shape, stacked(rows, shape[3]) if shape[3] > 1 else rows)


@pytest.mark.parametrize('shape', SHAPES[1:5:3], ids=str)
@settings(max_examples=12)
@hypothesis.given(data=st.data())
def test_episodes_that_are_cut_short_at_any_row_bootstrap_from_it(shape, data):
  """Every environment starts anew though its episode has not ended."""
  rows, cuts = [], []
  for _ in range(data.draw(st.integers(1, 4))):
    part = data.draw(streams(shape[0]))[:8]
    rows += stacked(part, shape[3], first_row=len(rows)) if shape[3] > 1 else part
    cuts.append(len(rows) - 1)
  # Names of rows by their number in the whole.
  rows = [{**row, 'action': 100 * t + np.arange(shape[0], dtype=np.int32)} for t, row in enumerate(rows)]
  check(shape, rows, frozenset(cuts))
