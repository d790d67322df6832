"""The deep agent, on features that are one-hot states, is the tabular one: the same `agent.update`, step by step.

With one-hot features the head's b and A have a row for each state and action. The exact expectation of the loss over a
Gaussian index, plus (beta / |D|) R, is then for each of them a ridge regression,

    sum over visits of (mu0 + b - y0)^2 + |sigma0 z0 + A - sigma z|^2   +   beta (b^2 + |A|^2)

whose minimum is b + mu0 = Eq. 7's mean and A + sigma0 z0 = Eq. 5's factor; copying the target network applies F.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from hyperagent_jax.agent import UpdateDraws, make_hyperagent
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.networks import join_with_prior
from hyperagent_jax.tabular.hyperagent import Parameters
from hyperagent_jax.types import Agent, Array, Extras, HyperQ, LearnerState, Network, PRNGKey, Transition


class OneHot(nn.Module):
  """Features that look a state up; there is nothing to train."""

  num_states: int

  @nn.compact
  def __call__(self, observation: Array) -> Array:  # [] -> [S]
    """One state's features."""
    return jax.nn.one_hot(observation, self.num_states)


class Data(NamedTuple):
  """Transitions, with their perturbations."""

  state: Array  # [D]
  action: Array  # [D]
  reward: Array  # [D]
  next_state: Array  # [D]
  noise: Array  # [D, M]


class Bridge(NamedTuple):
  """A deep agent whose features are one-hot states."""

  agent: Agent
  network: Network
  learner: LearnerState  # b and A are 0, the prior is mu0 and sigma0 z0


def make_bridge(
  key: PRNGKey,
  num_states: int,
  num_actions: int,
  index_dim: int,
  parameters: Parameters,
  discount: float,
  learning_rate: Array,
  target_period: int,
  double_q: bool = False,
) -> Bridge:
  """HyperAgent for states that are integers, by the library's network, loss and update.

  Args:
    key: draws z0.
    num_states, num_actions, index_dim: S, A, M.
    parameters: sigma, beta and mu0, as numbers; sigma0^2 = sigma^2 / beta is the prior's.
    discount: gamma.
    learning_rate: of gradient descent; |D| / (2 max(N + beta)) minimises the most visited cell's loss in one step.
    target_period: updates between copies of the target network.
    double_q: whether the online network chooses the target's action. Its choice changes between copies, so that a copy
      is no longer exactly one application of F; the fixed point is the same.
  """
  sigma0 = parameters.sigma * parameters.beta**-0.5
  config = HyperAgentConfig(
    torso='mlp',
    index_dim=index_dim,
    prior_scale=1.0,
    prior_std=sigma0,
    prior_storage='replay',
    reference_distribution='gaussian',
    update_indices='exact',
    discount=discount,
    sigma=float(parameters.sigma),
    beta=parameters.beta,
    target_period=target_period,
    double_q=double_q,
  )
  network = join_with_prior(lambda: OneHot(num_states), config, num_actions)
  agent = make_hyperagent(network, optax.sgd(learning_rate), config)
  learner = agent.init(key, jnp.zeros((), jnp.int32))
  zeros = jax.tree.map(jnp.zeros_like, learner.params)
  prior = {'head': learner.prior_params['head'].at[..., 0].set(parameters.prior_mean)}  # [S, A, 1 + M], b0 first
  return Bridge(agent, network, learner._replace(params=zeros, target_params=zeros, prior_params=prior))


def values(bridge: Bridge, learner: LearnerState) -> HyperQ:
  """Means [S, A] and factors [S, A, M] of all states."""
  states = jnp.arange(learner.prior_params['head'].shape[0])
  of = lambda state: bridge.network.hyper_q(learner.params, state, bridge.network.prior_q(learner.prior_params, state))
  return jax.vmap(of)(states)


def train(
  bridge: Bridge, learner: LearnerState, data: Data, index: Array, discount: float, num_updates: int
) -> LearnerState:
  """So many updates on all data at once, with one fixed target index for each state.

  Args:
    bridge: the agent.
    learner: where it is.
    data: D transitions.
    index: [S, M] xi(s).
    discount: gamma.
    num_updates: gradient steps.

  Returns:
    The learner.
  """
  batch = Transition(
    data.state,
    data.action,
    data.reward,
    jnp.full_like(data.reward, discount),
    data.next_state,
    Extras(noise=data.noise),
    Extras(),
  )
  draws = UpdateDraws(None, index[data.next_state][:, None])
  size = jnp.asarray(data.state.shape[0])

  def update(learner: LearnerState, _: None) -> tuple[LearnerState, None]:
    return bridge.agent.update(learner, batch, draws, size)[0], None

  return jax.lax.scan(update, learner, None, num_updates)[0]
