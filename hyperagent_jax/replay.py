"""Experience replay on device: a ring of time steps from which n-step transitions are rebuilt.

Each state is stored once, one row of E environments' time steps per step, at a pointer that does not depend on data. A
second ring lists, in order, the entries that may start a transition: those that are not LAST, pushed n steps after
they were stored so that their n-step return is complete. Sampling uniformly over that list is uniform over valid
transitions and never rejects.

A FIRST step that does not follow a LAST one ends the episode under way: its newest step becomes LAST and keeps its
discount, as if truncated. So no transition joins two episodes, however they came to be reset.

Where an observation is a stack of frames only its newest is stored, and stacks are rebuilt from rows t-3..t. What lies
before the start of an episode is a blank frame, kept in a row of its own, so that rebuilding is one look-up, or the
episode's first frame.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.types import (
  FIRST,
  LAST,
  PIXELS,
  Array,
  FrameLayout,
  Observation,
  TimeStep,
  Transition,
  check_32_bits,
)

FRAME_PADDINGS = ('blank', 'first')
MAX_CAPACITY = 2**29  # the places of entries are int32


class Row(NamedTuple):
  """One time step of E environments, with the action chosen in it and what the agent attached to it."""

  step_type: Array  # [E] int8
  reward: Array  # [E] of the step that led here
  discount: Array  # [E] of the step that led here
  observation: Observation  # [E, ...], the newest frame of a stack
  action: Array  # [E]
  extras: Any  # [E, ...]


class ReplayState(NamedTuple):
  """The rings. `num_added` is the same for all seeds trained together; the other counters are not.

  Once a ring is full its counters go on modulo its size, so that they never outgrow an int32.
  """

  rows: Row  # [C, E, ...]; of stacked observations C + 1 rows, the last one blank for ever
  starts: Array  # [C E] int32: row * E + environment of entries that may start a transition
  num_added: Array  # [] int32 rows ever added, below 2 C: less a multiple of C, but never below C again
  num_pushed: Array  # [] int32 starts ever pushed, less the multiple of C E that num_dropped is short of
  num_dropped: Array  # [] int32 starts since overwritten, modulo C E


# Which arrays carry the axis of seeds, as in `types.LEARNER_AXES`.
REPLAY_AXES: Any = ReplayState(*cast(tuple[Any, ...], (0, 0, None, 0, 0)))


class InitReplay(Protocol):
  """Makes an empty replay."""

  def __call__(self, timestep: TimeStep, action: Array, extras: Any, /) -> ReplayState:
    """Returns rings for time steps, actions and extras like these, [E, ...] each."""


class Add(Protocol):
  """Stores a time step of all environments."""

  def __call__(
    self, state: ReplayState, timestep: TimeStep, action: Array, extras: Any, /, reads_done: Array | float = 0.0
  ) -> ReplayState:
    """Returns the state with the step [E] and what was done in it.

    `reads_done` is a scalar that depends on everything read from replay since the last step was stored. It says when
    the reads are done: XLA writes a ring in place only if the write comes after them.
    """


class Sample(Protocol):
  """Draws a mini-batch, uniformly over the transitions that are whole."""

  def __call__(self, state: ReplayState, bits: Array, /) -> Transition:
    """Returns transitions [B, ...] for random bits [B] uint32."""


class Replay(NamedTuple):
  """Replay as pure functions."""

  init: InitReplay
  add: Add
  sample: Sample
  can_sample: Callable[[ReplayState], Array]
  size: Callable[[ReplayState], Array]  # number of transitions that can be drawn
  frame_stack: int = 1  # of observations as they come, for drivers to check
  frame_padding: str = 'blank'


def make_replay(
  capacity: int,
  num_envs: int,
  n_step: int,
  discount: float,
  frame_stack: int = 1,
  frame_layout: FrameLayout = PIXELS,
  frame_padding: str = 'blank',
) -> Replay:
  """Uniform replay over n-step transitions (section 3).

  With d the environment's discounts and m = min(n, steps to the episode's end),
  r = sum_{i<m} (prod_{j<i} gamma d_{t+j+1}) r_{t+i+1}, gamma_t = prod_{j<m} gamma d_{t+j+1}, o_t the state m steps on.
  A truncated episode keeps its discount and so still bootstraps.

  Args:
    capacity: time steps held over all E environments, at least E (n + frame_stack + 1), below 2^29.
    num_envs: E.
    n_step: n.
    discount: gamma.
    frame_stack: frames of an observation, its leading axis, oldest first; 1 for observations that are not stacks.
    frame_layout: how frames are kept, where observations are stacks; see `networks.frame_layout`.
    frame_padding: what fills the stack at an episode's start: 'blank' frames, or the episode's 'first' one.

  Raises:
    ValueError: if the capacity is not within that, or on another padding; and later, if observations to be stacked are
      not arrays but trees, or JAX computes in 64 bits.
  """
  num_rows = capacity // num_envs
  if num_rows < n_step + frame_stack + 1:
    raise ValueError(f'capacity={capacity}: must be at least {num_envs * (n_step + frame_stack + 1)}')
  if capacity >= MAX_CAPACITY:
    raise ValueError(f'capacity={capacity}: must be below {MAX_CAPACITY}, so that places fit int32')
  if frame_padding not in FRAME_PADDINGS:
    raise ValueError(f'frame_padding={frame_padding!r}: must be {" or ".join(FRAME_PADDINGS)}')
  num_places = num_rows * num_envs

  def _row(timestep: TimeStep, action: Array, extras: Any) -> Row:
    step_type = jnp.asarray(timestep.step_type, jnp.int8)
    observation = timestep.observation
    if frame_stack > 1:
      if not jax.tree_util.treedef_is_leaf(jax.tree.structure(observation)):
        raise ValueError(
          f'frame_stack={frame_stack}: only arrays can be stacks of frames, but an observation is a '
          f'{type(observation).__name__}; must be 1'
        )
      observation = jax.vmap(frame_layout.encode)(observation[:, -1])
    reward, discount = _as_float(timestep.reward), _as_float(timestep.discount)
    return Row(step_type, reward, discount, observation, action, extras)

  def init(timestep: TimeStep, action: Array, extras: Any) -> ReplayState:
    check_32_bits()
    example = _row(timestep, action, extras)
    empty = lambda x, num: jnp.zeros((num, *x.shape), x.dtype)
    rows = jax.tree.map(lambda x: empty(x, num_rows), example)
    if frame_stack > 1:
      rows = rows._replace(observation=empty(example.observation, num_rows + 1))
    # Distinct arrays: state that is donated must not alias.
    counters = [jnp.zeros((), jnp.int32) for _ in range(3)]
    return ReplayState(rows, jnp.zeros((num_places,), jnp.int32), *counters)

  def add(
    state: ReplayState, timestep: TimeStep, action: Array, extras: Any, reads_done: Array | float = 0.0
  ) -> ReplayState:
    chex.assert_rank(
      [timestep.step_type, timestep.reward, timestep.discount, action],
      1,
      custom_message='replay stores the time steps and actions of all environments, [E] each',
    )
    chex.assert_equal_shape([timestep.reward, action])
    position = state.num_added % num_rows
    # A row whose stack would reach an overwritten row is sampled no more; so the ring gives up frame_stack - 1 rows.
    newly_cut = state.num_added + frame_stack - 1
    cut = jnp.sum(state.rows.step_type[newly_cut % num_rows] != LAST, dtype=jnp.int32)
    num_dropped = state.num_dropped + jnp.where(newly_cut >= num_rows, cut, 0)
    # XLA writes a ring in place only if everything that reads the old ring is computed before. Nothing else says so:
    # hence a value that depends on these reads, is never true, and that XLA cannot know to be false. What is made for
    # ordering does not do: with lax.optimization_barrier over ring and reads, ten copies of the ring were measured
    # where this leaves none.
    never = (jnp.isnan(reads_done) | (num_dropped < 0)) & (state.num_added < 0)
    row = jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), _row(timestep, action, extras))
    kinds = _end_abandoned(state, row.step_type)
    rows = state.rows._replace(step_type=kinds)
    rows = jax.tree.map(lambda r, x: jax.lax.dynamic_update_index_in_dim(r, x, position, 0), rows, row)
    starts, num_pushed = _push(state._replace(rows=rows), never)
    surplus = num_dropped - num_dropped % num_places
    num_added = _rows_counted(state.num_added, 1, num_rows)
    return ReplayState(rows, starts, num_added, num_pushed - surplus, num_dropped - surplus)

  def _end_abandoned(state: ReplayState, step_type: Array) -> Array:
    """Step types [C, E] whose newest row is LAST where FIRST steps follow; its discount stays, as in truncation."""
    newest = (state.num_added - 1) % num_rows
    before = state.rows.step_type[newest]
    ended = jnp.where((step_type == FIRST) & (state.num_added > 0), jnp.int8(LAST), before)
    return jax.lax.dynamic_update_index_in_dim(state.rows.step_type, ended, newest, 0)

  def _push(state: ReplayState, never: Array) -> tuple[Array, Array]:
    """Lists the entries of the row stored n steps before the newest that may start a transition."""
    ready = state.num_added - n_step  # never the newest row, since n >= 1
    position = ready % num_rows
    valid = (state.rows.step_type[position] != LAST) & (ready >= 0)  # [E]
    rank = state.num_pushed + jnp.cumsum(valid, dtype=jnp.int32) - 1
    # An invalid entry is written out of bounds, that is, not at all.
    slots = jnp.where(valid, rank % num_places, num_places)
    entries = jnp.where(never, 0, position * num_envs + jnp.arange(num_envs, dtype=jnp.int32))
    return state.starts.at[slots].set(entries, mode='drop'), state.num_pushed + jnp.sum(valid, dtype=jnp.int32)

  def size(state: ReplayState) -> Array:
    return state.num_pushed - state.num_dropped

  def can_sample(state: ReplayState) -> Array:
    return size(state) > 0

  def sample(state: ReplayState, bits: Array) -> Transition:
    chex.assert_rank(bits, 1)
    chex.assert_type(bits, jnp.uint32)
    rank = jax.lax.rem(bits, size(state).astype(jnp.uint32)).astype(jnp.int32)  # [B]
    start = state.starts[(state.num_dropped + rank) % num_places]
    position, env = start // num_envs, start % num_envs
    rows = state.rows

    def at(field: Any, offset: int | Array) -> Any:
      where = (position + offset) % num_rows
      return jax.tree.map(lambda x: x[where, env], field)

    def observe(offset: int | Array) -> Any:
      if frame_stack == 1:
        return at(rows.observation, offset)
      back = jnp.arange(frame_stack)[::-1][None]  # [1, F] oldest first
      where = ((position + offset)[:, None] - back) % num_rows  # [B, F]
      begins = rows.step_type[where, env[:, None]] == FIRST
      later = jnp.cumsum(begins[:, ::-1], axis=1)[:, ::-1] - begins  # episodes that begin after a frame
      padding: int | Array = num_rows  # the blank row
      if frame_padding == 'first':
        newest_start = frame_stack - 1 - jnp.argmax(begins[:, ::-1], axis=1, keepdims=True)  # [B, 1]
        padding = jnp.take_along_axis(where, newest_start, axis=1)
      index = jnp.where(later == 0, where, padding)
      return _stack(rows.observation, index, env, frame_layout.stack_axis)

    r_t, discount_t = at(rows.reward, 1), discount * at(rows.discount, 1)
    length: int | Array = 1
    ended = at(rows.step_type, 1) == LAST
    for i in range(2, n_step + 1):
      r_t = r_t + jnp.where(ended, 0.0, discount_t * at(rows.reward, i))
      discount_t = jnp.where(ended, discount_t, discount_t * discount * at(rows.discount, i))
      length = jnp.where(ended, length, i)
      ended = ended | (at(rows.step_type, i) == LAST)

    return Transition(
      o_tm1=observe(0),
      a_tm1=at(rows.action, 0),
      r_t=r_t,
      discount_t=discount_t,
      o_t=observe(length),
      extras_tm1=at(rows.extras, 0),
      extras_t=at(rows.extras, length),
    )

  return Replay(init, add, sample, can_sample, size, frame_stack, frame_padding)


def _as_float(x: Array) -> Array:
  """Numbers as floats: an environment may give rewards that are whole numbers."""
  return x if jnp.issubdtype(jnp.result_type(x), jnp.floating) else jnp.asarray(x, jnp.float32)


def _rows_counted(num_added: Array, more: Array | int, num_rows: int) -> Array:
  """`num_added` after more rows, fewer than 2 num_rows."""
  total = num_added + more
  return jnp.where(total < 2 * num_rows, total, total % num_rows + num_rows)


def count_rows(state: ReplayState, more: Array | int) -> ReplayState:
  """Counts rows of a seed that rests, for which nothing is stored."""
  num_rows = state.rows.step_type.shape[0]
  more = jnp.where(jnp.asarray(more) < 2 * num_rows, more, more % num_rows + num_rows)
  return state._replace(num_added=_rows_counted(state.num_added, more, num_rows))


def stored_rows(state: ReplayState, part: Callable[[Row], Any] = lambda rows: rows) -> Any:
  """What one seed's replay holds, as NumPy arrays [rows, E, ...], oldest first.

  Args:
    state: of one seed. Rows of a seed that has rested (`Runner.run`) count as added and hold what was there before.
    part: what of the rows is wanted, such as `lambda rows: rows.observation`; all of a `Row` by default. Of a stack of
      frames the newest one is stored.
  """
  num_rows, num_added = state.rows.step_type.shape[0], int(state.num_added)
  order = np.arange(max(0, num_added - num_rows), num_added) % num_rows
  return jax.tree.map(lambda x: np.asarray(x)[order], part(state.rows))


def _stack(frames: Array, index: Array, env: Array, axis: int) -> Array:
  """Stacks of frames, [C + 1, E, ...] at rows [B, F] of environments [B] -> [B, ...] with F at `axis` of the rest."""
  frame_shape = frames.shape[2:]
  batch_size, num_frames = index.shape
  out_shape = (*frame_shape[:axis], num_frames, *frame_shape[axis:])

  def copied(frames: Array, index: Array, env: Array) -> Array:
    """Block by block: on a CPU twice as fast as a look-up with a transposition."""

    def copy(i: Array, out: Array) -> Array:
      b, f = i // num_frames, i % num_frames
      frame = jax.lax.dynamic_slice(frames, (index[b, f], env[b], *(0,) * len(frame_shape)), (1, 1, *frame_shape))
      where = (b, *(f if d == axis else 0 for d in range(len(out_shape))))
      return jax.lax.dynamic_update_slice(out, jnp.expand_dims(frame[0], axis + 1), where)

    empty = jnp.zeros((batch_size, *out_shape), frames.dtype)
    return jax.lax.fori_loop(0, batch_size * num_frames, copy, empty)

  def looked_up(frames: Array, index: Array, env: Array) -> Array:
    return jnp.moveaxis(frames[index, env[:, None]], 1, axis + 1)

  if axis == 0:  # nothing to transpose
    return looked_up(frames, index, env)
  return jax.lax.platform_dependent(frames, index, env, cpu=copied, default=looked_up)
