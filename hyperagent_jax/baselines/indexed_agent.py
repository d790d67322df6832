"""A posterior-sampling DQN made of any network with an index: what all rivals are, but for their parts.

HyperAgent itself is written out in `agent.py`, where its network is affine in the index. Here a network is only asked
for its values under a given index, an index may be anything that a system draws (a member of an ensemble, a Gaussian
vector, a seed of noise, nothing at all), and the loss may weigh members differently. Fed with HyperAgent's
network and indices it computes HyperAgent's sampled loss, which a test checks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from hyperagent_jax import losses
from hyperagent_jax.agent import assert_batch, assert_one_step, initial_state, redraws, with_copied_target
from hyperagent_jax.baselines.config import RivalConfig
from hyperagent_jax.distributions import Distribution, make_perturbation, make_reference
from hyperagent_jax.types import (
  ActorState,
  ActOutput,
  Agent,
  Array,
  InitNetwork,
  LearnerState,
  Observation,
  Params,
  Posterior,
  PRNGKey,
  TimeStep,
  Transition,
)

_MOMENT_SAMPLES = 100  # indices from which a posterior's moments are estimated


class IndexedPriorQ(Protocol):
  """What of the fixed prior can be kept with a state."""

  def __call__(self, prior_params: Params, observation: Observation, /) -> Any:
    """Returns the prior's part of the value of one state, or () where there is nothing."""


class IndexedQ(Protocol):
  """Evaluates a state under one index."""

  def __call__(
    self, params: Params, prior_params: Params, observation: Observation, prior_q: Any, xi: Array, /
  ) -> Array:
    """Returns action values [A] under the index [D]."""


class IndexedNetwork(NamedTuple):
  """A Q-network with an index, as pure functions of one observation."""

  init: InitNetwork
  prior_q: IndexedPriorQ
  q: IndexedQ
  remember_prior: bool = False  # whether prior_q is worth remembering: not where it is a look-up, or nothing


class DrawIndices(Protocol):
  """Draws indices for a mini-batch."""

  def __call__(self, key: PRNGKey, batch_size: int, /) -> Array:
    """Returns [B, n, D], or [n, D] where a mini-batch shares them."""


class Indices(NamedTuple):
  """How a system draws its indices, [D] each. Those of a mini-batch have an axis of transitions unless shared."""

  act: Callable[[PRNGKey], Array]  # -> [K, D]: the action is greedy for the optimum over K
  update: DrawIndices  # N for each transition
  target: DrawIndices | None  # K for each transition; None: the update indices
  moments: Callable[[], Array]  # [L, D]: over these a posterior's mean and standard deviation are taken
  shared: bool = False
  # Whether an update index stands for parameters of its own: then losses are summed over them and not averaged, so
  # that each learns as it would alone (Adam's eps would else grow with their number).
  are_members: bool = False


class StepUpdate(Protocol):
  """Turns gradients into changes of parameters."""

  def __call__(self, grads: Params, state: Any, params: Params, key: PRNGKey, /) -> tuple[Params, Any]:
    """Returns what is to be added to the parameters, and the optimizer's state."""


class Step(NamedTuple):
  """What turns gradients into changes of parameters; unlike an optax transformation's, it may be random."""

  init: Callable[[Params], Any]
  update: StepUpdate


class Weights(NamedTuple):
  """Weights of the update indices in a transition's loss, drawn once and remembered with it."""

  sample: Callable[[PRNGKey], Array]  # -> [N]


class IndexedExtras(NamedTuple):
  """What is remembered with a time step; a field that a system does not need is None."""

  noise: Array | None = None  # [D] perturbation z of the transition that starts here
  prior_q: Any = None  # the fixed prior's part of this state's value
  weights: Array | None = None  # [N] of the transition that starts here


class ActDraws(NamedTuple):
  """All the random numbers of one `act`."""

  xi: Array  # [K, D]
  redraw: Array  # [] uniform in [0, 1)
  explore: Array | None  # [2] uniform: whether to act at random, and which action
  noise: Array | None  # [D]
  weights: Array | None  # [N]


class UpdateDraws(NamedTuple):
  """All the random numbers of one `update`, but for those that a random step draws."""

  xi: Array
  index_t: Array | None
  step_key: PRNGKey  # [J]


def sampled_indices(config: RivalConfig, reference: Distribution | None = None) -> Indices:
  """Indices of HyperAgent's kind: draws from a distribution, the configured one unless given."""
  reference = reference or make_reference(
    config.reference_distribution, config.index_dim, config.num_nonzero, config.unit_variance_index
  )

  def draw(key: PRNGKey, batch_size: int, num: int) -> Array:
    if config.shared_indices:
      return reference.sample(key, num)
    return reference.sample(key, batch_size * num).reshape(batch_size, num, -1)

  def target(key: PRNGKey, batch_size: int) -> Array:
    num = config.target_num_indices
    if config.shared_indices or config.target_resampling == 'state_dependent':
      return draw(key, batch_size, num)
    of_all = draw(key, 1, num)
    return jnp.broadcast_to(of_all, (batch_size, *of_all.shape[1:]))

  return Indices(
    act=lambda key: reference.sample(key, config.act_num_indices),
    update=lambda key, batch_size: draw(key, batch_size, config.num_update_indices),
    target=None if config.target_index == 'dependent' else target,
    moments=lambda: reference.sample(jax.random.key(0), _MOMENT_SAMPLES),
    shared=config.shared_indices,
  )


def no_indices() -> Indices:
  """For a point estimate: one index of no dimension."""
  nothing = jnp.zeros((1, 0))
  return Indices(lambda key: nothing, lambda key, batch_size: nothing, None, lambda: nothing, shared=True)


def optax_step(optimizer: optax.GradientTransformation) -> Step:
  """A step without randomness of its own."""
  return Step(optimizer.init, lambda grads, state, params, key: optimizer.update(grads, state, params))


def make_indexed_agent(
  network: IndexedNetwork,
  indices: Indices,
  step: Step,
  config: RivalConfig,
  weights: Weights | None = None,
  epsilon: Callable[[Array, bool], Array] | None = None,
) -> Agent:
  """An `Agent` for the same drivers as HyperAgent's.

  Args:
    network: the network.
    indices: how its index is drawn.
    step: of the optimizer.
    config: reads act_resampling, geometric_resampling, optimism_quantile, double_q, discount, sigma, target_period
      and num_inner_steps; the perturbation, if sigma > 0.
    weights: of the update indices in the loss.
    epsilon: number of acts so far [], evaluation -> probability of a random action; None for none.
  """
  perturbation = make_perturbation(config.perturbation_distribution, config.index_dim, config.num_nonzero)
  over_batch = None if indices.shared else 0  # the axis of transitions in indices

  def init(key: PRNGKey, observation: Array) -> LearnerState:
    params, prior_params = network.init(key, observation)
    return initial_state(params, prior_params, step.init(params))

  def init_actor(key: PRNGKey) -> ActorState:
    return ActorState(indices.act(key), None, jnp.zeros((), jnp.int32))

  def draw_act(key: PRNGKey) -> ActDraws:
    key_xi, key_redraw, key_noise, key_weights, key_explore = jax.random.split(key, 5)
    return ActDraws(
      xi=indices.act(key_xi),
      redraw=jax.random.uniform(key_redraw),
      explore=jax.random.uniform(key_explore, (2,)) if epsilon else None,
      noise=perturbation.sample(key_noise, 1)[0] if config.sigma > 0 else None,
      weights=weights.sample(key_weights) if weights else None,
    )

  def act(
    learner: LearnerState,
    actor: ActorState,
    timestep: TimeStep,
    key_or_draws: PRNGKey | ActDraws,
    evaluation: bool = False,
  ) -> tuple[ActorState, ActOutput]:
    draws = key_or_draws if isinstance(key_or_draws, ActDraws) else draw_act(key_or_draws)
    assert_one_step(timestep)
    xi = jnp.where(redraws(config, timestep, draws.redraw, evaluation), draws.xi, actor.xi)  # [K, D]
    prior_q = network.prior_q(learner.prior_params, timestep.observation)
    q = values(learner.params, learner.prior_params, timestep.observation, prior_q, xi)  # [K, A]
    action = jnp.argmax(losses.optimistic(q, config.optimism_quantile)).astype(jnp.int32)
    if epsilon:
      assert draws.explore is not None
      at_random = jnp.floor(draws.explore[1] * q.shape[-1]).astype(jnp.int32)
      action = jnp.where(draws.explore[0] < epsilon(actor.num_acts, evaluation), at_random, action)
    extras = IndexedExtras(draws.noise, prior_q if network.remember_prior else None, draws.weights)
    return ActorState(xi, None, actor.num_acts + 1), ActOutput(action, extras)

  def values(params: Params, prior_params: Params, observation: Array, prior_q: Any, xi: Array) -> Array:
    """[L, D] -> [L, A]."""
    return jax.vmap(network.q, in_axes=(None, None, None, None, 0))(params, prior_params, observation, prior_q, xi)

  def prior_q_of(prior_params: Params, observation: Array, extras: Any) -> Any:
    remembered = getattr(extras, 'prior_q', None)
    return network.prior_q(prior_params, observation) if remembered is None else remembered

  def draw_update(key: PRNGKey, batch_size: int) -> UpdateDraws:
    key_xi, key_target, key_step = jax.random.split(key, 3)
    index_t = indices.target(key_target, batch_size) if indices.target else None
    step_keys = jax.random.split(key_step, config.num_inner_steps)
    return UpdateDraws(indices.update(key_xi, batch_size), index_t, step_keys)

  def target(learner: LearnerState, transition: Transition, xi: Array, index_t: Array | None) -> Array:
    """y0 of one transition: [N], of each update index under itself, or [1] under independent target indices."""
    prior_q = prior_q_of(learner.prior_params, transition.o_t, transition.extras_t)
    # K indices of one target, or N targets of an index each.
    groups = xi[:, None, :] if index_t is None else index_t[None]  # [N or 1, K, D]
    under = lambda params: jax.vmap(values, in_axes=(None, None, None, None, 0))(
      params, learner.prior_params, transition.o_t, prior_q, groups
    )  # [N or 1, K, A]
    q_value = under(learner.target_params)
    q_selector = under(learner.params) if config.double_q else q_value
    of_one = lambda value, selector: losses.bootstrap_target(
      transition.r_t, transition.discount_t, value, selector, config.optimism_quantile
    )
    return jax.vmap(of_one)(q_value, q_selector)

  def loss(params: Params, prior_params: Params, transition: Transition, y0: Array, xi: Array) -> Array:
    """Mean over indices, or sum over members, of w (Q(s, a, xi) - y0 - sigma <xi, z>)^2 (Eq. 12-14)."""
    prior_q = prior_q_of(prior_params, transition.o_tm1, transition.extras_tm1)
    q = values(params, prior_params, transition.o_tm1, prior_q, xi)  # [N, A]
    error = jnp.sum(q * jax.nn.one_hot(transition.a_tm1, q.shape[-1])[None], axis=-1) - y0
    if config.sigma > 0:
      error = error - config.sigma * xi @ transition.extras_tm1.noise
    weight = transition.extras_tm1.weights if weights else 1.0
    each = weight * jnp.square(error)
    return jnp.sum(each) if indices.are_members else jnp.mean(each)

  def update(
    learner: LearnerState, batch: Transition, key_or_draws: PRNGKey | UpdateDraws, replay_size: Array | None = None
  ) -> tuple[LearnerState, dict[str, Array]]:
    del replay_size
    assert_batch(batch)
    draws = key_or_draws if isinstance(key_or_draws, UpdateDraws) else draw_update(key_or_draws, batch.a_tm1.shape[0])
    learner = with_copied_target(learner, config.target_period)
    y0 = jax.vmap(target, in_axes=(None, 0, over_batch, over_batch))(learner, batch, draws.xi, draws.index_t)

    def batch_loss(params: Params) -> Array:
      each = jax.vmap(loss, in_axes=(None, None, 0, 0, over_batch))(params, learner.prior_params, batch, y0, draws.xi)
      return jnp.mean(each)

    def inner(carry: tuple[Params, Any], step_key: PRNGKey) -> tuple[tuple[Params, Any], dict[str, Array]]:
      params, opt_state = carry
      value, grads = jax.value_and_grad(batch_loss)(params)
      updates, opt_state = step.update(grads, opt_state, params, step_key)
      return (optax.apply_updates(params, updates), opt_state), {'loss': value, 'grad_norm': optax.tree.norm(grads)}

    carry = (learner.params, learner.opt_state)
    if config.num_inner_steps == 1:
      carry, metrics = inner(carry, draws.step_key[0])
    else:
      carry, metrics = jax.lax.scan(inner, carry, draws.step_key)
      metrics = jax.tree.map(jnp.mean, metrics)
    params, opt_state = carry
    return learner._replace(params=params, opt_state=opt_state, num_updates=learner.num_updates + 1), metrics

  def posterior(learner: LearnerState, observation: Array) -> Posterior:
    """Mean and standard deviation of all action values of a state over `Indices.moments`."""
    prior_q = network.prior_q(learner.prior_params, observation)
    q = values(learner.params, learner.prior_params, observation, prior_q, indices.moments())
    return Posterior(jnp.mean(q, axis=0), jnp.std(q, axis=0))

  return Agent(init, init_actor, act, update, posterior, draw_act, draw_update)
