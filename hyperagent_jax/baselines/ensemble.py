"""Ensembles with priors: Ensemble+ (Osband et al., 2018 and 2019), Ensemble+ with optimistic sampling, Bayes-UCBDQN.

M whole networks, each with a fixed prior network of its own, so that Q is affine in a one-hot index:

    Ensemble+       sum_m w_m (Q_m(s, a) - r - gamma max_a' Q_target,m(s', a'))^2               (Eq. 12)
                    acts by one member for an episode; w_m is 1, or 0 with probability 1 - mask_probability
    w. OS           the target is max_a' max_m Q_target,m(s', a'), and so is the action (LSVI-PHE, Ishfaq et al., 2021)
    Bayes-UCBDQN    w_m ~ Exp(1), the Bayesian bootstrap's Dirichlet weights up to their sum; the action is greedy for a
                    quantile over members (Tiapkin et al., 2022)
"""

import jax
import jax.numpy as jnp

from hyperagent_jax.agent import make_optimizer
from hyperagent_jax.baselines.config import (
  ACTING_INDEX,
  ADAM,
  COMMON,
  PRIOR,
  RivalConfig,
  atari_preset,
  deep_sea_preset,
  validate_rival,
)
from hyperagent_jax.baselines.indexed_agent import (
  IndexedNetwork,
  Indices,
  Weights,
  make_indexed_agent,
  optax_step,
)
from hyperagent_jax.baselines.modules import QNetwork, ensemble_apply, ensemble_init
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.networks import make_torso, store_prior
from hyperagent_jax.types import Agent, Array, Params, PRNGKey

FIELDS = COMMON | ADAM | PRIOR | {'ensemble_size'}
PLUS_FIELDS = FIELDS | ACTING_INDEX | {'mask_probability'}
OPTIMISTIC_FIELDS = FIELDS | {'mask_probability', 'optimism_quantile'}
UCB_FIELDS = FIELDS | {'optimism_quantile'}

# As bsuite's bootstrapped DQN: two layers of 50 units and plain Q-learning.
_BSUITE = {'hidden_sizes': (50, 50), 'double_q': False}


def deep_sea(size: int) -> RivalConfig:
  """bsuite's network and prior scale, and its mask probability of 1, with four members."""
  return deep_sea_preset(size, prior_scale=5.0, geometric_resampling=False, **_BSUITE)


def deep_sea_ucb(size: int) -> RivalConfig:
  """The same with a quantile of 0.85 over eight members; there are no published values for DeepSea."""
  return deep_sea_preset(size, prior_scale=5.0, ensemble_size=8, optimism_quantile=0.85, **_BSUITE)


def atari(preset: HyperAgentConfig) -> RivalConfig:
  """HyperAgent's torso and prior scale, plain Q-learning."""
  return atari_preset(preset, double_q=False, geometric_resampling=False)


def atari_ucb(preset: HyperAgentConfig) -> RivalConfig:
  """The same with a quantile of 0.85 over eight members."""
  return atari_preset(preset, double_q=False, ensemble_size=8, optimism_quantile=0.85)


def ensemble_network(config: RivalConfig, num_actions: int) -> IndexedNetwork:
  """Q(s, a, xi) = <xi, Q(s, a)> over M members, each its own network plus c_prior times its own fixed one."""
  module = QNetwork(make_torso(config), num_actions)
  init_members = ensemble_init(module, config.ensemble_size)
  evaluate = lambda prior_params, observation: config.prior_scale * ensemble_apply(module, prior_params, observation)
  store, look_up = store_prior(evaluate, config)

  def init(key: PRNGKey, observation: Array) -> tuple[Params, Params]:
    key_members, key_prior = jax.random.split(key)
    return init_members(key_members, observation), store(init_members(key_prior, observation))

  def q(params: Params, prior_params: Params, observation: Array, prior_q: Array, xi: Array) -> Array:
    return xi @ (ensemble_apply(module, params, observation) + prior_q)

  return IndexedNetwork(init, look_up, q, config.prior_storage != 'table')


def one_member(config: RivalConfig) -> Indices:
  """Acting by one member, drawn uniformly; each member learns towards its own target."""
  members = jnp.eye(config.ensemble_size)
  return Indices(
    act=lambda key: members[jax.random.randint(key, (1,), 0, config.ensemble_size)],
    update=lambda key, batch_size: members,
    target=None,
    moments=lambda: members,
    shared=True,
    are_members=True,
  )


def make(config: RivalConfig, num_actions: int) -> Agent:
  """Ensemble+."""
  validate_rival(config, PLUS_FIELDS)
  return _make(config, num_actions, one_member(config), _mask(config))


def make_optimistic(config: RivalConfig, num_actions: int) -> Agent:
  """Ensemble+ with optimistic sampling: all members choose the action, and all learn towards the same target."""
  validate_rival(config, OPTIMISTIC_FIELDS)
  members = jnp.eye(config.ensemble_size)
  indices = one_member(config)._replace(act=lambda key: members, target=lambda key, batch_size: members)
  return _make(config, num_actions, indices, _mask(config))


def make_ucb(config: RivalConfig, num_actions: int) -> Agent:
  """Bayes-UCBDQN: all members choose the action, and each learns towards its own target."""
  validate_rival(config, UCB_FIELDS)
  members = jnp.eye(config.ensemble_size)
  indices = one_member(config)._replace(act=lambda key: members)
  weights = Weights(lambda key: jax.random.exponential(key, (config.ensemble_size,)))
  return _make(config, num_actions, indices, weights)


def _mask(config: RivalConfig) -> Weights | None:
  """Which members learn from a transition; None where all do."""
  if config.mask_probability == 1.0:
    return None
  draw = lambda key: jax.random.bernoulli(key, config.mask_probability, (config.ensemble_size,))
  return Weights(lambda key: draw(key).astype(jnp.float32))


def _make(config: RivalConfig, num_actions: int, indices: Indices, weights: Weights | None) -> Agent:
  step = optax_step(make_optimizer(config))
  return make_indexed_agent(ensemble_network(config, num_actions), indices, step, config, weights)
