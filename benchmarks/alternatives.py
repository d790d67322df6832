"""What the library does not do, written as well as what it does, for `choices.py` to compare."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

import hyperagent_jax as ha
from benchmarks import parts
from benchmarks.programs import Setup
from hyperagent_jax import losses
from hyperagent_jax.replay import Replay, ReplayState, Row
from hyperagent_jax.types import FIRST, LAST, Array, TimeStep, Transition, tree_index


class TransitionReplayState(NamedTuple):
  """A ring of whole transitions."""

  rows: Transition  # [C, ...]
  latest: Row  # the latest time step, at which the next transition starts
  num_added: Array  # [] int32 transitions ever added


def make_transition_replay(capacity: int, discount: float) -> Replay:
  """Replay that stores one-step transitions (s, a, r, gamma, s') of one environment, each state twice."""

  def init(timestep: TimeStep, action: Array, extras: Any) -> TransitionReplayState:
    # As if an episode had ended: the first time step completes no transition.
    latest = tree_index(_row(timestep, action, extras), 0)._replace(step_type=jnp.int8(LAST))
    example = _transition(latest, latest)
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
    return TransitionReplayState(rows, latest, jnp.zeros((), jnp.int32))

  def _transition(start: Row, end: Row) -> Transition:
    discount_t = discount * end.discount
    observations = {'o_tm1': start.observation, 'o_t': end.observation}
    extras = {'extras_tm1': start.extras, 'extras_t': end.extras}
    return Transition(a_tm1=start.action, r_t=end.reward, discount_t=discount_t, **observations, **extras)

  def add(
    state: TransitionReplayState, timestep: TimeStep, action: Array, extras: Any, reads_done: Array | float = 0.0
  ) -> TransitionReplayState:
    now = tree_index(_row(timestep, action, extras), 0)
    valid = (state.latest.step_type != LAST) & (now.step_type != FIRST)
    # Nothing is written out of bounds; `never` makes XLA write in place, as in the library's replay.
    slot = jnp.where(valid, state.num_added % capacity, capacity)
    never = jnp.isnan(reads_done) & (state.num_added < 0)
    new = jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), _transition(state.latest, now))
    rows = jax.tree.map(lambda r, x: r.at[slot].set(x, mode='drop'), state.rows, new)
    return TransitionReplayState(rows, now, state.num_added + valid)

  def size(state: TransitionReplayState) -> Array:
    return jnp.minimum(state.num_added, capacity)

  def sample(state: TransitionReplayState, bits: Array) -> Transition:
    rank = jax.lax.rem(bits, size(state).astype(jnp.uint32)).astype(jnp.int32)
    return tree_index(state.rows, rank)

  def can_sample(state: TransitionReplayState) -> Array:
    return size(state) > 0

  # The library's types name its own state, which this one's stands in for.
  return Replay(*cast(tuple[Any, ...], (init, add, sample, can_sample, size)))


def _row(timestep: TimeStep, action: Array, extras: Any) -> Row:
  step_type = jnp.asarray(timestep.step_type, jnp.int8)
  return Row(step_type, timestep.reward, timestep.discount, timestep.observation, action, extras)


def make_unordered_replay(capacity: int, config: ha.HyperAgentConfig) -> Replay:
  """The library's replay for one environment whose `add` does not wait for what reads the ring."""
  replay = ha.make_replay(capacity, 1, config.n_step, config.discount)

  def add(
    state: ReplayState, timestep: TimeStep, action: Array, extras: Any, reads_done: Array | float = 0.0
  ) -> ReplayState:
    del reads_done
    position = state.num_added % capacity
    overwritten = jnp.sum(state.rows.step_type[position] != LAST)
    num_dropped = state.num_dropped + jnp.where(state.num_added >= capacity, overwritten, 0)
    row = _row(timestep, action, extras)
    rows = jax.tree.map(lambda r, x: jax.lax.dynamic_update_index_in_dim(r, x, position, 0), state.rows, row)
    ready = state.num_added - config.n_step
    start = ready % capacity
    valid = (rows.step_type[start] != LAST) & (ready >= 0)  # [1]
    slots = jnp.where(valid, state.num_pushed % capacity, capacity)
    starts = state.starts.at[slots].set(start, mode='drop')
    return ReplayState(rows, starts, state.num_added + 1, state.num_pushed + jnp.sum(valid), num_dropped)

  return replay._replace(add=add)


def prior_in_update(config: ha.HyperAgentConfig) -> ha.Network:
  """A network whose prior is evaluated whenever it is needed: neither in a table nor remembered in replay."""
  # With this claim the agent remembers nothing, and calls `prior_q`, which is the prior network.
  return ha.make_network(config, num_actions=2)._replace(remember_prior=False)


def two_forwards(setup: Setup, learner: ha.LearnerState, batch: Transition, index_t: Array) -> tuple[Array, Any]:
  """Loss and gradient as in `update`: the online network is applied to s' and, with a gradient, to s."""
  y0 = parts.batch_targets(setup, learner, batch, index_t)
  return jax.value_and_grad(lambda p: parts.batch_loss(setup, p, learner.prior_params, batch, y0))(learner.params)


def one_forward(setup: Setup, learner: ha.LearnerState, batch: Transition, index_t: Array) -> tuple[Array, Any]:
  """The same from one application of the online network to s and s' together; the gradient is that of half of it."""
  config, network = setup.config, setup.network
  second_moment = ha.make_reference(config.reference_distribution, config.index_dim).second_moment
  num = batch.a_tm1.shape[0]
  observations = jnp.concatenate([batch.o_tm1, batch.o_t])
  prior_q = jax.vmap(network.prior_q, in_axes=(None, 0))(learner.prior_params, observations)
  hyper_q = jax.vmap(network.hyper_q, in_axes=(None, 0, 0))
  prior_t = jax.tree.map(lambda x: x[num:], prior_q)

  def one(q_tm1: ha.HyperQ, q_t: ha.HyperQ, q_value: ha.HyperQ, transition: Transition, index: Array) -> Array:
    value, selector = q_value.at(index), q_t.at(index)
    y0 = losses.bootstrap_target(transition.r_t, transition.discount_t, value, selector, config.optimism_quantile)
    return losses.exact_td_loss(q_tm1, transition.a_tm1, y0, second_moment)

  def loss(params: Any) -> Array:
    q = hyper_q(params, observations, prior_q)
    q_tm1, q_t = jax.tree.map(lambda x: x[:num], q), jax.tree.map(lambda x: x[num:], q)
    q_value = hyper_q(learner.target_params, batch.o_t, prior_t)
    return jnp.mean(jax.vmap(one)(q_tm1, jax.lax.stop_gradient(q_t), q_value, batch, index_t))

  return jax.value_and_grad(loss)(learner.params)
