"""The parts of one training step, each as the body of a loop of its own.

A part is (body, carry, data) for `timing.loop`: the carry holds what the part makes, the data are stacks of inputs, of
which every iteration takes another one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import hyperagent_jax as ha
from benchmarks.programs import Inputs, Setup
from benchmarks.timing import BLOCK, pick
from hyperagent_jax import losses
from hyperagent_jax.interaction import make_interaction
from hyperagent_jax.types import Array, batched

Part = tuple[Callable[[Array, Any, Any], Any], Any, Any]

# The parts that make up a step; the others are parts of these.
SUMMED = ('random numbers', 'acting', 'environment', 'replay add', 'replay sample', 'update')


def draw(setup: Setup, inputs: Inputs) -> Part:
  """The random numbers of a block of steps."""
  interaction = make_interaction(setup.agent, setup.replay, setup.environment.num_actions, setup.config)

  def body(i: Array, carry: Any, key: Any) -> Any:
    # A block starts where the last one says, which is always the same place.
    step = i * BLOCK + jnp.isnan(carry[0].update.index_t[0, 0, 0, 0, 0])
    return interaction.draw_block(key, step, BLOCK)

  return body, (inputs.learning, inputs.acting), inputs.state.key


def act(setup: Setup, inputs: Inputs) -> Part:
  """Acting in a time step."""

  def body(i: Array, carry: Any, data: Any) -> Any:
    learner, timesteps, draws = data
    actor, output = carry
    after = output.action[0].astype(jnp.float32)
    timestep, drawn = pick(timesteps, i, after), pick(draws, i, after)
    return jax.vmap(setup.agent.act, in_axes=(None, 0, 0, 0))(learner, actor, timestep, drawn)

  carry = inputs.state.carry
  data = (carry.learner, inputs.timesteps, inputs.acting.act)
  example = jax.eval_shape(body, jnp.int32(0), (carry.actor, ha.ActOutput(carry.action, None)), data)[1]
  return body, (carry.actor, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)), data


def environment_step(setup: Setup, inputs: Inputs) -> Part:
  """A step of the environment, whose action depends on the step before."""
  environment = batched(setup.environment, setup.config.num_envs)

  def body(i: Array, carry: Any, data: Any) -> Any:
    env_state, timestep = carry
    env_params, keys = data
    action = (i + timestep.step_type) % environment.num_actions
    return environment.step(env_params, env_state, action, keys[i % BLOCK])

  state = inputs.state
  first = jax.tree.map(lambda x: x[0], inputs.timesteps)
  return body, (state.env_state, first), (state.env_params, inputs.learning.environment)


def add(setup: Setup, inputs: Inputs) -> Part:
  """Remembering a time step."""

  def body(i: Array, carry: Any, data: Any) -> Any:
    timesteps, actions, extras = data
    after = carry.num_pushed.astype(jnp.float32)
    return setup.replay.add(carry, pick(timesteps, i, after), pick(actions, i, after), extras, after)

  replay = inputs.state.carry.replay
  extras = jax.tree.map(lambda x: x[0], replay.rows.extras)
  return body, replay, (inputs.timesteps, inputs.acting.explore, extras)


def sample(setup: Setup, inputs: Inputs) -> Part:
  """Drawing a mini-batch from replay."""

  def body(i: Array, carry: Any, data: Any) -> Any:
    replay, bits = data
    return setup.replay.sample(replay, pick(bits, i, carry.r_t[0])[0])

  first = jax.tree.map(lambda x: x[0], inputs.batches)
  return body, first, (inputs.state.carry.replay, inputs.learning.replay)


def prior_of(setup: Setup, prior_params: Any, observation: Any, extras: Any) -> ha.HyperQ:
  """The prior's part of a value: from replay where it is kept there."""
  return setup.network.prior_q(prior_params, observation) if extras.prior_q is None else extras.prior_q


def batch_targets(setup: Setup, learner: ha.LearnerState, batch: ha.Transition, index_t: Array) -> Array:
  """y0 [B] as `update` computes it: the target and the online network at s'."""
  network, quantile = setup.network, setup.config.optimism_quantile

  def one(transition: ha.Transition, index: Array) -> Array:
    prior_q = prior_of(setup, learner.prior_params, transition.o_t, transition.extras_t)
    q_value = network.hyper_q(learner.target_params, transition.o_t, prior_q).at(index)
    q_selector = network.hyper_q(learner.params, transition.o_t, prior_q).at(index)
    return losses.bootstrap_target(transition.r_t, transition.discount_t, q_value, q_selector, quantile)

  return jax.vmap(one)(batch, index_t)


def batch_loss(setup: Setup, params: Any, prior: Any, batch: ha.Transition, y0: Array) -> Array:
  """The exact loss [] as `update` computes it: the online network at s."""
  network, config = setup.network, setup.config
  second_moment = ha.make_reference(config.reference_distribution, config.index_dim).second_moment

  def one(transition: ha.Transition, target: Array) -> Array:
    q_tm1 = network.hyper_q(params, transition.o_tm1, prior_of(setup, prior, transition.o_tm1, transition.extras_tm1))
    noise = transition.extras_tm1.noise
    return losses.exact_td_loss(q_tm1, transition.a_tm1, target, second_moment, noise_tm1=noise, sigma=config.sigma)

  return jnp.mean(jax.vmap(one)(batch, y0))


def targets(setup: Setup, inputs: Inputs) -> Part:
  """Targets of a mini-batch."""

  def body(i: Array, carry: Array, data: Any) -> Array:
    learner, batches, index_t = data
    return batch_targets(setup, learner, pick(batches, i, carry[0]), pick(index_t, i, carry[0]))

  data = (inputs.state.learner, inputs.batches, inputs.updates.index_t)
  return body, jnp.zeros((setup.config.batch_size,)), data


def loss(setup: Setup, inputs: Inputs) -> Part:
  """Loss of a mini-batch whose targets are given."""

  def body(i: Array, carry: Array, data: Any) -> Array:
    learner, batches = data
    batch = pick(batches, i, carry)
    return batch_loss(setup, learner.params, learner.prior_params, batch, batch.r_t)

  return body, jnp.zeros(()), (inputs.state.learner, inputs.batches)


def gradient(setup: Setup, inputs: Inputs) -> Part:
  """Loss and gradient of a mini-batch whose targets are given."""

  def body(i: Array, carry: Any, data: Any) -> Any:
    learner, batches = data
    batch = pick(batches, i, carry[0])
    return jax.value_and_grad(lambda p: batch_loss(setup, p, learner.prior_params, batch, batch.r_t))(learner.params)

  return body, (jnp.zeros(()), inputs.state.learner.params), (inputs.state.learner, inputs.batches)


def optimizer(setup: Setup, inputs: Inputs) -> Part:
  """Clipping, Adam and its step."""
  transformation = ha.make_optimizer(setup.config)
  learner = inputs.state.learner

  def body(i: Array, carry: Any, data: Any) -> Any:
    params, opt_state = carry
    grads, scales = data
    # A factor that changes: what depends on the gradient alone would be done once, before the loop.
    grads = jax.tree.map(lambda g: g * scales[i % BLOCK], grads)
    updates, opt_state = transformation.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  batch = jax.tree.map(lambda x: x[0], inputs.batches)
  grads = jax.jit(jax.grad(lambda p: batch_loss(setup, p, learner.prior_params, batch, batch.r_t)))(learner.params)
  return body, (learner.params, learner.opt_state), (grads, jnp.linspace(0.5, 1.5, BLOCK))


def update(setup: Setup, inputs: Inputs) -> Part:
  """A whole update on a mini-batch that is given."""

  def body(i: Array, carry: Any, data: Any) -> Any:
    batches, draws = data
    learner, after = carry
    size = jnp.int32(setup.num_interactions)
    learner, metrics = setup.agent.update(learner, pick(batches, i, after), pick(draws, i, after), replay_size=size)
    return learner, metrics['loss']

  return body, (inputs.state.learner, jnp.zeros(())), (inputs.batches, inputs.updates)


PARTS: dict[str, Callable[[Setup, Inputs], Part]] = {
  'random numbers': draw,
  'acting': act,
  'environment': environment_step,
  'replay add': add,
  'replay sample': sample,
  'update: targets': targets,
  'update: loss': loss,
  'update: loss and gradient': gradient,
  'update: optimizer': optimizer,
  'update': update,
}
