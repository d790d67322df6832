"""The data that flows through an agent, and the interfaces of its parts.

Every function of the library works on one example and is vmapped by its caller, unless its docstring
says otherwise. Shapes stand in trailing comments and use one legend throughout:

  B  transitions in a mini-batch         S  seeds trained side by side
  N  update indices per transition       E  environments per seed
  K  indices of optimistic sampling      A  actions
  M  index dimension                     H  features of the last hidden layer
  C  rows of the replay ring             T  time steps

`x_tm1` belongs to the state before a transition, `x_t` to the state (n steps) after it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import chex
import dm_env
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
PRNGKey = jax.Array
Params = Any  # A pytree of arrays.
Observation = Any  # An array or a pytree of arrays, such as a dict of them.

# Plain integers, so that they fold into compiled programs.
FIRST = int(dm_env.StepType.FIRST)
MID = int(dm_env.StepType.MID)
LAST = int(dm_env.StepType.LAST)


class TimeStep(NamedTuple):
  """`dm_env.TimeStep` as arrays: what an environment returns for one step.

  `reward` and `discount` belong to the step that led here; they are 0 and 1 on a FIRST step. `discount` is 0
  where the future is worth nothing (termination, loss of a life) and stays 1 when an episode is only truncated.
  """

  step_type: Array  # [] int32: FIRST, MID or LAST
  reward: Array  # [] float32
  discount: Array  # [] float32 in [0, 1]
  observation: Observation

  def first(self) -> Array:
    """Whether this step starts an episode."""
    return self.step_type == FIRST

  def last(self) -> Array:
    """Whether this step ends an episode."""
    return self.step_type == LAST


class HyperQ(NamedTuple):
  """All action values of one state, for every index at once (Eq. 1: Q is affine in the index).

  Q(s, a, xi) = mean[a] + <factor[a], xi>, so the posterior's standard deviation of an action's value under a
  zero-mean reference distribution with second moment v I is sqrt(v) |factor[a]|.
  """

  mean: Array  # [A]
  factor: Array  # [A, M]

  def at(self, xi: Array) -> Array:  # [..., M] -> [..., A]
    """Action values under one index or a stack of them.

    Pass a stack instead of vmapping over thousands of indices: of one state, jaxlib 0.10.2 gets such sums wrong on CPU.
    """
    if xi.ndim == 1:  # XLA fuses a product and a sum, where a matrix product this small would be a call
      return self.mean + jnp.sum(self.factor * xi[None, :], axis=-1)
    if xi.shape[0] == 1:
      return self.at(xi[0])[None]
    values = jnp.einsum('...m,am->...a', xi, self.factor, precision='highest')
    return jnp.broadcast_to(self.mean, values.shape) + values

  def supremum(self, radius: float) -> Array:  # -> [A]
    """The greatest value of each action under any index on a sphere: mean + radius |factor|."""
    return self.mean + radius * jnp.linalg.norm(self.factor, axis=-1)


class Posterior(NamedTuple):
  """What an agent believes of the action values of one state."""

  mean: Array  # [A]
  std: Array  # [A]


class Extras(NamedTuple):
  """What HyperAgent wants remembered with a time step; a field it does not need is None."""

  noise: Array | None = None  # [M] perturbation z of the transition that starts here
  prior_q: HyperQ | None = None  # the fixed prior's part of this state's value


class Transition(NamedTuple):
  """An n-step transition. Opaque `extras` are what `act` attached to the two states."""

  o_tm1: Observation
  a_tm1: Array  # [] int32
  r_t: Array  # [] float32, n-step return without the bootstrap
  discount_t: Array  # [] float32, product of gamma and the environment's discounts
  o_t: Observation
  extras_tm1: Any = Extras()
  extras_t: Any = Extras()


class LearnerState(NamedTuple):
  """Everything that learning changes, and the fixed prior."""

  params: Params
  prior_params: Params  # drawn once, never trained
  target_params: Params
  opt_state: Any
  num_updates: Array  # [] int32


# Which arrays of a state carry the axis of seeds when several are trained side by side, for `jax.vmap`: counters that
# are the same for all do not, so that periodic work stays a branch and is no select.
LEARNER_AXES: Any = LearnerState(0, 0, 0, 0, num_updates=cast(Array, None))


class ActorState(NamedTuple):
  """The posterior samples that the actor follows."""

  xi: Array  # [K, M] indices
  noise_block: Array | None  # [M, M] whose rows the orthogonal perturbation deals out; None for any other
  num_acts: Array  # [] int32


class ActOutput(NamedTuple):
  """An action and what is to be remembered with it."""

  action: Array  # [] int32
  extras: Any


class FrameLayout(NamedTuple):
  """How frames are kept and how a stack of them is put together."""

  encode: Callable[[Array], Array]  # a frame as it comes -> as it is kept
  stack_axis: int  # of the stack among the axes of an observation


PIXELS = FrameLayout(lambda frame: frame, 0)  # observations are sampled as they came


# ----------------------------------------------------------------------------------------------------------- interfaces
#
# Each part of an agent is a NamedTuple of pure functions, and each function has a Protocol: what it takes and gives.
# What stands before a / is passed by position, so that an implementation is free to name it.


class InitNetwork(Protocol):
  """Draws the trained parameters and what is stored of the fixed prior."""

  def __call__(self, key: PRNGKey, observation: Observation, /) -> tuple[Params, Params]:
    """Returns (params, prior_params) for observations like this one."""


class PriorQ(Protocol):
  """Evaluates the fixed prior, whose value of a state never changes."""

  def __call__(self, prior_params: Params, observation: Observation, /) -> HyperQ:
    """Returns the prior's part of the value of one state."""


class HyperQOf(Protocol):
  """Evaluates a state under all indices at once."""

  def __call__(self, params: Params, observation: Observation, prior_q: HyperQ, /) -> HyperQ:
    """Returns the trained part plus the prior's, `prior_q`."""


class QOf(Protocol):
  """Evaluates a state under one index."""

  def __call__(
    self, params: Params, prior_params: Params, observation: Observation, prior_q: HyperQ | None, xi: Array, /
  ) -> Array:
    """Returns action values [A] under the index `xi` [M]; `prior_q` None: it is evaluated here."""


class Regularizer(Protocol):
  """The prior regularisation R of Eq. 4."""

  def __call__(self, params: Params, index_mean: Array | float, second_moment: Array | float, /) -> Array:
    """Returns R [] under indices with this mean of each component and second moment v I."""


class Network(NamedTuple):
  """A Q-network with an index, as pure functions of one observation.

  `prior_q` evaluates the fixed prior, which never changes for a state, so that callers may keep the result;
  `hyper_q` then needs only the trained part.
  """

  init: InitNetwork
  prior_q: PriorQ
  hyper_q: HyperQOf
  q: QOf
  regularizer: Regularizer
  remember_prior: bool  # whether `act` should attach prior_q to the step; not where evaluating it is a mere look-up


class InitLearner(Protocol):
  """Draws a learner."""

  def __call__(self, key: PRNGKey, observation: Observation, /) -> LearnerState:
    """Returns a learner that has not learnt yet, for observations like this one."""


class InitActor(Protocol):
  """Draws an actor."""

  def __call__(self, key: PRNGKey, /) -> Any:
    """Returns an actor before its first step."""


class Act(Protocol):
  """Chooses an action in a time step; LAST steps are acted in too, and their actions mean nothing."""

  def __call__(
    self, learner: LearnerState, actor: Any, timestep: TimeStep, key_or_draws: Any, /, evaluation: bool = False
  ) -> tuple[Any, ActOutput]:
    """Returns the actor and the action with what is to be remembered; in evaluation indices are not redrawn."""


class Update(Protocol):
  """One step of stochastic gradient descent."""

  def __call__(
    self, learner: LearnerState, batch: Transition, key_or_draws: Any, /, replay_size: Array | None = None
  ) -> tuple[LearnerState, dict[str, Array]]:
    """Returns the learner after an update on a mini-batch [B, ...] and metrics, loss [] and grad_norm [] among them."""


class PosteriorOf(Protocol):
  """What the agent believes of a state."""

  def __call__(self, learner: LearnerState, observation: Observation, /) -> Posterior:
    """Returns mean and standard deviation of all action values."""


class DrawAct(Protocol):
  """Draws the random numbers of one `act`."""

  def __call__(self, key: PRNGKey, /) -> Any:
    """Returns what `act` takes in place of this key."""


class DrawUpdate(Protocol):
  """Draws the random numbers of one `update`."""

  def __call__(self, key: PRNGKey, batch_size: int, /) -> Any:
    """Returns what `update` takes in place of this key, for mini-batches of this size."""


class Agent(NamedTuple):
  """A learning agent as pure functions; nothing here is jitted, so jit, vmap, scan or shard it as you like.

  `act` and `update` take a PRNG key. They also take, in its place, what `draw_act` or `draw_update` makes of that
  key: all the random numbers of the call. A driver uses this to draw for many steps at once, which costs a
  fraction of drawing step by step and gives the same numbers.
  """

  init: InitLearner
  init_actor: InitActor
  act: Act
  update: Update
  posterior: PosteriorOf
  draw_act: DrawAct
  draw_update: DrawUpdate


class Reset(Protocol):
  """Starts an episode."""

  def __call__(self, params: Any, key: PRNGKey, /) -> tuple[Any, TimeStep]:
    """Returns the environment's state and a FIRST step."""


class Step(Protocol):
  """Takes one step."""

  def __call__(self, params: Any, state: Any, action: Array, key: PRNGKey, /) -> tuple[Any, TimeStep]:
    """Returns the environment's state and the next time step: after a LAST one a FIRST one, whatever the action."""


class Environment(NamedTuple):
  """A JAX environment with dm_env's semantics, as pure functions of one instance.

  `step` after a LAST step ignores its action and returns a FIRST step. `params` are the setting that may differ
  from seed to seed, such as DeepSea's action map.
  """

  name: str
  reset: Reset
  step: Step
  num_actions: int
  observation_spec: Any  # dm_env.specs.Array, or a pytree of them
  episode_length: int | None  # steps of every episode, None where episodes differ
  # Instances that one call of `reset` and `step` runs, all arrays but `params` with a leading axis; None: one.
  num_envs: int | None = None
  # Whether the state is all there is. If not, as of an emulator, an interrupted run goes on with new episodes.
  resumable: bool = True


def batched(environment: Environment, num_envs: int) -> Environment:
  """The environment with `reset(params, keys [E])` and `step(params, state [E], action [E], keys [E])`.

  Raises:
    ValueError: if it is batched already, for another number of instances.
  """
  if environment.num_envs is None:
    return environment._replace(
      reset=jax.vmap(environment.reset, in_axes=(None, 0)),
      step=jax.vmap(environment.step, in_axes=(None, 0, 0, 0)),
      num_envs=num_envs,
    )
  if environment.num_envs != num_envs:
    raise ValueError(f'{environment.name}: made for {environment.num_envs} instances, not {num_envs}')
  return environment


def time_step(
  step_type: Array | int, reward: Array | float, discount: Array | float, observation: Observation
) -> TimeStep:
  """A `TimeStep` with the library's dtypes."""
  return TimeStep(
    jnp.asarray(step_type, jnp.int32),
    jnp.asarray(reward, jnp.float32),
    jnp.asarray(discount, jnp.float32),
    observation,
  )


def from_dm_env(timestep: dm_env.TimeStep) -> TimeStep:
  """Turns a `dm_env.TimeStep` into NumPy arrays; a FIRST step's missing reward and discount become 0 and 1.

  Dicts and tuples in the observation stay what they are; a list is an array, as NumPy reads it.
  """
  numbers = (
    np.int32(timestep.step_type),
    np.float32(0.0 if timestep.reward is None else timestep.reward),
    np.float32(1.0 if timestep.discount is None else timestep.discount),
  )
  return TimeStep(
    *cast(tuple[Array, Array, Array], numbers),
    jax.tree.map(np.asarray, timestep.observation, is_leaf=lambda x: isinstance(x, list)),
  )


def check_32_bits() -> None:
  """Refuses to store or drive anything where JAX computes in 64 bits: what is stored has 32.

  Raises:
    ValueError: if jax_enable_x64 is on.
  """
  if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
    raise ValueError(
      'JAX_ENABLE_X64 is on: replay and the drivers are of 32 bits, though agents alone work with it; '
      "jax.config.update('jax_enable_x64', False) turns it off"
    )


def tree_index(tree: chex.ArrayTree, i: Any) -> Any:
  """Entry `i` of the leading axis of every array of a tree."""
  return jax.tree.map(lambda x: x[i], tree)
