"""HyperAgent: Double-DQN whose last layer is a linear hypermodel with a fixed prior (arXiv 2402.10228).

Read top to bottom: the random numbers of a call, acting, the target, the loss, the update. Equation numbers are the
paper's; the formulas are in docs/algorithm.md.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from hyperagent_jax import losses
from hyperagent_jax.config import HyperAgentConfig, validate
from hyperagent_jax.distributions import Distribution, haar_orthogonal, make_perturbation, make_reference
from hyperagent_jax.optimizers import clipped_adam
from hyperagent_jax.types import (
  ActorState,
  ActOutput,
  Agent,
  Array,
  Extras,
  HyperQ,
  LearnerState,
  Network,
  Params,
  Posterior,
  PRNGKey,
  TimeStep,
  Transition,
)


class ActDraws(NamedTuple):
  """All the random numbers of one `act`."""

  xi: Array  # [K, M] followed from now on, if this step redraws
  redraw: Array  # [] uniform in [0, 1): redraws where below 1 - gamma
  noise: Array | None  # [M] perturbation z, or [M, M] a block of them, or None where sigma is 0


class UpdateDraws(NamedTuple):
  """All the random numbers of one `update`."""

  xi: Array | None  # [B, N, M] update indices, None for the exact expectation
  index_t: Array | None  # [B, K, M] independent target indices, None for dependent ones


def make_optimizer(config: HyperAgentConfig) -> optax.GradientTransformation:
  """Global-norm clipping, then Adam (Table 5; its eps of 1.5e-4 matters)."""
  return clipped_adam(config.learning_rate, config.adam_eps, config.max_grad_norm)


def reference_of(config: HyperAgentConfig) -> Distribution:
  """The configured reference distribution of the index."""
  return make_reference(config.reference_distribution, config.index_dim, config.num_nonzero, config.unit_variance_index)


def redraws(config: HyperAgentConfig, timestep: TimeStep, uniform: Array, evaluation: bool) -> Array:
  """Whether a step follows a new index: one per episode and, in training only, more often.

  Args:
    config: reads act_resampling, geometric_resampling and discount.
    timestep: the step.
    uniform: [] a random number in [0, 1).
    evaluation: whether nothing is learnt.
  """
  if evaluation:
    return timestep.first()
  if config.act_resampling == 'state_dependent':
    return jnp.array(True)
  new = timestep.first() | (timestep.discount == 0.0)  # discount 0 within an episode: a life was lost
  if config.geometric_resampling:
    new = new | (uniform < 1.0 - config.discount)
  return new


def initial_state(params: Params, prior_params: Params, opt_state: Any) -> LearnerState:
  """A learner that has not learnt yet."""
  # A copy: state that is donated must not alias.
  return LearnerState(params, prior_params, jax.tree.map(jnp.copy, params), opt_state, jnp.zeros((), jnp.int32))


def with_copied_target(learner: LearnerState, period: int) -> LearnerState:
  """The learner before its next update: the target is copied before updates 0, P, 2P, ..."""
  target_params = optax.periodic_update(learner.params, learner.target_params, learner.num_updates, period)
  return learner._replace(target_params=target_params)


def assert_one_step(timestep: TimeStep) -> None:
  """Refuses, while a program is traced, a time step that is not a single one."""
  chex.assert_rank(
    [timestep.step_type, timestep.reward, timestep.discount],
    0,
    custom_message='act takes one time step, with step_type, reward and discount of shape []; vmap it over several',
  )


def assert_batch(batch: Transition) -> None:
  """Refuses, while a program is traced, what is no mini-batch: `update` takes transitions [B, ...]."""
  chex.assert_rank(
    [batch.a_tm1, batch.r_t, batch.discount_t],
    1,
    custom_message='update takes a mini-batch, with a_tm1, r_t and discount_t of shape [B]',
  )
  chex.assert_equal_shape([batch.a_tm1, batch.r_t, batch.discount_t])
  chex.assert_type(batch.a_tm1, int, custom_message='a_tm1 must be whole numbers')
  chex.assert_type([batch.r_t, batch.discount_t], float, custom_message='r_t and discount_t must be floats')
  chex.assert_tree_shape_prefix(
    (batch.o_tm1, batch.o_t), batch.a_tm1.shape, custom_message='observations must have the leading axis [B]'
  )


def make_hyperagent(network: Network, optimizer: optax.GradientTransformation, config: HyperAgentConfig) -> Agent:
  """HyperAgent as pure functions (sections 3-4 of the paper; Eq. 2-4, 8-10).

  Args:
    network: affine in the index, such as `make_network` gives.
    optimizer: any optax transformation; `make_optimizer` gives the paper's.
    config: reads the fields under "The distributions", "The loss", "Acting", and discount and target_period.

  Returns:
    An `Agent`. `update` returns the metrics loss [] and grad_norm [] (before clipping). It needs `replay_size` [], the
    number of transitions in replay, where beta > 0.

  Raises:
    ConfigError: if the configuration is invalid.
  """
  validate(config)
  dim = config.index_dim
  reference = reference_of(config)
  perturbation = make_perturbation(config.perturbation_distribution, dim, config.num_nonzero)
  noise_in_blocks = config.sigma > 0 and config.perturbation_distribution == 'orthogonal'

  # ------------------------------------------------------------------------------------------------------------ init

  def init(key: PRNGKey, observation: Array) -> LearnerState:
    params, prior_params = network.init(key, observation)
    return initial_state(params, prior_params, optimizer.init(params))

  def init_actor(key: PRNGKey) -> ActorState:
    xi = reference.sample(key, config.act_num_indices)
    noise_block = jnp.zeros((dim, dim)) if noise_in_blocks else None
    return ActorState(xi, noise_block, jnp.zeros((), jnp.int32))

  # ------------------------------------------------------------------------------------------------------------- act

  def followed(q: HyperQ, indices: Array) -> Array:
    """[K, A]: action values under the indices [K, M], or [1, A]: their supremum over all indices (Eq. 8, K -> oo)."""
    if config.optimism == 'sampled':
      return q.at(indices)
    assert reference.radius is not None, 'validate refuses a supremum over distributions that are on no sphere'
    return q.supremum(reference.radius)[None]

  def draw_act(key: PRNGKey) -> ActDraws:
    key_xi, key_redraw, key_noise = jax.random.split(key, 3)
    noise = None
    if noise_in_blocks:
      noise = haar_orthogonal(key_noise, dim)
    elif config.sigma > 0:
      noise = perturbation.sample(key_noise, 1)[0]
    return ActDraws(reference.sample(key_xi, config.act_num_indices), jax.random.uniform(key_redraw), noise)

  def next_noise(actor: ActorState, draws: ActDraws) -> tuple[Array | None, Array | None]:
    """The actor's block of perturbations and this transition's z; orthogonal ones are dealt row by row."""
    if not noise_in_blocks:
      return actor.noise_block, draws.noise
    assert draws.noise is not None and actor.noise_block is not None
    row = actor.num_acts % dim
    block = jnp.where(row == 0, draws.noise, actor.noise_block)
    return block, block[row]

  def act(
    learner: LearnerState,
    actor: ActorState,
    timestep: TimeStep,
    key_or_draws: PRNGKey | ActDraws,
    evaluation: bool = False,
  ) -> tuple[ActorState, ActOutput]:
    draws = key_or_draws if isinstance(key_or_draws, ActDraws) else draw_act(key_or_draws)
    assert_one_step(timestep)
    xi = jnp.where(redraws(config, timestep, draws.redraw, evaluation), draws.xi, actor.xi)  # [K, M]
    noise_block, noise = next_noise(actor, draws)
    prior_q = network.prior_q(learner.prior_params, timestep.observation)
    q = followed(network.hyper_q(learner.params, timestep.observation, prior_q), xi)  # [K, A]
    # K = 1 is Thompson sampling, K > 1 optimistic index sampling (Eq. 8).
    action = jnp.argmax(losses.optimistic(q, config.optimism_quantile)).astype(jnp.int32)
    extras = Extras(noise=noise, prior_q=prior_q if network.remember_prior else None)
    return ActorState(xi, noise_block, actor.num_acts + 1), ActOutput(action, extras)

  # ---------------------------------------------------------------------------------------------------------- update

  def draw_update(key: PRNGKey, batch_size: int) -> UpdateDraws:
    key_xi, key_target = jax.random.split(key)
    num, k = config.num_update_indices, config.target_num_indices
    xi = index_t = None
    if num:
      xi = reference.sample(key_xi, batch_size * num).reshape(batch_size, num, dim)
    if config.target_index == 'independent':
      num_targets = batch_size if config.target_resampling == 'state_dependent' else 1
      drawn = reference.sample(key_target, num_targets * k).reshape(num_targets, k, dim)
      index_t = jnp.broadcast_to(drawn, (batch_size, k, dim))
    return UpdateDraws(xi, index_t)

  def prior_q_of(prior_params: Params, observation: Array, extras: Any) -> HyperQ:
    """The prior's part of a state's value: remembered with the step, or evaluated here."""
    remembered = getattr(extras, 'prior_q', None)
    return network.prior_q(prior_params, observation) if remembered is None else remembered

  def target(learner: LearnerState, transition: Transition, xi: Array | None, index_t: Array | None) -> Array:
    """y0 of one transition: [] with an independent target index, [N] with dependent ones (Eq. 3, 9)."""
    prior_q = prior_q_of(learner.prior_params, transition.o_t, transition.extras_t)
    q_t_target = network.hyper_q(learner.target_params, transition.o_t, prior_q)
    q_t_selector = network.hyper_q(learner.params, transition.o_t, prior_q) if config.double_q else q_t_target

    def at(indices: Array) -> Array:  # [K, M] -> []
      q_value, q_selector = followed(q_t_target, indices), followed(q_t_selector, indices)
      r_t, discount_t = transition.r_t, transition.discount_t
      return losses.bootstrap_target(r_t, discount_t, q_value, q_selector, config.optimism_quantile)

    if index_t is not None:
      return at(index_t)
    assert xi is not None, 'dependent target indices are the update indices, which are then drawn'
    return jax.vmap(at)(xi[:, None, :])

  def loss(params: Params, prior_params: Params, transition: Transition, y0: Array, xi: Array | None) -> Array:
    """The TD loss of one transition (Eq. 2-3), over sampled indices or in expectation."""
    prior_q = prior_q_of(prior_params, transition.o_tm1, transition.extras_tm1)
    q_tm1 = network.hyper_q(params, transition.o_tm1, prior_q)
    noise = transition.extras_tm1.noise if config.sigma > 0 else None
    if config.sigma > 0 and noise is None:
      raise ValueError(f'sigma={config.sigma}: extras_tm1.noise is None, but the loss needs the perturbation')
    if xi is None:
      v, mean = reference.second_moment, reference.mean
      return losses.exact_td_loss(q_tm1, transition.a_tm1, y0, v, mean, noise, config.sigma)
    targets = jnp.broadcast_to(y0, xi.shape[:1])
    return losses.sampled_td_loss(q_tm1, transition.a_tm1, targets, xi, noise, config.sigma)

  def regularization(params: Params, replay_size: Array | None) -> Array | float:
    """(beta / |D|) R (Eq. 4)."""
    if config.beta == 0:
      return 0.0
    if replay_size is None:
      raise ValueError('update(..., replay_size=None): beta > 0 needs the number of transitions in replay')
    scale = config.beta / jnp.maximum(replay_size, 1).astype(jnp.float32)
    return scale * network.regularizer(params, reference.mean, reference.second_moment)

  def gradient_penalty(params: Params, prior_params: Params, batch: Transition, xi: Array | None) -> Array | float:
    """Weighted |d/d(params) of (1/B) sum_b E_xi Q(s_b, a_b, xi)|^2, as the published code has it for Atari."""
    if config.gradient_penalty == 0:
      return 0.0

    def value(params: Params, transition: Transition, xi: Array | None) -> Array:
      prior_q = prior_q_of(prior_params, transition.o_tm1, transition.extras_tm1)
      q_tm1 = network.hyper_q(params, transition.o_tm1, prior_q)
      index_mean = jnp.full((dim,), reference.mean) if xi is None else jnp.mean(xi, axis=0)
      mean, factor = losses.perturbed(q_tm1, transition.a_tm1, None, 0.0)
      return mean + jnp.sum(factor * index_mean)

    mean_value = lambda params: jnp.mean(jax.vmap(value, in_axes=(None, 0, 0))(params, batch, xi))
    return config.gradient_penalty * jnp.square(optax.tree.norm(jax.grad(mean_value)(params)))

  def update(
    learner: LearnerState, batch: Transition, key_or_draws: PRNGKey | UpdateDraws, replay_size: Array | None = None
  ) -> tuple[LearnerState, dict[str, Array]]:
    assert_batch(batch)
    draws = key_or_draws if isinstance(key_or_draws, UpdateDraws) else draw_update(key_or_draws, batch.a_tm1.shape[0])
    learner = with_copied_target(learner, config.target_period)
    y0 = jax.vmap(target, in_axes=(None, 0, 0, 0))(learner, batch, draws.xi, draws.index_t)  # [B] or [B, N]

    def batch_loss(params: Params) -> Array:
      each = jax.vmap(loss, in_axes=(None, None, 0, 0, 0))(params, learner.prior_params, batch, y0, draws.xi)  # [B]
      penalty = gradient_penalty(params, learner.prior_params, batch, draws.xi)
      return jnp.mean(each) + regularization(params, replay_size) + penalty

    value, grads = jax.value_and_grad(batch_loss)(learner.params)
    updates, opt_state = optimizer.update(grads, learner.opt_state, learner.params)
    params = optax.apply_updates(learner.params, updates)
    metrics = {'loss': value, 'grad_norm': optax.tree.norm(grads)}
    return learner._replace(params=params, opt_state=opt_state, num_updates=learner.num_updates + 1), metrics

  def posterior(learner: LearnerState, observation: Array) -> Posterior:
    """Mean [A] and standard deviation [A] of all action values of a state, in closed form."""
    q = network.hyper_q(learner.params, observation, network.prior_q(learner.prior_params, observation))
    # With f the factor: E <f, xi> = E[xi_1] sum(f), and E <f, xi>^2 = v |f|^2.
    shift = reference.mean * jnp.sum(q.factor, axis=-1)
    variance = reference.second_moment * jnp.sum(jnp.square(q.factor), axis=-1) - jnp.square(shift)
    return Posterior(q.mean + shift, jnp.sqrt(jnp.maximum(variance, 0.0)))

  return Agent(init, init_actor, act, update, posterior, draw_act, draw_update)
